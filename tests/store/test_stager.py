"""Records become copies, listings and entries; whatever fails on the way leaves the path native and the store whole."""

from __future__ import annotations

import os
import signal

import pytest

import smalltmpfs
from collfs import _libc
from collfs.interpose.machine.layout import (
    F_LINK,
    F_STAT,
    K_ABSENT,
    K_FILE,
    K_NATIVE,
    K_REG,
    K_UNKNOWN,
)
from collfs.record import CONTENT, META, Record, Stat
from collfs.store.stager import default_limit


def kind(stager, path):
    return stager.table.probe(path) & 0xFF


def copy(stager, path):
    return stager.table.copy_of(stager.table.probe(path))


# -- content ---------------------------------------------------------------------------------------------------------


def test_a_copy_has_the_content_size_mode_and_times_of_the_original(stager, stage, tree):
    assert stage(CONTENT, tree + "/f", tree + "/g") == [True, True]
    for name in ("f", "g"):
        path, original = copy(stager, f"{tree}/{name}"), os.stat(f"{tree}/{name}")
        with open(path, "rb") as a, open(f"{tree}/{name}", "rb") as b:
            assert a.read() == b.read()
        made = os.stat(path)
        assert (made.st_size, made.st_mode, made.st_mtime_ns) == (
            original.st_size,
            original.st_mode,
            original.st_mtime_ns,
        )
        assert path.startswith(stager.store.path + "/f/")
    assert stager.files == stager.table.header.staged_files == 2
    assert stager.bytes == stager.table.header.staged_bytes == 2 * len("content of f")


def test_one_file_under_several_names_is_one_copy(stager, stage, tree):
    assert all(stage(CONTENT, *[f"{tree}/{name}" for name in ("f", "hard", "link")]))
    assert len({copy(stager, f"{tree}/{name}") for name in ("f", "hard", "link")}) == 1
    assert stager.files == 1
    assert stager.table.probe(tree + "/link") & F_LINK
    assert stage(CONTENT, tree + "/sub/x", tree + "/to-sub/x") == [True, True]
    assert copy(stager, tree + "/sub/x") == copy(stager, tree + "/to-sub/x")


def test_a_new_version_of_a_file_gets_a_new_copy(stager, stage, tree):
    stage(CONTENT, tree + "/f")
    before = copy(stager, tree + "/f")
    with open(tree + "/f", "w") as file:
        file.write("something else")
    assert stage(CONTENT, tree + "/f") == [True]
    after = copy(stager, tree + "/f")
    assert after != before
    with open(after) as new, open(before) as old:
        assert (new.read(), old.read()) == ("something else", "content of f")


def test_a_file_that_already_lies_on_the_node_is_not_copied(stager, tree):
    st_ = Stat.from_stat_result(os.stat(tree + "/f"))
    assert stager.stage(Record(tree + "/f", st_, node_path="/elsewhere/f"), 0)
    assert copy(stager, tree + "/f") == "/elsewhere/f"
    assert stager.files == 0


def test_more_than_max_store_bytes_is_counted_and_stays_native(stager, stage, tree):
    stager.max_store_bytes = len("content of f") + 3
    assert stage(CONTENT, tree + "/f", tree + "/g", tree + "/sub/x") == [True, True, True]
    assert [kind(stager, f"{tree}/{n}") for n in ("f", "g", "sub/x")] == [K_FILE, K_REG, K_REG]
    assert stager.overflow == stager.table.header.overflow == 2
    assert "max_store_bytes" in stager.trouble
    entry = stager.table.entry(tree + "/g")
    assert stager.table.stat_of(entry)[7] == len("content of g"), "its metadata is known all the same"
    assert stager.table.probe(tree + "/g") & F_STAT
    assert not stager.table.probe(tree + "/nothing of that name") & F_STAT
    assert stage(CONTENT, tree + "/hard") == [True]  # the same file: no more bytes
    assert kind(stager, tree + "/hard") == K_FILE


def test_an_entry_names_only_a_complete_copy(stager, stage, tree, monkeypatch):
    real, seen = os.write, []

    def write(fd, data):
        seen.append(kind(stager, tree + "/f"))
        return real(fd, data[:3])

    monkeypatch.setattr(os, "write", write)
    assert stage(CONTENT, tree + "/f") == [True]
    assert len(seen) == 4
    assert set(seen) == {K_UNKNOWN}
    assert os.stat(copy(stager, tree + "/f")).st_size == 12


@pytest.mark.parametrize("function", ["write", "fchmod", "utime"])
def test_a_copy_that_fails_leaves_no_piece_behind(stager, stage, tree, monkeypatch, function):
    def fail(*args, **more):
        raise OSError(28, "No space left on device")

    before = os.listdir(stager.store.path + "/f")
    with monkeypatch.context() as patch:
        patch.setattr(os, function, fail)
        assert stage(CONTENT, tree + "/f") == [False]
    assert os.listdir(stager.store.path + "/f") == before
    assert kind(stager, tree + "/f") == K_UNKNOWN
    assert stager.failed == 1
    assert "No space left" in stager.trouble
    assert stager.table.header.staged_bytes == 0
    assert stage(CONTENT, tree + "/f") == [True]


NO_SPACE = """
import os, sys
from collfs.interpose.machine.code import Code
from collfs.record import Record, Stat
from collfs.store.node import open_store
from collfs.store.stager import Stager
store = open_store("j", [sys.argv[1]], Code([], 0), chosen=True)
store.table.add_prefix("/p")
stager = Stager(store, 1 << 40)
def record(number, size):
    return Record(f"/p/{number}", Stat(0o100644, number, 1, 1, 0, 0, 0, size, 4096, 8, 1, 2, 3), content=bytes(size))
assert not stager.stage(record(1, 32 << 20), 0)
assert "No space left" in stager.trouble, stager.trouble
assert os.listdir(store.path + "/f") == ["canary"]
staged, number = 0, 2
while stager.stage(record(number, 100000), 0):  # until it is really full
    number += 1
for i in range(2, number):
    assert os.stat(store.table.copy_of(store.table.probe(f"/p/{i}"))).st_size == 100000
assert store.table.probe(f"/p/{number}") & 0xFF == 0
with open("/dev/null") as file:  # the process lives: no SIGBUS
    pass
store.close()
assert [n for n in os.listdir(sys.argv[1]) if not n.endswith(".lock")] == []
print("staged", number - 2)
"""


def test_a_store_that_runs_full_in_the_middle_of_a_copy_goes_on_natively(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    said = smalltmpfs.run(NO_SPACE, place, "size=8m").split()
    assert said[0] == "staged"
    assert int(said[1]) > 10


CRASH = """
import os, signal, sys
from collfs import _libc
from collfs.interpose.machine.code import Code
from collfs.reader import Reader
from collfs.record import CONTENT, Want
from collfs.store import node, stager
base, where = sys.argv[1], sys.argv[2]
sys.stdin.readline()
store = node.open_store("j", [base], Code([], 0), chosen=True)
_libc.flock(store.write, _libc.LOCK_EX)
tree = sys.stdin.readline().strip()
store.table.add_prefix(tree)
def die(*args, **more):
    os.kill(os.getpid(), signal.SIGKILL)
if where == "put":
    store.table.put = die
else:
    setattr(os, where, die)
worker = stager.Stager(store, 1 << 30)
worker.stage(Reader().answer(Want(tree + "/f", CONTENT)), 0)
"""


@pytest.mark.parametrize("where", ["write", "fchmod", "utime", "put"])
def test_a_stager_that_is_killed_anywhere_leaves_a_store_that_works(stager, stage, process, tree, where):
    child = process(where, CRASH)
    child.stdin.write(f"go\n{tree}\n")
    child.stdin.flush()
    assert child.wait(timeout=20) == -signal.SIGKILL
    assert kind(stager, tree + "/f") == K_UNKNOWN
    left = [name for name in os.listdir(stager.store.path + "/f") if name != "canary"]
    assert len(left) == 1, "it was killed too early for this test"
    assert _libc.flock(stager.store.write, _libc.LOCK_EX | _libc.LOCK_NB), "its lock died with it"
    assert stage(CONTENT, tree + "/f") == [True]
    with open(copy(stager, tree + "/f")) as file:
        assert file.read() == "content of f"
    assert os.stat(copy(stager, tree + "/f")).st_mtime_ns == 10**18 + 987654321


# -- the other records -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errno", "wanted"), [(2, K_ABSENT), (20, K_ABSENT), (13, K_NATIVE), (5, K_NATIVE), (40, K_NATIVE)]
)
def test_an_error_of_the_original_is_absence_or_native(stager, tree, errno, wanted):
    assert stager.stage(Record(tree + "/x", errno=errno), 0)
    assert kind(stager, tree + "/x") == wanted


def test_metadata_alone_is_kept_in_all_its_fields(stager, stage, tree):
    names = ("f", "sub", "link", "to-sub")
    stage(META, *[f"{tree}/{name}" for name in names])
    for name in names:
        entry, real = stager.table.entry(f"{tree}/{name}"), os.stat(f"{tree}/{name}")
        values = stager.table.stat_of(entry)
        assert values[:3] == (real.st_dev, real.st_ino, real.st_nlink)
        assert values[7:10] == (real.st_size, real.st_blksize, real.st_blocks)
        assert values[12] * 10**9 + values[13] == real.st_mtime_ns
        assert bool(entry.word & F_LINK) == os.path.islink(f"{tree}/{name}")
        assert bool(entry.link) == os.path.islink(f"{tree}/{name}")
    assert stage(META, tree + "/broken", tree + "/fifo") == [True, True]
    assert (kind(stager, tree + "/broken"), kind(stager, tree + "/fifo")) == (K_NATIVE, K_NATIVE)


def test_the_default_limit_is_a_part_of_what_is_free(tmp_path):
    fs = os.statvfs(tmp_path)
    assert 0 < default_limit(str(tmp_path)) <= fs.f_bavail * fs.f_frsize // 4 + (1 << 30)
