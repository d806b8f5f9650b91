"""Messages become records again.

Rules of the file: what doesn't fit together is refused and counted, and the stream
goes on. Nothing is believed for its length: memory and files grow with what has arrived.
"""

from __future__ import annotations

import os
from errno import EAGAIN

from collfs.errors import RecordError
from collfs.record import Record
from collfs.record.wire import unpack, unpack_all, unpack_wants

from . import BEGIN, END, MOST, PART, PIECE, RECORDS, SUM, TAIL, VAIN, WHOLE
from .sums import checksum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collfs.record import Buffer


class Intake:
    """Assembles records. ``refused`` counts what was damaged; ``reasons`` says why, for the first few."""

    def __init__(self, scratch: str) -> None:
        """
        :param scratch: directory in the node's store, where large content is written as it arrives
        """
        import binascii  # noqa: F401  for wire.py: in a thread that rests it would be a native import later

        self.scratch = scratch
        self.refused = 0
        self.reasons: list[str] = []
        self._number = 0
        self._begun: Record | None = None
        self._fd = -1
        self._file = ""
        self._length = self._sum = 0
        self._parts = bytearray()

    def add(self, kind: int, payload: Buffer) -> list[Record]:
        """The records that are complete with this message, whose content may lie in *payload*.

        Never raises: a full store costs a record only.
        """
        try:
            if kind == RECORDS:
                return self._whole(payload)
            if kind == WHOLE:
                return self._single(payload)
            if kind == PART:
                self._part(payload)
            elif kind == BEGIN:
                self._begin(payload)
            elif kind == PIECE:
                self._piece(payload)
            elif kind == END:
                return self._end(payload)
            elif kind == VAIN:
                return [Record(want.path, errno=EAGAIN) for want in unpack_wants(payload)]
        except (RecordError, OSError) as exc:
            return self.refuse(str(exc))
        return []

    def _whole(self, payload: Buffer) -> list[Record]:
        if self._parts:
            self._part(payload)
            payload, self._parts = self._parts, bytearray()  # a view of the old ones keeps them
        records: list[Record] = []
        try:
            for record in unpack_all(payload):
                if record.node_path is not None:  # a name of the root's node, not of this one
                    raise RecordError(f"{record.path!r} comes without its content")
                records.append(record)
        except RecordError as exc:  # those before it are good
            self.refuse(str(exc))
        return records

    def _part(self, payload: Buffer) -> None:
        if len(self._parts) + len(payload) > MOST:
            raise RecordError(f"a frame of more than {MOST} bytes")
        self._parts += payload

    def _single(self, payload: Buffer) -> list[Record]:
        self._drop()
        view = memoryview(payload)
        if len(view) < SUM.size:
            raise RecordError(f"expected a checksum of {SUM.size} bytes, found {len(view)}")
        (total,) = SUM.unpack_from(view)
        record, end = unpack(view, SUM.size)
        size = self._expected(record)
        content = view[end:]
        if len(content) != size or checksum(content) != total:
            self._begun = record
            raise RecordError(f"{record.path!r}: expected {size} bytes of sum {total:#x}, found {len(content)} others")
        record.node_path, record.content = None, content
        return [record]

    @staticmethod
    def _expected(record: Record) -> int:
        """The size of the content that follows."""
        if record.st is None or record.node_path is None:
            raise RecordError(f"{record.path!r}: expected the beginning of a content")
        return record.st.st_size

    def _begin(self, payload: Buffer) -> None:
        self._drop()
        record, end = unpack(payload)
        self._expected(record)
        if end != len(payload):
            raise RecordError(f"{record.path!r}: {len(payload) - end} bytes behind the beginning of a content")
        self._file = f"{self.scratch}/in.{os.getpid()}.{self._number}"
        self._number += 1
        self._fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._begun = record
        self._length = self._sum = 0

    def _piece(self, payload: Buffer) -> None:
        if self._begun is None or self._begun.st is None:
            return  # refused before
        view = memoryview(payload)
        self._sum = checksum(view, self._sum)
        self._length += len(view)
        if self._length > self._begun.st.st_size:
            raise RecordError(f"{self._begun.path!r}: more than {self._begun.st.st_size} bytes came")
        while view:
            view = view[os.write(self._fd, view) :]

    def _end(self, payload: Buffer) -> list[Record]:
        record = self._begun
        if record is None or record.st is None:
            return []
        length, total = TAIL.unpack(payload) if len(payload) == TAIL.size else (-1, 0)
        if (length, total) != (self._length, self._sum) or length != record.st.st_size:
            raise RecordError(
                f"{record.path!r}: expected {record.st.st_size} bytes of sum {total:#x}, found {self._length} of"
                f" {self._sum:#x}"
            )
        os.fchmod(self._fd, record.st.st_mode & 0o7777)
        os.utime(self._fd, ns=(record.st.st_atim, record.st.st_mtim))
        os.close(self._fd)
        self._fd, self._begun = -1, None
        record.node_path = self._file
        return [record]

    def refuse(self, why: str) -> list[Record]:
        """Count what is damaged, forget what has begun, and give what is known of it: that it won't come."""
        self.refused += 1
        if len(self.reasons) < 5:
            self.reasons.append(why)
        begun = [] if self._begun is None else [Record(self._begun.path, errno=EAGAIN)]
        self._drop()
        return begun

    def _drop(self) -> None:
        self._parts = bytearray()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            try:
                os.unlink(self._file)
            except OSError:
                pass
        self._begun = None

    def close(self) -> None:
        """Remove what has begun."""
        self._drop()
