"""Sessions one after the other, beside each other, and ended in unusual ways."""

from __future__ import annotations

import json

import pytest

import mpitree

pytestmark = pytest.mark.mpi


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    mpitree.make_tree(folder, 0)
    return str(folder)


BEGIN = """
import os, sys
import collfs, mpitree
from mpi4py import MPI
folder = sys.argv[1]
sys.path.insert(0, folder)
sys.dont_write_bytecode = True
rank, comm = mpirank.rank, mpirank.comm
def work(*pairs):
    for what, index in pairs:
        mpitree.work(folder, 0, what, index)
options = dict(prefixes=[folder], patience=5)
"""


def test_two_groups_with_a_communicator_and_a_root_each_on_shared_nodes(mpirun, tree):
    # nodes of four: the second group lies on the first node alone, and meets the first group in its store
    ended = mpirun(
        8,
        BEGIN
        + """
second = rank in (1, 2, 3)
group = comm.Split(second, rank)
if second:
    comm.barrier()  # the store is the first group's
session = mpirank.start(comm=group, root=1 if second else 0, each=4, **options)
if not second:
    comm.barrier()
    comm.barrier()  # the other group's root stages all of it first
for pair in [("module", i) for i in range(8)] + [("file", i) for i in range(4)]:
    work(pair)
group.barrier()
if second:
    comm.barrier()
mpirank.emit(root=session.transport.is_root, role=session.transport.role, native=mpirank.native(),
             silences=session.fetcher.silences, ops=session.transport.reader.ops)
comm.barrier()
collfs.finalize()
""",
        tree,
        timeout=60,
    )
    assert [rank for rank, told in enumerate(ended.ranks) if told["root"]] == [0, 2]
    assert [rank for rank, told in enumerate(ended.ranks) if told["role"] == "leader"] == [4]
    for told in ended.ranks:
        assert told["silences"] == []
        assert bool(told["ops"]) == told["root"]
        assert "open" not in told["native"]


def test_ranks_outside_the_communicator_need_not_know_of_it(mpirun, tree):
    ended = mpirun(
        4,
        BEGIN
        + """
group = comm.Split(0 if rank in (1, 2) else MPI.UNDEFINED, -rank)
if group != MPI.COMM_NULL:
    session = mpirank.start(comm=group, each=1, **options)
    mpirank.emit(role=session.transport.role, ranks=session.transport.groups.size)
work(("module", 2), ("file", 1))
if group != MPI.COMM_NULL:
    mpirank.emit(native=mpirank.native(), silences=session.fetcher.silences)
comm.barrier()
""",
        tree,
    )
    assert [told.get("role") for told in ended.ranks] == [None, "leader", "root", None]
    assert ended.ranks[1]["silences"] == []
    assert "open" not in ended.ranks[1]["native"]


@pytest.mark.parametrize("bad", ["MPI.COMM_NULL", "MPI.COMM_SELF.Dup().Create_intercomm", "3"])
def test_a_communicator_that_can_not_be_one_is_an_error(mpirun, tree, bad):
    ended = mpirun(
        1,
        BEGIN
        + f"""
try:
    mpirank.start(comm={bad}, **options)
except collfs.OptionError as exc:
    mpirank.emit(said=str(exc))
""",
        tree,
    )
    assert "comm" in ended.ranks[0]["said"]


def test_a_root_that_does_not_exist_is_an_error_on_all_ranks(mpirun, tree):
    ended = mpirun(
        2,
        BEGIN
        + """
try:
    mpirank.start(root=2, **options)
except collfs.OptionError as exc:
    mpirank.emit(said=str(exc))
""",
        tree,
    )
    assert ["0 to 1" in told["said"] for told in ended.ranks] == [True, True]


def test_mpi_finalize_before_collfs_finalize(mpirun, tree, tmp_path):
    ended = mpirun(
        4,
        BEGIN
        + """
session = mpirank.start(report=mpirank.folder + "/report.json", **options)
work(("module", 1))
MPI.Finalize()
work(("module", 5), ("file", 2))
collfs.finalize()
collfs.finalize()
mpirank.emit(silences=session.fetcher.silences, state=session.state)
work(("module", 7))
""",
        tree,
        timeout=20,
    )
    for told in ended.ranks:
        assert told["silences"] == [], "the stream has ended, and that is known"
        assert told["state"] == "closed"
    data = json.loads((tmp_path / "job0" / "report.json").read_text())
    assert sorted(process["rank"] for process in data["processes"]) == [0, 1, 2, 3]


def test_neither_is_finalized(mpirun, tree, tmp_path):
    ended = mpirun(
        4,
        BEGIN
        + """
session = mpirank.start(report=mpirank.folder + "/report.json", **options)
work(("module", 1))
""",
        tree,
        timeout=20,
    )
    assert ended.seconds < 15
    data = json.loads((tmp_path / "job0" / "report.json").read_text())
    assert sorted(process["rank"] for process in data["processes"]) == [0, 1, 2, 3]


def test_initialize_after_mpi_finalize_is_an_error_with_a_reason(mpirun, tree):
    ended = mpirun(
        2,
        BEGIN
        + """
MPI.Finalize()
try:
    mpirank.start(**options)
except collfs.TransportUnavailable as exc:
    mpirank.emit(said=str(exc))
session = mpirank.start(fallback=("local",), **options)
work(("module", 1))
mpirank.emit(taken=session.choice.taken)
""",
        tree,
    )
    assert ["MPI_Finalize" in told["said"] for told in ended.ranks] == [True, True]
    assert [told["taken"] for told in ended.ranks] == ["local", "local"]


def test_initialize_again_after_finalize_serves_everything_anew(mpirun, tree):
    # rank 1 finalizes last: the root may find its old store alive, with all files in it
    ended = mpirun(
        4,
        BEGIN
        + """
import time
for number in range(4):
    session = mpirank.start(**options)
    for index in range(8):
        sys.modules.pop(f"s0m{index}", None)
    for pair in [("module", i) for i in range(8)] + [("file", i) for i in range(4)]:
        work(pair)
    comm.barrier()
    mpirank.emit(**{f"silences{number}": session.fetcher.silences, f"native{number}": mpirank.native()})
    if rank == 1:
        time.sleep(0.5)  # not to wait for something: so that the others are faster
    collfs.finalize()
""",
        tree,
        timeout=60,
    )
    for told in ended.ranks:
        for number in range(4):
            assert told[f"silences{number}"] == []
            assert "open" not in told[f"native{number}"]


def test_many_sessions_use_no_more_communicators_than_a_few(mpirun, tree):
    ended = mpirun(
        2,
        BEGIN
        + """
from collfs_mpi.groups import Groups
for number in range(2500):
    Groups(comm, 0, f"store{rank}").retire()
mpirank.emit(end=1)
""",
        tree,
        timeout=100,
    )
    assert [told["end"] for told in ended.ranks] == [1, 1]


FORK = """
session = mpirank.start(**options)
work(("module", 1))
import signal, time
begun = time.monotonic()
read, write = os.pipe()
child = os.fork()
if child == 0:
    status = 1
    try:
        work(("module", 4), ("file", 3))  # native, or from the node
        collfs.finalize()
        status = 0
    finally:
        os.write(write, b"%d" % int(1000 * (time.monotonic() - begun)))
        os._exit(status)
_, status = os.waitpid(child, 0)
took = int(os.read(read, 20)) / 1000
work(("module", 5), ("file", 2))
comm.barrier()
mpirank.emit(status=status, took=took, silences=session.fetcher.silences)
collfs.finalize()
"""


def test_a_forked_child_works_and_leaves_mpi_alone(mpirun, tree):
    for told in mpirun(4, BEGIN + FORK, tree, timeout=40).ranks:
        assert told["status"] == 0
        assert told["took"] < 4
        assert told["silences"] == []


def test_a_root_that_redirects_nothing_is_known_to_all_at_once(mpirun, tree):
    ended = mpirun(
        4,
        BEGIN
        + """
import time
if rank == 0:
    from collfs import lifecycle
    lifecycle.Session._redirect = lambda self: self._go_idle("on purpose")
session = mpirank.start(**options)
begun = time.monotonic()
work(("module", 2), ("file", 1), ("module", 7))
mpirank.emit(took=time.monotonic() - begun, idle=session.idle, silences=session.fetcher.silences if rank else [])
comm.barrier()
""",
        tree,
    )
    assert ended.ranks[0]["idle"] == "on purpose"
    for told in ended.ranks:
        assert told["took"] < 3
        assert told["silences"] == []


def test_a_rank_that_redirects_nothing_holds_nobody_up(mpirun, tree):
    for idle in (1, 2, 3):
        ended = mpirun(
            4,
            BEGIN
            + f"""
if rank == {idle}:
    from collfs import lifecycle
    lifecycle.Session._redirect = lambda self: self._go_idle("on purpose")
session = mpirank.start(report=mpirank.folder + "/report.json", **options)
work(("module", 2), ("file", 1), ("module", 7))
mpirank.emit(silences=session.fetcher.silences if session.fetcher else [], role=session.transport.role)
comm.barrier()
""",
            tree,
        )
        assert [told["silences"] for told in ended.ranks] == [[]] * 4
        assert [told["role"] for told in ended.ranks] == {
            1: ["root", "rank", "leader", "rank"],
            2: ["root", "rank", "rank", "leader"],
            3: ["root", "rank", "leader", "rank"],
        }[idle]
