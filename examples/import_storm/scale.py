"""The scale model: how long a start takes for any number of ranks, from what one rank does and what the site can do.

::

    every rank    asks the file server, computes          a closed queue (stations.py)
    the reader    asks alone for what it reads for all    one operation after the other
    the rest      read -> sent down a tree -> written     a pipeline, as fast as its slowest stage

A program without a reader (plain Python, an archive) has the first part only.

Rules of the file: this is a model. All numbers are given to it; fit.py has those of the laboratory.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import stations

if TYPE_CHECKING:
    from collections.abc import Iterable


class Program(NamedTuple):
    """What one start does: every rank, and in addition the one rank that reads for all."""

    every_ops: float  # operations that each rank sends to the server
    every_bytes: float = 0.0  # what each node reads there
    root_ops: float = 0.0
    root_bytes: float = 0.0  # read by one, sent to all
    own_s: float = 0.0  # of each rank, shared with nobody
    cpu_s: float = 0.0  # of each rank, on the cores that there are
    width: float = 1.0  # cores that a busy rank takes: more than one if a process beside it works for it
    apart_s: float = 0.0  # once, as soon as there is more than one node


class Site(NamedTuple):
    """What there is to share. ``cores`` 0: one for each rank, as on a cluster; the laboratory's nodes share a few."""

    service_s: float  # of one operation at the server
    slots: float = 1.0
    bandwidth: float = 0.0  # of the server's link, bytes a second; 0: without limit
    cores: int = 0
    latency_s: float = 0.0  # of one hop of a broadcast
    send_Bps: float = 0.0  # of a broadcast; 0: without limit
    write_Bps: float = 0.0  # into memory of a node
    per_node: int = 1  # ranks
    once: bool = False  # the kernel of a node answers all of its ranks but the first, as NFS does for a few seconds


def nodes(site: Site, ranks: int) -> int:
    """How many it takes."""
    return math.ceil(ranks / site.per_node)


def seconds(program: Program, site: Site, ranks: Iterable[int]) -> dict[int, float]:
    """From the start to the end of the slowest rank's import, for each of these numbers of *ranks*."""
    ranks = sorted(set(ranks))
    asking = {n: nodes(site, n) if site.once else n for n in ranks}
    read = program.every_bytes / site.bandwidth if site.bandwidth else 0.0
    if not site.once:
        read /= site.per_node  # pages are shared by a node's ranks, whatever becomes of names
    shared = [stations.Station(program.every_ops * site.service_s, site.slots), stations.Station(read)]
    own = program.own_s
    if site.cores:
        shared.append(stations.Station(program.cpu_s, max(1.0, site.cores / program.width), spread=1.0))
    else:
        own += program.cpu_s
    first = stations.times(shared, own, asking.values())
    return {n: first[asking[n]] + reader(program, site, nodes(site, n)) for n in ranks}


def reader(program: Program, site: Site, count: int) -> float:
    """Seconds until *count* nodes have what one rank reads for them."""
    ways = (site.bandwidth, site.write_Bps, site.send_Bps if count > 1 else 0.0)
    stages = [speed for speed in ways if speed]
    depth = math.ceil(math.log2(count)) if count > 1 else 0
    sent = stations.pipeline(program.root_bytes, stages, depth, site.latency_s)
    return program.root_ops * site.service_s + sent + (program.apart_s if count > 1 else 0.0)
