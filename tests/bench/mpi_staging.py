"""One job of ``mpi.py``: files staged on every node through MPI, against a raw broadcast of as many bytes and a write.

Run by ``mpiexec -n N python -m mpi4py mpi_staging.py TREE BYTES ROUNDS``; each rank is a node (a store of its own).
Prints one line of JSON on rank 0: seconds of both, round by round.

Rules of the file: both ways start and end at a barrier; the raw one writes as the staged one does, into /dev/shm.
"""

from __future__ import annotations

import json
import os
import sys
import time

import numpy as np  # type: ignore[import-not-found]
from mpi4py import MPI

import collfs
from collfs.record import CONTENT, Want

CHUNK = 8 << 20
comm = MPI.COMM_WORLD
tree, size, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
buffer = np.random.default_rng(1).integers(0, 255, size, dtype=np.uint8)
wants = [Want(f"{tree}/{name}", CONTENT) for name in sorted(os.listdir(tree))]


def timed(work: object) -> float:
    """Seconds from all ranks' start to all ranks' end."""
    comm.Barrier()
    start = time.perf_counter()
    work()
    comm.Barrier()
    return time.perf_counter() - start


def raw() -> None:
    """A broadcast in chunks, then one write on each node but the root's, which has the bytes."""
    for at in range(0, size, CHUNK):
        comm.Bcast(buffer[at : at + CHUNK], 0)
    if comm.rank:
        with open(f"/dev/shm/collfs-bench-{os.getpid()}", "wb", buffering=0) as file:
            view = memoryview(buffer)  # type: ignore[arg-type]
            while view:
                view = view[file.write(view) :]


def staged(number: int) -> float:
    """The same bytes as files, by collfs: wanted by all ranks, read by the root."""
    job = f"bench-{os.environ['BENCH_JOB']}-{comm.rank}-{number}"
    session = collfs.initialize("mpi", prefixes=[tree], manifest="none", job=job, max_store_bytes="4G", patience=60)
    assert session.fetcher is not None
    took = timed(lambda: session.fetcher.want(wants))
    assert session.fetcher.silences == []
    assert all(not session.fetcher.missing(want) for want in wants)
    collfs.finalize()
    return took


out: dict[str, list[float]] = {"raw": [], "staged": []}
for number in range(rounds + 1):
    seconds = timed(raw)
    if comm.rank:
        os.unlink(f"/dev/shm/collfs-bench-{os.getpid()}")
    both = (seconds, staged(number))
    if number:  # the first of each is a warm-up
        out["raw"].append(both[0])
        out["staged"].append(both[1])
if comm.rank == 0:
    sys.stdout.write(json.dumps({"ranks": comm.size, **out}) + "\n")
