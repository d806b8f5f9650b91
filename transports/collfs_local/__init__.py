"""The local transport: this node reads for itself. The default, the fallback, and useful alone.

Whole files, in order, several at once: on a cold parallel file system pages that were mapped came at 0.35 MB/s where
reads in order gave 13 MB/s. That a file is read once for all processes of the node is the work of the store.

With option ``cache=DIR`` copies stay on a node-local disk for the next job (cache.py).

Rule of the file: nothing but delegation, and no cache code is imported unless a cache is asked for.
"""

from __future__ import annotations

import os

from collfs.errors import OptionError
from collfs.reader import Reader
from collfs.transport.reading import ReadingTransport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from collfs.record import Record, Want
    from collfs.transport.registry import TransportOptions

    from .cached import CachedReader


class LocalTransport(ReadingTransport):
    """Answers from the original files by way of *reader*."""

    name = "local"
    concurrent = True
    bounded = True  # its time is the file system's own

    def __init__(self, reader: Reader, cached: CachedReader | None = None) -> None:
        """Delegate to *reader*; give *cached* as well if that is a reader with a cache."""
        super().__init__(reader)
        self._cached = cached

    def mmap(self, path: str) -> str | None:
        return None if self._cached is None else self._cached.copy_of(path)

    def answer(self, want: Want) -> Record:
        record = self.reader.answer(want)
        if record.errno:
            raise OSError(record.errno, os.strerror(record.errno), want.path)
        return record

    def listen(self, deliver: Callable[[Iterable[Record]], int], scratch: str, copy_of: Callable[[str], str]) -> None:
        if self._cached is None:
            self.reader.scratch = scratch

    def counters(self) -> dict[str, int]:
        """What was done so far, for the report."""
        found = {name: getattr(self.reader, name) for name in ("ops", "bytes_read", "files_read", "skipped")}
        if self._cached is not None:
            for name in ("hits", "misses", "stored", "refused", "failed"):
                found["cache_" + name] = getattr(self._cached.cache, name)
        return found

    def close(self) -> None:
        if self._cached is not None:
            self._cached.cache.close()


def transport(options: TransportOptions) -> LocalTransport:
    """The factory that the entry point names. Reads ``max_file_bytes``, ``cache`` and ``cache_max_bytes``.

    :raises OptionError: for a bad value, or a cache directory that isn't private
    """
    max_file_bytes = getattr(options, "max_file_bytes", None)
    directory: object = getattr(options, "cache", None)
    if directory is None:
        return LocalTransport(Reader(max_file_bytes))
    max_bytes: object = getattr(options, "cache_max_bytes", None)
    if not isinstance(directory, (str, os.PathLike)):
        raise OptionError(f"cache={directory!r}: give the absolute name of a directory on a node-local disk")
    if max_bytes is not None and type(max_bytes) is not int:
        raise OptionError(f"cache_max_bytes={max_bytes!r}: give a number of bytes from 0 up, or None for the default")
    from .cache import Cache
    from .cached import CachedReader

    reader = CachedReader(Cache(os.fsdecode(directory), max_bytes), max_file_bytes)
    return LocalTransport(reader, reader)
