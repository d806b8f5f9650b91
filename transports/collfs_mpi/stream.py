"""The stream: bytes from the root to all leaders, in order, by non-blocking broadcasts.

::

    message = head (24 bytes, one Ibcast)  +  payload (at most CHUNK bytes, one Ibcast)
    head    = magic, kind, payload length, sequence number
    kinds   RECORDS  whole frames of collfs.record.wire, one after the other
            BEGIN    the frame of a record without its content, which follows ...
            PIECE    ... in pieces ...
            END      ... up to here (its payload: length and crc of the content)
            CLOSE    the root has closed; nothing follows

Every broadcast is started by the root and, in the same order, by each leader (MPI 4.1, section 6.12: matched by order on a
communicator). Large content is never held in memory as a whole: the root sends it from the mapped copy in its store, a
leader writes it to a file as it arrives. Counts stay below 2 GiB, whatever the size of the file.

Rules of the file: knows MPI and bytes, not stores or tables; nothing here waits.
"""

from __future__ import annotations

import struct

from mpi4py import MPI

from collfs.errors import RecordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from collfs.record import Buffer

CHUNK = 8 << 20
HEAD = struct.Struct("<4sIQQ")
MAGIC = b"cfs1"
RECORDS, BEGIN, PIECE, END, CLOSE = range(1, 6)


class Sender:
    """The root's end. ``pending`` is the number of broadcasts under way."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.sequence = 0
        self.bytes = 0
        self._under_way: list[tuple[MPI.Request, object]] = []

    @property
    def pending(self) -> int:
        """Broadcasts that aren't complete yet on this side."""
        return len(self._under_way)

    def send(self, kind: int, payload: Buffer) -> None:
        """Start one message. *payload* must stay unchanged until the broadcast is complete; it is kept alive here."""
        size = len(payload)
        assert size <= CHUNK, size
        head = HEAD.pack(MAGIC, kind, size, self.sequence)
        self.sequence += 1
        self._start(head)
        if size:
            self._start(payload)
        self.bytes += size
        self.progress()

    def _start(self, buffer: Buffer) -> None:
        request = self.comm.Ibcast([buffer, MPI.BYTE], root=0)
        self._under_way.append((request, buffer))

    def progress(self) -> bool:
        """Move what is under way; True if nothing is left."""
        if self._under_way:
            MPI.Request.Testsome([request for request, _ in self._under_way])
            self._under_way = [(r, b) for r, b in self._under_way if r != MPI.REQUEST_NULL]
        return not self._under_way


class Receiver:
    """A leader's end: one message after the other."""

    def __init__(self, comm: MPI.Intracomm) -> None:
        self.comm = comm
        self.closed = False
        self.sequence = 0
        self.bytes = 0
        self._head = bytearray(HEAD.size)
        self._payload: bytearray | None = None
        self._kind = 0
        self._request: MPI.Request = MPI.REQUEST_NULL
        self._post()

    def _post(self) -> None:
        self._request = self.comm.Ibcast([self._head, MPI.BYTE], root=0)

    def take(self) -> tuple[int, bytearray] | None:
        """The next message (kind, payload) if it has arrived, else None. After CLOSE: None, for ever.

        :raises RecordError: if it isn't the message that must come now; the stream can't be used any more
        """
        while not self.closed and self._request.Test():
            if self._payload is None:
                magic, kind, size, sequence = HEAD.unpack(self._head)
                if magic != MAGIC or not RECORDS <= kind <= CLOSE or size > CHUNK or sequence != self.sequence:
                    self.closed = True
                    raise RecordError(
                        f"message {self.sequence} of the stream: expected {MAGIC!r}, a kind from {RECORDS} to {CLOSE} and"
                        f" at most {CHUNK} bytes, found {magic!r}, {kind}, {size} bytes, number {sequence}"
                    )
                self.sequence += 1
                self._kind = kind
                if kind == CLOSE:
                    self.closed = True
                    return None
                self._payload = bytearray(size)
                if size:
                    self._request = self.comm.Ibcast([self._payload, MPI.BYTE], root=0)
                    continue
            payload, self._payload = self._payload, None
            self.bytes += len(payload)
            self._post()
            return self._kind, payload
        return None


def pieces(view: memoryview) -> Sequence[memoryview]:
    """*view* in parts of at most :data:`CHUNK` bytes."""
    return [view[at : at + CHUNK] for at in range(0, len(view), CHUNK)]
