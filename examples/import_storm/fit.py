"""The scale model's numbers, from the laboratory's runs with up to four nodes; and how well it then tells the others.

Counted: operations and bytes of every node, and those that one node makes in addition. Measured by themselves: the
server's service time (it was set), broadcast, writes to memory. Fitted, for each method: the seconds of a rank that it
shares with nobody; those that it spends on the laboratory's cores, which all nodes share there; and where one rank
reads for all, what it costs once that there is a second node at all. Fitted once, for plain Python: how much of a
core the process takes that plays the file server's client for a node.

Rules of the file: runs with more than FEW nodes are looked at by :func:`validate` only.
"""

from __future__ import annotations

import itertools
import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

import results as measured
import scale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from results import Results, Run

FEW = 4  # nodes that the fit may look at
WIDTHS = (1.0, 1.25, 1.5, 1.75, 2.0)
UNEVEN = 0.1  # so much more of what the others ask is no reader, but chance
STEPS = 60  # of the search; each halves the step when none of its neighbours is better


class Point(NamedTuple):
    """A method with so many nodes: seconds as measured and as the model says; ``seen``: the fit has looked at it."""

    method: str
    nodes: int
    measured_s: float
    model_s: float
    seen: bool

    @property
    def error(self) -> float:
        """0.2: the model says 20 % more than was measured."""
        return self.model_s / self.measured_s - 1


def site(results: Results) -> scale.Site:
    """The laboratory."""
    server, costs = results["server"], results["costs"]
    tree = costs.get("bcast", {"latency_s": 0.0, "bandwidth_Bps": 0.0})
    return scale.Site(
        service_s=server["service_s"],
        slots=server["slots"],
        bandwidth=server["bandwidth_Bps"],
        cores=results["machine"]["cores"],
        latency_s=tree["latency_s"],
        send_Bps=tree["bandwidth_Bps"],
        write_Bps=costs["tmpfs_write_Bps"],
    )


def fit(results: Results) -> dict[str, scale.Program]:
    """What one start does by each method."""
    lab, few = site(results), {}
    for method, counts in measured.by_method(results).items():
        few[method] = {n: runs for n, runs in counts.items() if n <= max(FEW, min(counts))}
    width = 1.0
    if "plain" in few:
        tried = [_times(counted(few["plain"])._replace(width=wide), lab, few["plain"]) for wide in WIDTHS]
        width = min(tried)[1].width
    return {
        method: _times(counted(counts)._replace(width=width if method != "floor" else 1.0), lab, counts)[1]
        for method, counts in few.items()
    }


def counted(counts: Mapping[int, list[Run]]) -> scale.Program:
    """Operations and bytes of every node, and in addition of one."""
    least, most = min(counts), max(counts)
    busiest = statistics.median(max(run["by_node"]) for run in counts[most])
    others = [statistics.median(sorted(run["by_node"])[:-1] if most > 1 else run["by_node"]) for run in counts[most]]
    every = statistics.median(others)
    all_bytes = {n: measured.read_bytes(counts[n]) for n in (least, most)}
    each = max(0.0, (all_bytes[most] - all_bytes[least]) / (most - least)) if most > least else all_bytes[most]
    return scale.Program(
        every_ops=every,
        every_bytes=each,
        root_ops=busiest - every if busiest - every > UNEVEN * every else 0.0,
        root_bytes=max(0.0, all_bytes[most] - each * most),
    )


def _times(program: scale.Program, lab: scale.Site, counts: Mapping[int, list[Run]]) -> tuple[float, scale.Program]:
    """How far off the best fit is, and the fit."""
    seconds = {n: measured.seconds(runs) for n, runs in counts.items()}

    def wrong(fitted: tuple[float, ...]) -> float:
        said = scale.seconds(_with(program, fitted), lab, seconds)
        return sum(math.log(max(said[n], 1e-9) / seconds[n]) ** 2 for n in seconds)

    step = seconds[min(seconds)] / 4
    best = (step,) * (3 if program.root_ops and max(seconds) > 1 else 2)
    least = wrong(best)
    for _ in range(STEPS):
        moves = itertools.product((-step, 0.0, step), repeat=len(best))
        near = {tuple(max(0.0, value + change) for value, change in zip(best, move)) for move in moves}
        found, better = min((wrong(fitted), fitted) for fitted in near)
        if found < least:
            least, best = found, better
        else:
            step /= 2
    return least, _with(program, best)


def _with(program: scale.Program, fitted: tuple[float, ...]) -> scale.Program:
    own, cpu, *apart = fitted
    return program._replace(own_s=own, cpu_s=cpu, apart_s=apart[0] if apart else 0.0)


def validate(results: Results, programs: Mapping[str, scale.Program]) -> list[Point]:
    """The model beside all measurements."""
    lab, points = site(results), []
    for method, counts in measured.by_method(results).items():
        said = scale.seconds(programs[method], lab, counts)
        seen = max(FEW, min(counts))
        points += [Point(method, n, measured.seconds(runs), said[n], n <= seen) for n, runs in counts.items()]
    return points
