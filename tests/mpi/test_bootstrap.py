"""MPI started through the nodes' servers: what is left of its start, and who serves what MPI doesn't bring."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec

import pytest

import collfs
import stracecount
from bootsite import PREFIXES, TREE

OURS = ("collfs", "collfs_local", "collfs_mpi", "collfs_zmq")

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(find_spec("zmq") is None, reason="pyzmq is not installed")]


# -- what it is for

COUNTED = """
bootrank.mark_the_start()
session = bootrank.start()
assert not session.idle, session.idle
bootrank.mark("up")
emit(up=True)
barrier()
import json.tool, xml.dom.minidom
told(session)
barrier()
__import__("collfs").finalize()
"""


def since(counts, name, told):
    """Operations below the prefixes by rank, from the mark *name* to the mark ``up``."""
    begins = f"/collfs-test/{name}"
    return stracecount.between(counts, [one["pid"] for one in told], PREFIXES, begins.__eq__, "/collfs-test/up")


def is_ours(path):
    """Whether *path* is looked at on the way to a module of collfs itself."""
    return any(f"/site-packages/{name}/" in path + "/" for name in OURS) or path.endswith("/site-packages")


@pytest.mark.timeout(200)
def test_strace_sees_nobody_read_mpi4py_and_libmpi_once_the_server_has_answered(site, tmp_path):
    if stracecount.why_not():
        pytest.skip(stracecount.why_not())
    log = tmp_path / "log"
    ended = site.run(4, COUNTED, before=[*stracecount.STRACE, "-o", str(log)], timeout=150)
    counts = stracecount.parse(log.read_text(errors="surrogateescape"), str(tmp_path))
    served, live = since(counts, "server", ended.ranks), since(counts, "hooks", ended.ranks)
    print({rank: (len(live[rank]), len(served[rank])) for rank in live})
    assert {rank: ops for rank, ops in served.items() if rank and ops} == {}
    assert len(served[0]) < 10  # of the rank that reads: the interpreter's links, as in every session
    for rank, ops in list(live.items())[1:]:  # before: the modules of Python and of collfs that asking the server needs
        assert [path for _, path in ops if "mpi4py" in path or "libmpi" in path] == [], rank
        assert len([path for _, path in ops if not is_ours(path)]) < 40, rank
    for rank, told in enumerate(ended.ranks):
        assert told["role"] == ("root" if rank == 0 else "rank" if rank % 2 else "leader")
        assert (told["silences"], told["warnings"]) == ([], [])


@pytest.mark.skipif("-packages" not in collfs.__file__, reason="not an installation: it has no bundle of its modules")
@pytest.mark.skipif(sys.prefix == sys.base_prefix, reason="not a virtual environment")
@pytest.mark.timeout(200)
def test_the_environment_is_not_reached_by_other_ranks_once_the_hooks_are_live(site, tmp_path):
    if stracecount.why_not():
        pytest.skip(stracecount.why_not())
    log, env = tmp_path / "log", {"PYTHONDONTWRITEBYTECODE": ""}
    site.run(2, COUNTED, env=env, serve=False, timeout=100)  # leaves the bundle of collfs' modules
    ended = site.run(4, COUNTED, env=env, before=[*stracecount.STRACE, "-o", str(log)], timeout=150)
    live = since(stracecount.parse(log.read_text(errors="surrogateescape"), str(tmp_path)), "hooks", ended.ranks)
    assert len(live) == 4
    for rank in range(1, 4):  # the first rank of a node starts its server: this Python
        ops = [op for op in live[rank] if op[1].startswith(sys.prefix + "/") and op[1] != sys.executable]
        assert ops == [], rank


PLAIN = """
bootrank.mark("server")
from mpi4py import MPI
bootrank.mark("up")
emit(up=True)
"""


@pytest.mark.timeout(100)
def test_what_a_rank_would_read_of_mpi4py_and_libmpi_without_it_is_a_lot(site, tmp_path):
    if stracecount.why_not():
        pytest.skip(stracecount.why_not())
    log = tmp_path / "log"
    ended = site.run(2, PLAIN, serve=False, before=[*stracecount.STRACE, "-o", str(log)])
    made = since(stracecount.parse(log.read_text(errors="surrogateescape"), str(tmp_path)), "server", ended.ranks)
    print({rank: len(ops) for rank, ops in made.items()})
    assert all(len(ops) > 50 for ops in made.values())


WORK = (
    TREE
    + """
session = bootrank.start(**options) if not os.environ.get("BOOT_RUN") else __import__("collfs.calls").calls._current
sys.path.insert(0, folder)
import s0m0, s0m5, s0lib, json.tool
with open(folder + "/data1", "rb") as file:
    data = len(file.read())
told(session, values=[s0m0.VALUE, s0m5.VALUE], data=data, native=native())
barrier()
"""
)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
@pytest.mark.parametrize("how", ["initialize", "run"])
@pytest.mark.timeout(120)
def test_every_rank_gets_the_same_from_mpi_after_it(site, how, ranks):
    flags = ["--transport", "mpi", "--bootstrap", "zmq", "--manifest", "none"]
    for prefix in [str(site.tree), *PREFIXES] if how == "run" else ():
        flags += ["--prefix", prefix]
    env = {"BOOT_RUN": "1"} if how == "run" else {}
    ended = site.run(ranks, WORK, run=flags if how == "run" else (), env=env, timeout=100)
    assert len(ended.ranks) == ranks
    for rank, told in enumerate(ended.ranks):
        assert (told["values"], told["data"]) == ([0, 5], 20001)
        assert (told["taken"], told["silences"], told["warnings"], told["native"]) == ("mpi", [], [], []), rank
        assert (told["counters"]["ops"] > 0) == (rank == 0)


def test_auto_takes_it_where_a_launcher_has_started_ranks_and_does_without_elsewhere(site, run_python, tmp_path):
    ended = site.run(2, WORK.replace("bootrank.start(**options)", "bootrank.start('auto', **options)"))
    assert [told["taken"] for told in ended.ranks] == ["mpi"] * 2
    said = run_python(
        f"import collfs; print(collfs.initialize('auto', bootstrap='zmq', prefixes=[{str(tmp_path)!r}]).choice.taken)"
    )
    assert said.stdout.strip() == "local"


def test_a_manifest_is_kept_by_the_rank_that_reads_and_used_by_the_next_run(site, tmp_path):
    manifest = str(tmp_path / "manifest")
    code = WORK.replace("**options)", f"**options, manifest={manifest!r})") + "\n__import__('collfs').finalize()\n"
    site.run(4, code)
    from collfs.record.manifest import Manifest

    wanted = {want.path for want in Manifest.load(manifest).wants()}
    assert {f"{site.tree}/data1", f"{site.tree}/s0m5.py"} <= wanted
    site.server.stop()
    site.server = None
    os.rename(tmp_path / "server", tmp_path / "server1")
    ended = site.run(4, code)
    assert [told["silences"] for told in ended.ranks] == [[]] * 4
    assert all(told["values"] == [0, 5] for told in ended.ranks)


# -- ranks that part ways

ALONE = (
    TREE
    + """
session = bootrank.start(**options, report=os.environ["MPI_TEST_FOLDER"] + "/report.json")
import s0m0
barrier()
start = time.monotonic()
if rank == size - 1:
    import s0m3, s0lib
    with open(folder + "/data2", "rb") as file:
        assert len(file.read()) == 40001 + len(file.name) * 0
    assert s0m3.VALUE == 3
seconds = time.monotonic() - start
told(session, seconds=seconds, native=native())
barrier()
__import__("collfs").finalize()
"""
)


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.timeout(100)
def test_what_one_rank_alone_wants_comes_from_the_server_and_is_named(site, ranks, tmp_path):
    length = len((site.tree / "data2").read_bytes())
    ended = site.run(ranks, ALONE.replace("40001 + len(file.name) * 0", str(length)))
    alone = ended.ranks[-1]
    assert alone["native"] == []
    assert alone["silences"] == []
    assert {"s0m3.py", "data2"} <= {os.path.basename(path) for path in alone["by_server"]}
    assert alone["counters"]["server_served"] == alone["counters"]["server_asked"] > 0
    assert alone["seconds"] < 5
    report = json.loads((tmp_path / "job0" / "report.json").read_text())
    named = {one["rank"]: {os.path.basename(path) for path in one["silences"]} for one in report["processes"]}
    assert sorted(named) == list(range(ranks))
    assert {"s0m3.py", "data2"} <= named[ranks - 1]
    assert {rank for rank, names in named.items() if names} == {ranks - 1}
    served = {one["rank"]: one["read"]["server_served"] for one in report["processes"]}
    assert served[ranks - 1] > 0


FIRST = (
    TREE
    + """
import glob
end = time.monotonic() + 20
while rank == 1 and not glob.glob(os.environ["COLLFS_STORE"] + "/collfs-*/job"):  # the store is the root's
    assert time.monotonic() < end
    time.sleep(0.01)
session = bootrank.start(**options, report=os.environ["MPI_TEST_FOLDER"] + "/report.json")
barrier()
if rank == 1:
    import s0m0
barrier()
import s0m0
told(session, created=session.store.created)
barrier()
__import__("collfs").finalize()
"""
)


@pytest.mark.timeout(100)
def test_what_the_server_has_brought_to_the_roots_node_is_sent_to_the_others_all_the_same(site, tmp_path):
    ended = site.run(4, FIRST, serve=False)
    assert ended.ranks[0]["created"]
    report = json.loads((tmp_path / "job0" / "report.json").read_text())
    assert {one["rank"]: one["silences"] for one in report["processes"]} == {rank: [] for rank in range(4)}
    assert any(path.endswith("s0m0.py") for path in ended.ranks[1]["by_server"])
