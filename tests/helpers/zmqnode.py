"""Nodes of transport zmq on one machine: a store directory each, servers started by hand, programs that talk to a test.

A node is a store: whoever shares one shares a node, so several nodes live side by side without any rights.

Rules of the file: what is started here is ended by pid, in any case; every wait has a limit; a store is removed
whatever is left in it.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from ast import literal_eval
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from childproc import clean_env
from collfs.store.node import remove_tree
from collfs_zmq.local import STOP, peer
from collfs_zmq.start import find

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stracecount import Counts, Op

HELPERS = os.path.dirname(os.path.abspath(__file__))
STEP = 30.0  # seconds for each of the small steps

#: What every program begins with. ``start`` is a session of the node that COLLFS_STORE names.
MARK = "/collfs-test/live"  # is looked at when the hooks are live
HEAD = (
    f"""
import json, os, sys
MARK = {MARK!r}
"""
    """
TREE = os.environ["TREE"]
def tell(**values):
    sys.stdout.write(json.dumps(values) + "\\n")
    sys.stdout.flush()
def hear():
    return sys.stdin.readline()
def start(transport="zmq", **options):
    import collfs
    given = dict(prefixes=[TREE], manifest="none", patience=20)
    session = collfs.initialize(transport, **{**given, **options})
    assert not session.idle, session.idle
    os.path.exists(MARK)
    sys.path.insert(0, TREE)
    return session
def native():
    import collfs
    return {name: row["native"] for name, row in collfs.stats()["calls"].items() if row["native"]}
def trouble(session):
    return [session.fetcher.silences, session.fetcher.dead, session.transport.failure, session.fetcher.stager.trouble]
"""
)

#: All that can be seen of a tree, by Python's own means: ``look(folder)``.
LOOK = """
def look(folder):
    import hashlib, os
    seen = {}
    for here, folders, files in sorted(os.walk(folder)):
        folders.sort()
        for name in sorted(folders + files):
            path = os.path.join(here, name)
            st = os.lstat(path)
            seen[path] = [st.st_mode, st.st_size, st.st_mtime_ns]
            if name in folders:  # a file's copy has numbers of its own, a directory answers for the original
                seen[path] += [st.st_dev, st.st_ino]
                continue
            with open(path, "rb") as file:
                seen[path].append(hashlib.sha256(file.read()).hexdigest())
    for name in ("nothing", "data0/nothing"):
        try:
            os.stat(os.path.join(folder, name))
        except OSError as exc:
            seen[name] = exc.errno
    return seen
"""


def environment(tree: os.PathLike[str], job: str, store: str, more: Mapping[str, str | None]) -> dict[str, str]:
    """For a program or a server of *job* on the node *store*."""
    paths = [HELPERS, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    given: dict[str, str | None] = {
        "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TREE": os.fspath(tree),
        "COLLFS_JOB": job,
        "COLLFS_STORE": store,
        "XDG_CACHE_HOME": f"{store}/.cache",
    }
    return clean_env({**given, **more})


#: as sitecustomize.py: the library that pyzmq's wheel brings can't be found
NO_LIBRARY = """
import os
listdir = os.listdir
def without(path="."):
    if str(path).endswith("pyzmq.libs"):
        raise FileNotFoundError(2, "none", path)
    return listdir(path)
os.listdir = without
"""


class Stores:
    """Makes node-local directories, ends the servers that are left in them and removes them."""

    def __init__(self) -> None:
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.mkdtemp(prefix="collfs-test-", dir=base)
        self._numbers = itertools.count()

    def new(self) -> str:
        """A node."""
        path = f"{self.folder}/node{next(self._numbers)}"
        os.mkdir(path)
        return path

    def close(self) -> None:
        """End and remove all."""
        for node in os.scandir(self.folder):
            for path in inside(node.path):
                end_server(path)
                remove_tree(path)
        shutil.rmtree(self.folder, ignore_errors=True)


def inside(node: str) -> list[str]:
    """The stores of the node that are there."""
    return [str(path) for path in Path(node).glob("collfs-*") if path.is_dir()]


def server_pid(store: str) -> int:
    """Who serves *store*; 0: nobody."""
    link = find(store, STEP)
    if link is None:
        return 0
    pid, _ = peer(link.sock)
    link.close()
    return pid


def end_server(store: str) -> None:
    """End the server of *store*, if there is one: gently, then by its pid."""
    pid = server_pid(store)
    link = find(store, STEP) if pid else None
    if link is None:
        return
    process = os.pidfd_open(pid)
    try:
        with suppress(OSError):
            link.send(STOP)
        link.close()
        if not select.select([process], [], [], 10)[0]:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], STEP)
    finally:
        os.close(process)


class Watched:
    """A process that is nobody's child here, such as a server that another process started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._fd = os.pidfd_open(pid)

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, waiting at most so long."""
        return bool(select.select([self._fd], [], [], seconds)[0])

    def kill(self) -> None:
        """End it at once, and wait until it has."""
        signal.pidfd_send_signal(self._fd, signal.SIGKILL)
        assert self.ended(STEP)

    def close(self) -> None:
        """Watch no more."""
        os.close(self._fd)


def live_ops(counts: Counts, *prefixes: os.PathLike[str]) -> dict[int, list[Op]]:
    """What each process that has a session did below *prefixes* after its hooks were live."""
    found: dict[int, list[Op]] = {}
    below = set(counts.below(*prefixes).ops)
    for op in counts.ops:
        if op.path == MARK:
            found.setdefault(op.process, [])
        elif op.process in found and op in below:
            found[op.process].append(op)
    return found


def report_in(log: str) -> dict[str, int]:
    """The counters that a server gave when it ended."""
    ends = [line for line in log.splitlines() if "ends: " in line]
    assert ends, log
    found = literal_eval(ends[-1][ends[-1].index("{") :])
    assert isinstance(found, dict)
    return found


class Child:
    """A process of ours with a log: what it says on standard output can be awaited line by line."""

    def __init__(self, folder: Path, command: Sequence[str], env: Mapping[str, str], fds: Sequence[int] = ()) -> None:
        self.log_path = folder / "log"
        self._rest = b""
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env,
                cwd=folder,
                pass_fds=fds,
                start_new_session=True,
            )
        self.pid = self.process.pid

    def log(self) -> str:
        """What it said on standard error."""
        return self.log_path.read_text(encoding="utf-8", errors="backslashreplace")

    def line(self, seconds: float = STEP) -> str:
        """The next line of its standard output; empty at its end.

        :raises AssertionError: if none comes in time
        """
        assert self.process.stdout is not None
        end, fd = time.monotonic() + seconds, self.process.stdout.fileno()
        while b"\n" not in self._rest:
            if not select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
                raise AssertionError(
                    f"{self.process.args!r} says nothing for {seconds} s\n{self._rest!r}\n{self.log()}"
                )
            piece = os.read(fd, 65536)
            if not piece:
                return ""
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("utf-8", "backslashreplace")

    def wait(self, seconds: float = STEP) -> int:
        """Its exit status.

        :raises AssertionError: if it doesn't end in time
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.process.args!r} is there after {seconds} s\n{self.log()}") from None

    def stop(self) -> None:
        """End it, with all that it started and that hasn't left its session."""
        if self.process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)  # not reaped yet: the number can't be another's
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        self.process.wait(STEP)


class Program(Child):
    """Program text under ``HEAD``: it tells (JSON lines), hears, and ends."""

    def told(self, key: str, seconds: float = STEP) -> object:
        """The value of *key*, as soon as the program tells it.

        :raises AssertionError: if it ends before, or that takes too long
        """
        return self.told_all(key, seconds)[key]

    def told_all(self, key: str, seconds: float = STEP) -> dict[str, object]:
        """What the program tells together with *key*; otherwise as :meth:`told`."""
        while True:
            line = self.line(seconds)
            if not line:
                raise AssertionError(f"it ended ({self.wait()}) without telling {key!r}\n{self.log()}")
            values: dict[str, object] = json.loads(line)
            if key in values:
                return values

    def say(self, text: str = "go") -> None:
        """A line for its ``hear``."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def end(self, seconds: float = STEP) -> dict[str, object]:
        """All that it tells until its end, which has to be a good one."""
        found: dict[str, object] = {}
        end = time.monotonic() + seconds
        while True:
            line = self.line(max(0.1, end - time.monotonic()))
            if not line:
                break
            found.update(json.loads(line))
        rc = self.wait(max(0.1, end - time.monotonic()))
        assert rc == 0, f"exit status {rc}, told {found}\n{self.log()}"
        return found


class Server(Child):
    """``collfs serve`` by hand, ready. ``address``: what others give as ``--root``; empty if it takes none."""

    address = ""

    def __init__(self, folder: Path, command: Sequence[str], env: Mapping[str, str], seconds: float = STEP) -> None:
        read, write = os.pipe()
        try:
            super().__init__(folder, [*command, "--ready", str(write)], env, [write])
        finally:
            os.close(write)
        try:
            said = os.read(read, 4096).decode() if select.select([read], [], [], seconds)[0] else "nothing"
        finally:
            os.close(read)
        if said != "ready":
            self.stop()
            raise AssertionError(f"the server says {said!r}\n{self.log()}")
        if "serving this node" not in self.log():
            self.address = self.line()

    def report(self) -> dict[str, int]:
        """Its counters, when it has ended."""
        return report_in(self.log())


def python(*words: str) -> list[str]:
    """A command of this interpreter."""
    return [sys.executable, *words]
