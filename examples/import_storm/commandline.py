"""The command line of storm.py: its options, and how quantities are written.

Rule of the file: nothing is started here, and nothing of the laboratory is loaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

HERE = Path(__file__).resolve().parent
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "": 1.0}
MODULES = "numpy,scipy.linalg,pandas"
DEFAULT = "floor,plain,tar,local+manifest,mpi,mpi+manifest,zmq,zmq+manifest,mpi+zmq+manifest"


def quantity(text: str) -> float:
    """A number with a unit: 200us, 1ms, 1G.

    >>> quantity("200us"), quantity("1G"), quantity("3")
    (0.0002, 1000000000.0, 3.0)
    """
    digits = text.rstrip("umskMG")
    try:
        value = float(digits) * _UNITS[text[len(digits) :]]
    except (ValueError, KeyError):
        value = -1.0
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no quantity; such are 200us, 1ms, 3, 1G")
    return value


def numbers(text: str) -> list[int]:
    """Numbers of nodes, in order."""
    try:
        found = sorted({int(word) for word in text.split(",")})
    except ValueError:
        found = []
    if not found or not 0 < found[0] <= found[-1] < 255:
        raise argparse.ArgumentTypeError(f"{text!r} are no numbers from 1 to 254, such as 1,2,4")
    return found


def options(about: str | None) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--nodes", type=numbers, default="1,2,4,8,16", metavar="N,...", help="numbers of nodes (default: %(default)s)")
    add("--ranks", type=int, default=1, metavar="N", help="processes on each node (default: 1)")
    add("--rounds", type=int, default=3, metavar="N", help="how often all is repeated, alternating (default: 3)")
    add("--methods", default=DEFAULT, metavar="NAME,...", help="(default: %(default)s; more: local, mpi+zmq)")
    add("--modules", default=MODULES, metavar="NAME,...", help="what is imported (default: %(default)s)")
    add(
        "--path",
        action="append",
        default=[],
        metavar="DIR",
        help="a shared directory for sys.path, such as a workload's",
    )
    add(
        "--slots",
        type=int,
        default=1,
        metavar="N",
        help="metadata operations that the server does at once (default: 1)",
    )
    add("--service", type=quantity, default="1ms", metavar="TIME", help="for each of them (default: %(default)s)")
    add(
        "--bandwidth", type=quantity, default="1G", metavar="BYTES", help="of its link, a second (default: %(default)s)"
    )
    for name in ("attributes", "entries", "negatives"):
        text = "seconds that a node believes %s (default: 3, as with NFS; 0: asks for every component of every path)"
        add(f"--{name}", type=quantity, default="3", metavar="S", help=text % name)
    add(
        "--out",
        type=Path,
        default=HERE / "results",
        metavar="DIR",
        help="where everything goes (default: results/ here)",
    )
    add("--python", metavar="FILE", help="of an environment that has it all, instead of making one")
    return parser
