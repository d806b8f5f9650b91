"""The start of MPI through servers, among real nodes: no rank reaches the shared file system with mpi4py and libmpi.

Nodes and the counting file system are those of test_nodes.py. Servers are processes of their own: each node's reads
Python and pyzmq for itself when it starts, and the root's reads for all.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest

import countingfs
import nodes
import zmqnode

NODES, EACH = 4, 2
PREFIXES = sorted({os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)} - {"/", "/usr"})

PROGRAM = """
import os, socket, sys
import bootrank, countingfs
places = sys.argv[1:]
def marks(name):
    for place in places:
        countingfs.mark(place, f"{name}-{bootrank.rank}")
bootrank.mark_the_start(marks)
session = bootrank.start(prefixes=places)
marks("up")
from mpi4py import MPI
MPI.COMM_WORLD.barrier()
import json.tool, xml.dom.minidom
if bootrank.rank == bootrank.size - 1:
    import sqlite3.dbapi2
MPI.COMM_WORLD.barrier()
marks("done")
bootrank.emit(role=session.transport.role, host=socket.gethostname(), silences=session.fetcher.silences,
              warnings=session.messages.warnings, counters=session.transport.counters())
MPI.COMM_WORLD.barrier()
"""

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.skipif(find_spec("zmq") is None, reason="pyzmq is not installed"),
    pytest.mark.skipif(bool(nodes.why_not()), reason=nodes.why_not()),
]


@pytest.fixture
def server(cluster, mount, tmp_path):
    """The root's server on node 0, through the mounts: (mounts by node, address, environment of the job)."""
    from collfs_zmq.keys import new_secret

    mounts = [[mount(place, pid) for place in PREFIXES] for pid in cluster.pids]
    env = {
        **zmqnode.environment(tmp_path, f"test-{os.getpid()}-{tmp_path.name}", "", {"COLLFS_SECRET": new_secret()}),
        **cluster.env(EACH),
    }
    del env["COLLFS_STORE"], env["XDG_CACHE_HOME"]
    host = f"{nodes.NETWORK}1"
    words = ["--bind", f"tcp://{host}:0", "--host", host, "--linger", "2"]
    for place in PREFIXES:
        words += ["--prefix", place]
    folder = tmp_path / "server"
    folder.mkdir()
    command = [*cluster.enter(0), *zmqnode.python("-m", "collfs", "serve", *words)]
    started = zmqnode.Server(folder, command, env)
    yield mounts, started.address, env
    started.stop()


@pytest.mark.timeout(200)
def test_on_four_nodes_no_rank_but_the_root_reaches_the_shared_file_system(mpistart, cluster, server, tmp_path):
    mounts, root, env = server
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    more = {"COLLFS_ROOT": root, "MPI_TEST_THREADS": ""}
    job = mpistart(NODES * EACH, [str(script)], *PREFIXES, before=cluster.enter(0), env={**env, **more})
    ended = job.end(150)
    assert ended.rc == 0, ended.output
    for rank, told in enumerate(ended.ranks):
        assert told["host"] == cluster.names[rank // EACH]
        assert told["role"] == ("root" if rank == 0 else "rank" if rank % EACH else "leader")
        assert (told["silences"], told["warnings"]) == ([], []), rank
    assert ended.ranks[-1]["counters"]["server_served"] > 0
    for rank, told in enumerate(ended.ranks):
        counted = {"hooks": [], "server": []}
        for one in mounts[rank // EACH]:
            for name, found in counted.items():
                live = countingfs.between(one.ops(), [f"{name}-{rank}"], [f"done-{rank}"])
                mine = [op for op in live if op.process == told["pid"] and op.kind in countingfs.PATH_KINDS]
                found += [f"{one.mountpoint}{op.path}" for op in mine]
        print(
            f"rank {rank}: {len(counted['hooks'])} since the hooks are live, {len(counted['server'])} since the server"
        )
        if rank:
            assert counted["server"] == [], rank
            # before it: the modules of Python and of collfs that asking it needs
            assert [path for path in counted["hooks"] if "mpi4py" in path or "libmpi" in path] == []
