"""For children that live with redirects: a store, what is staged in it, and answers to compare with the file system's.

A name that begins with two slashes is never redirected, so ``call(path)`` and ``call("/" + path)`` put the same
question to the path table and to the kernel.

Rules of the file: used in child processes only, because :meth:`Hooked.install` patches the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING

from collfs.interpose.interposer import Interposer
from collfs.reader import Reader
from collfs.record import CONTENT, LIST, META, NAMES, Want
from collfs.store.node import CANARY, open_store
from collfs.store.stager import Stager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Answer = Callable[[str], object]

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW = -100, 0x100


class Hooked:
    """One process with redirects."""

    def __init__(self, base: str, *prefixes: str, limit: int = 1 << 30) -> None:
        """
        :param base: directory for the store
        :param limit: max_store_bytes
        """
        self.interposer = Interposer()
        self.store = open_store("test", [base], self.interposer.code, chosen=True)
        self.table = self.store.table
        for prefix in prefixes:
            self.table.add_prefix(prefix)
        self.reader, self.stager = Reader(), Stager(self.store, limit)

    def stage(self, paths: Iterable[str], aspect: str) -> None:
        """Read the originals and publish them; what can't be published is a failure."""
        epoch = int(self.table.header.epoch)
        for path in paths:
            assert self.stager.stage(self.reader.answer(Want(path, aspect)), epoch), (path, aspect, self.stager.trouble)

    def stage_tree(self, top: str) -> None:
        """All listings below *top* (links to directories are followed) and all contents of regular files."""
        self.stage([top], LIST)
        for name in os.listdir("/" + top):
            path = f"{top}/{name}"
            if os.path.isdir("/" + path):
                self.stage_tree(path)
            elif os.path.isfile("/" + path):
                self.stage([path], CONTENT)

    def install(self) -> Hooked:
        """Redirects on, and proved to be."""
        self.interposer.set_table(self.table.address)
        self.interposer.install()
        self.interposer.verify(self.store.canary, len(CANARY))
        return self

    def done(self) -> None:
        """Redirects off, store gone."""
        self.interposer.uninstall()
        self.store.close()

    def kinds(self, top: str) -> dict[str, int]:
        """Kinds of all entries below *top*, by the rest of their names."""
        return {k[len(top) + 1 :]: e.word & 0xFF for k, e in self.table if k.startswith(top + "/")}


# -- answers as comparable values --------------------------------------------------------------------------------


def outcome(call: Answer, path: str) -> object:
    """What *call* gives for *path*: a value, or the name of the error."""
    try:
        return call(path)
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]


def fields(st: os.stat_result) -> tuple[int, ...]:
    """What a redirected stat promises: of a regular file size, mode, mtime; else all but st_atime."""
    if stat.S_ISREG(st.st_mode):
        return (st.st_mode, st.st_size, st.st_mtime_ns)
    return (
        *(st.st_mode, st.st_ino, st.st_dev, st.st_nlink, st.st_uid, st.st_gid, st.st_size),
        *(st.st_rdev, st.st_blksize, st.st_blocks, st.st_mtime_ns, st.st_ctime_ns),
    )


def opened(flags: int) -> Answer:
    """open(2) with *flags*: the content, or the kind of what isn't a regular file."""

    def call(path: str) -> object:
        fd = os.open(path, flags | os.O_NONBLOCK)
        try:
            mode = os.fstat(fd).st_mode
            if stat.S_ISREG(mode) and not flags & os.O_PATH:
                return os.read(fd, 1 << 16)
            return stat.S_IFMT(mode)
        finally:
            os.close(fd)

    return call


def scanned(path: str) -> object:
    """os.scandir: names with kinds, and the metadata that DirEntry gets by name."""
    with os.scandir(path) as entries:
        return sorted(
            (e.name, e.is_dir(), e.is_file(), e.is_symlink(), fields(e.stat(follow_symlinks=False))) for e in entries
        )


def statx(flags: int) -> Answer:
    """statx(2): the basic fields (linux/stat.h) that :func:`fields` compares."""

    def call(path: str) -> object:
        buffer = ctypes.create_string_buffer(256)
        if libc.statx(AT_FDCWD, os.fsencode(path), flags, 0x7FF, buffer) != 0:
            raise OSError(ctypes.get_errno(), path)
        raw = buffer.raw

        def number(at: int, size: int) -> int:
            return int.from_bytes(raw[at : at + size], "little")

        mode, size = number(28, 2), number(40, 8)
        assert number(0, 4) & 0x7FF == 0x7FF
        mtime = number(112, 8) * 10**9 + number(120, 4)
        if stat.S_ISREG(mode):
            return (mode, size, mtime)
        ctime = number(96, 8) * 10**9 + number(104, 4)
        return (
            *(mode, number(32, 8), number(136, 8), number(16, 4), number(20, 4), number(24, 4), size),
            *(number(128, 8), number(4, 4), number(48, 8), mtime, ctime),
        )

    return call


CALLS: dict[str, Answer] = {
    "stat": lambda p: fields(os.stat(p)),
    "lstat": lambda p: fields(os.lstat(p)),
    "statx": statx(0),
    "statx nofollow": statx(AT_SYMLINK_NOFOLLOW),
    "exists": lambda p: os.access(p, os.F_OK),
    "access R": lambda p: os.access(p, os.R_OK),
    "access W": lambda p: os.access(p, os.W_OK),
    "access X": lambda p: os.access(p, os.X_OK),
    "access nofollow": lambda p: os.access(p, os.F_OK, follow_symlinks=False),
    "readlink": os.readlink,
    "open": opened(os.O_RDONLY),
    "open nofollow": opened(os.O_RDONLY | os.O_NOFOLLOW),
    "open directory": opened(os.O_RDONLY | os.O_DIRECTORY),
    "open path": opened(os.O_PATH),
    "open path nofollow": opened(os.O_PATH | os.O_NOFOLLOW),
    "listdir": lambda p: sorted(os.listdir(p)),
    "scandir": scanned,
}


def answers(path: str) -> dict[str, object]:
    """All calls on *path*."""
    return {name: outcome(call, path) for name, call in CALLS.items()}


def check(path: str) -> None:
    """The answers for *path* are those that the kernel gives."""
    got, wanted = answers(path), answers("/" + path)
    wrong = [
        f"{call}: {str(got[call])[:80]} instead of {str(wanted[call])[:80]}"
        for call in got
        if got[call] != wanted[call]
    ]
    assert not wrong, f"{path}: " + "; ".join(wrong)


def check_all(top: str, *more: str) -> None:
    """:func:`check` for everything that is below *top* now, and for *more* names."""
    names = [top, *more]
    for directory, dirs, files in os.walk("/" + top, followlinks=True):
        names += [f"{directory[1:]}/{name}" for name in dirs + files]
    for name in names:
        check(name)


__all__ = [
    "CALLS",
    "CONTENT",
    "LIST",
    "META",
    "NAMES",
    "Hooked",
    "answers",
    "check",
    "check_all",
    "libc",
    "opened",
    "outcome",
]
