"""Thread levels: MPI is called by whom it allows, and what others want goes native at once."""

from __future__ import annotations

import pytest

import mpitree

pytestmark = pytest.mark.mpi

LEVELS = ["single", "funneled", "serialized", "multiple"]

PROGRAM = """
import os, sys, threading, time
import mpitree
from mpi4py import MPI
folder = sys.argv[1]
sys.path.insert(0, folder)
session = mpirank.start(prefixes=[folder], patience=6)
for index in range(4):
    mpitree.work(folder, 0, "module", index)
mpirank.comm.barrier()
wrong = []
def other():
    try:
        for index in range(4, 8):
            mpitree.work(folder, 0, "module", index)
        mpitree.work(folder, 0, "file", 3)
    except BaseException as exc:
        wrong.append(repr(exc))
before, begun = sum(mpirank.native().values()), time.monotonic()
if mpirank.size > 1 and mpirank.rank == 2 or sys.argv[2] == "all":
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
took = time.monotonic() - begun
mpirank.comm.barrier()
mpirank.emit(level=MPI.Query_thread(), took=took, wrong=wrong, native=sum(mpirank.native().values()) - before,
             silences=session.fetcher.silences, role=session.transport.role)
mpitree.work(folder, 0, "library", 0)
mpirank.comm.barrier()
import collfs
collfs.finalize()
mpirank.emit(end=1)
"""


@pytest.mark.parametrize("who", ["leader", "all"])
@pytest.mark.parametrize("level", LEVELS)
def test_every_level_gives_the_right_files(mpirun, tmp_path, level, who):
    folder = tmp_path / "tree"
    mpitree.make_tree(folder, 0)
    ended = mpirun(4, PROGRAM, str(folder), who, threads=level, timeout=60)
    for told in ended.ranks:
        assert told["wrong"] == []
        assert told["end"] == 1
    leader = ended.ranks[2]
    assert leader["role"] == "leader"
    if leader["level"] < 3:  # what MPI gives may be more than what was asked for
        assert leader["silences"] == []
        assert leader["took"] < 5, "wants of another thread aren't waited for"
        assert leader["native"] > 0
    elif who == "all":
        assert [told["native"] for told in ended.ranks[2:]] == [0, 0]
        assert [told["silences"] for told in ended.ranks] == [[]] * 4


IN_A_THREAD = """
import sys, threading
import collfs
def start():
    try:
        mpirank.start(prefixes=[sys.argv[1]])
        mpirank.emit(said="started")
    except collfs.TransportUnavailable as exc:
        mpirank.emit(said=str(exc))
thread = threading.Thread(target=start)
thread.start()
thread.join()
from mpi4py import MPI
mpirank.emit(level=MPI.Query_thread())
"""


def test_initialize_in_another_thread_below_multiple_is_an_error_that_says_what_to_do(mpirun, tmp_path):
    for told in mpirun(2, IN_A_THREAD, str(tmp_path), threads="funneled").ranks:
        assert ("MPI_THREAD_MULTIPLE" in told["said"]) == (told["level"] < 3)


MANY = """
import sys, threading
import mpitree
folder = sys.argv[1]
sys.path.insert(0, folder)
session = mpirank.start(prefixes=[folder], patience=20)
wrong = []
def other(first):
    try:
        for index in range(8):
            mpitree.work(folder, 0, "module", (first + index) % 8)
        for index in range(4):
            mpitree.work(folder, 0, "file", (first + index) % 4)
    except BaseException as exc:
        wrong.append(repr(exc))
threads = [threading.Thread(target=other, args=(number,)) for number in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
mpirank.comm.barrier()
mpirank.emit(wrong=wrong, silences=session.fetcher.silences)
"""


def test_many_threads_at_once_want_the_same_and_nobody_waits_in_vain(mpirun, tmp_path):
    folder = tmp_path / "tree"
    mpitree.make_tree(folder, 0)
    for told in mpirun(4, MANY, str(folder), timeout=60).ranks:
        assert told["wrong"] == []
        assert told["silences"] == []


INTERRUPT = """
import os, signal, sys, threading, time
session = mpirank.start(prefixes=[sys.argv[1]], patience=60)
mpirank.comm.barrier()
if mpirank.rank == 1:
    threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    begun = time.monotonic()
    try:
        open(sys.argv[1] + "/data0", "rb")
    except KeyboardInterrupt:
        mpirank.emit(interrupted=time.monotonic() - begun)
mpirank.comm.barrier()
"""


def test_ctrl_c_ends_a_wait(mpirun, tmp_path):
    folder = tmp_path / "tree"
    mpitree.make_tree(folder, 0)
    assert mpirun(2, INTERRUPT, str(folder)).ranks[1]["interrupted"] < 10
