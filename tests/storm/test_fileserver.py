"""The simulated file server: what it counts, for whom, and that nothing comes faster than it may."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter

import pytest

import countingfs
import fileserver
import nodes
import queueing

pytestmark = [
    pytest.mark.skipif(bool(nodes.why_not()), reason=nodes.why_not()),
    pytest.mark.skipif(bool(countingfs.why_not()), reason=countingfs.why_not()),
]

SIZE = 300_000

ASKS = """
import os, sys
place, times, SIZE = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
for _ in range(times):
    os.path.exists(f"{place}/nothing")
with open(f"{place}/file", "rb") as file:
    assert file.read() == b"x" * SIZE
try:
    os.stat(f"/{place}/.mark-live-7")
except FileNotFoundError:
    pass
os.listdir(place)
"""


@pytest.fixture
def cluster(tmp_path):
    """Two nodes."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with nodes.Nodes(folder, 2) as made:
        yield made


@pytest.fixture
def place(tmp_path):
    """A directory with a file."""
    folder = tmp_path / "place"
    folder.mkdir()
    (folder / "file").write_bytes(b"x" * SIZE)
    return str(folder)


def start(tmp_path, cluster, place, **load):
    folder = tmp_path / "server"
    folder.mkdir()
    return fileserver.FileServer(folder, queueing.Load(**load), cluster.pids, [place])


def ask(cluster, node, place, times):
    """The pid of a process that has asked on a node."""
    with subprocess.Popen([*cluster.enter(node), sys.executable, "-c", ASKS, place, str(times), str(SIZE)]) as child:
        assert child.wait(60) == 0
    return child.pid


def test_each_node_is_counted_by_operation_path_and_process(tmp_path, cluster, place):
    with start(tmp_path, cluster, place, service_s=0.0, entries=60, attributes=60) as server:
        assert server.ops(0) == server.ops(1) == []
        pid = ask(cluster, 1, place, 3)
        assert server.ops(0) == []
        counted = Counter((op.kind, op.path) for op in fileserver.paths_only(server.ops(1)))
        assert counted.pop(("getattr", f"{place}/nothing")) == 3
        assert counted.pop(("open", f"{place}/file")) == counted.pop(("opendir", place)) == 1
        assert {op.process for op in server.ops(1) if op.kind != "read"} == {pid}  # reading ahead is the kernel's
        assert server.bytes_read() == [0, SIZE]
        before, after = server.split(1, [("live-7", pid)])
        assert [op.kind for op in before].count("open") == 1
        assert {op.kind for op in after} <= {"getattr", "opendir", "readdir"}
        assert after
        assert not [op for op in (*before, *after) if countingfs.MARK in op.path]
        with pytest.raises(AssertionError, match="no marks"):
            server.split(0, [("live-7", pid)])


def test_what_is_done_by_others_before_the_last_rank_is_active_counts_as_before(tmp_path, cluster, place):
    with start(tmp_path, cluster, place, service_s=0.0) as server:
        first = ask(cluster, 0, place, 1)
        other = ask(cluster, 0, place, 2)
        before, after = server.split(0, [("live-7", other)])
        assert {op.process for op in before} >= {first, other}
        assert {op.process for op in after if op.kind == "opendir"} == {other}


def test_no_operation_is_answered_before_its_turn_and_marks_cost_nothing(tmp_path, cluster, place):
    with start(tmp_path, cluster, place, service_s=0.002, bandwidth=0.0, entries=60, attributes=60) as server:
        begun = time.monotonic()
        ask(cluster, 0, place, 100)
        took = time.monotonic() - begun
        counted = len(fileserver.paths_only(server.ops(0)))
        marks = sum(op.path.startswith(countingfs.MARK) for op in server.ops(0))
        assert counted - marks >= 100
        assert marks == 1
        assert took >= 0.002 * (counted - marks)  # a sleep is never shorter than asked for
        (folder,) = (tmp_path / "server").glob("queue")
        free = memoryview(bytearray(folder.read_bytes())).cast("q")
        assert free[0] > 0
        assert free[1] == 0


def test_a_mark_takes_no_slot(tmp_path, cluster, place):
    looks = "import os, sys; print(os.path.exists(sys.argv[1]))"
    with start(tmp_path, cluster, place, service_s=20.0) as server:
        words = [*cluster.enter(0), sys.executable, "-c", looks, f"{place}{countingfs.MARK}live-1"]
        assert subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout == "False\n"
        assert [op.path for op in server.ops(0) if op.path.startswith(countingfs.MARK)] == [f"{countingfs.MARK}live-1"]
        assert not any(memoryview((tmp_path / "server" / "queue").read_bytes()).cast("q"))


def test_bytes_take_their_time_on_the_link(tmp_path, cluster, place):
    with start(tmp_path, cluster, place, service_s=0.0, bandwidth=SIZE * 2) as server:
        begun = time.monotonic()
        ask(cluster, 0, place, 0)
        assert time.monotonic() - begun >= 0.5
        assert server.bytes_read() == [SIZE, 0]


def test_the_mounts_end_with_their_server(tmp_path, cluster, place):
    with start(tmp_path, cluster, place) as server:
        ask(cluster, 0, place, 1)
    gone = subprocess.run([*cluster.enter(0), "ls", place], capture_output=True, timeout=60, check=False)
    assert gone.returncode
    assert os.listdir(place) == ["file"]  # nobody else ever saw a mount
    assert server.bytes_read() == [SIZE, 0]


def test_a_directory_that_is_not_there_is_said_to_be_the_trouble(tmp_path, cluster):
    with pytest.raises(RuntimeError, match="missing"):
        start(tmp_path, cluster, str(tmp_path / "missing")).__enter__()
