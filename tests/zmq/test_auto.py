"""``transport="auto"`` without MPI: who finds servers uses them, who doesn't reads for himself, and nobody waits."""

from __future__ import annotations

from contextlib import ExitStack
from threading import Event, Thread

import pytest

import zmqnode
from collfs.errors import TransportUnavailable
from collfs.store import node
from collfs_zmq import start

WORK = """
session = start("auto")
import s0m0, s0m5
transport = session.transport
tell(taken=session.choice.taken, reasons=session.choice.reasons, values=[s0m0.VALUE, s0m5.VALUE],
     ops=transport.reader.ops, trouble=[session.fetcher.silences, session.fetcher.dead], native=native())
hear()
"""
NOBODY = {"COLLFS_SECRET": None}


def finish(*programs):
    for program in programs:
        program.say()
    for program in programs:
        program.end()


def test_alone_it_is_local(bench):
    program = bench.start(WORK, bench.node(), **NOBODY)
    assert program.told("taken") == "local"
    finish(program)


def test_a_server_that_runs_on_the_node_is_used(bench):
    store = bench.node()
    server = bench.serve(store)
    programs = [bench.start(WORK, store, **NOBODY) for _ in range(2)]
    for program in programs:
        told = program.told_all("taken")
        assert told["taken"] == "zmq"
        assert (told["values"], told["ops"], told["trouble"]) == ([0, 5], 0, [[], ""])
        assert ["zmq", "a server of this job runs on this node"] in told["reasons"]
    finish(*programs)
    assert server.wait() == 0
    assert server.report()["ops"] > 0


def test_nodes_that_the_environment_names_join_by_themselves(bench, watch):
    more = {"COLLFS_NODES": "127.0.0.1,localhost"}
    stores = [bench.node(), bench.node()]
    root = bench.start(WORK, stores[0], COLLFS_NODE="0", **more)
    assert root.told("taken") == "zmq"
    other = bench.start(WORK, stores[1], COLLFS_NODE="1", **more)
    told = other.told_all("taken")
    assert (told["taken"], told["values"], told["trouble"]) == ("zmq", [0, 5], [[], ""])
    inside = [zmqnode.inside(store)[0] for store in stores]
    servers = [watch(zmqnode.server_pid(path)) for path in inside]
    with ExitStack() as stack:  # the logs go with the stores, but not from those who have opened them
        logs = [stack.enter_context(open(f"{path}/server.log", encoding="utf-8")) for path in inside]
        finish(root, other)
        assert all(server.ended(30) for server in servers)
        reports = [zmqnode.report_in(log.read()) for log in logs]
    assert reports[0]["ops"] > 0
    assert "ops" not in reports[1]  # it has no source of its own
    assert reports[1]["joins"] == 1


def test_without_pyzmq_it_is_local(bench, tmp_path):
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "zmq.py").write_text(f"open({str(tmp_path / 'tried')!r}, 'a').write('.')\nraise ImportError('no zmq')\n")
    (fake / "sitecustomize.py").write_text(zmqnode.NO_LIBRARY)
    store = bench.node()
    path = f"{fake}:{bench.env(store)['PYTHONPATH']}"
    keeper = bench.start(WORK, store, **NOBODY)  # so that the others wait in the same store, all at once
    assert keeper.told("taken") == "local"
    more = {"COLLFS_ROOT": "tcp://127.0.0.1:9", "PYTHONPATH": path}
    programs = [bench.start(WORK, store, **more) for _ in range(4)]
    for program in programs:
        told = program.told_all("taken")
        assert (told["taken"], told["values"]) == ("local", [0, 5])
        assert "no zmq" in dict(told["reasons"])["zmq"] or "pyzmq" in dict(told["reasons"])["zmq"]
    finish(keeper, *programs)
    assert 1 <= len((tmp_path / "tried").read_text()) <= 4


def test_who_has_waited_for_a_start_that_failed_does_not_try_it_again(tmp_path, monkeypatch):
    tries, waiting, both, lock = [], [], Event(), node.wait_for_lock

    def wait_for_lock(*given):
        waiting.append(1)
        if len(waiting) == 2:
            both.set()
        return lock(*given)

    def fail(*given):
        tries.append(1)
        assert both.wait(20)
        return "no zmq"

    monkeypatch.setattr(start, "wait_for_lock", wait_for_lock)
    monkeypatch.setattr(start, "_start", fail)
    said = []

    def run():
        with pytest.raises(TransportUnavailable) as caught:
            start.find_or_start(str(tmp_path), 20.0, [])
        said.append(str(caught.value))

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert said == ["transport 'zmq': the server of this node doesn't start: no zmq"] * 2
    assert len(tries) == 1


@pytest.mark.parametrize("fallback", ["local", "zmq"])
def test_a_fallback_after_auto_changes_nothing_while_auto_works(bench, fallback):
    program = bench.start(WORK.replace('"auto"', f'"auto", fallback=({fallback!r},)'), bench.node(), **NOBODY)
    assert program.told("taken") == "local"
    finish(program)
