"""The promise among real nodes, without MPI: with live hooks only the root's server reaches the shared file system.

As tests/mpi/test_nodes.py does it: four network namespaces, the environment of this Python mounted on each through a
counting file system whose time-outs are 0, two processes on each node that import numpy, scipy and pandas, compute, and
look at files. What must be zero is every operation that names a path, of anybody but the root's server: processes,
servers of the nodes, the kernel for them. Reads of what was mapped before there were hooks are no such operations.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest

import countingfs
import mpistack
import nodes

NODES, EACH = 4, 2
PREFIXES = sorted({os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)} - {"/", "/usr"})

PROGRAM = (
    """
import socket
import countingfs
number, places = sys.argv[1], sys.argv[2:]
session = start(prefixes=places, patience=30)
for place in places:
    countingfs.mark(place, f"live-{number}")
tell(pid=os.getpid())
hear()
"""
    + mpistack.WORK
    + """
tell(worked=1)
hear()
for place in places:
    countingfs.mark(place, f"done-{number}")
folder = os.path.dirname(sys.modules["numpy"].__file__)
tell(answer=answer, files=files, host=socket.gethostname(), trouble=trouble(session), taken=session.choice.taken,
     device=[os.stat(folder).st_dev, os.stat("/" + folder).st_dev], counters=session.transport.counters())
import collfs
collfs.finalize()
"""
)

pytestmark = [
    pytest.mark.real_stack,
    pytest.mark.skipif(find_spec("pandas") is None, reason="numpy, scipy and pandas are not installed"),
    pytest.mark.skipif(bool(nodes.why_not()), reason=nodes.why_not()),
]


@pytest.fixture
def cluster(tmp_path, bench):
    """Four nodes; they go before the bench's processes do, which the bench ends in any case."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with nodes.Nodes(folder, NODES) as made:
        yield made


def by_launcher(bench, cluster, start):
    """As ``srun --ntasks-per-node=1 collfs serve --tree`` would: every node is told the same, and its number."""
    env = {"COLLFS_NODES": ",".join(cluster.names)}
    return [start(n, "--tree", COLLFS_NODE=str(n), **env) for n in range(NODES)]


def by_hand(bench, cluster, start):
    """The root's address is handed to the others."""
    root = start(0, "--bind", "tcp://*:0")
    return [root, *(start(n, "--root", root.address, "--fanout", "1") for n in range(1, NODES))]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", [by_launcher, by_hand])
def test_on_four_nodes_only_the_server_of_the_root_reaches_the_shared_file_system(
    bench, run_python, cluster, mount, how
):
    plain = mpistack.plain(run_python)
    mounts = [[mount(place, pid) for place in PREFIXES] for pid in cluster.pids]
    # PATH: some numpy starts lscpu, and a program is looked for by a child that is about to be another one
    env = {"COLLFS_STORE": None, "TMPDIR": str(cluster.tmp), "PATH": os.defpath}

    def start(n, *words, **more):
        prefixes = [word for place in PREFIXES for word in ("--prefix", place)]
        return bench.serve("", *prefixes, *words, before=cluster.enter(n), host=cluster.names[n], **env, **more)

    servers = how(bench, cluster, start)
    programs = [
        bench.start(PROGRAM, "", str(n), *PREFIXES, before=cluster.enter(n // EACH), **env) for n in range(NODES * EACH)
    ]
    pids = [program.told("pid", 60) for program in programs]
    for program in programs:
        program.say()
    for program in programs:
        program.told("worked", 150)
    for program in programs:
        program.say()
    for n, program in enumerate(programs):
        told = program.end(60)
        assert (told["answer"], told["files"]) == plain, n
        assert (told["trouble"], told["taken"]) == ([[], "", "", ""], "zmq"), n
        assert told["host"] == cluster.names[n // EACH]
        assert told["device"][0] == told["device"][1], n
        assert told["counters"]["ops"] == 0
    for server in servers:
        assert server.wait(40) == 0, server.log()
    print([server.report() for server in servers])

    by_root, seen, reads = [], [], 0
    for node, mounted in enumerate(mounts):
        numbers = range(node * EACH, (node + 1) * EACH)
        for one in mounted:
            live = countingfs.between(one.ops(), [f"live-{n}" for n in numbers], [f"done-{n}" for n in numbers])
            ours = [op for op in live if op.process == servers[0].pid]
            others = [op for op in live if op.process != servers[0].pid]
            by_root += ours
            seen += [(node, op) for op in others if op.kind in countingfs.PATH_KINDS]
            reads += len(others)
            print(f"node {node}, {one.mountpoint}: {len(live)} operations with live hooks, {len(ours)} of the root's")
    paths = [op for op in by_root if op.kind in countingfs.PATH_KINDS]
    print(f"root: {len(by_root)} operations, {len(paths)} with a path; others: {reads} reads")
    assert seen == [], (pids, [server.pid for server in servers])
    assert len(paths) > 2000
