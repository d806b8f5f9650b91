"""The finder: knows the module's name before importlib stats anything.

For each directory that importlib's path finder will look into, its listing is wanted complete with metadata; with
the names known, the exact candidates of a module follow as in ``importlib._bootstrap_external.FileFinder``: a package
directory first, then the suffixes in importlib's order. The first match ends the search. Its cached bytecode
is wanted with its content; an extension module's content is wanted later, by the audit event that names its file.

Mostly the node has all that already. Machine code finds that out with one call for each directory
(``interpose/machine/python.h``, which looks for the same candidates in the same order); the code here is for the rest.

Rules of the file: :meth:`Finder.find_spec` returns None, always.
"""

from __future__ import annotations

import _imp
import sys

from ..interpose.machine.layout import (
    F_COMPLETE,
    K_ABSENT,
    K_DIR,
    K_FILE,
    K_REG,
    SEEK_ASK,
    SEEK_ELSEWHERE,
    SEEK_HERE,
)
from ..record import CONTENT, LIST, META, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from ..fetcher import Fetcher

# importlib's own order: extensions, source, bytecode (_bootstrap_external._get_supported_file_loaders)
_external = sys.modules["_frozen_importlib_external"]
SUFFIXES: tuple[str, ...] = (*_imp.extension_suffixes(), *_external.SOURCE_SUFFIXES, *_external.BYTECODE_SUFFIXES)
BUILT_IN = frozenset(sys.builtin_module_names)  # found before any directory is looked into
cache_from_source: Callable[[str], str] = _external.cache_from_source


def _bytecode_end() -> str:
    """How the names of bytecode files end, or nothing. Asking importlib for each name costs 4 us, a fifth of a find."""
    try:
        return cache_from_source("/d/stem.py").rpartition("/stem")[2]
    except NotImplementedError:
        return ""


BYTECODE_END = _bytecode_end()


def _ask(directory: str, name: str) -> int:
    return SEEK_ASK


class Finder:
    """The entry in ``sys.meta_path``."""

    def __init__(self, fetcher: Fetcher, on_invalidate: Callable[[], None]) -> None:
        """
        :param on_invalidate: what ``importlib.invalidate_caches()`` means for the session
        """
        self.fetcher, self.on_invalidate = fetcher, on_invalidate
        self.active = True
        self._managed: dict[str, str] = {}  # entry of a path -> directory; empty: not managed
        self._seek = fetcher.table.searcher(SUFFIXES, BYTECODE_END) if BYTECODE_END and fetcher.table_suffices else _ask

    def find_spec(self, fullname: str, path: Sequence[object] | None = None, target: ModuleType | None = None) -> None:
        """Want what importlib is going to look at. PEP 451; None: ask the next finder."""
        if not self.active or fullname in BUILT_IN:
            return
        try:
            if path is None:
                self._announce(fullname, sys.path)
            else:
                self._announce(fullname.rpartition(".")[2], path)
        except Exception as exc:
            self.active = False
            self.fetcher.messages.warn("finder", f"the import trigger failed and is off: {type(exc).__name__}: {exc}")

    def invalidate_caches(self) -> None:
        """Called by :func:`importlib.invalidate_caches`: absences and listings are believed no longer."""
        if self.active:
            self.fetcher.forgive()
            self.on_invalidate()

    def _announce(self, tail: str, path: Sequence[object]) -> None:
        managed, seek = self._managed, self._seek if sys.pycache_prefix is None else _ask
        for entry in list(path):
            if not isinstance(entry, str):
                continue
            directory = managed.get(entry)
            if directory is None:
                directory = managed[entry] = entry.rstrip("/") if self.fetcher.managed(entry) else ""
            if not directory:
                continue
            known = seek(directory, tail)
            if known == SEEK_HERE or (known != SEEK_ELSEWHERE and self._look(directory, tail)):
                return

    def _look(self, directory: str, tail: str) -> bool:
        """Want what is missing of the module in *directory*; whether it is there."""
        if not self._listed(directory):
            return False
        base = f"{directory}/{tail}"
        if self.fetcher.kind(base) == K_DIR and self._listed(base) and self._module(base, "__init__"):
            return True
        return self._module(directory, tail)

    def _listed(self, directory: str) -> bool:
        """Whether all names in *directory* are known, which are wanted if they aren't."""
        known = self._complete(directory)
        if known and self.fetcher.table_suffices:
            return True
        if self.fetcher.kind(directory) == K_ABSENT:
            return False  # the zip archive in sys.path: looked at for each top-level module
        self.fetcher.want([Want(directory, LIST)])
        return known or self._complete(directory)

    def _complete(self, directory: str) -> bool:
        word = self.fetcher.table.probe(directory)
        return word & 0xFF == K_DIR and word & F_COMPLETE != 0

    def _module(self, directory: str, stem: str) -> bool:
        for suffix in SUFFIXES:
            file = f"{directory}/{stem}{suffix}"
            if self.fetcher.kind(file) not in (K_FILE, K_REG):
                continue  # importlib wants a regular file (_path_isfile)
            wanted = self._wanted(directory, stem, suffix, file)
            for path, aspect in wanted:
                if not self.fetcher.settled(path, aspect):
                    self.fetcher.want([Want(*want) for want in wanted])
                    break
            return True
        return False

    @staticmethod
    def _wanted(directory: str, stem: str, suffix: str, file: str) -> tuple[tuple[str, str], ...]:
        """Metadata of what importlib will stat: a listing of a bulk start comes without, and it follows soon."""
        if suffix == ".py":
            if BYTECODE_END and sys.pycache_prefix is None:
                return (file, META), (f"{directory}/__pycache__/{stem}{BYTECODE_END}", CONTENT)
            try:
                return (file, META), (cache_from_source(file), CONTENT)
            except NotImplementedError:  # sys.implementation.cache_tag is None: no bytecode at all
                return ((file, CONTENT),)
        return ((file, CONTENT if suffix == ".pyc" else META),)
