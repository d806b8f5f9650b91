"""The finder: knows the module's name before importlib stats anything.

For each directory that importlib's path finder will look into, its listing is wanted complete with metadata; with
the names known, the exact candidates of a module follow as in ``importlib._bootstrap_external.FileFinder``: a package
directory first, then the suffixes in importlib's order. The first match ends the search. Its cached bytecode
is wanted with its content; an extension module's content is wanted later, by the audit event that names its file.

Rules of the file: :meth:`Finder.find_spec` returns None, always.
"""

from __future__ import annotations

import _imp
import sys

from ..interpose.machine.layout import F_COMPLETE, K_ABSENT, K_DIR, K_FILE, K_REG
from ..record import CONTENT, LIST, META, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence
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


class _Any:
    """Every name may be there: the table is asked."""

    def __contains__(self, name: object) -> bool:
        return True


ANY = _Any()


class Finder:
    """The entry in ``sys.meta_path``."""

    def __init__(self, fetcher: Fetcher, on_invalidate: Callable[[], None]) -> None:
        """
        :param on_invalidate: what ``importlib.invalidate_caches()`` means for the session
        """
        self.fetcher, self.on_invalidate = fetcher, on_invalidate
        self.active = True
        self._managed: dict[str, str] = {}  # entry of a path -> directory; empty: not managed
        self._listed: dict[str, tuple[int, frozenset[str]]] = {}

    def find_spec(self, fullname: str, path: Sequence[object] | None = None, target: ModuleType | None = None) -> None:
        """Want what importlib is going to look at. PEP 451; None: ask the next finder."""
        if not self.active or fullname in BUILT_IN:
            return
        try:
            if path is None:
                self._announce(fullname, sys.path, self._names)
            else:
                self._announce(fullname.rpartition(".")[2], path, self._listing)
        except Exception as exc:
            self.active = False
            self.fetcher.messages.warn("finder", f"the import trigger failed and is off: {type(exc).__name__}: {exc}")

    def invalidate_caches(self) -> None:
        """Called by :func:`importlib.invalidate_caches`: absences and listings are believed no longer."""
        if self.active:
            self.fetcher.forgive()
            self.on_invalidate()

    def _announce(self, tail: str, path: Sequence[object], names_in: Callable[[str], Container[str] | None]) -> None:
        managed = self._managed
        for entry in list(path):
            if not isinstance(entry, str):
                continue
            directory = managed.get(entry)
            if directory is None:
                directory = managed[entry] = entry.rstrip("/") if self.fetcher.managed(entry) else ""
            if not directory:
                continue
            names = names_in(directory)
            if names is None:
                continue
            base = f"{directory}/{tail}"
            if tail in names and self.fetcher.kind(base) == K_DIR:
                inner = self._listing(base)
                if inner is not None and self._module(base, "__init__", inner):
                    return
            if self._module(directory, tail, names):
                return

    def _names(self, directory: str) -> frozenset[str] | None:
        """The names in *directory*, of ``sys.path``, wanted if they aren't known; None: they stay unknown.

        Kept until the entry changes: each top-level module is looked for here, mostly in vain, and a probe of the table
        for each of its names costs more.
        """
        word = self.fetcher.table.probe(directory)
        kept = self._listed.get(directory)
        if kept is not None and kept[0] == word:
            return kept[1]
        if word & 0xFF == K_ABSENT:
            return None  # the zip archive in sys.path: looked at for each top-level module
        self.fetcher.want([Want(directory, LIST)])
        names = self.fetcher.known_names(directory)
        if names is None:
            return None
        listed = frozenset(names)
        self._listed[directory] = (self.fetcher.table.probe(directory), listed)
        return listed

    def _listing(self, directory: str) -> Container[str] | None:
        """The same of the directory of a package, without its names: they are few, most are there, and to read them
        costs as much as thirty probes (in a process whose memory is cold, a third of a find).
        """
        word = self.fetcher.table.probe(directory)
        if word & 0xFF == K_DIR and word & F_COMPLETE:
            return ANY
        if word & 0xFF == K_ABSENT:
            return None
        self.fetcher.want([Want(directory, LIST)])
        word = self.fetcher.table.probe(directory)
        return ANY if word & 0xFF == K_DIR and word & F_COMPLETE else None

    def _module(self, directory: str, stem: str, names: Container[str]) -> bool:
        for suffix in SUFFIXES:
            if stem + suffix in names:
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
