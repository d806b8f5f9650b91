"""What an MPI library opens by itself in MPI_Init: plugins beside it and configuration files, no event tells of them.

Seen by strace (MPICH 5.0 and Open MPI 5.0, with UCX and libfabric): dlopen of every plugin in ``ucx`` and ``libfabric``
below the directory of these libraries, of components in ``openmpi``, ``pmix`` and ``prte``, each with a search through
the directories of its RUNPATH; then ``etc/*.conf`` of the installation. With the directories listed and the plugins
there, all of this is answered on the node.

Rules of the file: used only while MPI is started through a server; only the directories named here are walked.
"""

from __future__ import annotations

import posixpath

from ..interpose.machine.layout import K_DIR, K_REG
from ..record import CONTENT, LIST, META, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from ..fetcher import Fetcher
    from .library import Libraries

MPI = "libmpi"  # libmpi.so.12, libmpi.so.40, libmpich.so, libmpi_cray.so: all begin so
PLUGINS = frozenset(("libfabric", "libibverbs", "mpich", "openmpi", "pmix", "prov", "prte", "ucx"))
CONFIGURATION = "etc"
MOST = 1000  # files of one directory


class MpiLibrary:
    """Wants the surroundings of the MPI library as soon as somebody is going to load it."""

    def __init__(self, fetcher: Fetcher, libraries: Libraries) -> None:
        self.fetcher, self.libraries = fetcher, libraries
        self._seen: set[str] = set()
        libraries.found = self._found

    def _found(self, path: str, names: Collection[str]) -> None:
        """:attr:`Libraries.found`. Another process of the node may have walked through these; where they lie is asked
        here in any case.
        """
        if not any(name.startswith(MPI) for name in names):
            return
        closure = self.libraries.closure(path)
        for wants in closure.rounds():
            self.fetcher.want(wants)
        paths = closure.libraries
        for directory in dict.fromkeys(posixpath.dirname(posixpath.normpath(path)) for path in paths):
            installation = posixpath.dirname(directory)
            while posixpath.basename(installation) in PLUGINS or posixpath.basename(installation).startswith("lib"):
                installation = posixpath.dirname(installation)
            self._list(installation)
            self._configuration(f"{installation}/{CONFIGURATION}")
            self._plugins(directory)

    def _plugins(self, directory: str) -> None:
        names = self._list(directory)
        for name in names:
            path = f"{directory}/{name}"
            if name in PLUGINS and path not in self._seen and self.fetcher.kind(path) == K_DIR:
                self._plugins(path)
                self._want_files(path, ".so")

    def _configuration(self, directory: str) -> None:
        if directory not in self._seen and self.fetcher.kind(directory) == K_DIR:
            self._list(directory)
            self._want_files(directory, ".conf")

    def _list(self, directory: str) -> Sequence[str]:
        """The names in *directory*, the first time."""
        if directory in self._seen or not self.fetcher.managed(directory):
            return ()
        self._seen.add(directory)
        self.fetcher.want([Want(directory, META), Want(directory, LIST)])
        return self.fetcher.known_names(directory) or ()

    def _want_files(self, directory: str, part: str) -> None:
        wants = [Want(path, CONTENT) for path in self._files(directory, part)][:MOST]
        self.fetcher.want(wants)
        if part == ".so":
            for want in wants:
                self.libraries.want(want.path)  # with what it needs

    def _files(self, directory: str, part: str) -> Iterator[str]:
        for name in self.fetcher.known_names(directory) or ():
            path = f"{directory}/{name}"
            if part in name and self.fetcher.kind(path) == K_REG:
                yield path
