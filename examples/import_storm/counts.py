"""What the laboratory has counted of a method, as the scale model wants it: operations, bytes and processor time.

::

    start    operations before collfs was active, of a node that doesn't read     processor time of its ranks until then
    reader   operations of the busiest node, less those of the others
    import   operations after that, of a node that doesn't read                   processor time of all on it since then

A node asks more when all takes longer: what its kernel believes grows too old. Gaps between two uses of a name are
taken to be as many from 1 to 2 seconds as from 2 to 4, so each doubling of the time adds the same number; that number
is counted, too.

Rules of the file: nothing is fitted to seconds here. Where several rounds were run, the median stands for them.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

import results as measured
import scale

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from results import Run

UNEVEN = 0.1  # so much more of what the others ask is no reader, but chance


class Asked(NamedTuple):
    """Operations of a node within ``since_s`` seconds, and ``again`` more for each doubling of that time."""

    ops: float
    again: float
    since_s: float


def counted(counts: Mapping[int, list[Run]]) -> scale.Program:
    """Operations and bytes of every node, and in addition of one; processor time of the ranks of a node, and in the
    import of what works beside them.
    """
    least, most = min(counts), max(counts)
    alike = told_apart(counts)
    start = asked({n: (measured.active(counts[n]), _others(counts[n], _before)) for n in alike})
    after = asked({n: (measured.importing(counts[n]), _others(counts[n], _after)) for n in alike})
    busiest = statistics.median(max(run["by_node"]) for run in counts[most])
    every = _others(counts[most], _before) + _others(counts[most], _after)
    all_bytes = {n: measured.read_bytes(counts[n]) for n in (least, most)}
    each = max(0.0, (all_bytes[most] - all_bytes[least]) / (most - least)) if most > least else all_bytes[most]
    first = _others(counts[most], _before) / every if every else 0.0  # bytes are not counted apart: as operations are
    return scale.Program(
        every_ops=start.ops,
        every_bytes=each * first,
        again=start.again,
        since_s=start.since_s,
        cpu_s=statistics.median(_spent(run, importing=False) for run in counts[most]),
        root_ops=busiest - every if busiest - every > UNEVEN * every else 0.0,
        root_bytes=max(0.0, all_bytes[most] - each * most),
        after=scale.Work(
            ops=after.ops,
            read_bytes=each * (1 - first),
            again=after.again,
            since_s=after.since_s,
            cpu_s=statistics.median(_spent(run, importing=True) + _beside(run) for run in counts[most])
            + served(counts),
        ),
    )


def served(counts: Mapping[int, list[Run]]) -> float:
    """Processor time that each node costs the first one, whose server sends: by how much more that takes with more."""
    least, most = min(counts), max(counts)
    first = {n: statistics.median(run["beside_cpu_s"][0] for run in counts[n]) for n in (least, most)}
    return max(0.0, (first[most] - first[least]) / (most - least)) if most > least else 0.0


def told_apart(counts: Mapping[int, list[Run]]) -> list[int]:
    """Numbers of nodes for which the end of the start is known: a node alone may be a reader, who reads before it."""
    every = _others(counts[max(counts)], _before)
    return [n for n, runs in counts.items() if n > 1 or _others(runs, _before) <= (1 + UNEVEN) * every]


def asked(points: Mapping[int, tuple[float, float]]) -> Asked:
    """The straight line of operations over the logarithm of the time, from the shortest time on; never falling.

    :param points: seconds and operations for each number of nodes

    >>> asked({1: (2.0, 100.0), 2: (4.0, 110.0), 4: (8.0, 120.0)})
    Asked(ops=100.0, again=10.0, since_s=2.0)
    """
    since = min(seconds for seconds, _ in points.values())
    xs = [math.log2(seconds / since) for seconds, _ in points.values()]
    ys = [ops for _, ops in points.values()]
    x, y = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((each - x) ** 2 for each in xs)
    slope = sum((each - x) * (ops - y) for each, ops in zip(xs, ys)) / spread if spread else 0.0
    return Asked(y - slope * x, slope, since) if slope > 0 else Asked(points[max(points)][1], 0.0, since)


def _before(run: Run) -> list[int]:
    return run["before"]


def _after(run: Run) -> list[int]:
    return run["after"]


def _others(runs: list[Run], which: Callable[[Run], list[int]]) -> float:
    """The median node that doesn't read: the busiest is left out."""
    return statistics.median(statistics.median(sorted(which(run))[:-1] or which(run)) for run in runs)


def _beside(run: Run) -> float:
    """The same of the other processes there during the import; 0 if there is no node but the one that may read."""
    return statistics.median(run["beside_cpu_s"][1:] or [0.0])


def _spent(run: Run, *, importing: bool) -> float:
    """Processor time of a node's ranks, the first node's left out, which may read."""
    each = len(run["cpu_s"]) // run["nodes"]
    whole, later = run["cpu_s"][each:] or run["cpu_s"], run["import_cpu_s"][each:] or run["import_cpu_s"]
    return each * statistics.median(later if importing else [a - b for a, b in zip(whole, later)])
