"""A reader that asks the cache before it reads, and gives it what it has read.

A hit costs one lstat of the original; a miss costs that on top of the reading.

Rule of the file: what a record says is always what the original says now; only the bytes may come from the cache.
"""

from __future__ import annotations

from stat import S_ISREG

from collfs.reader import Reader
from collfs.record import CONTENT, META, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collfs.reader._pool import Hold
    from collfs.record import Record

    from .cache import Cache


class CachedReader(Reader):
    """A :class:`Reader` whose contents are copies of *cache* (``node_path``) where it has them.

    :param max_file_bytes: as for the reader; a larger file isn't cached either
    """

    __slots__ = ("cache",)

    def __init__(self, cache: Cache, max_file_bytes: int | None = None) -> None:
        super().__init__(max_file_bytes)
        self.cache = cache

    def copy_of(self, path: str) -> str | None:
        """The name of a copy of *path* on this node, made now if need be; None if the cache doesn't keep it.

        :raises OSError: as reading the original would
        """
        st = self.stat(path)
        found = self.cache.get(path, st) if S_ISREG(st.st_mode) else None
        return found if found is not None else self.cache.put(path, *self.read(path))

    def _answer(self, want: Want, hold: Hold | None) -> Record:
        if want.aspect != CONTENT:
            return super()._answer(want, hold)
        record = super()._answer(Want(want.path, META), hold)
        st = record.st
        if st is None or not S_ISREG(st.st_mode):
            return record
        if self.max_file_bytes is None or st.st_size <= self.max_file_bytes:
            record.node_path = self.cache.get(want.path, st)
            if record.node_path is not None:
                return record
        record = super()._answer(want, hold)
        if record.content is not None and record.st is not None:
            # Given as node_path at once, so that every name of a file leads to the same copy, new or not.
            record.node_path = self.cache.put(want.path, record.st, record.content)
            if record.node_path is not None:
                record.content = None
        return record
