"""A process finds its node's server, or starts it.

Rules of the file: no zmq; one process of the node starts the server, the others wait for it; the server inherits no
descriptor, so that no launcher waits for it, and is nobody's child.
"""

from __future__ import annotations

import os
import sys
import time
from errno import ECHILD

from collfs import _libc
from collfs.errors import TransportUnavailable
from collfs.store.node import wait_for_lock

from .local import NAME, Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LOG = "server.log"
COARSE = 10_000_000  # nanoseconds: times of files are those of the last tick of the kernel's clock


def find(store: str, seconds: float) -> Link | None:
    """The server of the node store, if there is one."""
    try:
        return Link(f"{store}/{NAME}", seconds)
    except OSError:
        return None


def find_or_start(store: str, seconds: float, words: Sequence[str]) -> Link:
    """The server of the node store; started with *words* (of :func:`.serve.started`) if there is none.

    :raises TransportUnavailable: if it can't be started, with what it says
    """
    end, begun = time.monotonic() + seconds, time.time_ns()
    link = find(store, seconds)
    if link is not None:
        return link
    lock = os.open(f"{store}/starting", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not wait_for_lock(lock, _libc.LOCK_EX, seconds):
            raise TransportUnavailable(f"transport 'zmq': nobody could start the server within {seconds:g} s")
        link = find(store, seconds)
        if link is not None:
            return link
        said = os.pread(lock, 4096, 0).decode("utf-8", "replace")
        # somebody has just failed, while this process waited for him
        if said and os.fstat(lock).st_mtime_ns > begun - COARSE:
            raise TransportUnavailable(f"transport 'zmq': the server of this node doesn't start: {said}")
        said = _start(store, words, max(end - time.monotonic(), 1.0))
        link = find(store, seconds)
        if link is None:
            os.ftruncate(lock, 0)
            os.pwrite(lock, said.encode("utf-8", "replace")[:4000], 0)
            raise TransportUnavailable(f"transport 'zmq': the server of this node doesn't start: {said}")
        return link
    finally:
        os.close(lock)


def _start(store: str, words: Sequence[str], seconds: float) -> str:
    """Start the server; what it says when it is ready, or why it isn't."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    log = os.open(f"{store}/{LOG}", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    command = [sys.executable, "-c", _PROGRAM, str(write), *words, f"inside={store}", f"ready={write}"]
    environ = {key: value for key, value in os.environ.items() if key != "COLLFS_MPI_PID"}
    try:
        pid = os.posix_spawn(
            sys.executable,
            command,
            environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, null, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
        )
    except OSError as exc:
        return f"{sys.executable}: {exc.strerror}"
    finally:
        for fd in (write, null, log):
            os.close(fd)
    said = _hear(read, seconds)
    try:
        os.waitpid(pid, 0)  # it has left its grandchild behind, at once
    except OSError as exc:
        if exc.errno != ECHILD:
            raise
    return said or _tail(f"{store}/{LOG}")


# A session of its own, no descriptor but the three and the pipe, and no parent.
_PROGRAM = """
import os, sys
keep = int(sys.argv[1])
if os.fork():
    os._exit(0)
os.setsid()
os.closerange(3, keep)
os.closerange(keep + 1, 65536)
sys.argv[1:2] = []
if sys.path[:1] == [""]:  # of -c: the current directory
    del sys.path[0]
from collfs import use_bundle
use_bundle()
try:
    from collfs_zmq.serve import started
except ModuleNotFoundError as exc:
    if exc.name != "zmq":
        raise
    sys.exit('collfs serve: needs pyzmq: pip install "collfs[zmq]"')
sys.exit(started(sys.argv[1:]))
"""


def _hear(fd: int, seconds: float) -> str:
    """What the server writes when it is ready."""
    import select

    said, end = b"", time.monotonic() + seconds
    try:
        while True:
            ready, _, _ = select.select([fd], [], [], max(end - time.monotonic(), 0))
            if not ready:
                return "it is silent"
            piece = os.read(fd, 4096)
            if not piece:
                return said.decode("utf-8", "replace")
            said += piece
    finally:
        os.close(fd)


def _tail(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return " / ".join(file.read().strip().splitlines()[-3:])
    except OSError:
        return "no reason is known"
