"""The promise among real nodes: with live hooks only the root's process reaches the shared file system.

Four network namespaces with two ranks each. The environment of this Python, and the Python that it is made from, are
mounts of a counting file system on every node, at the paths where they always are: whatever a process of that node asks
is seen, whoever asks it and however it gets there, also what strace doesn't show (page faults) and what isn't a rank
(the launcher's daemons). Its time-outs are 0, so the kernel answers nothing from its caches.

What must be zero is every operation that names a path. Reads are another matter: the interpreter, libmpi and the
libraries of mpi4py were mapped from the shared file system before there were hooks, and a page of them that is touched
for the first time later comes as a read. Nothing new can be read that way, since it would have to be opened first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec

import pytest

import countingfs
import mpistack
import nodes

NODES, EACH = 4, 2
PREFIXES = sorted({os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)} - {"/", "/usr"})

PROGRAM = (
    """
import os, socket, sys
import countingfs, collfs
places = sys.argv[1:]
session = mpirank.start(job=os.environ["MPI_TEST_JOB"])
assert not session.idle, session.idle
for place in places:
    countingfs.mark(place, f"live-{mpirank.rank}")
mpirank.comm.barrier()
"""
    + mpistack.WORK
    + """
mpirank.comm.barrier()
for place in places:
    countingfs.mark(place, f"done-{mpirank.rank}")
mpirank.emit(answer=answer, files=files, role=session.transport.role, size=mpirank.size, host=socket.gethostname(),
             trouble=[session.transport.failure, session.fetcher.dead, session.fetcher.stager.trouble],
             silences=session.fetcher.silences)
mpirank.comm.barrier()
collfs.finalize()
"""
)

pytestmark = [
    pytest.mark.mpi,
    pytest.mark.real_stack,
    pytest.mark.skipif(find_spec("pandas") is None, reason="numpy, scipy and pandas are not installed"),
    pytest.mark.skipif(bool(nodes.why_not()), reason=nodes.why_not()),
]


@pytest.mark.timeout(200)
def test_on_four_nodes_only_the_root_reaches_the_shared_file_system(mpirun, run_python, cluster, mount):
    plain = mpistack.plain(run_python)
    mounts = [[mount(place, pid) for place in PREFIXES] for pid in cluster.pids]
    ended = mpirun(NODES * EACH, PROGRAM, *PREFIXES, before=cluster.enter(0), env=cluster.env(EACH), timeout=150)
    assert len(ended.ranks) == NODES * EACH
    for rank, told in enumerate(ended.ranks):
        assert (told["size"], told["host"]) == (NODES * EACH, cluster.names[rank // EACH])
        assert told["role"] == ("root" if rank == 0 else "rank" if rank % EACH else "leader")
        assert (told["answer"], told["files"]) == plain, rank
        assert (told["trouble"], told["silences"]) == (["", "", ""], []), rank

    by_root, reads = [], []
    for node, mounted in enumerate(mounts):
        ranks = range(node * EACH, (node + 1) * EACH)
        for one in mounted:
            ops = one.ops()
            live = countingfs.between(ops, [f"live-{rank}" for rank in ranks], [f"done-{rank}" for rank in ranks])
            print(f"node {node}, {one.mountpoint}: {len(ops)} operations in all, {len(live)} with live hooks")
            by_root += [op for op in live if op.process == ended.ranks[0]["pid"]]
            others = [op for op in live if op.process != ended.ranks[0]["pid"]]
            assert [op for op in others if op.kind in countingfs.PATH_KINDS] == [], node
            reads += others
    paths = [op for op in by_root if op.kind in countingfs.PATH_KINDS]
    print(
        f"{ended.seconds:.1f} s; root: {len(by_root)} operations, {len(paths)} with a path; others: {len(reads)} reads"
    )
    assert len(paths) > 2000


ALONE = """
import os, socket, sys
for folder in ("/dev/shm", os.environ["TMPDIR"]):
    assert os.listdir(folder) == [], os.listdir(folder)
    open(f"{folder}/{socket.gethostname()}", "w").close()
print(socket.gethostname(), socket.gethostbyname(socket.gethostname()))
"""
TALK = """
import os, socket, sys
other = sys.argv[1]
if other:
    print(socket.create_connection((other, int(sys.argv[2])), 20).recv(9).decode())
else:
    listener = socket.create_server(("", 0))
    print(listener.getsockname()[1], flush=True)
    listener.settimeout(20)
    listener.accept()[0].sendall(b"good day")
"""


def test_nodes_have_names_addresses_and_memory_of_their_own_and_talk_to_each_other(cluster, run_command, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with nodes.Nodes(other, 2) as second:  # same names and addresses, beside the first
        for made in (cluster, second):
            for node, name in enumerate(made.names):
                alone = [*made.enter(node), sys.executable, "-c", ALONE]
                said = run_command(alone, env={"TMPDIR": str(made.tmp)}).stdout
                assert said == f"{name} 10.77.0.{node + 1}\n"
        listening = [*cluster.enter(2), sys.executable, "-c", TALK, ""]
        with subprocess.Popen(listening, stdout=subprocess.PIPE, text=True) as listener:
            assert listener.stdout is not None
            port = listener.stdout.readline().strip()
            said = run_command([*cluster.enter(1), sys.executable, "-c", TALK, "cn2", port]).stdout
            assert said == "good day\n"
        pids = list(second.pids)
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []


ASKS = """
import os, sys
import countingfs
place = sys.argv[1]
print(os.getpid())
countingfs.mark(place, "from")
for _ in range(2):
    assert os.readlink(f"{place}/link") == "file" and sorted(os.listdir(place)) == ["file", "link"]
    with open(f"{place}/file", "rb") as file:
        assert file.read() == b"content"
    assert os.access(f"{place}/file", os.R_OK) and not os.path.exists(f"{place}/nothing")
    assert os.stat(f"{place}/file").st_mtime_ns == int(sys.argv[2])
countingfs.mark(place, "to")
try:
    open(f"{place}/new", "w")
except OSError as exc:
    print(exc.strerror)
"""


@pytest.mark.parametrize("trusted", [0, 60])
def test_the_counting_file_system_sees_what_reaches_it_and_who_asked(cluster, mount, run_command, tmp_path, trusted):
    place = tmp_path / "place"
    place.mkdir()
    (place / "file").write_bytes(b"content")
    (place / "link").symlink_to("file")
    mtime = (place / "file").stat().st_mtime_ns
    one = mount(str(place), cluster.pids[1], attributes=trusted, entries=trusted, absences=trusted)
    words = [sys.executable, "-c", ASKS, str(place), str(mtime)]
    env = {"PYTHONPATH": os.path.dirname(countingfs.__file__)}
    said = run_command([*cluster.enter(1), *words], env=env).stdout.split("\n")
    ops = countingfs.between(one.ops(), ["from"], ["to"])
    assert {op.process for op in ops} == {int(said[0])}
    counted = Counter((op.kind, op.path) for op in ops if (op.kind, op.path) != ("getattr", "/"))
    twice = 1 if trusted else 2
    assert counted["getattr", "/nothing"] == twice
    assert counted["open", "/file"] == counted["opendir", "/"] == 2
    assert counted["getattr", "/file"] >= 1 if trusted else counted["getattr", "/file"] >= 6
    assert counted["readlink", "/link"] == counted["access", "/file"] == 2
    assert counted["readdir", "/"] >= 2
    assert counted["read", "/file"] == 1  # then it's in the page cache of that mount
    assert said[1] == "Read-only file system"
    # the same directory is nobody else's mount
    untouched = run_command([*cluster.enter(2), *words], env=env).stdout
    assert "Read-only" not in untouched
    assert len(one.ops()) > len(ops)
    assert {op.process for op in one.ops()} == {int(said[0])}
