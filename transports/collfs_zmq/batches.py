"""What several servers below get is made into messages once.

::

    records --> Batch: found --messages()--> made [ | | | ]        each taker takes them at its own pace
                                              base ^   ^ ^
                               a taker left behind |   | takers

A root with 16 servers below packed, read and summed every byte 16 times, on the one thread that also answers: more than
half of its time. What the first one has taken is kept until the others have it, up to :data:`KEPT` bytes for all;
who is further behind makes the messages anew, out of the copies in the store.

Rules of the file: who is slow costs the others neither time nor memory without limit; one thread.
"""

from __future__ import annotations

from itertools import islice

from collfs.stream.outgoing import held, messages, parcels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator, Sequence

    from collfs.record import Record
    from collfs.stream import Message
    from collfs.stream.outgoing import Parcel
else:
    from _collections import deque  # the package would read operator, keyword and reprlib beside it

CROWDED = 32 << 20  # bytes of content that wait in memory; beyond, the copies in the store are sent
KEPT = 64 << 20  # bytes of messages that some have taken and others haven't


class Batches:
    """All batches that somebody still takes. ``waiting``: bytes of content that they hold; ``kept``: of messages."""

    def __init__(self, copy_of: Callable[[str], str]) -> None:
        """
        :param copy_of: the name of a path's copy in the store
        """
        self.copy_of = copy_of
        self.waiting = self.kept = 0
        self._fresh: dict[tuple[int, ...], tuple[Sequence[Record], Batch]] = {}
        self._order: deque[Batch] = deque()

    def take(self, records: Sequence[Record]) -> Taker:
        """The messages for *records*, for one. Others who take the same ones before :meth:`settle` share them."""
        key = tuple(map(id, records))
        _, batch = self._fresh.get(key, (records, None))
        if batch is None or not batch.takers:
            batch = Batch(self, parcels(records, self.copy_of, self.waiting > CROWDED))
            self._fresh[key] = (records, batch)  # as long as the records live, nothing else has their ids
        return Taker(batch)

    def settle(self) -> None:
        """All who share what has come by now have said so."""
        self._fresh.clear()

    def keep(self, batch: Batch, message: Message) -> None:
        """Keep *message* for those who haven't taken it, and let go of the oldest ones."""
        if not batch.made:
            self._order.append(batch)
        batch.made.append(message)
        self.kept += len(message[1])
        while self.kept > KEPT:
            self._order[0].forget()
            if not self._order[0].made:
                self._order.popleft()

    def drop(self, batch: Batch) -> None:
        """Nobody takes from *batch* any more."""
        self.waiting -= batch.size
        self.let_go(batch)

    def let_go(self, batch: Batch) -> None:
        """Nobody will take again what has been made of *batch*."""
        if batch.made:
            self.kept -= sum([len(payload) for _, payload in batch.made])
            batch.made.clear()
            self._order.remove(batch)


class Batch:
    """Messages in the making. ``made``: those from number ``base`` on that have been made and are kept."""

    __slots__ = ("all", "base", "found", "made", "size", "source", "takers")

    def __init__(self, batches: Batches, found: Sequence[Parcel]) -> None:
        self.all, self.found, self.takers, self.base = batches, found, 0, 0
        self.made: deque[Message] = deque()
        self.source = messages(found)
        self.size = held(found)
        batches.waiting += self.size

    def forget(self) -> None:
        """The oldest message isn't kept any longer."""
        self.all.kept -= len(self.made.popleft()[1])
        self.base += 1


class Taker:
    """An iterator over the messages of a batch.

    :raises OSError: from next(), if a copy has gone; what is missing then goes native where it is missed
    """

    __slots__ = ("_at", "_batch", "_own")

    def __init__(self, batch: Batch) -> None:
        self._batch: Batch | None = batch
        self._at = 0
        self._own: Iterator[Message] | None = None
        batch.takers += 1

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        batch = self._batch
        if batch is None:
            raise StopIteration
        try:
            if self._own is not None:
                return next(self._own)
            if self._at < batch.base:  # left behind
                self._own = islice(messages(batch.found), self._at, None)
                return next(self._own)
            end = batch.base + len(batch.made)
            message = batch.made[self._at - batch.base] if self._at < end else next(batch.source)
        except BaseException:
            self.close()
            raise
        if self._at == end:
            if batch.takers > 1:
                batch.all.keep(batch, message)
            else:
                batch.all.let_go(batch)
                batch.base = end + 1
        self._at += 1
        return message

    def close(self) -> None:
        """Take no more."""
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.takers -= 1
            if not batch.takers:
                batch.all.drop(batch)

    def __del__(self) -> None:
        self.close()
