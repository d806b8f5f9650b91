"""A read-only file system that passes everything through and writes down every operation that reaches it (FUSE).

It plays the shared file system of a cluster: mounted once in each node's mount namespace, at the same path there, with
one log for each mount. With all time-outs at 0 (the worst case) the kernel asks again for every component of every
path; what it answers from its caches otherwise costs a file server nothing, and isn't counted here either.

Rules of the file: this is what tests use; what serves is a process of its own (countingserver.py).
"""

from __future__ import annotations

import errno
import functools
import importlib.util
import os
import select
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from ctypes.util import find_library
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

#: operations that name a path: what a metadata server has to answer
PATH_KINDS = ("getattr", "access", "readlink", "open", "opendir", "readdir", "statfs")
#: operations on what is open already; page faults of libraries that are mapped come as "read"
DATA_KINDS = ("fstat", "read")
MARK = "/.mark-"
SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "countingserver.py")
READY = 30.0  # seconds that a mount may take


class Op(NamedTuple):
    """One operation. ``process``: who asked (a thread's own process), 0 for the kernel; ``path``: from the mount on."""

    kind: str
    process: int
    path: str


@functools.cache
def why_not() -> str:
    """Why nothing can be mounted here, or an empty string."""
    if os.geteuid():
        return "mounting a file system into a node needs root"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as exc:
        return f"no FUSE here: {exc}"
    if importlib.util.find_spec("mfusepy") is None:
        return "mfusepy is not installed here: pip install mfusepy"
    if not (find_library("fuse3") or find_library("fuse")):
        return "no libfuse here: package libfuse3-3, or libfuse3-4"
    return ""


class CountingMount:
    """*source* mounted at *mountpoint*, as a context manager."""

    def __init__(
        self,
        source: str,
        mountpoint: str,
        log: str,
        *,
        node: int,
        attributes: float = 0.0,
        entries: float = 0.0,
        absences: float = 0.0,
    ) -> None:
        """
        :param mountpoint: an existing directory; may be *source* itself
        :param log: a file that doesn't exist yet
        :param node: pid of a process in whose mount namespace it is mounted
        :param attributes: seconds for which the kernel believes attributes without asking again
        :param entries: the same for the names that exist
        :param absences: the same for those that don't
        """
        self.mountpoint, self.log = mountpoint, log
        self._words = [
            *(sys.executable, SERVER, source, mountpoint, log, "--node", str(node)),
            *("--attributes", str(attributes), "--entries", str(entries), "--absences", str(absences)),
        ]
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> CountingMount:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def start(self) -> None:
        """Mount it.

        :raises RuntimeError: if that fails
        """
        errors = open(f"{self.log}.errors", "wb")  # noqa: SIM115
        with errors:
            server = self._server = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        assert server.stdout is not None
        if not select.select([server.stdout], [], [], READY)[0] or server.stdout.read(1) != b"!":
            self.end()
            raise RuntimeError(f"{self.mountpoint} wasn't mounted: {self.said()}")

    def end(self) -> None:
        """End the server. Whoever uses the mount later gets an error."""
        server, self._server = self._server, None
        if server is not None:
            server.kill()
            server.communicate()

    def said(self) -> str:
        """What the server complained about."""
        with open(f"{self.log}.errors", encoding="utf-8", errors="backslashreplace") as file:
            return file.read()[-2000:]

    def ops(self) -> list[Op]:
        """All operations so far, in order."""
        with open(self.log, "rb") as file:
            return list(parse(file.read()))


def parse(data: bytes) -> Iterator[Op]:
    """Read what a server wrote; a record without its end is not complete yet."""
    for record in data.split(b"\0")[:-1]:
        kind, process, path = record.decode("utf-8", "surrogateescape").split(" ", 2)
        yield Op(kind, int(process), path)


def mark(mountpoint: str, name: str) -> None:
    """Have *name* written into the log of *mountpoint*, as this process sees it. Seen even if absences are believed, as
    long as each name is used once.

    The path is spelled so that an interposer leaves it alone ("//a/b").
    """
    try:
        os.stat(f"/{mountpoint}{MARK}{name}")
    except OSError as exc:
        if exc.errno != errno.ENOENT:
            raise


def between(ops: Sequence[Op], after: Iterable[str], before: Iterable[str]) -> list[Op]:
    """The operations from the last of the marks *after* to the first of the marks *before*.

    :raises AssertionError: if a mark isn't there, or one of *before* comes too early
    """
    at = {op.path[len(MARK) :]: index for index, op in enumerate(ops) if op.path.startswith(MARK)}
    first, last = list(after), list(before)
    missing = [name for name in (*first, *last) if name not in at]
    assert not missing, f"no marks {missing}, only {sorted(at)}"
    start, end = max(at[name] for name in first), min(at[name] for name in last)
    assert start < end, f"marks out of order: {at}"
    return [op for op in ops[start + 1 : end] if not op.path.startswith(MARK)]


@contextmanager
def over_themselves(folder: Path) -> Iterator[Callable[..., CountingMount]]:
    """Mount directories over themselves in the nodes of processes: (directory, pid, ...) as :class:`CountingMount`.

    :param folder: for the logs
    """
    with ExitStack() as stack:

        def start(place: str, pid: int, **more: float) -> CountingMount:
            log = str(folder / f"ops.{pid}{place.replace('/', '.')}")
            return stack.enter_context(CountingMount(place, place, log, node=pid, **more))

        yield start
