"""The shared file server of the laboratory: a program, one process for each mount, all in front of one queue.

::

    python storageserver.py SPEC.json

    SPEC   {"queue": FILE, "load": {...}, "mounts": [{"source", "mountpoint", "log", "node"}, ...]}
    node   the process in whose mount namespace SOURCE appears at MOUNTPOINT, read-only

It says "!" on standard output for each mount that is there. Each mount writes two files: LOG, one record for each
operation as countingserver.py has them, and LOG.bytes, the number of bytes that were read.

A mount is made by a child in the node's namespace and served by another one outside, through the same descriptor of
/dev/fuse (libfuse takes ``/dev/fd/N`` for a mount that is there already). So a server may have threads, which the
nodes' readers need: a file system client has many requests under way, and with one thread they would wait for each
other here instead of in the queue.

Rules of the file: never imported by the laboratory's own process; it is ended by SIGKILL, with its process group.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import mmap
import os
import signal
import sys
from typing import TYPE_CHECKING

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "tests", "helpers"))

import countingfs  # noqa: E402
import countingserver  # noqa: E402
from queueing import WORD, Load, SharedQueue  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

_CLONE_NEWNS = 0x00020000  # <linux/sched.h>
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4  # <sys/mount.h>
_PR_SET_PDEATHSIG, _PR_SET_TIMERSLACK = 1, 29  # <sys/prctl.h>
_THREADS = 32  # requests of one node under way; libfuse's default is 10

libc = ctypes.CDLL(None, use_errno=True)


class Bounded(countingserver.PassThrough):
    """One mount: counts, and waits for its turn in the queue of all mounts. Marks cost nothing."""

    def __init__(self, source: str, log: str, asker: Callable[[], tuple[int, int, int]], queue: SharedQueue) -> None:
        super().__init__(source, log, asker)
        self._queue = queue
        fd = os.open(f"{log}.bytes", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        os.ftruncate(fd, WORD)
        self._bytes = memoryview(mmap.mmap(fd, WORD)).cast("q")
        os.close(fd)

    def seen(self, kind: str, path: str) -> str:
        """Write it down; then, if it is metadata, wait for the answer of the queue."""
        found = super().seen(kind, path)
        if kind != "read" and not path.startswith(countingfs.MARK):
            self._queue.metadata()
        return found

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        data = super().read(path, size, offset, fh)
        self._bytes[0] += len(data)
        self._queue.transfer(len(data))
        return data

    def init(self, path: str) -> None:
        """The mount is served."""
        os.write(1, b"!")


def check(answer: int, what: str) -> None:
    """
    :raises OSError: if a call of the C library has failed
    """
    if answer:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def mount(fuse: int, mountpoint: str, node: int) -> None:
    """Mount the file system that *fuse* will serve, in the mount namespace of *node*.

    :raises OSError: if it can't be
    """
    pid = os.fork()
    if not pid:
        try:
            namespace = os.open(f"/proc/{node}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            check(libc.setns(namespace, _CLONE_NEWNS), "setns")
            data = f"fd={fuse},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}".encode()  # mount.fuse(8)
            flags = ctypes.c_ulong(_MS_RDONLY | _MS_NOSUID | _MS_NODEV)
            check(libc.mount(b"storm", os.fsencode(mountpoint), b"fuse", flags, data), "mount")
            os._exit(0)
        except OSError as exc:
            os.write(2, f"{mountpoint} of {node}: {exc}\n".encode())
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1]:
        raise OSError(f"{mountpoint} could not be mounted in the namespace of {node}")


def serve(fuse: int, source: str, log: str, queue: str, load: Load) -> None:
    """Answer what comes through *fuse*, until the mount is gone."""
    mfusepy = importlib.import_module("mfusepy")  # has no types to import
    operations = Bounded(source, log, mfusepy.fuse_get_context, SharedQueue(queue, load))
    mfusepy.FUSE(
        operations,
        f"/dev/fd/{fuse}",
        foreground=True,
        fsname="storm",
        max_threads=_THREADS,
        use_ino=True,  # ld.so knows a library by its inode
        kernel_cache=True,  # the files don't change: pages that were read once stay
        attr_timeout=load.attributes,
        entry_timeout=load.entries,
        negative_timeout=load.negatives,
    )


def main(spec: str) -> None:
    """Make all mounts of *spec* and serve them."""
    with open(spec, encoding="utf-8") as file:
        given = json.load(file)
    load = Load(**given["load"])
    importlib.import_module("mfusepy")  # once for all children
    libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)  # nanoseconds; threads inherit it: an answer is due when it is due
    for one in given["mounts"]:
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        mount(fuse, one["mountpoint"], one["node"])
        if not os.fork():
            libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            serve(fuse, one["source"], one["log"], given["queue"], load)
            os._exit(0)
        os.close(fuse)
    while True:
        os.wait()


if __name__ == "__main__":
    main(sys.argv[1])
