"""A library about to be loaded, with everything that ``ld.so`` will open for it.

Rules of the file: what ``ld.so`` would find outside the managed prefixes is none of our business.
"""

from __future__ import annotations

import _imp
import os
import sys

from ..interpose.image import link_map, program_rpath
from ..interpose.machine.layout import K_FILE
from ..record import CONTENT, NAMES, Want
from ..store.table import name_hash
from .needed import Closure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ..fetcher import Fetcher
    from ..record import Buffer


EXTENSION = tuple(suffix for suffix in _imp.extension_suffixes() if suffix != ".so")


class Libraries:
    """Wants the closures of libraries, each once."""

    def __init__(self, fetcher: Fetcher, library_path: str) -> None:
        """
        :param library_path: LD_LIBRARY_PATH when the process started: ld.so reads it then and never again
        """
        self.fetcher, self.library_path = fetcher, library_path
        self._done: set[str] = set()
        # Told a path that is going to be loaded, and the names of what is loaded with it.
        self.found: Callable[[str, Collection[str]], None] | None = None
        self._marking = True  # each walk found all that it wanted
        self._question = ""
        self._needs: dict[str, list[str]] = {}
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
        if not self.fetcher.settled(path, CONTENT):
            self.fetcher.want([Want(path, CONTENT)])
        mark = self._mark_of(path)
        names = _read(mark)
        if names is None:
            names = self._walk(path)
            if self._marking and mark:
                _write(mark, names)
        else:
            known = list(names)
            for name in known:
                self._needs.setdefault(name, known)  # which of them needs which isn't known: each may bring them all
        if self.found is not None:
            self.found(path, names)
        self._loaded.update(names)

    def closure(self, path: str) -> Closure:
        """What ``ld.so`` will look for, beginning with *path*."""
        return Closure(
            path,
            self._content,
            self._names,
            loaded=self._loaded,
            library_path=self.library_path,
            outer_rpath=self._outer_rpath,
            program_origin=self._program_origin,
            listing=NAMES,
        )

    def _walk(self, path: str) -> set[str]:
        """Want all that ``ld.so`` will look for; the names that are loaded afterwards."""
        closure = self.closure(path)
        for wants in closure.rounds():
            self.fetcher.want(wants)
            if any(self.fetcher.managed(want.path) and self.fetcher.lacks(want) for want in wants):
                self._marking = False
        self._needs.update(closure.needs)
        names = {path.rpartition("/")[2]}
        new = list(names)
        while new:
            fresh = set(self._needs.get(new.pop(), ())) - names
            names |= fresh
            new += fresh
        return names

    def _mark_of(self, path: str) -> str:
        """The name of the mark beside the copy of *path*, or an empty string.

        A mark says that another process of the node has found all that *path* needs, by the same search path and with
        the same libraries loaded at its start; it is a symbolic link, whose text are the names that are loaded with
        *path*. A walk costs 140 us, and a large stack has a hundred; a mark costs 5 us (measured).
        """
        table = self.fetcher.table
        word = table.probe(path)
        if word & 0xFF != K_FILE or not self.fetcher.table_suffices:
            return ""
        if not self._question:
            names = sorted(name for name in self._loaded if not name.endswith(EXTENSION))  # which nothing needs
            question = "\0".join([self.library_path, *self._outer_rpath, *names])
            self._question = f"{name_hash(os.fsencode(question)):x}"
        return f"{table.copy_of(word)}.{table.offset(path):x}.{self._question}"

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


def _read(mark: str) -> set[str] | None:
    try:
        return set(os.readlink(mark).split("/")) if mark else None
    except OSError:
        return None


def _write(mark: str, names: set[str]) -> None:
    try:
        os.symlink("/".join([name for name in names if "/" not in name]), mark)  # appears at once with its text
    except OSError:
        pass  # it is there already, or longer than PATH_MAX, or there is no room: the next process walks, too
