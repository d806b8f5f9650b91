"""Workers that others start: a pool of multiprocessing, dask's cluster, torchrun. One server serves all of a node.

The variables COLLFS_... are all that they are told.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import sys
from ast import literal_eval
from importlib.util import find_spec
from pathlib import Path

import pytest

import stracecount
import zmqnode

WORKERS = 4

COMMON = """
import mpitree

def begin():
    import collfs
    from collfs import calls
    session = calls._current or collfs.initialize()
    assert not session.idle, session.idle
    if TREE not in sys.path:
        sys.path.insert(0, TREE)

def work(number):
    import collfs
    session = collfs.calls._current
    mpitree.work(TREE, 0, "module", number % mpitree.MODULES)
    mpitree.work(TREE, 0, "file", number % mpitree.FILES)
    return [os.getpid(), session.choice.taken, session.store.path, native(), trouble(session), sys.orig_argv[1:4]
            if hasattr(sys, "orig_argv") else []]
"""

POOL = (
    COMMON
    + """
def together(barrier):
    begin()
    barrier.wait(60)  # or the first one had done all before the others were there

if __name__ == "__main__":
    import multiprocessing
    context = multiprocessing.get_context("spawn")
    if len(sys.argv) > 2:
        context.set_executable(sys.argv[2])
    with context.Pool(int(sys.argv[1]), together, (context.Barrier(int(sys.argv[1])),)) as pool:
        tell(told=pool.map(work, range(64), 1))
        pool.close()
        pool.join()
"""
)
DASK = (
    COMMON
    + """
if __name__ == "__main__":
    import distributed
    workers = int(sys.argv[1])
    with distributed.LocalCluster(n_workers=workers, threads_per_worker=2, dashboard_address=None) as made:
        with distributed.Client(made) as client:
            who = list(client.run(begin))
            jobs = [client.submit(work, number, workers=who[number % len(who)]) for number in range(64)]
            tell(told=client.gather(jobs))
"""
)


# multiprocessing starts it as "python -B ... -c text --multiprocessing-fork" (subprocess._args_from_interpreter_flags)
INTERPRETER = """#!/bin/sh
flags=
while [ "$1" != -c ]; do flags="$flags $1"; shift; done
exec @PYTHON@ $flags -m collfs run "$@"
"""


def environment(bench):
    """What a user exports."""
    return {
        "COLLFS_TRANSPORT": "zmq",
        "COLLFS_PREFIXES": str(bench.tree),
        "COLLFS_MANIFEST": "none",
        "COLLFS_PATIENCE": "20",
    }


def check(told, taken=1):
    """All tasks were served, from one store; who worked."""
    assert len(told) == 64
    assert {task[1] for task in told} == {"zmq"}
    assert len({task[2] for task in told}) == 1
    for task in told:
        assert task[3].keys() <= {"stat"}, task
        assert task[4] == [[], "", "", ""], task
    workers = {task[0] for task in told}
    assert len(workers) >= taken
    return workers


@pytest.fixture
def served(bench, tmp_path):
    """A node with a server whose calls are counted, and what to ask of it at the end."""
    if stracecount.why_not():
        pytest.skip(stracecount.why_not())
    node, trace = bench.node(), tmp_path / "trace"
    server = bench.serve(node, before=[*stracecount.STRACE, "-o", str(trace)])

    def read():
        """How often it has opened each file, and its report."""
        assert server.wait(30) == 0, server.log()
        ops = stracecount.parse(trace.read_text(errors="surrogateescape"), str(tmp_path)).below(bench.tree).ops
        opened = [op.path for op in ops if op.kind == "open" and not op.errno and os.path.isfile(op.path)]
        return {path: opened.count(path) for path in opened}, server.report()

    return node, read


def test_a_spawn_pool_whose_workers_initialize_is_served_by_one_server(bench, served):
    node, read = served
    workers = check(bench.run(POOL, node, str(WORKERS), **environment(bench))["told"], 2)
    opened, report = read()
    assert set(opened.values()) == {1}
    assert len(opened) >= 12  # 8 modules, 4 files
    assert len(workers) <= report["came"] <= WORKERS
    assert zmqnode.inside(node) == []


def test_a_spawn_pool_whose_interpreter_is_collfs_run_is_served_by_one_server(bench, served, tmp_path):
    node, read = served
    interpreter = tmp_path / "python"
    interpreter.write_text(INTERPRETER.replace("@PYTHON@", sys.executable))
    interpreter.chmod(interpreter.stat().st_mode | stat.S_IXUSR)
    told = bench.run(POOL, node, str(WORKERS), str(interpreter), **environment(bench))["told"]
    workers = check(told, 2)
    if sys.version_info >= (3, 10):
        assert {tuple(task[5]) for task in told} == {("-B", "-m", "collfs")}
    opened, report = read()
    assert set(opened.values()) == {1}
    assert len(workers) <= report["came"] <= WORKERS + 1  # multiprocessing's resource tracker is such a process, too
    assert zmqnode.inside(node) == []


def test_the_first_worker_of_a_pool_starts_the_server_that_all_use(bench):
    node = bench.node()
    told = bench.run(POOL, node, str(WORKERS), **environment(bench))["told"]
    check(told, 2)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("distributed") is None, reason="dask's cluster is not installed: pip install distributed")
def test_the_workers_of_a_dask_cluster_are_served_by_one_server(bench, served):
    node, read = served
    workers = check(bench.run(DASK, node, str(WORKERS), timeout=100, **environment(bench))["told"], WORKERS)
    opened, report = read()
    assert set(opened.values()) == {1}
    assert len(workers) <= report["came"] <= WORKERS
    assert zmqnode.inside(node) == []


DOCUMENT = Path(__file__).parents[2] / "docs" / "without-mpi.md"


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the documents aren't beside the tests")
def test_the_example_of_the_document_is_served(bench, tmp_path):
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert "/shared/env" in example
    (bench.tree / "numpy.py").write_text("def sqrt(number):\n    return number ** 0.5\n")
    script = tmp_path / "example.py"
    script.write_text(example.replace("/shared/env", str(bench.tree)))
    node = bench.node()
    server = bench.serve(node)
    env = bench.env(node)
    env["PYTHONPATH"] = f"{bench.tree}{os.pathsep}{env['PYTHONPATH']}"
    done = subprocess.run(
        [sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert literal_eval(done.stdout) == [number**0.5 for number in range(8)]
    assert server.wait(30) == 0, server.log()
    assert 1 <= server.report()["came"] <= 4
    assert server.report()["ops"] >= 1


def torchrun(port, rank, size=4, each=2):
    """What torchrun tells a worker (torch/distributed/elastic/agent/server/local_elastic_agent.py)."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank % each),
        "LOCAL_WORLD_SIZE": str(each),
        "GROUP_RANK": str(rank // each),
        "GROUP_WORLD_SIZE": str(size // each),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "none",
    }


def free_port():
    """A port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


TORCH = (
    COMMON
    + """
begin()
import collfs
from collfs.launch import place
found = place()
tell(place=[found.source, found.rank, found.size, found.node, found.root_host])
tell(told=[work(number) for number in range(64)], counters=collfs.calls._current.transport.counters())
hear()
"""
)


def test_workers_of_torchrun_find_the_tree_of_their_job_by_its_variables_alone(bench):
    """Nobody says COLLFS_JOB, and each worker is a session of its own, as torchrun starts them."""
    port, master = free_port(), free_port()
    nodes = [bench.node(), bench.node()]
    more = {**environment(bench), "COLLFS_JOB": None}
    servers = [
        bench.serve(nodes[n], "--tree", "--port", str(port), **{**more, **torchrun(master, 2 * n)}) for n in (0, 1)
    ]
    assert servers[0].address == f"tcp://127.0.0.1:{port}"
    programs = [bench.start(TORCH, nodes[rank // 2], **{**more, **torchrun(master, rank)}) for rank in range(4)]
    for rank, program in enumerate(programs):
        assert program.told("place") == ["torchrun", rank, 4, rank // 2, "127.0.0.1"]
        check(program.told("told"))
    assert [len(zmqnode.inside(node)) for node in nodes] == [1, 1]
    for program in programs:
        program.say()
        assert program.end() == {}
    for server in servers:
        assert server.wait(30) == 0, server.log()
    reports = [server.report() for server in servers]
    assert [report["came"] for report in reports] == [2, 2]
    assert reports[1]["joins"] == 1
    assert "ops" not in reports[1]


def test_a_shell_with_the_variables_of_torchrun_stops_its_server(bench):
    node, port = bench.node(), free_port()
    more = {"COLLFS_JOB": None, "TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": str(port)}
    server = bench.serve(node, "--linger", "60", **{**more, **torchrun(port, 0)})

    def stop(**variables):
        command = zmqnode.python("-m", "collfs", "stop")
        return subprocess.run(
            command, env=bench.env(node, **variables), capture_output=True, timeout=60, check=False
        ).returncode

    assert stop(**{**more, "MASTER_PORT": str(port + 1)}) == 1
    assert server.process.poll() is None
    assert stop(**more) == 0
    assert server.wait(30) == 0, server.log()


def test_without_a_server_the_workers_of_torchrun_share_the_one_that_the_first_starts(bench):
    node, port = bench.node(), free_port()
    more = {**environment(bench), "COLLFS_JOB": None}
    programs = [bench.start(TORCH, node, **{**more, **torchrun(port, rank, 2)}) for rank in range(2)]
    stores = {task[2] for program in programs for task in program.told("told")}
    assert stores == set(zmqnode.inside(node))
    assert len(stores) == 1
    for program in programs:
        program.say()
        program.end()
