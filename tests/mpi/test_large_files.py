"""What doesn't fit into one message, or into memory: files above 2 GiB, long listings, files over the limit."""

from __future__ import annotations

import os
import shutil

import pytest

pytestmark = pytest.mark.mpi

GIB = 1 << 30

MARKS = (0, 1, (8 << 20) - 1, 8 << 20, (64 << 20) + 3, 2**31 - 2, 2**31, 2**32 - 5 if 3 * GIB > 2**32 else 3 * GIB - 9)

LARGE = f"""
import os, sys
path = sys.argv[1]
def peak():  # private memory: pages of the store itself are in nobody's
    with open("/proc/self/status") as file:
        rows = dict(line.split(":", 1) for line in file)
    return {{name: int(rows[name].split()[0]) for name in ("RssAnon", "RssShmem", "VmHWM")}}
session = mpirank.start(prefixes=[os.path.dirname(path)], patience=60, max_store_bytes="7G", max_file_bytes="4G")
before, most = peak(), []
import threading, time
done = threading.Event()
def watch():
    while not done.wait(0.05):
        most.append(peak())
thread = threading.Thread(target=watch)
thread.start()
with open(path, "rb") as file:
    found = os.fstat(file.fileno())
    marks = []
    for at in {MARKS!r}:
        file.seek(at)
        marks.append(file.read(8).hex())
done.set()
thread.join()
mpirank.emit(size=found.st_size, mtime=found.st_mtime_ns, marks=marks, native=mpirank.native(),
             where=os.readlink(f"/proc/self/fd/{{os.open(path, os.O_RDONLY)}}"), silences=session.fetcher.silences,
             anon=max(one["RssAnon"] for one in most) - before["RssAnon"],
             shared=max(one["RssShmem"] for one in most) - before["RssShmem"],
             received=session.transport.counters())
mpirank.comm.barrier()
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_gibibytes_arrive_intact_on_every_node_in_bounded_memory(mpirun, tmp_path):
    with open("/proc/meminfo", encoding="ascii") as file:
        available = next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable"))
    if shutil.disk_usage("/dev/shm").free < 8 * GIB or available < 10 * GIB:
        pytest.skip("needs 8 GiB free in /dev/shm and 10 GiB of memory")
    path = tmp_path / "data" / "large"
    path.parent.mkdir()
    expected = []
    with open(path, "wb") as file:
        file.truncate(3 * GIB)
        for number, at in enumerate(MARKS):
            file.seek(at)
            file.write(bytes([number + 1] * 1))
    with open(path, "rb") as file:
        for at in MARKS:
            file.seek(at)
            expected.append(file.read(8).hex())
    ended = mpirun(4, LARGE, str(path), timeout=300)
    for rank, told in enumerate(ended.ranks):
        assert (told["size"], told["mtime"]) == (3 * GIB, os.stat(path).st_mtime_ns)
        assert told["marks"] == expected, rank
        assert told["silences"] == []
        assert not told["native"].get("open"), rank
        assert told["anon"] < 400 << 10, (rank, told["anon"])
        assert told["shared"] < 400 << 10, (rank, told["shared"])
    assert ended.ranks[2]["received"]["bytes_received"] >= 3 * GIB
    print(
        "private memory above the start, MiB:", [told["anon"] >> 10 for told in ended.ranks], f"{ended.seconds:.0f} s"
    )


NAMES = 60_000

LISTING = """
import os, sys
session = mpirank.start(prefixes=[sys.argv[1]], patience=30)
names = os.listdir(sys.argv[1])
mpirank.emit(names=len(names), last=max(names), native=mpirank.native(), received=session.transport.counters())
mpirank.comm.barrier()
"""


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_listing_that_is_larger_than_a_message_arrives_whole(mpirun, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    width = 100
    for number in range(NAMES):
        os.close(os.open(folder / f"{number:0{width}d}", os.O_CREAT | os.O_WRONLY))
    ended = mpirun(4, LISTING, str(folder), timeout=120)
    for told in ended.ranks:
        assert (told["names"], told["last"]) == (NAMES, f"{NAMES - 1:0{width}d}")
        assert not told["native"].get("opendir")
    assert ended.ranks[2]["received"]["bytes_received"] > 8 << 20, "one message would have been enough"


OVER = """
import os, sys, time
folder = sys.argv[1]
session = mpirank.start(prefixes=[folder], patience=20, **{sys.argv[2]: "1M"})
begun = time.monotonic()
sizes = []
for name in ("small", "large", "small2"):
    with open(f"{folder}/{name}", "rb") as file:
        sizes.append(len(file.read()))
try:
    os.listdir(folder + "/closed")
except OSError:
    pass
with open(f"{folder}/small3", "rb") as file:
    sizes.append(len(file.read()))
mpirank.emit(took=time.monotonic() - begun, sizes=sizes, silences=session.fetcher.silences, native=mpirank.native())
mpirank.comm.barrier()
"""


@pytest.mark.parametrize("limit", ["max_file_bytes", "max_store_bytes"])
def test_what_the_root_can_not_give_is_said_and_nobody_waits_for_it(mpirun, tmp_path, limit):
    for name, size in (("small", 10), ("large", 3 << 20), ("small2", 20), ("small3", 30)):
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "closed").mkdir(mode=0)
    ended = mpirun(4, OVER, str(tmp_path), limit)
    for told in ended.ranks:
        assert told["sizes"] == [10, 3 << 20, 20, 30]
        assert told["silences"] == []
        assert told["took"] < 10
        assert told["native"].get("open", 0) == 1, "the large one alone"


TWICE = """
import os, sys
folder = sys.argv[1]
session = mpirank.start(prefixes=[folder], patience=20)
inodes = []
for name in ("library.so", "link.so"):
    with open(f"{folder}/{name}", "rb") as file:
        inodes.append(os.stat(session.store.table.copy_of(session.store.table.probe(f"{folder}/{name}"))).st_ino)
mpirank.emit(inodes=inodes, files=session.store.table.header.staged_files)
mpirank.comm.barrier()
"""


@pytest.mark.parametrize("size", [2 << 20, 70 << 20])
def test_one_large_file_under_two_names_is_one_file_on_every_node(mpirun, tmp_path, size):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "library.so").write_bytes(b"y" * size)
    (tmp_path / "data" / "link.so").symlink_to("library.so")
    ended = mpirun(4, TWICE, str(tmp_path / "data"))
    for told in ended.ranks:
        assert len(set(told["inodes"])) == 1, "ld.so would load it twice"
