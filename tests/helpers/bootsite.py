"""A place for jobs that start MPI through the nodes' servers: nodes, the root's server, a managed tree.

Nodes are stores of their own; the root's server is started by hand, as ``collfs serve`` on the node of rank 0, the
others by the first rank of their node.

Rules of the file: what is started here is ended in any case.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import mpitree
import zmqnode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mpijob import Ended, Job

EACH = 2
PREFIXES = sorted({sys.prefix, sys.base_prefix})

HEAD = """
import os, sys, time
import bootrank
from bootrank import emit, rank, size
def told(session, **more):
    transport = session.transport
    emit(role=transport.role, taken=session.choice.taken, warnings=session.messages.warnings,
         silences=[os.path.basename(p) for p in session.fetcher.silences], counters=transport.counters(),
         by_server=[p for p, _ in transport.by_server], **more)
def native():
    return [miss for miss in bootrank.misses() if miss[0].startswith(os.environ["TREE"])]
def barrier():
    from mpi4py import MPI
    MPI.COMM_WORLD.barrier()
"""

TREE = """
folder = os.environ["TREE"]
options = dict(prefixes=[folder, *sorted({sys.prefix, sys.base_prefix})], patience=20)
"""


class Site:
    """Nodes, the root's server, a managed tree, and jobs on them."""

    def __init__(self, tmp_path: Path, mpistart: Callable[..., Job]) -> None:
        from collfs_zmq.keys import new_secret

        self.tmp_path, self.mpistart = tmp_path, mpistart
        self.secret = new_secret()
        self.job = f"test-{self.secret[:12]}"
        self.stores = zmqnode.Stores()
        self.tree = tmp_path / "tree"
        mpitree.make_tree(self.tree, 0)
        self.server: zmqnode.Server | None = None

    def nodes(self, ranks: int, each: int = EACH) -> list[str]:
        """New ones for *ranks*."""
        return [self.stores.new() for _ in range((ranks + each - 1) // each)]

    def serve(self, store: str) -> str:
        """Start the root's server; its address."""
        folder = self.tmp_path / "server"
        folder.mkdir()
        words = ["--bind", "tcp://127.0.0.1:0", "--host", "127.0.0.1", "--linger", "1", "--patience", "20"]
        for prefix in [*PREFIXES, str(self.tree)]:
            words += ["--prefix", prefix]
        env = zmqnode.environment(self.tree, self.job, store, {"COLLFS_SECRET": self.secret})
        self.server = zmqnode.Server(folder, zmqnode.python("-m", "collfs", "serve", *words), env)
        return self.server.address

    def start(
        self,
        ranks: int,
        code: str,
        *words: str,
        serve: bool = True,
        each: int = EACH,
        run: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        **more: object,
    ) -> Job:
        """A job of *ranks*; with *run*, its flags, under ``collfs run``."""
        nodes = self.nodes(ranks, each)
        given = {
            "TREE": str(self.tree),
            "COLLFS_JOB": self.job,
            "COLLFS_SECRET": self.secret,
            "BOOT_STORES": self.stores.folder,
            "BOOT_EACH": str(each),
            "PYTHONDONTWRITEBYTECODE": "1",
            **(env or {}),
        }
        if serve:
            given["COLLFS_ROOT"] = self.serve(nodes[0])
        script = self.tmp_path / "program.py"
        script.write_text(HEAD + code)
        program = [str(script), *words]
        if run:
            # who is on which node has to be known before `collfs run`: mpiexec gives all ranks the same environment
            inner = self.tmp_path / "run.py"
            inner.write_text(
                "import os, sys, bootrank\n"
                "os.execv(sys.executable, [sys.executable, '-m', 'collfs', 'run', *sys.argv[1:]])\n"
            )
            program = [str(inner), *run, *program]
        return self.mpistart(ranks, program, env=given, **more)

    def run(self, ranks: int, code: str, *, timeout: float = 60, **more: object) -> Ended:
        """Such a job to its good end."""
        ended = self.start(ranks, code, **more).end(timeout)  # type: ignore[arg-type]
        if ended.rc or "Traceback" in ended.output:
            raise AssertionError(f"exit status {ended.rc}\n{ended.ranks}\n{ended.output}")
        return ended

    def close(self) -> None:
        """End and remove all."""
        if self.server is not None:
            self.server.stop()
        self.stores.close()
