"""The C library's functions that collfs calls by ctypes, with their prototypes.

Rules of the file: every address is resolved when this module is imported, never later: dlsym waits for the loader's
lock, and another thread may sit in dlopen with it. All calls keep errno (``use_errno``); :func:`check` turns -1 into
OSError.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import c_char_p, c_int, c_long, c_size_t, c_uint, c_void_p

PROT_NONE, PROT_READ, PROT_WRITE, PROT_EXEC = 0, 1, 2, 4  # asm-generic/mman-common.h
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_FIXED_NOREPLACE = 1, 2, 0x10, 0x20, 0x100000
MAP_FAILED = 2 ** (8 * ctypes.sizeof(c_void_p)) - 1
MREMAP_MAYMOVE, MREMAP_FIXED = 1, 2  # linux/mman.h
LOCK_SH, LOCK_EX, LOCK_NB, LOCK_UN = 1, 2, 4, 8  # flock(2)
F_DUPFD_CLOEXEC, HIGH = 1030, 500  # linux/fcntl.h

libc = ctypes.CDLL(None, use_errno=True)


def _function(name: str, restype: type, *argtypes: type) -> ctypes._NamedFuncPointer:
    function: ctypes._NamedFuncPointer = getattr(libc, name)
    function.restype, function.argtypes = restype, argtypes
    return function


mmap_ = _function("mmap", c_void_p, c_void_p, c_size_t, c_int, c_int, c_int, c_long)
mremap_ = _function("mremap", c_void_p, c_void_p, c_size_t, c_size_t, c_int, c_void_p)
munmap_ = _function("munmap", c_int, c_void_p, c_size_t)
mprotect_ = _function("mprotect", c_int, c_void_p, c_size_t, c_int)
flock_ = _function("flock", c_int, c_int, c_int)
fcntl_ = _function("fcntl", c_int, c_int, c_int, c_long)
syscall_ = _function("syscall", c_long, c_long, c_long, c_long, c_long)
errno_location = ctypes.cast(libc.__errno_location, c_void_p).value or 0
mmap_address = ctypes.cast(libc.mmap, c_void_p).value or 0
# glibc >= 2.27
memfd_create_ = _function("memfd_create", c_int, c_char_p, c_uint) if hasattr(libc, "memfd_create") else None


def check(result: int, what: str) -> int:
    """*result*, or the OSError that errno says if it is -1."""
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def mmap(address: int, size: int, prot: int, flags: int, fd: int = -1, offset: int = 0) -> int:
    """Map memory and return its address (man mmap(2)).

    :raises OSError: as mmap says
    """
    got: int = mmap_(address, size, prot, flags, fd, offset)
    if got == MAP_FAILED:
        check(-1, f"mmap of {size} bytes")
    return got


def flock(fd: int, operation: int) -> bool:
    """flock(2); False if ``LOCK_NB`` was asked for and somebody else has it.

    :raises OSError: for any other error
    """
    if flock_(fd, operation) == 0:
        return True
    if ctypes.get_errno() == 11:  # EWOULDBLOCK
        return False
    check(-1, "flock")
    return False


def high(fd: int) -> int:
    """*fd* moved above the numbers that a program's own first files get, if there is room; close-on-exec.

    ``open`` gives the lowest free number (POSIX), and some programs count on theirs.
    """
    moved: int = fcntl_(fd, F_DUPFD_CLOEXEC, HIGH)
    if moved < 0:  # EINVAL: RLIMIT_NOFILE is below HIGH
        return fd
    os.close(fd)
    return moved


class Handle:
    """A descriptor that we keep. Daemons close all numbers and then open files of their own, which get ours."""

    __slots__ = ("_key", "_number")

    def __init__(self, fd: int) -> None:
        """
        :param fd: is moved by :func:`high`
        """
        self._number = high(fd)
        st = os.fstat(self._number)
        self._key = (st.st_dev, st.st_ino)

    def number(self) -> int:
        """The descriptor.

        :raises OSError: EBADF, if it isn't the file any more that it was
        """
        st = os.fstat(self._number)
        if (st.st_dev, st.st_ino) != self._key:
            raise OSError(9, "this program has closed a descriptor of collfs")
        return self._number

    def close(self) -> None:
        """Close it if it is still ours."""
        try:
            os.close(self.number())
        except OSError:
            pass


def memfd(name: bytes, content: bytes) -> int:
    """A memory file (man memfd_create(2), flag MFD_CLOEXEC = 1) with *content*; returns its descriptor.

    :raises OSError: if there is none to be had
    """
    if memfd_create_ is None:
        raise OSError(38, "memfd_create is missing: glibc older than 2.27")
    fd = check(memfd_create_(name, 1), "memfd_create")
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    return int(fd)
