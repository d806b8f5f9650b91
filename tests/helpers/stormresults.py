"""Results as examples/import_storm/storm.py writes them, from a simulation of every single event: for tests only.

Nothing of the scale model is used here. Ranks think for random times, ask a server that takes the same time for each
operation, first come, first served, and compute on a few cores that they share.
"""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

VISITS = 400  # of a rank to the server: enough that starting together doesn't count
METHODS = (
    # name, manifest, operations of each rank, and of the reader, own seconds, seconds on shared cores
    ("floor", False, 0, 0, 0.1, 0.6),
    ("plain", False, 2800, 0, 0.3, 0.9),
    ("mpi", True, 260, 1300, 0.5, 0.9),
)


def simulate(
    ranks: int,
    *,
    own: float,
    cpu: float,
    cores: int,
    service: float,
    slots: int,
    visits: int = VISITS,
    even: bool = False,
    seed: int = 0,
) -> float:
    """Seconds until the last of *ranks* has ended.

    :param own: seconds of each rank, with nobody
    :param cpu: seconds of each rank on the *cores* that all share; 0: it needs none
    :param service: seconds of each rank at the server's *slots*
    :param even: every piece of work takes the same time; else own and cpu come in random pieces, as with programs
    """
    rng = random.Random(seed)

    def piece(whole: float) -> float:
        mean = whole / visits
        return mean if even or not mean else rng.expovariate(1 / mean)

    free = {"core": [0.0] * cores, "slot": [0.0] * slots}
    left = [visits] * ranks
    events = [(piece(own), rank, "core") for rank in range(ranks)]
    heapq.heapify(events)
    last = 0.0
    while events:
        now, rank, kind = heapq.heappop(events)
        takes = piece(cpu) if kind == "core" else service / visits
        end = now
        if takes:
            place = min(range(len(free[kind])), key=free[kind].__getitem__)
            end = free[kind][place] = max(now, free[kind][place]) + takes
        if kind == "core":
            heapq.heappush(events, (end, rank, "slot"))
            continue
        left[rank] -= 1
        last = max(last, end)
        if left[rank]:
            heapq.heappush(events, (end + piece(own), rank, "core"))
    return last


def make(nodes: Sequence[int] = (1, 2, 4, 8, 16), rounds: int = 2, service: float = 0.001) -> dict[str, object]:
    """The content of a results.json."""
    runs = []
    for turn in range(rounds):
        for name, manifest, every, root, own, cpu in METHODS:
            for count in nodes:
                took = simulate(count, own=own, cpu=cpu, cores=2, service=every * service, slots=1, seed=turn)
                took += root * service + (0.3 if root and count > 1 else 0.0)
                by_node = [every + root, *[every] * (count - 1)]
                runs.append(
                    {
                        "method": name,
                        "manifest": manifest,
                        "nodes": count,
                        "round": turn,
                        "slowest_s": took,
                        "import_s": took * 0.8,
                        "each_s": [took] * count,
                        "operations": sum(by_node),
                        "by_node": by_node,
                        "before": [every] * count,
                        "after": [root, *[0] * (count - 1)],
                        "bytes": 10_000 * every * count + 50_000 * root,
                    }
                )
    return {
        "machine": {"cpu": "Some CPU", "cores": 2, "kernel": "6.1", "python": "3.11.7", "date": "2026-01-01"},
        "server": {
            "slots": 1,
            "service_s": service,
            "bandwidth_Bps": 1e9,
            "attributes_s": 3.0,
            "entries_s": 3.0,
            "negatives_s": 3.0,
        },
        "program": ["numpy", "scipy.linalg", "pandas"],
        "costs": {
            "bcast": {"latency_s": 1e-5, "bandwidth_Bps": 2e9},
            "tmpfs_write_Bps": 2.5e9,
            "interpreter_cpu_s": 0.02,
            "import_cpu_s": 0.6,
            "staged_bytes": 65_000_000,
            "staged_files": 700,
        },
        "runs": runs,
    }
