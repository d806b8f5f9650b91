"""A leader's intake: messages of the stream become records again.

Rules of the file: knows messages and files, not MPI; what doesn't fit together is refused and the stream goes on.
"""

from __future__ import annotations

import os
import struct
from binascii import crc32

from collfs.errors import RecordError
from collfs.record import Record
from collfs.record.wire import unpack, unpack_all

from .stream import BEGIN, END, PIECE, RECORDS

TAIL = struct.Struct("<QI")  # payload of END: length and crc32 of the content


class Intake:
    """Assembles records. ``refused`` counts what was damaged; ``reasons`` says why, for the first few."""

    def __init__(self, scratch: str) -> None:
        """
        :param scratch: directory in the node's store, where large content is written as it arrives
        """
        self.scratch = scratch
        self.refused = 0
        self.reasons: list[str] = []
        self._number = 0
        self._begun: Record | None = None
        self._fd = -1
        self._file = ""
        self._length = self._crc = 0

    def add(self, kind: int, payload: bytearray) -> list[Record]:
        """The records that are complete with this message.

        :raises OSError: never: a full store costs the record, not the stream
        """
        try:
            if kind == RECORDS:
                return self._whole(payload)
            if kind == BEGIN:
                self._begin(payload)
            elif kind == PIECE:
                self._piece(payload)
            elif kind == END:
                return self._end(payload)
        except (RecordError, OSError) as exc:
            self._refuse(str(exc))
        return []

    def _whole(self, payload: bytearray) -> list[Record]:
        records = []
        try:
            records += unpack_all(payload)
        except RecordError as exc:  # those before it are good
            self._refuse(str(exc))
        return records

    def _begin(self, payload: bytearray) -> None:
        self._drop()
        self._begun, end = unpack(payload)
        if end != len(payload) or self._begun.st is None:
            raise RecordError(f"the beginning of {self._begun.path!r} has {len(payload) - end} bytes too many")
        self._file = f"{self.scratch}/in.{os.getpid()}.{self._number}"
        self._number += 1
        self._fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._length = self._crc = 0

    def _piece(self, payload: bytearray) -> None:
        if self._begun is None:
            return  # refused at its beginning
        view = memoryview(payload)
        self._crc = crc32(view, self._crc)
        self._length += len(view)
        while view:
            view = view[os.write(self._fd, view) :]

    def _end(self, payload: bytearray) -> list[Record]:
        record = self._begun
        if record is None or record.st is None:
            return []
        length, crc = TAIL.unpack(payload) if len(payload) == TAIL.size else (-1, 0)
        if (length, crc) != (self._length, self._crc) or length != record.st.st_size:
            raise RecordError(
                f"{record.path!r}: expected {record.st.st_size} bytes of crc {crc:#x}, found {self._length} of"
                f" {self._crc:#x}"
            )
        os.fchmod(self._fd, record.st.st_mode & 0o777)
        os.utime(self._fd, ns=(record.st.st_atim, record.st.st_mtim))
        os.close(self._fd)
        self._fd, self._begun = -1, None
        record.node_path = self._file
        return [record]

    def _refuse(self, why: str) -> None:
        self.refused += 1
        if len(self.reasons) < 5:
            self.reasons.append(why)
        self._drop()

    def _drop(self) -> None:
        """Forget what has begun."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            try:
                os.unlink(self._file)
            except OSError:
                pass
        self._begun = None
