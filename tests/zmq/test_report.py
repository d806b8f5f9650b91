"""The report of a job on several nodes: one file, written by the root's server; without it, one for each process."""

from __future__ import annotations

import json
import os
import signal

import pytest

from collfs_zmq import local, wire
from collfs_zmq import reports as reports_module
from collfs_zmq.keys import new_secret
from collfs_zmq.reports import Reports
from zmqservers import LIMIT, Node, until

PROGRAM = """
session = start(report=sys.argv[1], patience=float(sys.argv[2]))
open(f"{TREE}/data0").read()
tell(ready=os.getpid())
hear()
import time
begun = time.monotonic()
import collfs
collfs.finalize()
tell(took=time.monotonic() - begun)
"""


@pytest.fixture
def job(bench, tmp_path):
    """Start a tree of three servers in a row, and programs on each."""
    path = tmp_path / "report.json"

    def start(patience=20, each=2):
        nodes = [bench.node() for _ in range(3)]
        words = ("--fanout", "1", "--patience", str(patience), "--bind", "tcp://127.0.0.1:0")
        servers = [bench.serve(nodes[0], *words)]
        servers += [bench.serve(node, "--root", servers[0].address, *words) for node in nodes[1:]]
        programs = [bench.start(PROGRAM, node, str(path), str(patience)) for node in nodes for _ in range(each)]
        return servers, programs, [program.told("ready") for program in programs]

    start.path = path  # type: ignore[attr-defined]
    return start


def own(path):
    """The files that processes have written for themselves."""
    return sorted(int(file.suffix[1:]) for file in path.parent.glob(f"{path.name}.{os.uname().nodename}.*"))


def test_all_processes_of_all_nodes_are_in_one_file_and_their_reports_are_there_when_they_end(job):
    servers, programs, pids = job()
    found = {}
    for number, program in enumerate(programs):
        program.say()
        assert program.end()["took"] < 10
        found = json.loads(job.path.read_text())
        assert [process["pid"] for process in found["processes"]] == pids[: number + 1]
    assert {process["host"] for process in found["processes"]} == {os.uname().nodename}
    assert {process["transport"]["taken"] for process in found["processes"]} == {"zmq"}
    assert all(process["calls"] for process in found["processes"])
    assert found["format"] == 1
    assert found["options"]["report"] == str(job.path)
    for server in servers:
        assert server.wait(LIMIT) == 0, server.log()
    assert [file.name for file in job.path.parent.glob("report*")] == [job.path.name]


def test_another_job_replaces_the_report_of_the_last_one(job):
    for _ in range(2):
        _, programs, pids = job(each=1)
        for program in programs:
            program.say()
        for program in programs:
            program.end()
        found = json.loads(job.path.read_text())
        assert sorted(process["pid"] for process in found["processes"]) == sorted(pids)


def test_what_is_no_report_is_not_replaced(job):
    job.path.write_text("precious")
    _, programs, pids = job(each=1)
    for program in programs:
        program.say()
        program.end()
    assert job.path.read_text() == "precious"
    assert own(job.path) == sorted(pids)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_without_the_root_each_process_writes_its_own_and_waits_for_a_bounded_time(job, how):
    servers, programs, pids = job(patience=3, each=1)
    root = servers[0].process
    root.send_signal(how)
    try:
        for program in programs:
            program.say()
        for program in programs:
            assert program.end(60)["took"] < 9
    finally:
        root.send_signal(signal.SIGKILL)
    assert not job.path.exists()
    assert own(job.path) == sorted(pids)


def test_a_server_that_finds_no_parent_says_no(tmp_path):
    (tmp_path / "tree").mkdir()
    node = Node(tmp_path / "node", tmp_path / "tree", new_secret(), root="tcp://127.0.0.1:9", patience=2)
    try:
        link = node.link()
        for number in (1, 2):  # while it searches, and when it has given up
            link.send(local.REPORT, number, message(tmp_path / "r", 1))
            assert link.receive(wait=True) == [(local.REPORTED, number, b"\0")]
        assert node.server.uplink is not None
        assert node.server.uplink.state == "alone"
        link.close()
    finally:
        node.close()


# -- the root's side alone ---------------------------------------------------------------------------------------


@pytest.fixture
def reports():
    made = Reports("job", lambda: None)
    yield made
    made.close()


def message(path, number, name="x", **more):
    document = {"format": 1, "collfs": "0", "processes": [{"pid": number}]}
    return json.dumps({"path": str(path), "id": name, "document": document, **more}).encode()


def sent(reports, *payloads):
    """What became of them."""
    told = {}
    for index, payload in enumerate(payloads):
        reports.take(payload, lambda good, index=index: told.__setitem__(index, good))
    until(lambda: reports.answer() or len(told) == len(payloads))
    return [told[index] for index in range(len(payloads))]


def pids(path):
    return [process["pid"] for process in json.loads(path.read_text())["processes"]]


def test_what_is_sent_twice_is_there_once(reports, tmp_path):
    path = tmp_path / "r"
    assert sent(reports, message(path, 1, "a"), message(path, 1, "a"), message(path, 2, "b")) == [True] * 3
    assert pids(path) == [1, 2]


def test_too_much_is_counted_and_left_out(reports, tmp_path, monkeypatch):
    path = tmp_path / "r"
    monkeypatch.setattr(reports_module, "KEPT", 30)
    assert sent(reports, *[message(path, number, str(number)) for number in range(10)]) == [True] * 10
    assert len(pids(path)) == 3
    assert json.loads(path.read_text())["left_out"] == 7


def test_nonsense_and_what_cannot_be_written_is_answered_with_no(reports, tmp_path):
    (tmp_path / "folder").mkdir()
    deep = b'{"path": "/x", "id": "a", "document": ' + b"[" * 100_000
    bad = [b"", b"[]", b"{}", b'"x"', b"\xff", deep, message("relative", 1), message(tmp_path / "r\0", 1)]
    bad += [message(tmp_path / "no" / "r", 1, "1"), message(tmp_path / "folder", 2, "2"), message("/dev/null", 3, "3")]
    bad += [message(tmp_path / "r", 4, 7)]
    assert sent(reports, *bad) == [False] * len(bad)
    assert os.listdir(tmp_path) == ["folder"]


def test_there_is_room_for_so_many_files(reports, tmp_path, monkeypatch):
    monkeypatch.setattr(reports_module, "FILES", 2)
    assert sent(reports, *[message(tmp_path / str(number), number) for number in range(3)]) == [True, True, False]


def test_a_file_system_that_hangs_holds_up_the_writing_thread_only(reports, tmp_path, monkeypatch):
    from threading import Event

    go, told = Event(), []
    monkeypatch.setattr(reports_module, "CLOSING", 0.1)
    monkeypatch.setattr(reports_module, "write", lambda path, file: go.wait(LIMIT))
    for number in range(3):
        reports.take(message(tmp_path / "r", number, str(number)), told.append)
    reports.answer()
    reports.close()
    assert told == []
    go.set()


def test_a_report_that_is_too_large_costs_its_sender_the_place(bench):
    from zmqtarget import Target

    target = Target(bench)
    large = bytes(local.LARGEST_REPORT + 1)
    with target.knock() as sock:
        sock.sendall(local.frame(local.REPORT, 1, large))
        (found,) = local.Frames().add(sock.recv(1000))
        assert found[0] == local.REFUSED
    with target.child() as child:
        child.say(wire.REPORT, 1, large)
        child.say(wire.PING, 0, wire.U32.pack(0))
        assert child.silence(0.5)
    assert target.serves()
    assert target.report()["refused"] == 2
