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
from collections.abc import Callable

from mpi4py import MPI

import collfs
from collfs.record import CONTENT, Want

CHUNK = 8 << 20
comm = MPI.COMM_WORLD
tree, size, rounds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
buffer = bytearray(os.urandom(1 << 20) * (size >> 20))
wants = [Want(f"{tree}/{name}", CONTENT) for name in sorted(os.listdir(tree))]


def timed(work: Callable[[], None]) -> float:
    """Seconds from all ranks' start to all ranks' end."""
    comm.Barrier()
    start = time.perf_counter()
    work()
    comm.Barrier()
    return time.perf_counter() - start


def raw() -> None:
    """A broadcast in chunks, then one write on each node."""
    for at in range(0, size, CHUNK):
        comm.Bcast([memoryview(buffer)[at : at + CHUNK], MPI.BYTE], 0)
    with open(f"/dev/shm/collfs-bench-{os.getpid()}", "wb", buffering=0) as file:
        view = memoryview(buffer)
        while view:
            view = view[file.write(view) :]


def staged(number: int) -> float:
    """The same bytes as files, by collfs: wanted by all ranks, read by the root."""
    job = f"{os.environ['BENCH_JOB']}-{comm.rank}-{number}"
    session = collfs.initialize("mpi", prefixes=[tree], manifest="none", job=job, max_store_bytes="4G", patience=60)
    fetcher = session.fetcher
    assert fetcher is not None, session.idle
    took = timed(lambda: fetcher.want(wants))
    assert fetcher.silences == []
    assert not any(fetcher.missing(want) for want in wants)
    collfs.finalize()
    return took


out: dict[str, list[float]] = {"raw": [], "staged": []}
for number in range(rounds + 1):
    seconds = timed(raw)
    os.unlink(f"/dev/shm/collfs-bench-{os.getpid()}")
    both = (seconds, staged(number))
    if number:  # the first of each is a warm-up
        out["raw"].append(both[0])
        out["staged"].append(both[1])
if comm.rank == 0:
    sys.stdout.write(json.dumps({"ranks": comm.size, **out}) + "\n")
