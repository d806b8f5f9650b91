"""The stream: messages from the root to all leaders, in order, along a tree of non-blocking messages.

::

    message = head (24 bytes)  +  payload            a small payload comes with its head in one message of MPI
    head    = magic, kind, payload length, sequence number

                  root                   Each leader passes on what it receives, also before it is whole: the head, then
              1          2               the payload. Two below each keep the root's link free for the next message, and
            3   4      5   6             a message is log2(leaders) steps under way.

Why no Ibcast: it moves only while each rank asks, and libraries choose rings for large payloads, so that each of N
leaders waits for the looks of N - 1 others. 16 nodes on 2 cores took 18 s for 142 MB, with this tree 11 (MPICH 5).

Rules of the file: knows MPI and bytes, not records, stores or tables; nothing here waits. Messages between two ranks
arrive in the order in which they were sent (MPI 4.1, section 3.5).
"""

from __future__ import annotations

import struct

from mpi4py import MPI

from collfs.errors import RecordError
from collfs.stream import CHUNK, CLOSE, RECORDS
from collfs.stream.buffers import Buffers, keep_for_ever

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from collfs.record import Buffer
    from collfs.stream import Message

HEAD = struct.Struct("<4sIQQ")
MAGIC = b"cfs1"
WINDOW = 4 * CHUNK  # bytes under way, if a thread starts what is next
INLINE = 32 << 10  # a payload up to here is sent with its head
TAG = 1
TESTED = 32  # requests that one look at them tests; the others wait for these anyway


def below(rank: int, size: int) -> tuple[int, ...]:
    """Who gets the stream from *rank*, of *size* in all."""
    return tuple(range(2 * rank + 1, min(2 * rank + 3, size)))


class _UnderWay:
    """Messages that are being sent."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm = comm
        self.below = below(comm.Get_rank(), comm.Get_size())
        self.bytes = self.moved = 0  # bytes under way, for each who gets them; messages of MPI that have been completed
        self._requests: list[tuple[MPI.Request, Buffer]] = []
        self._lost: list[tuple[MPI.Request, Buffer]] = []

    def __bool__(self) -> bool:
        return bool(self._requests)

    @property
    def first(self) -> MPI.Request:
        """The oldest one."""
        return self._requests[0][0]

    def start(self, buffer: Buffer) -> None:
        """Send *buffer* on; it is kept alive and must not change until it has been sent."""
        for rank in self.below:
            self._requests.append((self.comm.Isend([buffer, MPI.BYTE], rank, TAG), buffer))
            self.bytes += len(buffer)

    def reap(self) -> None:
        """Look what has been sent. What MPI raises ends it, with all buffers kept: MPI may still read them."""
        while self._requests:
            first = self._requests[:TESTED]
            try:
                MPI.Request.Testsome([request for request, _ in first])
            except MPI.Exception:
                self._lost, self._requests = self._requests, []
                raise
            left = [pair for pair in first if pair[0] != MPI.REQUEST_NULL]
            self._requests[:TESTED] = left
            self.moved += len(first) - len(left)
            self.bytes -= sum([len(buffer) for request, buffer in first if request == MPI.REQUEST_NULL])
            if left:
                return

    def keep(self) -> None:
        """Nobody comes back for these: MPI may read them until it is finalized, after the interpreter has ended."""
        keep_for_ever([buffer for _, buffer in self._requests + self._lost])


class Sender:
    """The root's end. Messages are queued as iterators, so that what isn't under way yet needs no memory."""

    def __init__(self, comm: MPI.Comm, window: int | None) -> None:
        """
        :param window: how many bytes may be under way; None: all that is queued, as nobody comes back for the rest
        """
        self.window = window
        self.sequence = 0
        self.bytes = self.lost = 0  # bytes sent; iterators that failed
        self.broken = False  # interrupted or failed in the middle of a message: the leaders can't follow any more
        self._way = _UnderWay(comm)
        self._queue: list[Iterator[Message]] = []

    @property
    def moved(self) -> int:
        """Changes when something arrives."""
        return self._way.moved

    def keep(self) -> None:
        """Leave what is under way to MPI."""
        self._way.keep()

    def submit(self, messages: Iterator[Message]) -> None:
        """Queue *messages*. Each payload must stay unchanged until it has been sent; it is kept alive here."""
        self._queue.append(messages)

    def progress(self, most: int | None = None) -> bool:
        """Move what is under way and start what comes next, at most some *most* bytes of it. True: nothing is left."""
        self._way.reap()
        started = 0
        while self._queue and not self.broken:
            if (self.window is not None and self._way.bytes >= self.window * max(1, len(self._way.below))) or (
                most is not None and started >= most
            ):
                return False
            try:
                message = next(self._queue[0], None)
            except (OSError, ValueError):  # RecordError is one: a copy has gone, or a record can't travel
                self.lost += 1
                message = None
            if message is None:
                del self._queue[0]
                continue
            self.send(*message)
            started += len(message[1])
            self._way.reap()
        return self.broken or not self._way

    def send(self, kind: int, payload: Buffer) -> None:
        """Start one message."""
        size = len(payload)
        if size > CHUNK:
            raise ValueError(f"a message holds at most {CHUNK} bytes, not {size}")
        self.broken = True  # until it is whole: Ctrl-C may come in between
        head = HEAD.pack(MAGIC, kind, size, self.sequence)
        if size <= INLINE:
            self._way.start(b"".join((head, payload)))
        else:
            self._way.start(head)
            self._way.start(payload)
        self.sequence += 1
        self.bytes += size
        self.broken = False


class Receiver:
    """A leader's end: one message after the other, each passed on."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm = comm
        self.closed = False  # nothing is received any more
        self.sequence = 0
        self.bytes = self.missed = 0
        self._above = (comm.Get_rank() - 1) // 2
        self._orderly = False
        self._way = _UnderWay(comm)
        self._heads, self._payloads = Buffers(HEAD.size + INLINE), Buffers(CHUNK)
        self._buffer: memoryview | None = None  # of what is being received
        self._request: MPI.Request = MPI.REQUEST_NULL
        self._kind = 0
        self.expecting = False  # a payload is on its way
        self._post()

    @property
    def orderly(self) -> bool:
        """Whether the root has closed the stream, and all has been passed on."""
        return self._orderly and not self._way

    @property
    def finished(self) -> bool:
        """Whether there is nothing to receive and nothing to pass on."""
        return self.closed and not self._way

    @property
    def moved(self) -> tuple[int, int]:
        """Changes when something arrives here or below."""
        return self.sequence, self._way.moved

    @property
    def request(self) -> MPI.Request:
        """What to wait for: the next call of :meth:`take` does something when it is complete."""
        return self._request if self._buffer is not None or not self._way else self._way.first

    def keep(self) -> None:
        """Leave what is under way to MPI: what still comes is written into these buffers."""
        self._heads.keep()
        self._payloads.keep()
        self._way.keep()

    def _post(self) -> None:
        self._receive(self._heads.take())

    def _receive(self, buffer: memoryview) -> None:
        self._request = self.comm.Irecv([buffer, MPI.BYTE], self._above, TAG)
        self._buffer = buffer

    def take(self) -> tuple[int, memoryview] | None:
        """The next message (kind, payload) if it has arrived, else None. After CLOSE: None, for ever.

        A gap in the numbers is counted in ``missed``; the message after it is given all the same. Nothing is received
        while those below are slower than the root: memory is bounded.

        :raises RecordError: if it isn't a message; the stream can't be used any more
        """
        self._way.reap()
        while not self.closed:
            if self._buffer is None:
                if self._way.bytes >= WINDOW:
                    return None
                self._post()
            if not self._request.Test():
                return None
            buffer, self._buffer = self._buffer, None
            assert buffer is not None
            if self.expecting:
                payload, self.expecting = buffer, False
                self._way.start(payload)
            else:
                size = self._open(buffer)
                if size > INLINE:
                    self._way.start(buffer[: HEAD.size])
                    self.expecting = True
                    self._receive(self._payloads.take()[:size])
                    continue
                self._way.start(buffer[: HEAD.size + size])
                payload = buffer[HEAD.size : HEAD.size + size]
                if self._kind == CLOSE:
                    self.closed = self._orderly = True
                    return None
            self.bytes += len(payload)
            if self._way.bytes < WINDOW:
                self._post()
            return self._kind, payload
        return None

    def _open(self, head: memoryview) -> int:
        """Look at a head that has arrived: the length of its payload."""
        magic, kind, size, sequence = HEAD.unpack_from(head)
        if magic != MAGIC or not RECORDS <= kind <= CLOSE or size > CHUNK:
            self.closed = True
            self._way.start(head[: HEAD.size])  # it is for those below to refuse, too
            raise RecordError(
                f"message {self.sequence} of the stream: expected {MAGIC!r}, a kind from {RECORDS} to {CLOSE} and"
                f" at most {CHUNK} bytes, found {magic!r}, {kind}, {size} bytes, number {sequence}"
            )
        if sequence != self.sequence:
            self.missed += 1
        self.sequence = sequence + 1
        self._kind = kind
        return int(size)
