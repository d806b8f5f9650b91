"""What every program of tests/mpi begins with: MPI, a node for each pair of ranks, and a way to tell the test things.

"Nodes" are stores of their own on one machine: leaders are found by shared memory *and* store, so ranks that don't
share a store don't share a node.

Rules of the file: imported by ranks only, never by pytest.
"""

from __future__ import annotations

import json
import os
import sys

import mpi4py

if os.environ.get("MPI_TEST_THREADS"):
    mpi4py.rc.thread_level = os.environ["MPI_TEST_THREADS"]

from mpi4py import MPI

comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
asked = int(os.environ["MPI_TEST_RANKS"])
assert size == asked, f"asked for {asked} ranks, MPI_COMM_WORLD has {size}: is mpi4py of the same MPI as mpiexec?"
folder = os.environ["MPI_TEST_FOLDER"]
_out = open(f"{folder}/rank{rank}.jsonl", "a", encoding="utf-8")  # noqa: SIM115


def emit(**values: object) -> None:
    """One line for the test."""
    _out.write(json.dumps(values) + "\n")
    _out.flush()


def job(each: int = 2) -> str:
    """The job id that makes a node of *each* ranks."""
    return f"{os.environ['MPI_TEST_JOB']}-n{rank // each}"


def start(transport: object = "mpi", each: int = 2, **options: object) -> object:
    """Start collfs, with the environment of this Python managed unless *options* say otherwise."""
    import collfs

    given = {
        "prefixes": sorted({sys.prefix, sys.base_prefix}),
        "manifest": "none",
        "patience": 20,
        "quiet": True,
        "job": job(each),
    }
    return collfs.initialize(transport, **{**given, **options})  # type: ignore[arg-type]


def native() -> dict[str, int]:
    """Calls on managed paths that went to the original file system, by operation."""
    import collfs

    calls = collfs.stats()["calls"]
    return {name: row["native"] for name, row in calls.items() if row["native"]}  # type: ignore[attr-defined]


emit(pid=os.getpid())
