"""A program: a C thread that waits in the kernel is cancelled while sites are patched or have been.

Arguments: the name of a fifo to make, ``open`` or ``read``, the steps in their order (``install``, ``start`` the
thread, ``uninstall``), and the library that :func:`build` makes.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import subprocess
import sys
from pathlib import Path

WAITER = r"""
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>
char *name;
int fd, cleaned;
static void clean(void *x) { (void)x; cleaned++; }
void *wait_in_open(void *x) {
  pthread_cleanup_push(clean, x);
  open(name, O_RDONLY);
  pthread_cleanup_pop(0);
  return 0;
}
void *wait_in_read(void *x) {
  char b;
  pthread_cleanup_push(clean, x);
  read(fd, &b, 1);
  pthread_cleanup_pop(0);
  return 0;
}
"""
NUMBERS = {"open": "257", "read": "0"}  # openat, read: arch/x86/entry/syscalls/syscall_64.tbl
CANCELED = 2**64 - 1  # PTHREAD_CANCELED


def build(folder: Path) -> Path:
    """Compile the code that waits, without Python in it, and for any glibc: -nostdlib leaves symbols without versions.

    :raises FileNotFoundError: there is no compiler
    """
    (folder / "waiter.c").write_text(WAITER)
    library = folder / "waiter.so"
    command: list[str | Path] = ["gcc", "-w", "-shared", "-fPIC", "-nostdlib", folder / "waiter.c", "-o", library]
    subprocess.run(command, check=True, timeout=60)
    return library


def tasks() -> set[str]:
    """The threads of this process."""
    return set(os.listdir("/proc/self/task"))


def until_it_waits(known: set[str], number: str) -> None:
    """Return when the one thread that isn't in *known* is in the system call *number*."""
    while True:
        new = tasks() - known
        if len(new) == 1:
            with open(f"/proc/self/task/{new.pop()}/syscall", encoding="ascii") as file:
                if file.read().split()[0] == number:
                    return


def main(fifo: str, kind: str, steps: str, library: str) -> int:
    """Do *steps*, cancel the thread, look whether it ended as POSIX says and the text is as it was."""
    from collfs.interpose.interposer import Interposer
    from patchstate import changed, texts

    faulthandler.dump_traceback_later(40, exit=True)
    before, known = texts(), tasks()
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "pthread_cancel"):  # glibc <= 2.33
        libc = ctypes.CDLL("libpthread.so.0")
    libc.pthread_create.argtypes = [ctypes.POINTER(ctypes.c_ulong), *[ctypes.c_void_p] * 3]
    libc.pthread_join.argtypes = [ctypes.c_ulong, ctypes.POINTER(ctypes.c_void_p)]
    libc.pthread_cancel.argtypes = [ctypes.c_ulong]
    os.mkfifo(fifo)
    reading, writing = os.pipe()
    code = ctypes.CDLL(library)
    name = os.fsencode(fifo)  # must outlive the call
    ctypes.c_char_p.in_dll(code, "name").value = name
    ctypes.c_int.in_dll(code, "fd").value = reading
    function = ctypes.cast(getattr(code, f"wait_in_{kind}"), ctypes.c_void_p)
    thread, value, interposer = ctypes.c_ulong(), ctypes.c_void_p(), Interposer()
    for step in steps.split():
        if step == "start":
            assert libc.pthread_create(thread, None, function, None) == 0
            until_it_waits(known, NUMBERS[kind])
        else:
            getattr(interposer, step)()
    assert libc.pthread_cancel(thread) == 0
    assert libc.pthread_join(thread, value) == 0
    assert value.value == CANCELED, value
    assert ctypes.c_int.in_dll(code, "cleaned").value == 1
    if interposer.patches:
        interposer.uninstall()
    assert changed(before) == set()
    os.close(writing)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
