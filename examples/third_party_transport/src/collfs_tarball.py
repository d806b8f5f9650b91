"""A transport for collfs that serves files out of a tar archive.

One big file is what a parallel file system likes best: pack an environment once, and its files are answered from the
archive. ``COLLFS_TAR`` names the archive (not compressed, because members are read in place), ``COLLFS_TAR_ROOT`` the
directory whose content it holds (default: /).
"""

from __future__ import annotations

import os
import stat
import tarfile
from errno import EISDIR, ELOOP, ENOENT, ENOTDIR
from posixpath import basename, dirname, join, normpath

from collfs.errors import TransportUnavailable
from collfs.record import Name, Stat
from collfs.transport import Transport

MAX_LINKS = 40  # as Linux (man 7 path_resolution)


class TarTransport(Transport):
    """Serves *archive* as the content of the directory *root*."""

    name = "tarball"

    def __init__(self, archive: str, root: str = "/") -> None:
        self.tar = tarfile.open(archive, "r:")  # noqa: SIM115 - closed by close()
        self.members: dict[str, tarfile.TarInfo] = {}
        self.names: dict[str, dict[str, tarfile.TarInfo]] = {}  # of each directory
        for member in self.tar:
            first = self.members[normpath(join(root, member.linkname))] if member.islnk() else member
            self._add(normpath(join(root, member.name)), first)

    def _add(self, path: str, member: tarfile.TarInfo) -> None:
        above = dirname(path)
        if path != "/":
            if above not in self.members:  # archives may leave directories out
                folder = tarfile.TarInfo()
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                self._add(above, folder)
            self.names[above][basename(path)] = member
        self.members[path] = member
        self.names.setdefault(path, {})

    def _find(self, path: str, follow: bool = True, links: int = MAX_LINKS) -> tuple[str, tarfile.TarInfo]:
        """The member that *path* leads to, and where it is when all links are followed."""
        here = "/"
        parts = [part for part in path.split("/") if part]
        for number, part in enumerate(parts, 1):
            if not self.members[here].isdir():
                raise OSError(ENOTDIR, os.strerror(ENOTDIR), path)
            here = normpath(join(here, part))
            if here not in self.members:
                raise OSError(ENOENT, os.strerror(ENOENT), path)
            if self.members[here].issym() and (follow or number < len(parts)):
                if links == 0:
                    raise OSError(ELOOP, os.strerror(ELOOP), path)
                return self._find(join(dirname(here), self.members[here].linkname, *parts[number:]), follow, links - 1)
        return here, self.members[here]

    def lstat(self, path: str) -> tuple[Stat, str | None]:
        member = self._find(path, follow=False)[1]
        return as_stat(member), member.linkname if member.issym() else None

    def stat(self, path: str) -> Stat:
        return as_stat(self._find(path)[1])

    def listdir(self, path: str) -> list[Name]:
        here, member = self._find(path)
        if not member.isdir():
            raise OSError(ENOTDIR, os.strerror(ENOTDIR), path)
        return [Name(name, stat.S_IFMT(as_stat(child).st_mode) >> 12) for name, child in self.names[here].items()]

    def read(self, path: str) -> bytes:
        member = self._find(path)[1]
        if member.isdir():
            raise OSError(EISDIR, os.strerror(EISDIR), path)
        file = self.tar.extractfile(member)
        return file.read() if file is not None else b""

    def close(self) -> None:
        self.tar.close()


def as_stat(member: tarfile.TarInfo) -> Stat:
    """What an archive knows of a file; the place in the archive serves as inode number."""
    kind = stat.S_IFDIR if member.isdir() else stat.S_IFLNK if member.issym() else stat.S_IFREG
    size = len(os.fsencode(member.linkname)) if member.issym() else member.size
    times = [round(member.mtime * 10**9)] * 3
    return Stat(kind | member.mode, member.offset, 0, 1, member.uid, member.gid, 0, size, 512, -(-size // 512), *times)


def transport(options: object) -> TarTransport:
    """What the entry point names. This transport has no options of its own but two variables."""
    archive = os.environ.get("COLLFS_TAR")
    if not archive:
        raise TransportUnavailable("transport 'tarball' needs COLLFS_TAR=<name of an uncompressed tar archive>")
    return TarTransport(archive, os.environ.get("COLLFS_TAR_ROOT", "/"))
