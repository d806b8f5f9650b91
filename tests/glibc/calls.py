"""Run by test_builds.py on another glibc: is each exported function that takes a path hooked, and all undone?

Called with a standard library to manage and an empty directory. Ends with status 1 and a line for each fault.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
import threading

import collfs
from collfs.interpose.image import objects

stdlib, work = sys.argv[1:]
sys.dont_write_bytecode = True
faults = []
buffer = ctypes.create_string_buffer(4096)

# Arguments of each function: "p" a managed path, "d" AT_FDCWD, "b" a buffer. What a libc doesn't export is passed over.
READING = {
    "open": ("p", 0),
    "openat": ("d", "p", 0),
    "access": ("p", 0),
    "faccessat": ("d", "p", 0, 0),
    "readlink": ("p", "b", 99),
    "readlinkat": ("d", "p", "b", 99),
    "stat": ("p", "b"),
    "lstat": ("p", "b"),
    "fstatat": ("d", "p", "b", 0),
    "__xstat": (1, "p", "b"),
    "__lxstat": (1, "p", "b"),
    "__fxstatat": (1, "d", "p", "b", 0),
    "statx": ("d", "p", 0, 2047, "b"),
}
WRITING = {
    "open": ("p", os.O_WRONLY),
    "openat": ("d", "p", os.O_WRONLY | os.O_CREAT, 0o600),
    "creat": ("p", 0o600),
    "mkdir": ("p", 0),
    "mkdirat": ("d", "p", 0),
    "mknodat": ("d", "p", 0, 0),
    "unlink": ("p",),
    "unlinkat": ("d", "p", 0),
    "rmdir": ("p",),
    "rename": ("p", "p"),
    "renameat": ("d", "p", "d", "p"),
    "link": ("p", "p"),
    "linkat": ("d", "p", "d", "p", 0),
    "symlink": ("p", "p"),
    "symlinkat": ("p", "d", "p"),
    "truncate": ("p", 0),
    "chmod": ("p", 0),
    "fchmodat": ("d", "p", 0, 0),
    "chown": ("p", -1, -1),
    "lchown": ("p", -1, -1),
    "fchownat": ("d", "p", -1, -1, 0),
    "utimensat": ("d", "p", None, 0),
    "setxattr": ("p", "p", "b", 0, 0),
    "removexattr": ("p", "p"),
}
HANDS_OUT = ("open", "openat", "creat")


def texts():
    return [ctypes.string_at(start, end - start) for image in objects().values() for start, end in image.text]


def call(library, name, form, path):
    """Whether *library* has *name*; then it was called."""
    function = getattr(library, name, None)
    if function is None:
        return False
    got = function(*[{"p": path, "d": -100, "b": buffer}.get(item, item) for item in form])
    if name in HANDS_OUT and got >= 0:
        os.close(got)
    return True


def seen(session):
    """(answers, invalidations) so far."""
    counts = session.interposer.counts()
    changes = sum(counts.pop("change").values())
    return sum(sum(outcomes.values()) for outcomes in counts.values()), changes


def read_all(session, when):
    path = os.fsencode(stdlib + "/abc.py")
    for library in libraries:
        for name, form in READING.items():
            old = seen(session)[0]
            if call(library, name, form, path) and seen(session)[0] == old:
                faults.append(f"{when}: {name} of {library._name} is not hooked")


def write_all(session, when):
    path = os.fsencode(work + "/new")
    for library in libraries:
        for name, form in WRITING.items():
            old = seen(session)[1]
            if call(library, name, form, path) and seen(session)[1] == old:
                faults.append(f"{when}: {name} of {library._name} doesn't invalidate")


before = texts()
libraries = [
    ctypes.CDLL(file, use_errno=True)
    for name, file in (("libc", "libc.so.6"), ("libpthread", "libpthread.so.0"))
    if name in objects()
]
several = "thread" in os.environ.get("COLLFS_TEST_INSTALL", "")
stop = threading.Event()
thread = threading.Thread(target=stop.wait, daemon=True)
if several:
    thread.start()
with collfs.session("local", prefixes=[stdlib, work], manifest="none") as session:
    if session.idle:
        raise SystemExit("idle: " + session.idle)
    assert session.interposer is not None
    for name in ("argparse", "configparser", "decimal", "fractions", "json.tool", "optparse"):
        importlib.import_module(name)
    if os.listdir(stdlib + "/json") == []:
        faults.append("an empty listing")
    counts = session.interposer.counts()
    for name, least in (("open", 5), ("stat", 20), ("opendir", 1)):
        if counts[name]["redirected"] < least:
            faults.append(f"{name}: {counts[name]}")
    if not session.interposer.row_calls()["open"]:
        faults.append("ld.so opened nothing by the table")
    read_all(session, f"threads: {several}")
    write_all(session, f"threads: {several}")
    if not several:  # glibc has other code for a process with more than one thread
        thread.start()
        read_all(session, "then with threads")
        write_all(session, "then with threads")
    sites = session.interposer.sites_by_object()
stop.set()
thread.join()
if session.messages.warnings:
    faults.append(f"warnings: {session.messages.warnings}")
if texts() != before:
    faults.append("the text is not as it was")
print(sites)
print("\n".join(faults))
raise SystemExit(bool(faults))
