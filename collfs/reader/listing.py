"""The names in an open directory with their kinds, without a path operation.

Rule of the file: everything that the kernel says is passed on as it is, but "." and "..".
"""

from __future__ import annotations

import ctypes
import os
import sys
from errno import EINTR
from struct import Struct

from collfs._libc import syscall_

# getdents64(2), straight: os.scandir would lstat every name where the file system doesn't tell kinds (DT_UNKNOWN: NFSv3
# without READDIRPLUS, many FUSE file systems), and glibc has the function only since 2.30. Numbers: <asm/unistd.h>.
_GETDENTS64 = {"x86_64": 217, "aarch64": 61}.get(os.uname().machine, 0) if sys.maxsize > 1 << 32 else 0
_DIRENT64 = Struct("=QqHB")  # d_ino, d_off, d_reclen, d_type; then d_name with its NUL
_DIRENTS_BYTES = 128 << 10


def entries(fd: int) -> list[tuple[str, int]]:
    """All names of an open directory, but "." and "..", with their DT_... kinds. No path operation.

    :raises OSError: as readdir(3)
    """
    if not _GETDENTS64:
        return _scandir(fd)
    found: list[tuple[str, int]] = []
    raw = bytearray(_DIRENTS_BYTES)
    buffer = (ctypes.c_char * _DIRENTS_BYTES).from_buffer(raw)
    while True:
        count: int = syscall_(_GETDENTS64, fd, ctypes.addressof(buffer), _DIRENTS_BYTES)
        if count < 0:
            code = ctypes.get_errno()
            if code == EINTR:
                continue
            raise OSError(code, os.strerror(code))
        if count == 0:
            return found
        at = 0
        while at < count:
            length, kind = _DIRENT64.unpack_from(raw, at)[2:]
            start = at + _DIRENT64.size
            name = os.fsdecode(bytes(raw[start : raw.index(0, start)]))
            if name not in (".", ".."):
                found.append((name, kind))
            at += length


def _scandir(fd: int) -> list[tuple[str, int]]:
    """:func:`entries` for machines whose system-call number we don't know: kinds other than 4, 8 and 10 come as 0."""
    found: list[tuple[str, int]] = []
    with os.scandir(fd) as listing:
        for entry in listing:
            kind = 10 if entry.is_symlink() else 4 if entry.is_dir() else 8 if entry.is_file() else 0
            found.append((entry.name, kind))
    return found
