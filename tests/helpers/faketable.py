"""A path table that is a dict, and a stager of a few lines, for tests of who asks, who waits and what is told.

Rule of the file: names and answers are those of collfs.store.table and collfs.store.stager, as far as a fetcher needs
them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from collfs.interpose.machine.layout import (
    F_COMPLETE,
    F_STAT,
    K_ABSENT,
    K_DIR,
    K_FILE,
    K_NATIVE,
    K_REG,
    K_UNKNOWN,
    SEEK_ASK,
)
from collfs.record import Stat

if TYPE_CHECKING:
    from collections.abc import Callable

    from collfs.record import Record

FILE = Stat(0o100644, 1, 2, 1, 0, 0, 0, 3, 4096, 8, 10**18, 10**18, 10**18)


class Table:
    """Names and their kinds."""

    def __init__(self) -> None:
        self.kinds: dict[str, int] = {}
        self.header = SimpleNamespace(entries=0, staged_bytes=0, sequence=0, epoch=0)

    def probe(self, path: str) -> int:
        return self.kinds.get(path, K_UNKNOWN) | (F_STAT if path in self.kinds else 0)

    def searcher(self, suffixes: object, bytecode: str) -> Callable[[str, str], int]:
        return lambda directory, name: SEEK_ASK


class Stager:
    """Puts what it gets into the table."""

    trouble = ""

    def __init__(self, table: Table) -> None:
        self.table = table

    def stage(self, record: Record, epoch: int) -> bool:
        if record.errno:
            kind = K_ABSENT if record.errno == 2 else K_NATIVE
        elif record.names is not None:
            kind = K_DIR | F_COMPLETE
        else:
            kind = K_REG if record.content is None else K_FILE
        self.table.kinds[record.path] = kind
        self.table.header.entries += 1
        return True
