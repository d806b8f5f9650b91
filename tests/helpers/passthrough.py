"""A client of the C interface that passes every call on to the kernel, counts it, and fails when it is told to.

Its functions don't use the C library's file calls, because what is tested must not depend on them.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: The rows, and what tests read and set. A library of them needs no more (tests/patch).
ROWS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
/* in the order of the table: how often called; what to fail with (errno, 0: don't) */
long calls[8];
int fail[8];
const char *only = ""; /* open and xstat64 fail only for names with this in them */
static int failing(int row, const char *name) {
  calls[row]++;
  if (!fail[row] || (name && !strstr(name, only))) return 0;
  errno = fail[row];
  return 1;
}
int row_fxstat64(int v, int fd, struct stat64 *b) {
  return failing(0, 0) || v != 1 ? -1 : (int)syscall(SYS_fstat, fd, b);
}
int row_xstat64(int v, const char *p, struct stat64 *b) {
  return failing(1, p) || v != 1 ? -1 : (int)syscall(SYS_stat, p, b);
}
int row_open(const char *p, int f, mode_t m) { return failing(2, p) ? -1 : (int)syscall(SYS_open, p, f, m); }
int row_close(int fd) { return failing(3, 0) ? -1 : (int)syscall(SYS_close, fd); }
ssize_t row_read(int fd, void *b, size_t n) { return failing(4, 0) ? -1 : syscall(SYS_read, fd, b, n); }
off_t row_lseek(int fd, off_t o, int w) { return failing(5, 0) ? -1 : syscall(SYS_lseek, fd, o, w); }
void *row_mmap(void *a, size_t n, int p, int f, int fd, off_t o) {
  return failing(6, 0) ? MAP_FAILED : (void *)syscall(SYS_mmap, a, n, p, f, fd, o);
}
int row_munmap(void *a, size_t n) { return failing(7, 0) ? -1 : (int)syscall(SYS_munmap, a, n); }
"""

SOURCE = (
    ROWS
    + r"""
#include <collfs.h>
const struct libc_collfs_api all = {row_fxstat64, row_xstat64, row_open, row_close,
                                    row_read,     row_lseek,   row_mmap, row_munmap};
"""
)

# For a program. Client(path).use(row, ...) installs the functions of these rows, of all rows without an argument.
LOAD = """
import ctypes
import collfs
class Client:
    names = ("fxstat64", "xstat64", "open", "close", "read", "lseek", "mmap", "munmap")
    def __init__(self, path):
        collfs.export_c_api()
        library, self.c = ctypes.CDLL(path), ctypes.CDLL(None, use_errno=True)
        self.c.collfsfinalize.restype = None
        self.all = (ctypes.c_void_p * 8).in_dll(library, "all")
        self.calls = (ctypes.c_long * 8).in_dll(library, "calls")
        self.fail = (ctypes.c_int * 8).in_dll(library, "fail")
        self.only = ctypes.c_char_p.in_dll(library, "only")
    def use(self, *rows):
        table = (ctypes.c_void_p * 8)()
        for i, name in enumerate(self.names):
            table[i] = self.all[i] if name in rows or not rows else None
        assert self.c.collfsinitialize(table) == 0, ctypes.get_errno()
    def stop(self):
        self.c.collfsfinalize()
    def called(self):
        return {name for name, count in zip(self.names, self.calls) if count}
    def failing(self, **rows):
        for i, name in enumerate(self.names):
            self.fail[i] = rows.get(name, 0)
"""


def build(folder: Path) -> Path:
    """Compile it; the library."""
    import collfs

    source, library = folder / "passthrough.c", folder / "passthrough.so"
    source.write_text(SOURCE)
    words = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-z,now", f"-I{collfs.get_include()}"]
    subprocess.run(["gcc", *words, str(source), "-o", str(library)], check=True, timeout=60)
    return library
