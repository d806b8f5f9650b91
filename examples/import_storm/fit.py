"""The scale model's numbers, from the laboratory's runs with up to four nodes; and how well it then tells the others.

Counted (counts.py): operations, bytes, and processor time. Measured by themselves: the
server's service time (it was set), broadcast, writes to memory. Fitted, the last four for each method:

======  ===============  =============================================================================================
floor   ``Site.cores``   what the cores are worth, in units of one alone: two that are busy slow each other down
start   ``own_s``        seconds of a rank until collfs is active that it shares with nobody
start   ``cpu_s``        more than the ranks have taken: processes beside them, such as launchers and mounts
import  ``own_s``        the reader's seconds beside its operations; or, as ``behind_s``, so much of a node's processor
                         time is done while the reader waits
import  ``cpu_s``        more than what was counted on the node. Not with collfs across nodes: there all was
======  ===============  =============================================================================================

The start is fitted to the time at which collfs was active, the import then to the whole time. Reading and computing
take turns (scale.py) with MPI, where the ranks do all of the import's work themselves, and without a manifest, where
nothing is read before somebody waits for it.

Rules of the file: runs with more than FEW nodes are looked at by :func:`validate` only.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import results as measured
import scale
import stations
from counts import counted, told_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from results import Results, Run

FEW = 4  # nodes that the fit may look at
BY_RANKS = ("mpi", "mpi+zmq")  # the reader is a rank
ACROSS = (*BY_RANKS, "zmq")  # nothing works on a node but its ranks and its server, once collfs is active
STEPS = 60  # of the search; each halves the step when none of its neighbours is better


class Point(NamedTuple):
    """A method with so many nodes: seconds as measured and as the model says; ``seen``: the fit has looked at it.

    ``active_s``: of them until collfs is active on the last node that doesn't read; 0: not told apart.
    """

    method: str
    nodes: int
    measured_s: float
    model_s: float
    seen: bool
    active_s: float = 0.0
    model_active_s: float = 0.0

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
        cores=cores(results),
        latency_s=tree["latency_s"],
        send_Bps=tree["bandwidth_Bps"],
        write_Bps=costs["tmpfs_write_Bps"],
    )


def cores(results: Results) -> float:
    """How many cores the laboratory has, if one that has nothing beside it counts as one: told by floor alone."""
    most = float(results["machine"]["cores"])
    seconds = {n: measured.seconds(runs) for n, runs in _few(results).get("floor", {}).items()}
    if len(seconds) < 2:
        return most

    def wrong(tried: tuple[float, ...]) -> float:
        cpu, places = tried
        if not 1 <= places <= most:
            return math.inf
        return _apart(stations.times([stations.Station(cpu, places, spread=1.0)], 0.0, seconds), seconds)

    return _search(wrong, (seconds[min(seconds)], (1 + most) / 2), seconds[min(seconds)] / 4)[1]


def fit(results: Results) -> dict[str, scale.Program]:
    """What one start does by each method."""
    lab, threads = site(results), results["machine"]["cores"]
    found = {}
    for method, counts in _few(results).items():
        busy = max(counts)  # nodes, when processor time was counted: seconds of cores that all were taken
        alone = min(busy, lab.cores) / min(busy, threads)
        program = counted(counts)
        bare = method.partition("+manifest")[0]
        across = bare in ACROSS
        program = program._replace(
            turns=across and (bare in BY_RANKS or bare == method),
            cpu_s=program.cpu_s * alone,
            after=program.after._replace(cpu_s=program.after.cpu_s * alone),
        )
        found[method] = _import(_start(program, lab, counts), lab, counts, across)
    return found


def _few(results: Results) -> dict[str, dict[int, list[Run]]]:
    """The runs that the fit may look at."""
    return {
        method: {n: runs for n, runs in counts.items() if n <= max(FEW, min(counts))}
        for method, counts in measured.by_method(results).items()
    }


def _start(program: scale.Program, lab: scale.Site, counts: Mapping[int, list[Run]]) -> scale.Program:
    """*program* with what fits its start to the time at which collfs was active."""
    seconds = {n: measured.active(counts[n]) for n in told_apart(counts)}

    def wrong(tried: tuple[float, ...]) -> float:
        said = _started(program, tried)
        return math.inf if min(tried) < 0 else _apart({n: scale.phases(said, lab, n).start for n in seconds}, seconds)

    step = seconds[min(seconds)] / 4
    return _started(program, _search(wrong, (0.0, 0.0), step))


def _started(program: scale.Program, fitted: tuple[float, ...]) -> scale.Program:
    own, beside = fitted
    return program._replace(own_s=own, cpu_s=program.cpu_s + beside)


def _import(program: scale.Program, lab: scale.Site, counts: Mapping[int, list[Run]], across: bool) -> scale.Program:
    """*program* with what then fits its import to the whole time.

    :param across: collfs across nodes
    """
    seconds = {n: measured.seconds(runs) for n, runs in counts.items()}
    reads = scale.reader(program, lab, 1)

    def wrong(tried: tuple[float, ...]) -> float:
        said = _imported(program, tried)
        if min((0.0, *tried[1:])) < 0 or said.behind_s > min(reads, said.after.cpu_s):
            return math.inf
        return _apart(scale.seconds(said, lab, seconds), seconds)

    step = seconds[min(seconds)] / 4
    return _imported(program, _search(wrong, (0.0,) if across else (0.0, 0.0), step))


def _imported(program: scale.Program, fitted: tuple[float, ...]) -> scale.Program:
    own, *beside = fitted
    after = program.after._replace(own_s=max(0.0, own), cpu_s=program.after.cpu_s + sum(beside))
    return program._replace(after=after, behind_s=max(0.0, -own))


def _apart(said: Mapping[int, float], seconds: Mapping[int, float]) -> float:
    """How far the model is off: the sum of the squares of the logarithms."""
    return sum(math.log(max(said[n], 1e-9) / max(seconds[n], 1e-9)) ** 2 for n in seconds)


def _search(wrong: Callable[[tuple[float, ...]], float], best: tuple[float, ...], step: float) -> tuple[float, ...]:
    """The numbers for which *wrong* is least, near *best*."""
    least = wrong(best)
    for _ in range(STEPS):
        moves = itertools.product((-step, 0.0, step), repeat=len(best))
        near = [tuple(value + change for value, change in zip(best, move)) for move in moves]
        found, better = min((wrong(tried), tried) for tried in near)
        if found < least:
            least, best = found, better
        else:
            step /= 2
    return best


def validate(results: Results, programs: Mapping[str, scale.Program]) -> list[Point]:
    """The model beside all measurements."""
    lab, points = site(results), []
    for method, counts in measured.by_method(results).items():
        seen, alike = max(FEW, min(counts)), told_apart(_few(results)[method])
        for n, runs in counts.items():
            said = scale.phases(programs[method], lab, n)
            active = measured.active(runs) if n > 1 or n in alike else 0.0
            points.append(Point(method, n, measured.seconds(runs), sum(said), n <= seen, active, said.start))
    return points
