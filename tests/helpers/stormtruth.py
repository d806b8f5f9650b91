"""Jobs whose every number is known, simulated in their two phases, as a results.json: the truth for the scale model.

Rule of the file: of the model, only its words for a program are used (``scale.Program``), none of its arithmetic.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

import scale
import stormresults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from results import Results

PIECES = 100  # of what a reader reads
NODES = (1, 2, 4, 8, 16)
FAR = 10**9  # pieces: a reader that waits for nobody
CORES = 2  # of the machine in the results made here
TRUE = {  # what each rank does, and what results.json would say of the processor time of the ranks alone
    "floor": (scale.Program(cpu_s=0.02, after=scale.Work(cpu_s=0.4)), (0.02, 0.4)),
    "plain": (scale.Program(75, own_s=0.05, cpu_s=0.05, after=scale.Work(2700, own_s=0.2, cpu_s=0.9)), (0.05, 0.7)),
    "mpi": (
        scale.Program(265, cpu_s=0.3, root_ops=3000, after=scale.Work(cpu_s=1.2, own_s=0.5), turns=True),
        (0.3, 1.2),
    ),
    "mpi+manifest": (
        scale.Program(265, own_s=0.1, cpu_s=0.3, root_ops=2700, after=scale.Work(cpu_s=0.8), behind_s=0.4, turns=True),
        (0.2, 0.8),
    ),
    "zmq": (
        scale.Program(180, own_s=0.1, cpu_s=0.3, root_ops=3000, after=scale.Work(cpu_s=2.4, own_s=0.3), turns=True),
        (0.1, 1.2),
    ),
    "zmq+manifest": (
        scale.Program(300, own_s=0.1, cpu_s=0.4, root_ops=2500, after=scale.Work(cpu_s=1.8), behind_s=1.8),
        (0.1, 0.6),
    ),
}


def imported(nodes: int, *, reads: float, cpu: float, cores: float, ahead: int, seed: int = 0) -> float:
    """Seconds of an import: one reads piece by piece; each node works on what has come, on cores that all share.

    :param reads: seconds of the reader at its server, and *cpu* of each node
    :param ahead: pieces that it may have read more than the slowest node has worked on
    """
    rng = random.Random(seed)
    sizes = [rng.expovariate(1.0) for _ in range(PIECES)]
    sizes = [cpu * size / sum(sizes) for size in sizes]
    done, left, read, until, now = [0] * nodes, [sizes[0]] * nodes, 0, reads / PIECES, 0.0
    while min(done) < PIECES:
        working = [node for node in range(nodes) if done[node] < read]
        reading = read < PIECES and read - min(done) <= ahead
        speed = min(1.0, cores / len(working)) if working else 1.0
        step = min([left[node] / speed for node in working] + ([until] if reading else []))
        now += step
        for node in working:
            left[node] -= step * speed
            if left[node] <= 1e-12:
                done[node] += 1
                left[node] = sizes[min(done[node], PIECES - 1)]
        if reading:
            until -= step
            if until <= 1e-12:
                read, until = read + 1, reads / PIECES
    return now


def by_events(program: scale.Program, service: float, cores: int, nodes: int) -> tuple[float, float]:
    """Both phases of *program*, each simulated."""
    start = stormresults.simulate(
        nodes, own=program.own_s, cpu=program.cpu_s, service=program.every_ops * service, cores=cores, slots=1
    )
    own, cpu = program.after.own_s, program.after.cpu_s
    if not program.root_ops:
        after = stormresults.simulate(
            nodes, own=own, cpu=cpu, service=program.after.ops * service, cores=cores, slots=1
        )
    elif program.turns:
        reads = program.root_ops * service + own - program.behind_s
        after = imported(nodes, reads=reads, cpu=cpu, cores=cores, ahead=0)
    else:
        after = imported(nodes, reads=program.root_ops * service + own, cpu=cpu, cores=cores, ahead=FAR)
    return start, after


def make(
    phases: Callable[[scale.Program, int], tuple[float, float]],
    worth: float = float(CORES),
    nodes: Sequence[int] = NODES,
) -> Results:
    """A results.json of the programs in TRUE.

    :param phases: of a program and a number of nodes: seconds of start and import
    :param worth: of the cores; processor time is counted longer where they slow each other down
    """
    found = stormresults.make(nodes=(1,))
    runs = []
    for label, (program, spent) in TRUE.items():
        method, _, manifest = label.partition("+")
        for count in nodes:
            start, after = phases(program, count)
            slow = min(count, CORES) / min(count, worth)
            half = (program.after.cpu_s - spent[1]) / 2 if method == "zmq" else 0.0
            early = manifest and program.turns  # reads before collfs is active on it
            before, later = [program.every_ops] * count, [program.after.ops] * count
            (before if early else later)[0] += program.root_ops
            alone = early and count == 1  # its import begins when all is there
            runs.append(
                {
                    "method": method,
                    "manifest": bool(manifest),
                    "nodes": count,
                    "round": 0,
                    "slowest_s": start + after,
                    "import_s": spent[1] if alone else after,
                    "each_s": [start + after] * count,
                    "cpu_s": [sum(spent) * slow] * count,
                    "import_cpu_s": [spent[1] * slow] * count,
                    # the first node's server reads, too, and half of the work is what it does for each of the others
                    "beside_cpu_s": [9.0 + half * CORES / worth * count, *[half * slow] * (count - 1)],
                    "operations": sum(before) + sum(later),
                    "by_node": [a + b for a, b in zip(before, later)],
                    "before": before,
                    "after": later,
                    "bytes": 0,
                }
            )
    return cast("Results", found | {"runs": runs})
