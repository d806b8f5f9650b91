"""What programs begin with that bootstrap MPI: rank and node without mpi4py, and marks of how far the start has come.

Nodes are store directories (:mod:`zmqnode`): a rank's is told by its number, before anything else.

Rules of the file: imported by ranks only; never imports mpi4py.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collfs.lifecycle import Session

rank = int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"])
size = int(os.environ["MPI_TEST_RANKS"])
each = int(os.environ.get("BOOT_EACH", "2"))
if "BOOT_STORES" in os.environ:
    os.environ["COLLFS_STORE"] = f"{os.environ['BOOT_STORES']}/node{rank // each}"
MARK = "/collfs-test"
_out = open(f"{os.environ['MPI_TEST_FOLDER']}/rank{rank}.jsonl", "a", encoding="utf-8")  # noqa: SIM115


def emit(**values: object) -> None:
    """One line for the test."""
    _out.write(json.dumps(values) + "\n")
    _out.flush()


def mark(name: str) -> None:
    """Seen by strace."""
    os.path.exists(f"{MARK}/{name}")


def mark_the_start(mark_too: object = None) -> None:
    """Mark ``hooks`` when the hooks are live, ``server`` when the server has answered, in every later session.

    :param mark_too: also called with these names
    """
    from collfs.lifecycle import Session

    redirect, triggers = Session._redirect, Session.start_triggers
    seen: set[str] = set()

    def once(name: str) -> None:
        if name not in seen:
            seen.add(name)
            mark(name)
            if callable(mark_too):
                mark_too(name)

    def _redirect(self: Session) -> None:
        redirect(self)
        once("hooks")

    def start_triggers(self: Session) -> None:
        triggers(self)
        once("server")

    Session._redirect = _redirect  # type: ignore[method-assign]
    Session.start_triggers = start_triggers  # type: ignore[method-assign]


def start(transport: str = "mpi", **options: object) -> Session:
    """Start collfs, with the environment of this Python managed unless *options* say otherwise."""
    import collfs

    given: dict[str, object] = {
        "bootstrap": "zmq",
        "prefixes": sorted({sys.prefix, sys.base_prefix}),
        "manifest": "none",
        "patience": 20,
    }
    session = collfs.initialize(transport, **{**given, **options})
    sys.path.insert(0, os.environ["TREE"])
    return session


def misses() -> list[tuple[str, str]]:
    """Which calls went to the original, on this node."""
    from collfs.calls import _current

    assert _current is not None
    assert _current.store is not None
    return _current.store.table.misses()


def server_pid() -> int:
    """Who serves this node; 0: nobody."""
    import zmqnode
    from collfs.calls import _current

    assert _current is not None
    assert _current.store is not None
    return zmqnode.server_pid(_current.store.path)


emit(pid=os.getpid())
