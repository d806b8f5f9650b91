"""What storm.py has measured, as results.json holds it, and what everybody asks of it.

Rules of the file: nothing is measured or modelled here. Where several rounds were run, the median stands for them.
"""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING, TypedDict, cast

if TYPE_CHECKING:
    from pathlib import Path


class Machine(TypedDict):
    """Where it was measured."""

    cpu: str
    cores: int
    kernel: str
    python: str
    date: str


class Server(TypedDict):
    """The file server's load; times in seconds."""

    slots: int
    service_s: float
    bandwidth_Bps: float
    attributes_s: float
    entries_s: float
    negatives_s: float


class Bcast(TypedDict):
    """One hop of a broadcast."""

    latency_s: float
    bandwidth_Bps: float


class _Costs(TypedDict):
    tmpfs_write_Bps: float
    interpreter_cpu_s: float
    import_cpu_s: float
    staged_bytes: int
    staged_files: int


class Costs(_Costs, total=False):
    """What things cost on that machine; without an mpiexec there is no broadcast."""

    bcast: Bcast


class Run(TypedDict):
    """One run of one method; lists have one number a node, but those of seconds that say nothing else one a rank."""

    method: str
    manifest: bool
    nodes: int
    round: int
    slowest_s: float
    import_s: float
    each_s: list[float]
    cpu_s: list[float]
    import_cpu_s: list[float]
    beside_cpu_s: list[float]  # of the other processes on each node during the import
    operations: int
    by_node: list[int]
    before: list[int]
    after: list[int]
    bytes: int


class Results(TypedDict):
    """All of it."""

    machine: Machine
    server: Server
    program: list[str]
    costs: Costs
    runs: list[Run]


def load(path: Path) -> Results:
    """Read it.

    :raises SystemExit: it isn't there, or is no such file; the message says what to do
    """
    try:
        found = json.loads(path.read_text())
        missing = [key for key in Results.__annotations__ if key not in found]
    except FileNotFoundError:
        raise SystemExit(f"{path} does not exist: run storm.py first") from None
    except (ValueError, TypeError) as error:
        raise SystemExit(f"{path} is not what storm.py writes ({error}): run it again") from None
    if missing:
        raise SystemExit(f"{path} has no {', '.join(missing)}: it is not what storm.py writes; run it again")
    return cast("Results", found)


def label(run: Run) -> str:
    """The method as on storm.py's command line."""
    return f"{run['method']}+manifest" if run["manifest"] else run["method"]


def by_method(results: Results) -> dict[str, dict[int, list[Run]]]:
    """The runs: method, then number of nodes (growing), in the order in which the methods come."""
    found: dict[str, dict[int, list[Run]]] = {}
    for run in sorted(results["runs"], key=lambda run: run["nodes"]):
        found.setdefault(label(run), {}).setdefault(run["nodes"], []).append(run)
    order = list(dict.fromkeys(label(run) for run in results["runs"]))
    return {name: found[name] for name in order}


def seconds(runs: list[Run]) -> float:
    """From the start of the processes to the end of the slowest one's import."""
    return statistics.median(run["slowest_s"] for run in runs)


def active(runs: list[Run]) -> float:
    """From the start of the processes until collfs was active on the last of them; a reader may read for longer.

    Whose import takes longest has begun with it last of all that don't read, since all end at about the same time.
    """
    return statistics.median(run["slowest_s"] - run["import_s"] for run in runs)


def importing(runs: list[Run]) -> float:
    """From there to the end of the slowest one's import."""
    return statistics.median(run["import_s"] for run in runs)


def operations(runs: list[Run]) -> float:
    """Operations that reached the server, of all nodes."""
    return statistics.median(run["operations"] for run in runs)


def read_bytes(runs: list[Run]) -> float:
    """Bytes that the server sent, to all nodes."""
    return statistics.median(run["bytes"] for run in runs)
