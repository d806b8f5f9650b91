"""Many ranks before a few stations: how long each of them takes, by mean value analysis.

Every rank goes round between stations (its own time, the cores that it shares, the file server's slots, the server's
link) until its work is done. Nobody leaves, so the queue never grows beyond the ranks: a closed queueing network.

A newcomer at a station finds there on average what one rank less would have left: Reiser and Lavenberg, "Mean-value
analysis of closed multichain queuing networks", JACM 27 (1980). Services that always take the same time leave half of
one to be waited for, not a whole one: Reiser, "A queueing network analysis of computer communication networks with
window flow control", IEEE Trans. Comm. 27 (1979). With several places, a newcomer waits only if all are taken.

Rules of the file: seconds and ranks, no file systems. tests/storm/test_model.py holds it against a simulation of every
single event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FEW = 100  # up to so many ranks, every one is reckoned
SATURATED = 1 - 1e-5  # of the slowest station's time, that one more rank costs: from there on it is a straight line


class Station(NamedTuple):
    """``demand``: seconds of one rank's work here. ``spread``: squared coefficient of variation of a visit."""

    demand: float
    places: float = 1
    spread: float = 0.0


def times(stations: Sequence[Station], own: float, ranks: Iterable[int]) -> dict[int, float]:
    """Seconds that each rank takes, for each of these numbers of *ranks*.

    :param own: seconds of one rank's work that are shared with nobody
    """
    wanted = sorted(set(ranks))
    if not any(station.demand for station in stations):
        return dict.fromkeys(wanted, own)
    slowest, where = max((station.demand / station.places, index) for index, station in enumerate(stations))
    found: dict[int, float] = {}
    queued = [0.0] * len(stations)
    busy = [0.0] * len(stations)
    count, whole = 0, 0.0
    while len(found) < len(wanted):
        count += 1
        stays = [
            s.demand * max(1.0, (1 + q - b * (1 - s.spread) / 2) / s.places) for s, q, b in zip(stations, queued, busy)
        ]
        stays[where] += max(0.0, count * slowest - own - sum(stays))  # it can't serve faster than it serves
        before, whole = whole, own + sum(stays)
        queued = [count * stay / whole for stay in stays]
        busy = [min(1.0, count * s.demand / whole / s.places) for s in stations]
        if count == wanted[len(found)]:
            found[count] = whole
        elif count > FEW and whole - before >= SATURATED * slowest:
            return {n: found.get(n, whole + (n - count) * slowest) for n in wanted}
    return found


def pipeline(size: float, stages: Sequence[float], depth: int, latency: float, chunk: float = 1 << 20) -> float:
    """Seconds for *size* bytes through stages that work at the same time, the slowest one at full speed.

    :param stages: bytes a second of each
    :param depth: hops of a tree, each of which passes a chunk on when it has come
    :param latency: seconds of one hop
    """
    if not size or not stages:
        return 0.0
    slowest = min(stages)
    return size / slowest + depth * (latency + min(chunk, size) / slowest)
