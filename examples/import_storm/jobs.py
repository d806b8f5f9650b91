"""The processes of one run: started on their nodes as a launcher would, listened to, released, ended.

Rules of the file: a process tells through pipes when its import is done and then waits, so that the laboratory can
look at the file server before anybody ends; all that was started is ended, whatever happens.
"""

from __future__ import annotations

import os
import secrets
import select
import shlex
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from childproc import clean_env

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nodes import Nodes
    from queueing import Load

RANK = Path(__file__).resolve().parent / "rank.py"
LIMIT = 600.0  # seconds for one run
LEFT = 20.0  # seconds that processes have to end by themselves when all is done


class Method(NamedTuple):
    """How a job gets its files. ``program``: first word for rank.py; ``mounted``: from the shared file server."""

    name: str
    program: str = "plain"
    manifest: bool = False
    mounted: bool = True

    @property
    def label(self) -> str:
        """As on the command line."""
        return f"{self.name}+manifest" if self.manifest else self.name


_COLLFS = ("local", "mpi", "zmq", "mpi+zmq")
METHODS = {
    method.label: method
    for method in (
        Method("floor", mounted=False),
        Method("plain"),
        Method("tar"),
        *(Method(name, name, manifest) for name in _COLLFS for manifest in (False, True)),
    )
}


class Setup(NamedTuple):
    """What all runs share.

    ``places``: the shared directories; ``paths``: those of them for sys.path; ``launcher``: an mpiexec on the nodes'
    own disk, as a batch system's is; ``archive``: for tar, in a directory of its own;
    ``manifests``: a directory for them.
    """

    python: str
    places: tuple[str, ...]
    modules: tuple[str, ...]
    load: Load
    manifests: Path
    paths: tuple[str, ...] = ()
    launcher: str = ""
    archive: str = ""


class Rank(NamedTuple):
    """What one process told: seconds since the boot, seconds of CPU, and what was on its node at the end."""

    pid: int
    started: float
    begun: float
    live: float
    end: float
    cpu_start: float
    cpu_end: float
    staged_files: int = 0
    staged_bytes: int = 0
    trouble: str = ""


class Job:
    """The processes of one run."""

    def __init__(self, setup: Setup, method: Method, cluster: Nodes, folder: Path, each: int, prepare: bool) -> None:
        self._folder = folder
        reports, release = f"{folder}/reports", f"{folder}/release"
        for pipe in (reports, release):
            os.mkfifo(pipe)
        self._release = release
        self._reports = os.open(reports, os.O_RDWR | os.O_CLOEXEC)  # O_RDWR: never at its end
        self._rest = b""
        manifest = str(setup.manifests / method.name) if method.manifest else "none"
        marked = ":".join(setup.places) if method.mounted and method.name != "tar" else ""
        self._words = [
            *(setup.python, str(RANK), method.program, manifest, reports, release, marked),
            *(":".join(setup.paths), ",".join(setup.modules)),
        ]
        self._env: dict[str, str | None] = {
            "OPENBLAS_NUM_THREADS": "1",  # as batch systems set it
            "TMPDIR": str(cluster.tmp),
            "COLLFS_JOB": f"storm-{os.getpid()}-{time.monotonic_ns()}",
            "STORM_EACH": str(each),
            "PYTHONPATH": None,
            "PYTHONFAULTHANDLER": None,
            "PYTHONDONTWRITEBYTECODE": None if prepare else "1",
            "PATH": os.defpath,
        }
        self._numbered = not method.program.startswith("mpi")
        if "zmq" in method.program:
            self._env["COLLFS_SECRET"] = secrets.token_hex(32)
        if method.program == "mpi+zmq":  # Hydra doesn't name the nodes
            self._env["COLLFS_NODES"] = ",".join(cluster.names)
        self._commands = self._by_mpiexec(setup, cluster, each) if method.program.startswith("mpi") else []
        if not self._commands:
            stage = _unpack(setup) if method.name == "tar" else []
            self._commands = [
                [*cluster.enter(rank // each), *(stage if rank % each == 0 else []), *self._words]
                for rank in range(len(cluster.pids) * each)
            ]
        self._cluster, self._each = cluster, each
        #: seconds of CPU of what else works on each node, from the time when all were active to the end of all imports
        self.beside: list[float] = []
        self._children: list[subprocess.Popen[bytes]] = []

    def _by_mpiexec(self, setup: Setup, cluster: Nodes, each: int) -> list[list[str]]:
        self._env.update(cluster.env(each))
        return [[*cluster.enter(0), setup.launcher, "-n", str(len(cluster.pids) * each), *self._words]]

    def _as_slurm(self, rank: int) -> dict[str, str]:
        """What srun tells each of its processes."""
        count = len(self._cluster.names)
        return {
            "SLURM_JOB_ID": "1",
            "SLURM_STEP_ID": "0",
            "SLURM_STEP_NUM_TASKS": str(count * self._each),
            "SLURM_STEP_NODELIST": ",".join(self._cluster.names),
            "SLURM_STEP_TASKS_PER_NODE": f"{self._each}(x{count})",
            "SLURM_PROCID": str(rank),
            "SLURM_LOCALID": str(rank % self._each),
            "SLURM_NODEID": str(rank // self._each),
        }

    def __enter__(self) -> Job:
        with open(self._folder / "output", "wb") as output:
            for rank, command in enumerate(self._commands):
                own = self._as_slurm(rank) if self._numbered else {}
                self._children.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=clean_env({**self._env, **own}),
                        start_new_session=True,
                    )
                )
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        os.close(self._reports)

    def reports(self, count: int) -> list[Rank]:
        """What each process told at the end of its import, in the order of ranks."""
        found: dict[int, Rank] = {}
        live: set[int] = set()
        end = time.monotonic() + LIMIT
        spaces = [os.readlink(f"/proc/{pid}/ns/mnt") for pid in self._cluster.pids]
        begun = [0.0] * len(spaces)
        while len(found) < count:
            kind, rank, *values = self._line(end)
            if kind == "live":
                live.add(int(values[0]))
                if len(live) == count:
                    begun = _spent(spaces, live)
            elif kind == "done":
                found[int(rank)] = _rank(values)
        self.beside = [b - a for a, b in zip(begun, _spent(spaces, live))]
        return [found[rank] for rank in range(count)]

    def release(self, ranks: list[Rank]) -> list[Rank]:
        """Let all processes end, and add what they tell then."""
        gate = os.open(self._release, os.O_RDWR | os.O_CLOEXEC)
        end = time.monotonic() + LIMIT
        try:
            while any(child.poll() is None for child in self._children) or self._readable(0.0):
                if self._readable(0.05):
                    kind, rank, *values = self._line(end)
                    if kind == "staged":
                        said = bytes.fromhex(values[2]).decode()
                        ranks[int(rank)] = ranks[int(rank)]._replace(
                            staged_files=int(values[0]), staged_bytes=int(values[1]), trouble=said
                        )
                elif time.monotonic() > end:
                    raise RuntimeError(f"not all processes have ended\n{self._output()}")
        finally:
            os.close(gate)
        if any(child.returncode for child in self._children):
            raise RuntimeError(f"a process has failed at its end\n{self._output()}")
        return ranks

    def _readable(self, seconds: float) -> bool:
        return b"\n" in self._rest or bool(select.select([self._reports], [], [], seconds)[0])

    def _line(self, end: float) -> list[str]:
        while b"\n" not in self._rest:
            if select.select([self._reports], [], [], 0.2)[0]:
                self._rest += os.read(self._reports, 65536)
            elif any(child.poll() for child in self._children) or time.monotonic() > end:
                raise RuntimeError(f"a process has failed, or is silent\n{self._output()}")
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode().split(" ")

    def _output(self) -> str:
        return (self._folder / "output").read_text(errors="backslashreplace")[-4000:]


def _unpack(setup: Setup) -> list[str]:
    """Words before a command: the archive goes to the node's memory and takes the place of the shared directories."""
    stage = f"/dev/shm/stage && mkdir $stage && tar -xf {shlex.quote(setup.archive)} -C $stage"
    over = " && ".join(f"mount --bind $stage{shlex.quote(place)} {shlex.quote(place)}" for place in setup.places)
    return ["sh", "-c", f'stage={stage} && {over} && exec "$0" "$@"']


def end_all_in(pids: list[int]) -> None:
    """End what still lives in the nodes beside their holders *pids*: servers of collfs, which wait for more processes.

    Gently at first, since the root's server writes the manifest when it ends.
    """
    spaces = {os.readlink(f"/proc/{pid}/ns/mnt") for pid in pids}
    begun = time.monotonic()
    told: set[int] = set()
    while True:
        left = {pid for pid in _all_in(spaces) if pid not in pids}
        number = signal.SIGTERM if time.monotonic() < begun + LEFT else signal.SIGKILL
        for pid in left - told if number == signal.SIGTERM else left:
            told.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if not left or number == signal.SIGKILL:
            return
        time.sleep(0.02)


def _spent(spaces: list[str], but: set[int]) -> list[float]:
    """Seconds of CPU so far of the processes in each of *spaces*, without those in *but* (man 5 proc, utime, stime)."""
    found = [0.0] * len(spaces)
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) not in but:
            with suppress(OSError, ValueError):  # it has just ended, or is in none of them
                node = spaces.index(os.readlink(f"{entry.path}/ns/mnt"))
                words = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
                found[node] += (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return found


def _all_in(spaces: set[str]) -> Iterator[int]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                if os.readlink(f"{entry.path}/ns/mnt") in spaces:
                    yield int(entry.name)


def _rank(values: list[str]) -> Rank:
    started, begun, live, end, cpu_start, cpu_end = map(float, values[1:])
    return Rank(int(values[0]), started, begun, live, end, cpu_start, cpu_end)
