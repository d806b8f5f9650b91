"""The promise: with live hooks nobody but the root touches the original files, counted by strace and by collfs.

Each rank makes one stat of a path of its own right after ``initialize``; what comes later in its trace counts.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest

import mpistack
import stracecount

PREFIXES = sorted({sys.prefix, sys.base_prefix})

PROGRAM = (
    """
import os, sys
session = mpirank.start(manifest=sys.argv[1])
assert not session.idle, session.idle
before = mpirank.native()
misses = session.store.table.header.misses
try:
    os.stat(os.environ["MARK"] + f"/rank{mpirank.rank}")
except OSError:
    pass
"""
    + mpistack.WORK
    + """
native = mpirank.native()
native = {name: native[name] - before.get(name, 0) for name in native if native[name] != before.get(name, 0)}
mpirank.emit(native=native, misses=session.store.table.misses()[misses:], role=session.transport.role,
             ops=session.transport.reader.ops, answer=answer, files=files,
             silences=session.fetcher.silences, staged=session.fetcher.fetched)
os.stat(os.environ["MARK"])
mpirank.comm.barrier()
import collfs
collfs.finalize()
"""
)

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.real_stack,
    pytest.mark.skipif(find_spec("pandas") is None, reason="numpy, scipy and pandas are not installed"),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory, run_python):
    return mpistack.plain(run_python)


def check(ended, plain, ranks):
    for rank, told in enumerate(ended.ranks):
        assert told["answer"] == plain[0], rank
        assert told["files"] == plain[1], rank
        assert told["silences"] == [], rank
        assert told["role"] == ("root" if rank == 0 else "rank" if rank % 2 else "leader")
        if rank:
            assert (told["ops"], told["native"]) == (0, {}), (rank, told["misses"])
    assert len(ended.ranks) == ranks


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.timeout(200)
def test_only_the_root_reads_and_every_rank_computes_the_same(mpirun, plain, tmp_path, ranks):
    ended = mpirun(ranks, PROGRAM, "none", env={"MARK": str(tmp_path)}, timeout=150)
    check(ended, plain, ranks)


def after_marks(counts, mark, told):
    """Path operations below the prefixes by rank, between its two marks."""
    pids = [one["pid"] for one in told]
    return stracecount.between(counts, pids, PREFIXES, lambda path: path.startswith(mark), mark)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_strace_sees_no_operation_of_anybody_else_and_half_of_a_plain_one_with_a_manifest(
    mpirun, plain, tmp_path, strace_counts
):
    mark = str(tmp_path / "mark")
    os.mkdir(mark)
    manifest = str(tmp_path / "manifest")
    code = (
        f"import os\ntry: os.stat({mark!r} + '/rank0')\nexcept OSError: pass\n" + mpistack.WORK + f"\nos.stat({mark!r})"
    )
    result, counts = strace_counts([sys.executable, "-c", code], timeout=100)
    assert result.rc == 0
    alone = len(after_marks(counts, mark, [{"pid": counts.processes[0]}])[0])
    figures = []
    for run in ("without a manifest", "with one"):
        log = tmp_path / "log"
        ended = mpirun(
            8, PROGRAM, manifest, env={"MARK": mark}, before=[*stracecount.STRACE, "-o", str(log)], timeout=180
        )
        check(ended, plain, 8)
        counts = stracecount.parse(log.read_text(errors="surrogateescape"), str(tmp_path))
        made = after_marks(counts, mark, ended.ranks)
        assert {rank: ops for rank, ops in made.items() if rank and ops} == {}, run
        # in a second run the bulk start comes before the mark: the reader has counted it
        figures.append(ended.ranks[0]["ops"])
        assert len(made[0]) <= ended.ranks[0]["ops"]
    print(f"path operations: plain {alone}, root without a manifest {figures[0]}, with one {figures[1]}")
    assert figures[1] <= alone / 2
