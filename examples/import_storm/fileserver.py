"""The shared file server as the laboratory sees it: started before a run, asked afterwards what has reached it.

Every node has a mount of its own at the path where the directory always is, with dentry and page caches of its own;
behind all of them is one queue (queueing.py). What serves is a program of its own (storageserver.py).

Rules of the file: whatever is started here ends with its context; an operation is what reached the server, never what
the kernel of a node answered from its caches.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import countingfs
import queueing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "storageserver.py")
READY = 60.0  # seconds that all mounts of a run may take


class FileServer:
    """*places* of every node in front of one queue, as a context manager."""

    def __init__(self, folder: Path, load: queueing.Load, nodes: Sequence[int], places: Sequence[str]) -> None:
        """
        :param folder: an empty directory, outside of *places*
        :param nodes: pid of a process in each node
        :param places: directories that are mounted over themselves there
        """
        self.folder, self.places, self.nodes = folder, tuple(places), tuple(nodes)
        queue = f"{folder}/queue"
        queueing.create(queue, load)
        self._logs = [[f"{folder}/{node}.{which}" for which in range(len(places))] for node in range(len(nodes))]
        mounts = [
            {"source": place, "mountpoint": place, "log": log, "node": pid}
            for pid, logs in zip(nodes, self._logs)
            for place, log in zip(places, logs)
        ]
        spec = folder / "spec.json"
        spec.write_text(json.dumps({"queue": queue, "load": load._asdict(), "mounts": mounts}))
        self._words = [sys.executable, PROGRAM, str(spec)]
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> FileServer:
        """Mount all.

        :raises RuntimeError: if that fails
        """
        with open(self.folder / "errors", "wb") as errors:
            server = self._server = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
        assert server.stdout is not None
        there, end = 0, time.monotonic() + READY
        while there < len(self.places) * len(self.nodes):
            left = max(0.0, end - time.monotonic())
            said = os.read(server.stdout.fileno(), 4096) if select.select([server.stdout], [], [], left)[0] else b""
            if not said:
                self._end()
                raise RuntimeError(f"the file server wasn't mounted: {(self.folder / 'errors').read_text()[-2000:]}")
            there += len(said)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            os.killpg(server.pid, signal.SIGKILL)  # not reaped yet: the number can't be another's
            server.communicate()

    def ops(self, node: int) -> list[countingfs.Op]:
        """What has reached the server from a node so far, place by place; marks stay marks, other paths are whole."""
        found = []
        for place, log in zip(self.places, self._logs[node]):
            with open(log, "rb") as file:
                for op in countingfs.parse(file.read()):
                    whole = op.path if op.path.startswith(countingfs.MARK) else place + op.path.rstrip("/")
                    found.append(op._replace(path=whole))
        return found

    def split(self, node: int, live: Sequence[tuple[str, int]]) -> tuple[list[countingfs.Op], list[countingfs.Op]]:
        """What has come from a node before collfs was active there, and afterwards.

        :param live: name of the mark that each rank of the node has set then, and its process; what other processes do
            belongs to the time afterwards as soon as all ranks are active
        :raises AssertionError: if a mark is missing
        """
        before: list[countingfs.Op] = []
        after: list[countingfs.Op] = []
        for place, log in zip(self.places, self._logs[node]):
            with open(log, "rb") as file:
                ops = list(countingfs.parse(file.read()))
            at = {op.path[len(countingfs.MARK) :]: i for i, op in enumerate(ops) if op.path.startswith(countingfs.MARK)}
            missing = [name for name, _ in live if name not in at]
            assert not missing, f"no marks {missing} of node {node} in {place}, only {sorted(at)}"
            own = {pid: at[name] for name, pid in live}
            last = max(own.values(), default=len(ops))
            for i, op in enumerate(ops):
                if not op.path.startswith(countingfs.MARK):
                    whole = op._replace(path=place + op.path.rstrip("/"))
                    (before if i < own.get(op.process, last) else after).append(whole)
        return before, after

    def bytes_read(self) -> list[int]:
        """How many bytes each node has read."""
        return [sum(_number(f"{log}.bytes") for log in logs) for logs in self._logs]


def _number(path: str) -> int:
    with open(path, "rb") as file:
        return int.from_bytes(file.read(queueing.WORD), sys.byteorder)


def paths_only(ops: Sequence[countingfs.Op]) -> list[countingfs.Op]:
    """Those that name a path: what a metadata server has to answer."""
    return [op for op in ops if op.kind in countingfs.PATH_KINDS]
