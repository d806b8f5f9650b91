"""The desk of a server: who waits for what, so that every path is asked for once on its node (single flight).

::

    processes of this node --+                                   +--> node store (stage)
                             +-- request --> flights --> upstream
    servers below this one --+      ^                   |        +--> servers below that wait (give, done)
                                    +------ landed -----+

Whoever asks gets DONE when all that he asked for has landed or will not come. ``upstream`` is the reader on the root,
the parent's server elsewhere.

Rules of the file: no sockets, no files, no waiting; what is unknown goes upstream, never to "absent".
"""

from __future__ import annotations

from errno import EAGAIN

from collfs.record import ASPECTS, CONTENT, LIST, META, NAMES, Record, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Protocol

    class Asker(Protocol):
        """Who asks: a process of this node, or a server below."""

        local: bool  #: whether it finds what is staged in this node's table

        def give(self, number: int, record: Record) -> None:
            """A record for the request *number*. Only called if not ``local``."""

        def done(self, number: int) -> None:
            """Nothing more comes for the request."""

    class Upstream(Protocol):
        """Where records come from."""

        def ask(self, wants: Sequence[Want], fresh: bool) -> None:
            """Fetch *wants*; the desk is told by ``landed`` and, for all of them, by ``finished``."""

    class Shelf(Protocol):
        """The node store, as the desk sees it."""

        def managed(self, path: str) -> bool: ...
        def lacks(self, want: Want) -> bool: ...
        def stage(self, records: Sequence[Record]) -> None: ...
        def settle(self, paths: Sequence[str]) -> None: ...
        def hold(self, want: Want, record: Record) -> None: ...
        def held(self, want: Want) -> Record | None: ...
        def drop(self, want: Want) -> bool: ...


class Request:
    """What one asker still waits for."""

    __slots__ = ("left", "number", "who")

    def __init__(self, who: Asker, number: int) -> None:
        self.who, self.number = who, number
        self.left: set[Want] = set()


class Desk:
    """Counters: ``asked`` (wants of all requests), of which ``upstream`` had to be asked; ``refused``."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.source: Upstream | None = None
        self.asked = self.upstream = self.refused = 0
        self._flights: dict[Want, list[Request]] = {}
        self._asked: dict[Want, int] = {}  # how often upstream was asked and hasn't finished: of those, the last counts
        self._other: dict[str, Record] = {}  # what came for a path under way, but is no answer by its shape

    def request(self, who: Asker, number: int, wants: Iterable[Want], *, fresh: bool = False) -> None:
        """*who* asks for *wants*.

        :param fresh: what is held isn't good enough: somebody below says that the original has changed
        """
        request, ask, stale = Request(who, number), [], fresh
        for want in dict.fromkeys(wants):
            self.asked += 1
            if not self.shelf.managed(want.path):
                self.refused += 1
                self._refuse(who, number, want)
            elif want in self._flights:
                self._flights[want].append(request)
                request.left.add(want)
            elif not self._at_hand(who, number, want, fresh):
                stale = self.shelf.drop(want) or stale
                self._flights[want] = [request]
                self._asked[want] = self._asked.get(want, 0) + 1
                request.left.add(want)
                ask.append(want)
        if not request.left:
            who.done(number)
        if ask:
            self.upstream += len(ask)
            if self.source is None:
                self.finished(ask)
            else:
                self.source.ask(ask, stale)

    def _at_hand(self, who: Asker, number: int, want: Want, fresh: bool) -> bool:
        if who.local:
            return not self.shelf.lacks(want)
        record = None if fresh else self.shelf.held(want)
        if record is None:
            return False
        who.give(number, record)
        return True

    @staticmethod
    def _refuse(who: Asker, number: int, want: Want) -> None:
        if not who.local:
            who.give(number, Record(want.path, errno=EAGAIN))

    # -- what comes from upstream --------------------------------------------------------------------------------

    def landed(self, records: Sequence[Record]) -> None:
        """*records* have come."""
        self.shelf.stage(records)
        for record in records:
            for aspect in aspects_of(record):
                want = Want(record.path, aspect)
                if want in self._flights:
                    self._land(want, record)
            if self._waited_for(record.path):
                self._other[record.path] = record

    def finished(self, wants: Iterable[Want]) -> None:
        """Nothing more comes for *wants*."""
        vain = []
        for want in wants:
            again = self._asked.pop(want, 1) - 1
            if again:
                self._asked[want] = again
            elif want in self._flights:
                record = self._other.get(want.path)
                if record is None:
                    vain.append(want.path)
                    record = Record(want.path, errno=EAGAIN)
                self._land(want, record, keep=record.errno != EAGAIN)
            if not self._waited_for(want.path):
                self._other.pop(want.path, None)
        if vain:
            self.shelf.settle(vain)

    def _waited_for(self, path: str) -> bool:
        return any(Want(path, aspect) in self._flights for aspect in ASPECTS)

    def _land(self, want: Want, record: Record, keep: bool = True) -> None:
        if keep:
            self.shelf.hold(want, record)
        for request in self._flights.pop(want):
            if not request.who.local:
                request.who.give(request.number, record)
            request.left.discard(want)
            if not request.left:
                request.who.done(request.number)

    def gone(self, who: Asker) -> None:
        """*who* asks no more, and waits for nothing. What is under way goes on: others may want it."""
        for waiting in self._flights.values():
            waiting[:] = [request for request in waiting if request.who is not who]

    @property
    def under_way(self) -> list[Want]:
        """What upstream has been asked for and hasn't answered."""
        return list(self._flights)


def aspects_of(record: Record) -> tuple[str, ...]:
    """Which wants of its path *record* answers by its shape alone."""
    if record.errno:
        return ASPECTS
    if record.names is not None:
        return (NAMES, LIST) if all(name.lst is not None for name in record.names) else (NAMES,)
    if record.content is not None or record.node_path is not None:
        return (CONTENT, META)
    return (META,)
