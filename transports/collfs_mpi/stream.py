"""The stream: messages from the root to all leaders, in order, by non-blocking broadcasts.

::

    message = head (24 bytes, one Ibcast)  +  payload (one Ibcast)
    head    = magic, kind, payload length, sequence number

Every broadcast is started by the root and, in the same order, by each leader (MPI 4.1, section 6.12: matched by order
on a communicator).

Rules of the file: knows MPI and bytes, not records, stores or tables; nothing here waits.
"""

from __future__ import annotations

import struct

from mpi4py import MPI

from collfs.errors import RecordError
from collfs.stream import CHUNK, CLOSE, RECORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from collfs.record import Buffer
    from collfs.stream import Message

HEAD = struct.Struct("<4sIQQ")
MAGIC = b"cfs1"
WINDOW = 4 * CHUNK  # bytes under way, if a thread starts what is next
TESTED = 32  # requests that one look at them tests; the others wait for these anyway


class Sender:
    """The root's end. Messages are queued as iterators, so that what isn't under way yet needs no memory."""

    def __init__(self, comm: MPI.Comm, window: int | None) -> None:
        """
        :param window: how many bytes may be under way; None: all that is queued, as nobody comes back for the rest
        """
        self.comm, self.window = comm, window
        self.sequence = 0
        self.bytes = self.moved = self.lost = 0  # bytes sent; broadcasts completed; iterators that failed
        self.broken = False  # interrupted or failed in the middle of a message: the leaders can't follow any more
        self._under_way: list[tuple[MPI.Request, Buffer]] = []
        self._flying = 0
        self._queue: list[Iterator[Message]] = []

    def submit(self, messages: Iterator[Message]) -> None:
        """Queue *messages*. Each payload must stay unchanged until it has been sent; it is kept alive here."""
        self._queue.append(messages)

    def progress(self, most: int | None = None) -> bool:
        """Move what is under way and start what comes next, at most some *most* bytes of it. True: nothing is left."""
        self._reap()
        started = 0
        while self._queue and not self.broken:
            if (self.window is not None and self._flying >= self.window) or (most is not None and started >= most):
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
            self._reap()
        return self.broken or not self._under_way

    def send(self, kind: int, payload: Buffer) -> None:
        """Start one message."""
        size = len(payload)
        if size > CHUNK:
            raise ValueError(f"a message holds at most {CHUNK} bytes, not {size}")
        self.broken = True  # until it is whole: Ctrl-C may come in between
        self._start(HEAD.pack(MAGIC, kind, size, self.sequence))
        if size:
            self._start(payload)
        self.sequence += 1
        self.bytes += size
        self.broken = False

    def _start(self, buffer: Buffer) -> None:
        request = self.comm.Ibcast([buffer, MPI.BYTE], root=0)
        self._under_way.append((request, buffer))
        self._flying += len(buffer)

    def _reap(self) -> None:
        while self._under_way:
            first = self._under_way[:TESTED]
            MPI.Request.Testsome([request for request, _ in first])
            left = [pair for pair in first if pair[0] != MPI.REQUEST_NULL]
            self._under_way[:TESTED] = left
            self.moved += len(first) - len(left)
            self._flying -= sum([len(buffer) for request, buffer in first if request == MPI.REQUEST_NULL])
            if left:
                return


class Receiver:
    """A leader's end: one message after the other."""

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm = comm
        self.closed = self.orderly = False
        self.sequence = 0
        self.bytes = self.missed = 0
        self._head = bytearray(HEAD.size)
        self._buffer = memoryview(bytearray())  # for every payload the same: fresh memory costs more than the copying
        self._payload: memoryview | None = None
        self._kind = 0
        self._request: MPI.Request = MPI.REQUEST_NULL
        self._post()

    def _post(self) -> None:
        self._request = self.comm.Ibcast([self._head, MPI.BYTE], root=0)

    @property
    def expecting(self) -> bool:
        """Whether a payload is on its way."""
        return self._payload is not None

    def take(self) -> tuple[int, memoryview] | None:
        """The next message (kind, payload) if it has arrived, else None. After CLOSE: None, for ever.

        The payload is valid until the next call.

        A gap in the numbers is counted in ``missed``; the message after it is given all the same.

        :raises RecordError: if it isn't a message; the stream can't be used any more
        """
        while not self.closed and self._request.Test():
            if self._payload is None:
                size = self._open()
                if size < 0:
                    return None
                if size > len(self._buffer):
                    self._buffer = memoryview(bytearray(CHUNK))
                self._payload = self._buffer[:size]
                if size:
                    self._request = self.comm.Ibcast([self._payload, MPI.BYTE], root=0)
                    continue
            payload, self._payload = self._payload, None
            self.bytes += len(payload)
            self._post()
            return self._kind, payload
        return None

    def _open(self) -> int:
        """Look at a head that has arrived: the length of its payload, -1 if nothing follows."""
        magic, kind, size, sequence = HEAD.unpack(self._head)
        if magic != MAGIC or not RECORDS <= kind <= CLOSE or size > CHUNK:
            self.closed = True
            raise RecordError(
                f"message {self.sequence} of the stream: expected {MAGIC!r}, a kind from {RECORDS} to {CLOSE} and"
                f" at most {CHUNK} bytes, found {magic!r}, {kind}, {size} bytes, number {sequence}"
            )
        if sequence != self.sequence:
            self.missed += 1
        self.sequence = sequence + 1
        self._kind = kind
        if kind == CLOSE:
            self.closed = self.orderly = True
            return -1
        return int(size)
