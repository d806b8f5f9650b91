"""The scale model: how long a start takes for any number of ranks, from what one rank does and what the site can do.

::

    start    every rank asks the server, computes     a closed queue (stations.py), until collfs is active everywhere:
             ------ nobody passes alone ------        no rank is before the slowest one has come
    import   the reader asks alone for what all need  one operation after the other, then down a tree to every node
             every node writes it down, imports       on cores that are shared in the laboratory

The import's two lines happen at the same time, in one of two ways. Servers of collfs' own (zmq) read ahead: for each
node the reader is a delay beside the cores, a closed queue again. Where the reader is one of the ranks (MPI), reading
and computing take turns: it reads no further while the nodes work, so the seconds of both add up.

A program without a reader (plain Python, an archive) is two closed queues, one after the other.

Rules of the file: this is a model. All numbers are given to it; fit.py has those of the laboratory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import stations

if TYPE_CHECKING:
    from collections.abc import Iterable

AGAIN_ROUNDS = 8  # operations make a phase longer, and that makes more operations: settled long before


class Work(NamedTuple):
    """What each rank does in a phase."""

    ops: float = 0.0  # operations that it sends to the server
    read_bytes: float = 0.0  # what its node reads there
    own_s: float = 0.0  # shared with nobody
    cpu_s: float = 0.0  # on the cores that there are
    again: float = 0.0  # operations more for each doubling of the phase, as what the kernel believes grows too old
    since_s: float = 1.0  # from these seconds on


class Program(NamedTuple):
    """What one start does: every rank until collfs is active, every rank after that, and the one that reads for all."""

    every_ops: float = 0.0  # the start; all of it, if nothing follows
    every_bytes: float = 0.0
    root_ops: float = 0.0
    root_bytes: float = 0.0  # read by one, sent to all
    own_s: float = 0.0
    cpu_s: float = 0.0
    again: float = 0.0
    since_s: float = 1.0
    after: Work = Work()  # the import; own_s: what the reader takes beside its operations
    behind_s: float = 0.0  # so much of the import's cpu_s is done while the reader waits for the server
    turns: bool = False  # the reader is one of the ranks: the cores' time and the reader's add up


class Site(NamedTuple):
    """What there is to share. ``cores`` 0: one for each rank, as on a cluster; the laboratory's nodes share a few."""

    service_s: float  # of one operation at the server
    slots: float = 1.0
    bandwidth: float = 0.0  # of the server's link, bytes a second; 0: without limit
    cores: float = 0.0  # in units of one that has nothing beside it: two that share caches are less than two
    latency_s: float = 0.0  # of one hop of a broadcast
    send_Bps: float = 0.0  # of a broadcast; 0: without limit
    write_Bps: float = 0.0  # into memory of a node
    per_node: int = 1  # ranks
    once: bool = False  # the kernel of a node answers all of its ranks but the first, as NFS does for a few seconds


class Phases(NamedTuple):
    """Seconds until collfs is active on the slowest rank, and from there to the end of the slowest import."""

    start: float
    after: float


def nodes(site: Site, ranks: int) -> int:
    """How many it takes."""
    return math.ceil(ranks / site.per_node)


def seconds(program: Program, site: Site, ranks: Iterable[int]) -> dict[int, float]:
    """From the start to the end of the slowest rank's import, for each of these numbers of *ranks*."""
    return {n: sum(phases(program, site, n)) for n in ranks}


def phases(program: Program, site: Site, ranks: int) -> Phases:
    """The same in two parts, for one number of *ranks*."""
    start = Work(program.every_ops, program.every_bytes, program.own_s, program.cpu_s, program.again, program.since_s)
    waiting = max(0.0, reader(program, site, nodes(site, ranks)) + program.after.own_s - program.behind_s)
    after = program.after._replace(own_s=waiting)
    return Phases(phase(start, site, ranks), phase(after, site, ranks, turns=program.turns))


def phase(work: Work, site: Site, ranks: int, *, turns: bool = False) -> float:
    """Seconds until all *ranks* have done *work*.

    :param turns: cores and all else take turns, instead of being busy at the same time
    """
    took, ops = 0.0, work.ops
    for _ in range(AGAIN_ROUNDS if work.again else 1):
        took = _once(work._replace(ops=ops), site, ranks, turns)
        ops = work.ops + work.again * max(0.0, math.log2(took / work.since_s)) if took else work.ops
    return took


def _once(work: Work, site: Site, ranks: int, turns: bool) -> float:
    asking = nodes(site, ranks) if site.once else ranks
    read = work.read_bytes / site.bandwidth if site.bandwidth else 0.0
    if not site.once:
        read /= site.per_node  # pages are shared by a node's ranks, whatever becomes of names
    shared = [stations.Station(work.ops * site.service_s, site.slots), stations.Station(read)]
    own = work.own_s
    if not site.cores:
        own += work.cpu_s
    elif turns:
        own += work.cpu_s * max(1.0, ranks / site.cores)
    else:
        shared.append(stations.Station(work.cpu_s, max(1.0, site.cores), spread=1.0))
    return stations.times(shared, own, [asking])[asking]


def reader(program: Program, site: Site, count: int) -> float:
    """Seconds until *count* nodes have what one rank reads for them, if nobody has anything else to do."""
    ways = (site.bandwidth, site.write_Bps, site.send_Bps if count > 1 else 0.0)
    stages = [speed for speed in ways if speed]
    depth = math.ceil(math.log2(count)) if count > 1 else 0
    return program.root_ops * site.service_s + stations.pipeline(program.root_bytes, stages, depth, site.latency_s)
