"""A transport whose single questions are answered by a reader: what ours have in common.

Rule of the file: nothing but delegation.
"""

from __future__ import annotations

from . import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..reader import Reader
    from ..record import Buffer, Name, Record, Stat, Want


class ReadingTransport(Transport):
    """The base class's methods that an author must write, by way of ``reader``."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def fetch(self, wants: Sequence[Want]) -> Iterator[Record]:
        return self.reader.fetch(wants)

    def stat(self, path: str) -> Stat:
        return self.reader.stat(path)

    def lstat(self, path: str) -> tuple[Stat, str | None]:
        return self.reader.lstat(path)

    def listdir(self, path: str) -> Sequence[Name]:
        return self.reader.listdir(path, metadata=False)

    def read(self, path: str) -> Buffer:
        return self.reader.read(path)[1]
