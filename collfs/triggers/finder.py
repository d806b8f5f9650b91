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

from ..interpose.machine.layout import K_DIR, K_FILE, K_REG
from ..record import CONTENT, LIST, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from ..fetcher import Fetcher

# importlib's own order: extensions, source, bytecode (_bootstrap_external._get_supported_file_loaders)
_external = sys.modules["_frozen_importlib_external"]
SUFFIXES: tuple[str, ...] = (*_imp.extension_suffixes(), *_external.SOURCE_SUFFIXES, *_external.BYTECODE_SUFFIXES)
cache_from_source: Callable[[str], str] = _external.cache_from_source


class Finder:
    """The entry in ``sys.meta_path``."""

    def __init__(self, fetcher: Fetcher, on_invalidate: Callable[[], None]) -> None:
        """
        :param on_invalidate: what ``importlib.invalidate_caches()`` means for the session
        """
        self.fetcher, self.on_invalidate = fetcher, on_invalidate
        self.active = True

    def find_spec(self, fullname: str, path: Sequence[object] | None = None, target: ModuleType | None = None) -> None:
        """Want what importlib is going to look at. PEP 451; None: ask the next finder."""
        if not self.active:
            return
        try:
            self._announce(fullname.rpartition(".")[2], sys.path if path is None else path)
        except Exception as exc:
            self.active = False
            self.fetcher.messages.warn("finder", f"the import trigger failed and is off: {type(exc).__name__}: {exc}")

    def invalidate_caches(self) -> None:
        """Called by :func:`importlib.invalidate_caches`: absences and listings are believed no longer."""
        if self.active:
            self.on_invalidate()

    def _announce(self, tail: str, path: Sequence[object]) -> None:
        fetcher = self.fetcher
        for entry in list(path):
            if not isinstance(entry, str) or not fetcher.managed(entry):
                continue
            directory = entry.rstrip("/")
            fetcher.want([Want(directory, LIST)])
            base = f"{directory}/{tail}"
            if fetcher.kind(base) == K_DIR:
                fetcher.want([Want(base, LIST)])
                if self._module(base + "/__init__"):
                    return
            if self._module(base):
                return

    def _module(self, base: str) -> bool:
        fetcher = self.fetcher
        for suffix in SUFFIXES:
            file = base + suffix
            if fetcher.kind(file) in (K_FILE, K_REG):
                if suffix == ".py":
                    self._bytecode(file)
                elif suffix == ".pyc":
                    fetcher.want([Want(file, CONTENT)])
                return True
        return False

    def _bytecode(self, source: str) -> None:
        try:
            cached = cache_from_source(source)
        except NotImplementedError:  # sys.implementation.cache_tag is None: no bytecode at all
            cached = source
        self.fetcher.want([Want(cached, CONTENT)])
