"""``struct libc_collfs_api``: the function-pointer table of the proposal of 2011, for the file calls of ``ld.so``.

::

    struct libc_collfs_api {                                     NULL: the original call; its sites stay untouched bytes
      int     (*fxstat64)(int vers, int fd, struct stat64 *buf);
      int     (*xstat64)(int vers, const char *file, struct stat64 *buf);
      int     (*open)(const char *pathname, int flags, mode_t mode);
      int     (*close)(int fd);
      ssize_t (*read)(int fd, void *buf, size_t count);
      off_t   (*lseek)(int fildes, off_t offset, int whence);
      void   *(*mmap)(void *addr, size_t len, int prot, int flags, int fildes, off_t off);
      int     (*munmap)(void *addr, size_t len);
    };

A row may hold machine code (the default: look-ups in the path table), a C function, or, for single-threaded programs,
a Python function (``callbacks.py``). Errors are the C library's: -1 and errno (MAP_FAILED for mmap).

Rules of the file: :data:`ROWS` is the one list; the structure and the layout test follow from it.
"""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, c_char_p, c_int, c_long, c_size_t, c_ssize_t, c_uint, c_void_p

from .machine.layout import ROW_NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .machine.code import Code
    from .machine.layout import Cell

# name, result, arguments; in the order of the structure
ROWS: tuple[tuple[str, type, tuple[type, ...]], ...] = (
    ("fxstat64", c_int, (c_int, c_int, c_void_p)),
    ("xstat64", c_int, (c_int, c_char_p, c_void_p)),
    ("open", c_int, (c_char_p, c_int, c_uint)),
    ("close", c_int, (c_int,)),
    ("read", c_ssize_t, (c_int, c_void_p, c_size_t)),
    ("lseek", c_long, (c_int, c_long, c_int)),
    ("mmap", c_void_p, (c_void_p, c_size_t, c_int, c_int, c_int, c_long)),
    ("munmap", c_int, (c_void_p, c_size_t)),
)
assert tuple(name for name, _, _ in ROWS) == ROW_NAMES

PROTOTYPES = {name: CFUNCTYPE(restype, *argtypes, use_errno=True) for name, restype, argtypes in ROWS}


class LibcCollfsApi(ctypes.Structure):
    """``struct libc_collfs_api``: eight function pointers, 64 bytes. All NULL when made without arguments."""

    _fields_ = [(name, PROTOTYPES[name]) for name, _, _ in ROWS]
    cell: Cell | None = None  # where it is installed

    def addresses(self) -> tuple[int, ...]:
        """The eight pointers as integers, 0 for NULL."""
        return tuple((c_void_p * len(ROWS)).from_buffer_copy(self)[i] or 0 for i in range(len(ROWS)))

    def install(self, cell: Cell) -> None:
        """Give the pointers to the machine code."""
        for i, address in enumerate(self.addresses()):
            cell.api[i] = address
        self.cell = cell

    def stop(self) -> None:
        """Every row is the original call from now on, also at sites that are patched. Harmless if not installed."""
        cell, self.cell = self.cell, None
        if cell is not None:
            for i in range(len(ROWS)):
                cell.api[i] = 0


def default_api(code: Code) -> LibcCollfsApi:
    """Look-ups in the path table for ``open`` and ``xstat64``; for ``fxstat64`` the identity of the original, so that a
    copy and an original that ld.so has loaded are one file. The descriptor handed out is a real one: read, mmap and
    close stay the original calls."""
    api = LibcCollfsApi()
    api.open = PROTOTYPES["open"](code.base + code.header.api_open)
    api.fxstat64 = PROTOTYPES["fxstat64"](code.base + code.header.api_fxstat64)
    api.xstat64 = PROTOTYPES["xstat64"](code.base + code.header.api_xstat64)
    return api
