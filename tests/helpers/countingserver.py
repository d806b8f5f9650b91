"""The server of countingfs.py: a program, one process for each mount.

::

    SOURCE     kept open, and read through that descriptor
    node       the process in whose mount namespace SOURCE appears at MOUNTPOINT, read-only
    LOG        gets one record for each operation before it is carried out: ``KIND PID PATH``, ended by a NUL

It enters the node's mount namespace only to mount, and goes back to a copy of the one that it came from: whatever it
reads itself isn't counted, and can't wait for itself. It says "!" on standard output when the mount is there.

libfuse's high-level interface doesn't tell LOOKUP from GETATTR of a path: both are ``getattr``. GETATTR of an open file
is ``fstat``.

Rules of the file: never imported by tests; mfusepy, and with it libfuse, is loaded here only; it is to be ended by
SIGKILL, since libfuse would unmount by path, in the wrong namespace. It ends by itself when the node is gone.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import importlib
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_CLONE_NEWNS = 0x00020000  # <linux/sched.h>
_MS_PRIVATE_ALL = 0x40000 | 0x4000  # MS_PRIVATE | MS_REC of <sys/mount.h>
_TYPES = {"d": 0o040000, "l": 0o120000, "f": 0o100000, "": 0o010000}  # man inode(7)


class PassThrough:
    """What mfusepy calls: names of methods and their arguments are those of its ``Operations``.

    A server that also takes its time overrides :meth:`seen`: all operations but the closing of files pass through it.
    """

    use_ns = True  # of mfusepy: times are integers

    def __init__(self, source: str, log: str, asker: Callable[[], tuple[int, int, int]]) -> None:
        """
        :param asker: gives uid, gid and thread of whoever asked for the operation under way
        """
        self.asker = asker
        self.root = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._processes: dict[int, int] = {0: 0}

    def seen(self, kind: str, path: str) -> str:
        """Write an operation down, and give the path as seen from the source."""
        line = f"{kind} {self._process(self.asker()[2])} {path}\0"
        os.write(self.log, line.encode("utf-8", "surrogateescape"))
        return path[1:] or "."

    def _process(self, thread: int) -> int:
        """The process of a thread: FUSE tells the thread only (fuse_req_init_context in fs/fuse/dev.c)."""
        found = self._processes.get(thread)
        if found is None:
            found = thread
            try:
                with open(f"/proc/{thread}/status", "rb") as file:
                    for line in file:
                        if line.startswith(b"Tgid:"):
                            found = int(line[5:])
                            break
            except OSError:
                pass  # it has just ended
            self._processes[thread] = found
        return found

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        if fh is None:
            st = os.stat(self.seen("getattr", path), dir_fd=self.root, follow_symlinks=False)
        else:
            self.seen("fstat", path)
            st = os.stat(fh)
        times = {f"st_{which}time": getattr(st, f"st_{which}time_ns") for which in "amc"}
        names = ("mode", "ino", "nlink", "uid", "gid", "size", "blocks", "blksize")
        return {**times, **{f"st_{name}": getattr(st, f"st_{name}") for name in names}}

    def access(self, path: str, mode: int) -> int:
        if not os.access(self.seen("access", path), mode, dir_fd=self.root):
            raise OSError(errno.EACCES, path)
        return 0

    def readlink(self, path: str) -> str:
        return os.readlink(self.seen("readlink", path), dir_fd=self.root)

    def open(self, path: str, flags: int) -> int:
        return os.open(self.seen("open", path), os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.root)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self.seen("read", path)
        return os.pread(fh, size, offset)

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    def opendir(self, path: str) -> int:
        return os.open(self.seen("opendir", path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.root)

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, dict[str, int], int]]:
        self.seen("readdir", path)
        yield from ((name, {"st_mode": _TYPES["d"]}, 0) for name in (".", ".."))
        with os.scandir(fh) as entries:
            for entry in entries:
                kind = "l" if entry.is_symlink() else "d" if entry.is_dir() else "f" if entry.is_file() else ""
                yield entry.name, {"st_mode": _TYPES[kind], "st_ino": entry.inode()}, 0

    releasedir = release

    def statfs(self, path: str) -> dict[str, int]:
        self.seen("statfs", path)
        st = os.statvfs(self.root)
        return {f"f_{name}": getattr(st, f"f_{name}") for name in ("bsize", "frsize", "blocks", "bfree", "bavail")}


class Server(PassThrough):
    """One that lives in another mount namespace than its mount."""

    def __init__(self, source: str, log: str, asker: Callable[[], tuple[int, int, int]], node: int) -> None:
        super().__init__(source, log, asker)
        self._libc = ctypes.CDLL(None, use_errno=True)
        target = os.open(f"/proc/{node}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        # our own copy of what we see now: no mount of ours can come into it
        self._check(self._libc.unshare(_CLONE_NEWNS))
        self._check(self._libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_PRIVATE_ALL), None))
        self._home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._enter(target)

    def init(self, path: str) -> None:
        """The mount is there."""
        self._enter(self._home)
        os.write(1, b"!")

    def _enter(self, namespace: int) -> None:
        self._check(self._libc.setns(namespace, _CLONE_NEWNS))

    @staticmethod
    def _check(answer: int) -> None:
        if answer:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main(words: Sequence[str]) -> None:
    """Serve until the mount is gone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("source", "mountpoint", "log"):
        parser.add_argument(name)
    parser.add_argument("--node", type=int, required=True)
    for name in ("attributes", "entries", "absences"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    given = parser.parse_args(words)

    mfusepy = importlib.import_module("mfusepy")  # has no types to import
    mfusepy.FUSE(
        Server(given.source, given.log, mfusepy.fuse_get_context, given.node),
        given.mountpoint,
        foreground=True,
        nothreads=True,  # setns(2) wants one thread, and the interpreter has one at a time anyway
        fsname="counting",
        ro=True,
        use_ino=True,  # ld.so knows a library by its inode
        kernel_cache=True,  # the files don't change: pages that were read once stay
        attr_timeout=given.attributes,
        entry_timeout=given.entries,
        negative_timeout=given.absences,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
