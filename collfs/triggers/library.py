"""A library about to be loaded, with everything that ``ld.so`` will open for it.

Rules of the file: what ``ld.so`` would find outside the managed prefixes is none of our business.
"""

from __future__ import annotations

import os
import sys

from ..interpose.image import link_map, program_rpath
from ..interpose.machine.layout import K_FILE
from ..record import CONTENT, NAMES, Want
from .needed import Closure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..fetcher import Fetcher
    from ..record import Buffer


class Libraries:
    """Wants the closures of libraries, each once."""

    def __init__(self, fetcher: Fetcher, library_path: str) -> None:
        """
        :param library_path: LD_LIBRARY_PATH when the process started: ld.so reads it then and never again
        """
        self.fetcher, self.library_path = fetcher, library_path
        self._done: set[str] = set()
        # What ld.so doesn't look for again. Not read anew for each library: 140 of them made that 40 ms (measured).
        self._loaded = {name.rpartition("/")[2] for _, name in link_map()}
        try:
            program = os.readlink("/proc/self/exe")  # in a virtual environment sys.executable is a link to it
        except OSError:
            program = sys.executable or ""
        self._program_origin = os.path.dirname(program)
        self._outer_rpath = [
            entry.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", self._program_origin)
            for entry in program_rpath().split(":")
            if entry
        ]

    def want(self, path: str) -> None:
        """*path* is going to be given to dlopen."""
        if not path.startswith("/") or path in self._done or not self.fetcher.managed(path) or self.fetcher.resting():
            return
        self._done.add(path)
        self.fetcher.want([Want(path, CONTENT)])
        closure = Closure(
            path,
            self._content,
            self._names,
            loaded=self._loaded,
            library_path=self.library_path,
            outer_rpath=self._outer_rpath,
            program_origin=self._program_origin,
            listing=NAMES,
        )
        for wants in closure.rounds():
            self.fetcher.want(wants)
        self._loaded.update([name.rpartition("/")[2] for name in closure.libraries])

    def _content(self, path: str) -> Buffer | None:
        word = self.fetcher.table.probe(path)
        if word & 0xFF != K_FILE:
            return None
        import mmap  # late: not every program loads libraries; reading them whole would cost more than all the rest

        try:
            fd = os.open(self.fetcher.table.copy_of(word), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError):  # ValueError: an empty file can't be mapped
            return None
        finally:
            os.close(fd)

    def _names(self, directory: str) -> list[str] | None:
        return self.fetcher.known_names(directory)
