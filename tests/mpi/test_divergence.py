"""Ranks that part ways: file system calls, never a hang, and the report says who and what.

The trees are tiny and fresh, so that a schedule takes a fraction of a second; patience is short, because a silence
is what is tested.
"""

from __future__ import annotations

import json

import pytest

import mpitree

pytestmark = pytest.mark.mpi

PATIENCE = 2.0
SHORT = 0.3  # of many schedules: there only what must be silent is tested, not what must not

ONE = f"""
import json, os, sys
import mpitree
folder = sys.argv[1]
sys.path.insert(0, folder)
options = dict(prefixes=[folder], patience={PATIENCE}, report=mpirank.folder + "/report.json")
rank, comm = mpirank.rank, mpirank.comm
def work(*pairs):
    for what, index in pairs:
        mpitree.work(folder, 0, what, index)
def told(session):
    mpirank.emit(silences=[os.path.basename(p) for p in session.fetcher.silences], wants=session.fetcher.wants)
"""


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    mpitree.make_tree(folder, 0, talk=True)
    return str(folder)


def silent(ended):
    return {rank: told["silences"] for rank, told in enumerate(ended.ranks) if told["silences"]}


def report_of(ended, job):
    data = json.loads((job / "report.json").read_text())
    return {process["rank"]: process for process in data["processes"]}


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_what_one_rank_alone_imports_is_right_and_named_in_the_report(mpirun, tree, tmp_path, ranks):
    alone = ranks - 1
    ended = mpirun(
        ranks,
        ONE
        + f"""
session = mpirank.start(**options)
work(("module", 0))
if rank == {alone}:
    work(("module", 3), ("file", 2), ("library", 0))
told(session)
comm.barrier()
__import__("collfs").finalize()
""",
        tree,
    )
    named = silent(ended)
    assert set(named) == {alone}
    assert {"s0m3.py", "data2"} <= set(named[alone])
    processes = report_of(ended, tmp_path / "job0")
    assert sorted(processes) == list(range(ranks))
    assert processes[0]["missing_ranks"] == []
    assert {rank for rank, process in processes.items() if process["silences"]} == {alone}
    assert any(path == f"{tree}/s0m3.py" for path in processes[alone]["silences"])


def test_different_orders_need_no_native_call_and_no_silence(mpirun, tree):
    ended = mpirun(
        4,
        ONE
        + """
options["patience"] = 10
session = mpirank.start(**options)
mine = [("module", i) for i in range(8)] + [("file", i) for i in range(4)]
if rank % 2: mine.reverse()
if rank == 2: mine = mine[5:] + mine[:5]
work(*mine)
told(session)
""",
        tree,
    )
    assert silent(ended) == {}


def test_bytecode_that_the_root_has_just_written_is_not_awaited(mpirun, tree):
    ended = mpirun(
        4,
        ONE
        + """
session = mpirank.start(**options)
if rank == 0: work(*[("module", i) for i in range(8)])
comm.barrier()
if rank: work(*[("module", i) for i in range(8)])
told(session)
comm.barrier()
""",
        tree,
    )
    assert silent(ended) == {}


def test_a_rank_that_skips_an_import_and_enters_a_barrier_holds_nobody_up(mpirun, tree):
    for skips in (0, 2, 3):
        ended = mpirun(
            4,
            ONE
            + f"""
session = mpirank.start(**options)
if rank != {skips}:
    work(("module", 5), ("file", 1))
comm.barrier()
told(session)
""",
            tree,
        )
        # a root that skips sends nothing: then it is the others that find out, each for itself
        assert set(silent(ended)) == ({1, 2, 3} if skips == 0 else set())
        assert ended.seconds < 20


def test_a_module_that_calls_a_barrier_when_it_is_imported_works(mpirun, tree):
    ended = mpirun(
        4,
        ONE
        + """
session = mpirank.start(**options)
if rank % 2: work(("module", 0))
work(("talk", 0), ("module", 1))
told(session)
""",
        tree,
        timeout=40,
    )
    # ranks 1 and 3 want module 0, which nobody sends: they find out alone
    assert set(silent(ended)) <= {1, 3}


@pytest.mark.parametrize("who", [0, 2, 3])
def test_a_rank_that_raises_ends_the_job_within_seconds(mpirun, tree, who):
    ended = mpirun(
        4,
        ONE
        + f"""
options["patience"] = 60
session = mpirank.start(**options)
work(("module", 0))
if rank == {who}:
    raise RuntimeError("on purpose")
work(("module", 5), ("file", 1))
comm.barrier()
""",
        tree,
        check=False,
    )
    assert ended.rc != 0
    assert "on purpose" in ended.output
    assert ended.seconds < 20


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_a_rank_that_finalizes_early_holds_nobody_up_for_longer_than_patience(mpirun, tree, tmp_path, first):
    ended = mpirun(
        4,
        ONE
        + f"""
import collfs, time
session = mpirank.start(**options)
work(("module", 0))
if rank == {first}:
    collfs.finalize()
begun = time.monotonic()
work(("module", 2), ("module", 4), ("file", 3), ("library", 1))
took = time.monotonic() - begun
comm.barrier()
if rank != {first}: told(session)
else: mpirank.emit(silences=[])
mpirank.emit(took=took)
""",
        tree,
    )
    assert max(told["took"] for told in ended.ranks) < 5 * PATIENCE + 3
    if first == 0:  # it has said so: nobody waits, nobody is diverging
        assert silent(ended) == {}


def test_a_rank_without_wants_of_its_own_serves_its_node(mpirun, tree):
    ended = mpirun(
        4,
        ONE
        + """
options["patience"] = 10
session = mpirank.start(**options)
comm.barrier()
if rank != 2:
    work(*[("module", i) for i in range(8)])
told(session)
comm.barrier()
""",
        tree,
    )
    assert silent(ended) == {}
    assert ended.ranks[2]["wants"] == 0


MANY = f"""
import os, sys, time
import collfs, mpitree
rank, comm = mpirank.rank, mpirank.comm
for number in range(int(sys.argv[2]), int(sys.argv[3])):
    folder = f"{{sys.argv[1]}}/{{number}}"
    sys.path[0] = folder
    plan = mpitree.Plan(number, mpirank.size)
    begun = time.monotonic()
    session = mpirank.start(prefixes=[folder], patience={SHORT}, job=mpirank.job() + f"-{{number}}",
                            report=f"{{mpirank.folder}}/report{{number}}.json")
    for index, phase in enumerate(plan.phases):
        for what, which in phase[rank]:
            mpitree.work(folder, number, what, which)
        if index == 0 and plan.talks:
            mpitree.work(folder, number, "talk", 0)
        comm.barrier()
        if plan.leaves_early == rank and index == 0:
            mpirank.emit(**{{f"silences{{number}}": session.fetcher.silences}})
            collfs.finalize()
    if plan.leaves_early != rank:
        mpirank.emit(**{{f"silences{{number}}": session.fetcher.silences}})
    if plan.barrier_before_the_end:
        comm.barrier()
        if plan.leaves_early < 0:
            session.transport.patience = 20  # all come to the end: however busy the machine is, each is heard
    collfs.finalize()
    mpirank.emit(**{{f"took{{number}}": time.monotonic() - begun}})
"""

BATCH, BATCHES = 25, 8


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_random_schedules_end_are_right_and_every_divergence_is_named(mpirun, tmp_path, batch):
    ranks = (2, 4, 4, 8)[batch % 4]
    first, last = batch * BATCH, (batch + 1) * BATCH
    for number in range(first, last):
        mpitree.make_tree(tmp_path / "trees" / str(number), number, talk=True)
    ended = mpirun(ranks, MANY, str(tmp_path / "trees"), str(first), str(last), timeout=280)
    unnamed, unheard = [], []
    for number in range(first, last):
        plan = mpitree.Plan(number, ranks)
        folder = f"{tmp_path}/trees/{number}"
        for rank in range(1, ranks):
            if plan.leaves_early in (0, rank, rank // 2 * 2):
                continue  # root, rank or its leader: what comes after the end of the stream is native, no divergence
            silences = set(ended.ranks[rank][f"silences{number}"])
            alone = [f"s{number}m{index}." for index in plan.modules_of(rank) - plan.modules_of(0)]
            alone += [f"data{index}" for index in plan.files_of(rank) - plan.files_of(0)]
            unnamed += [(number, rank, name) for name in alone if not any(f"/{name}" in path for path in silences)]
            assert all(path.startswith(folder) for path in silences)
        data = json.loads((tmp_path / f"job0/report{number}.json").read_text())
        reported = {process["rank"]: process["silences"] for process in data["processes"]}
        if plan.barrier_before_the_end and plan.leaves_early < 0:
            unheard += [(number, rank) for rank in range(ranks) if rank not in reported]
        for rank, silences in reported.items():
            assert silences == ended.ranks[rank][f"silences{number}"], (number, rank)
    assert unnamed == []
    assert unheard == []


INVALIDATES = """
import importlib, time
from collfs.interpose.machine.layout import K_FILE
session = mpirank.start(**options)
calls = int(sys.argv[2])
def at(number):
    importlib.invalidate_caches()
    work(("module", number))
if rank == 0:
    for number in range(calls): at(number)
    told(session)
    comm.barrier()
else:
    comm.barrier()  # the root is ahead: its listings have come, also those after its last call
    deadline = time.monotonic() + 5
    while session.fetcher.kind(f"{folder}/s0m{calls - 1}.py") != K_FILE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    begun = time.monotonic()
    for number in range(calls): at(number)
    mpirank.emit(took=time.monotonic() - begun)
    told(session)
comm.barrier()  # the root stays: at the end of the stream nobody would wait
"""


@pytest.mark.parametrize("calls", [1, 3])
def test_invalidate_caches_means_the_same_moment_on_all_ranks(mpirun, tree, calls):
    # a listing that the root made after its own call is new for the others, too, though it came before theirs
    ended = mpirun(4, ONE + INVALIDATES, tree, str(calls))
    assert silent(ended) == {}
    assert max(told.get("took", 0) for told in ended.ranks) < PATIENCE
