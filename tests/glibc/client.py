"""Run by test_builds.py on another glibc: a client of the C interface gets every call of ld.so, and all is undone.

Called with a directory for what :func:`build` has made: without the C library, so that it can be loaded by each one.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from pathlib import Path

CLIENT = r"""
#include <collfs.h>
long calls[8];
static long sys(long nr, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
  long r;
  __asm__ volatile("syscall" : "=a"(r) : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return r < 0 ? -1 : r;
}
#define ROW(i, nr, ...) (calls[i]++, sys(nr, __VA_ARGS__))
static int fxstat64(int v, int fd, struct stat64 *b) { return v == 1 ? (int)ROW(0, 5, fd, (long)b, 0, 0, 0, 0) : -1; }
static int xstat64(int v, const char *p, struct stat64 *b) {
  return v == 1 ? (int)ROW(1, 4, (long)p, (long)b, 0, 0, 0, 0) : -1;
}
static int open(const char *p, int f, mode_t m) { return (int)ROW(2, 2, (long)p, f, m, 0, 0, 0); }
static int close(int fd) { return (int)ROW(3, 3, fd, 0, 0, 0, 0, 0); }
static ssize_t read(int fd, void *b, size_t n) { return ROW(4, 0, fd, (long)b, (long)n, 0, 0, 0); }
static off_t lseek(int fd, off_t o, int w) { return ROW(5, 8, fd, o, w, 0, 0, 0); }
static void *mmap(void *a, size_t n, int p, int f, int fd, off_t o) {
  return (void *)ROW(6, 9, (long)a, (long)n, p, f, fd, o);
}
static int munmap(void *a, size_t n) { return (int)ROW(7, 11, (long)a, (long)n, 0, 0, 0, 0); }
const struct libc_collfs_api table = {fxstat64, xstat64, open, close, read, lseek, mmap, munmap};
"""


def build(folder: Path) -> None:
    """Make client.so, and answer.so, whose program headers ld.so must read by pread.

    :raises FileNotFoundError: without a C compiler
    """
    import collfs

    (folder / "client.c").write_text(CLIENT)
    (folder / "answer.c").write_text("int answer(void) { return 42; }\n")
    for name in ("client", "answer"):
        words = ["gcc", "-shared", "-fPIC", "-O1", "-nostdlib", "-fno-stack-protector", f"-I{collfs.get_include()}"]
        subprocess.run([*words, f"{name}.c", "-o", f"{name}.so"], cwd=folder, check=True, timeout=60)
    data = bytearray((folder / "answer.so").read_bytes())
    start, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    data += bytes(-len(data) % 8)
    struct.pack_into("<Q", data, 32, len(data))
    data += data[start : start + 56 * count]
    (folder / "answer.so").write_bytes(data)


def main(folder: str) -> None:
    """Load, call, close, and look at the bytes."""
    import _ctypes

    import collfs
    import patchstate

    def load() -> None:
        handle = _ctypes.dlopen(folder + "/answer.so", os.RTLD_NOW)
        assert ctypes.PyDLL(None, handle=handle).answer() == 42
        _ctypes.dlclose(handle)

    load()
    before = patchstate.texts()
    library = collfs.export_c_api()
    client = ctypes.CDLL(folder + "/client.so")
    calls = (ctypes.c_long * 8).in_dll(client, "calls")
    load()
    assert calls[:] == [0] * 8
    table = ctypes.c_char.in_dll(client, "table")
    assert library.collfsinitialize(ctypes.byref(table)) == 0, ctypes.get_errno()
    load()
    made = calls[:]
    # xstat64 is for directories in which a search fails; here is none
    assert all(count for row, count in enumerate(made) if row != 1), made
    library.collfsfinalize()
    assert not patchstate.changed(before)
    load()
    assert calls[:] == made
    print("calls", made)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "helpers"))
    main(sys.argv[1])
