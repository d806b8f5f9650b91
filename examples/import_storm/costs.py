"""What things cost on this machine, for the scale model: one broadcast hop, writing to memory, an interpreter's CPU.

Rules of the file: each figure is the median of several; nothing here touches the file server.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

import nodes
from childproc import clean_env

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
REPEATED = 7
_BCAST = """
import json, time
from mpi4py import MPI
comm = MPI.COMM_WORLD
def best(size, times):
    buffer, found = bytearray(size), []
    for _ in range(times):
        comm.Barrier()
        begun = time.perf_counter()
        comm.Bcast(buffer)
        comm.Barrier()
        found.append(time.perf_counter() - begun)
    return sorted(found)[len(found) // 2]
none = best(0, 200)
small, large = best(8, 200), best({size}, 9)
if comm.rank == 0:
    print(json.dumps([small - none, large - small]))
"""


def bcast(python: str, launcher: str, folder: Path) -> dict[str, float]:
    """One hop of a broadcast: two nodes, one process on each.

    :param folder: an empty directory
    """
    size = 32 * MIB
    with nodes.Nodes(folder, 2) as cluster:
        words = [*cluster.enter(0), launcher, "-n", "2", python, "-c", _BCAST.format(size=size)]
        env = clean_env({**cluster.env(1)})
        said = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=True).stdout
    small, large = json.loads(said)
    return {"latency_s": max(small, 1e-6), "bandwidth_Bps": size / large}


def tmpfs_write() -> float:
    """Bytes a second into a new file of /dev/shm."""
    block, found = bytes(MIB), []
    for _ in range(REPEATED):
        with tempfile.TemporaryFile(dir="/dev/shm", buffering=0) as file:
            begun = time.perf_counter()
            for _ in range(128):
                file.write(block)
            found.append(128 * MIB / (time.perf_counter() - begun))
    return statistics.median(found)


def interpreter_cpu(python: str) -> float:
    """Seconds of CPU that an interpreter takes to start and to end."""
    found = []
    for _ in range(REPEATED):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([python, "-c", "pass"], timeout=60, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(found)


def machine(python: str) -> dict[str, object]:
    """What stands beside every figure."""
    said = subprocess.run([python, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    cpu = ""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
    return {
        "cpu": cpu or os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": os.uname().release,
        "python": said.split()[-1],
        "date": time.strftime("%Y-%m-%d"),
    }
