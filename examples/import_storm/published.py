"""What others have published, and what the scale model makes of it.

The rate of their file server is not known. It follows from the figure for plain Python, and with it the model tells the
other figure: that of their own remedy, where one rank reads.

Rules of the file: every figure has its source. Where that doesn't tell how many operations a rank makes, it is our
count of a program like theirs with today's versions (MEASURED), and then only the rate is worth reading.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import scale

MEASURED = "our count"
LATENCY = 0.0005  # seconds of one operation at a server without a queue: a round trip and its work; assumed


class Figure(NamedTuple):
    """``ops``: of a plain rank; ``every_ops``, ``root_ops``: with the remedy, of each rank, and of the reader."""

    name: str
    source: str
    ranks: int
    per_node: int
    ops: int
    ops_source: str
    plain_s: float  # 0: not published
    base_s: float  # without any waiting: a single node, or one core
    with_s: float = 0.0
    with_what: str = ""
    every_ops: int = 0
    root_ops: int = 0


class Check(NamedTuple):
    """``rate``: operations a second, if every rank asks. ``with_s``: what the model says of the remedy; 0: nothing."""

    figure: Figure
    rate: float
    rate_once: float  # if the kernel of a node asks once for all of its ranks
    with_s: float


_MPIIMPORT = "README of github.com/rainwoodman/mpiimport: Blue Waters, 512 nodes, counted by strace"
_EPCC = "epcc.ed.ac.uk, Speeding up Python on ARCHER, 2017"
_BCAST = "Feng and Hand, SciPy 2016, doi 10.25080/Majora-629e541a-013"
FIGURES = (
    Figure(
        name="mpiimport: numpy",
        source=_MPIIMPORT,
        ranks=16_384,
        per_node=32,
        ops=4557,
        ops_source="theirs, of numpy.fft",
        plain_s=416.4,
        base_s=15.5,
        with_s=123.5,
        with_what="mpiimport",
        every_ops=1194,
        root_ops=4772 - 1194,
    ),
    Figure(
        name="mpiimport: numpy.fft, scipy.interpolate",
        source=_MPIIMPORT,
        ranks=16_384,
        per_node=32,
        ops=8089,
        ops_source="theirs",
        plain_s=530.1,
        base_s=15.5,
        with_s=221.0,
        with_what="mpiimport",
        every_ops=1541,
        root_ops=8624 - 1541,
    ),
    Figure("Firedrake on ARCHER", _EPCC, 24_000, 24, 6247, MEASURED, plain_s=2700, base_s=0.0),
    Figure(
        name="Copper: torch on Aurora",
        source="alcf-copper-docs.readthedocs.io",
        ranks=2048 * 12,
        per_node=12,
        ops=17_566,
        ops_source=MEASURED,
        plain_s=120,
        base_s=0.0,
        with_s=57,
        with_what="Copper, cold",
        root_ops=17_566,
    ),
    Figure(
        name="the letter that asked for collfs",
        source="below a minute on one core, 4 hours on 65,536",
        ranks=65_536,
        per_node=4,
        ops=6247,
        ops_source=MEASURED,
        plain_s=4 * 3600,
        base_s=60.0,
    ),
    Figure(
        name="python-mpi-bcast",
        source=_BCAST,
        ranks=262_144,
        per_node=32,
        ops=8089,
        ops_source="mpiimport's",
        plain_s=0.0,
        base_s=110.0,
        with_s=57 + 110,
        with_what="57 s staging, 110 s import",
    ),
)


def rate(figure: Figure, *, once: bool) -> float:
    """Operations a second that make the model say what was published for plain Python."""
    program = scale.Program(every_ops=figure.ops, own_s=figure.base_s)
    low = high = figure.ranks * figure.ops / (figure.plain_s - figure.base_s)
    low, high = low / (10 * figure.per_node), high * 10
    for _ in range(50):
        middle = math.sqrt(low * high)
        said = scale.seconds(program, _site(figure, middle, once), [figure.ranks])[figure.ranks]
        low, high = (middle, high) if said > figure.plain_s else (low, middle)
    return math.sqrt(low * high)


def check(figure: Figure) -> Check:
    """Solve for the server's rate and tell the other figure."""
    if not figure.plain_s:
        return Check(figure, 0.0, 0.0, 0.0)
    found = rate(figure, once=False)
    said = 0.0
    if figure.with_what:
        program = scale.Program(every_ops=figure.every_ops, root_ops=figure.root_ops, own_s=figure.base_s)
        said = scale.seconds(program, _site(figure, found, False), [figure.ranks])[figure.ranks]
    return Check(figure, found, rate(figure, once=True), said)


def _site(figure: Figure, operations_per_second: float, once: bool) -> scale.Site:
    return scale.Site(LATENCY, operations_per_second * LATENCY, per_node=figure.per_node, once=once)
