"""One job of ``mpi.py``: all ranks import a real stack at once; prints the seconds of the slowest as JSON.

Run by ``mpiexec -n N python -m mpi4py mpi_import.py plain|MANIFEST``; two nodes, the first and the second half of the
ranks (stores of their own).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time

from mpi4py import MPI

comm = MPI.COMM_WORLD
mode = sys.argv[1]
begun = time.perf_counter()
if mode != "plain":
    import collfs

    session = collfs.initialize(
        "mpi",
        prefixes=sorted({sys.prefix, sys.base_prefix}),
        manifest=mode,
        job=f"{os.environ['BENCH_JOB']}-{2 * comm.rank // comm.size}",
        patience=60,
    )
    assert not session.idle, session.idle
initialized = time.perf_counter() - begun
arrived = comm.Ibarrier()
while not arrived.Test():  # politely: a rank that spins would slow those that still start
    time.sleep(0.001)
begun = time.perf_counter()
for name in ("numpy", "scipy.linalg", "pandas"):
    importlib.import_module(name)
took = time.perf_counter() - begun
arrived = comm.Ibarrier()
while not arrived.Test():
    time.sleep(0.001)
slowest = comm.allreduce((took, initialized), MPI.MAX), comm.allreduce(initialized, MPI.MAX)
if comm.rank == 0:
    sys.stdout.write(json.dumps({"import": slowest[0][0], "initialize": slowest[1]}) + "\n")
