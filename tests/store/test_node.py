"""Who finds which store: joined by its job, removed when nobody uses it, never touched when it is somebody else's."""

from __future__ import annotations

import os
import signal
import stat
import time

import pytest

import smalltmpfs
from collfs import _libc, mounts
from collfs.errors import StoreError
from collfs.store import node


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for names in node.JOB_VARIABLES:
        for name in names:
            monkeypatch.delenv(name, raising=False)


def test_a_store_is_private_and_holds_the_canary(start):
    store = start()
    assert store.created
    st = os.lstat(store.path)
    assert stat.S_IMODE(st.st_mode) == 0o700
    assert st.st_uid == os.geteuid()
    word = store.table.probe(store.canary)
    with open(store.table.copy_of(word), "rb") as copy:
        assert copy.read() == node.CANARY
    assert not os.path.exists(store.canary)
    for name in ("alive", "write", "t", "job"):
        assert os.stat(f"{store.path}/{name}").st_mode & 0o077 == 0


def test_the_same_job_joins_and_another_one_does_not(start):
    first, second, other = start("a"), start("a"), start("b")
    assert (first.created, second.created, other.created) == (True, False, True)
    assert first.path == second.path != other.path


def test_the_launchers_job_id_counts(start, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    first = start(None)
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert start(None).path != first.path
    monkeypatch.delenv("SLURM_STEP_ID")
    assert start(None).path == first.path
    assert first.job == "job SLURM_JOB_ID=7"


def test_a_step_of_a_job_joins_the_store_of_the_whole_job_if_that_has_a_server(start, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    whole = start(None)
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    early = start(None)
    assert early.path != whole.path, "nobody serves there"
    with open(f"{whole.path}/server", "w"):
        assert start(None).path == early.path, "a step stays together"
        monkeypatch.setenv("SLURM_STEP_ID", "2")
        late = start(None)
        assert (late.path, late.created) == (whole.path, False)
        assert whole.path in node.jobs(os.path.dirname(whole.path), (None,)), "collfs stop finds it from a step"
        monkeypatch.setenv("SLURM_JOB_ID", "8")
        assert start(None).path != whole.path


def test_without_a_job_id_the_session_joins_for_a_while_only(start, monkeypatch):
    first = start(None)
    assert start(None).path == first.path
    monkeypatch.setattr(node, "JOIN_SECONDS", -1.0)
    late = start(None)
    assert late.created
    assert late.path != first.path
    assert start("named").path != start("named 2").path


def test_a_named_job_is_joined_at_any_time(start, monkeypatch):
    first = start("named")
    monkeypatch.setattr(node, "JOIN_SECONDS", -1.0)
    assert start("named").path == first.path


def test_racing_starts_make_one_store(process, go):
    racers = [process() for _ in range(4)]
    for racer in racers:  # all wait for the line
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.stdout.readline().split() for racer in racers]
    assert len({path for path, _ in said}) == 1
    assert sorted(created for _, created in said) == ["0", "0", "0", "1"]
    for racer in racers:
        go(racer, end=True)
    assert not os.path.exists(said[0][0])


def test_the_next_start_removes_a_store_whose_users_were_killed(process, go, start, base):
    child = process("dead")
    path, _ = go(child)
    assert start("other").path != path
    assert os.path.isdir(path), "its user lives"
    os.kill(child.pid, signal.SIGKILL)
    child.wait(timeout=20)
    assert os.path.isdir(path)
    start("another")
    assert not os.path.exists(path)


def test_a_dead_store_of_the_same_job_is_not_joined(process, go, start):
    child = process("j")
    path, _ = go(child)
    os.kill(child.pid, signal.SIGKILL)
    child.wait(timeout=20)
    store = start("j")
    assert store.created
    assert store.path != path


def test_the_last_one_out_removes_the_store(start, process, go):
    store, child = start(), process()
    path, created = go(child)
    assert (path, created) == (store.path, "0")
    store.close()
    assert os.path.isdir(path)
    go(child, end=True)
    assert not os.path.exists(path)


def test_closing_twice_does_no_harm(start):
    store = start()
    store.close()
    store.close()
    again = start()
    store.close()
    assert os.path.isdir(again.path)


FORKS = """
import os, sys
from collfs.interpose.machine.code import Code
from collfs.store import node
base = sys.argv[1]
sys.stdin.readline()
store = node.open_store("j", [base], Code([], 0), chosen=True)
store.before_fork()
child = os.fork()
if not child:
    store.after_fork()
    sys.stdin.readline()
    try:
        assert os.path.isdir(store.path), "gone under the child"
        store.close()
        assert not os.path.exists(store.path), "the last one must remove it"
        os._exit(0)
    finally:
        os._exit(1)
store.forked()
store.close()
print(store.path, int(os.path.isdir(store.path)), flush=True)
sys.exit(os.waitpid(child, 0)[1] != 0)
"""


def test_a_forked_child_keeps_the_store_alive(process, go, start):
    parent = process(code=FORKS)
    path, there = go(parent)
    assert there == "1"
    other = start("other")  # a start removes dead stores only
    assert os.path.isdir(path)
    assert other.path != path
    go(parent, end=True)


def test_who_closes_does_not_wait_for_who_joins(start, base, code, process, monkeypatch):
    """The joiner holds the lock of the starts and waits for ``alive``; the closer must not hold ``alive`` and wait."""
    store = start()
    taken = []
    real = _libc.flock

    def flock(fd, operation):
        if fd == store.alive and operation & _libc.LOCK_EX:
            probe = os.open(f"{base}/collfs-{os.geteuid()}.lock", os.O_RDWR)
            taken.append(real(probe, _libc.LOCK_EX | _libc.LOCK_NB))
            os.close(probe)
        return real(fd, operation)

    monkeypatch.setattr(_libc, "flock", flock)
    store.close()
    assert taken == [False], "`alive` was asked for without the lock of the starts"
    assert not os.path.exists(store.path)


def test_what_looks_like_a_store_but_is_open_to_others_is_ignored(start, base):
    trap = f"{base}/collfs-{os.geteuid()}-trap"
    os.mkdir(trap, 0o700)
    for name in ("alive", "write", "t"):
        with open(f"{trap}/{name}", "w") as file:
            file.write("")
    with open(trap + "/job", "w") as file:
        file.write(f"{node.FORMAT}\njob j\n{time.time()}\n")
    os.chmod(trap, 0o750)
    store = start("j")
    assert store.path != trap
    assert os.path.isdir(trap)
    os.chmod(trap, 0o700)
    if os.geteuid() == 0:
        os.chown(trap, 12345, 12345)
        assert start("j").path == store.path
        assert os.path.isdir(trap)
        os.chown(trap, 0, 0)
    os.symlink(trap, trap + "-link")
    assert [path for path in node.stores(base) if path.endswith("link")] == []


def test_a_store_of_this_job_that_cant_be_joined_does_not_stop_the_start_elsewhere(start, base, code, tmp_path):
    store = start("j")
    store.table.header.version += 1
    try:
        with pytest.raises(StoreError, match="version"):
            start("j")
        second = tmp_path / "second"
        second.mkdir()
        other = node.open_store("j", [base, str(second)], code)
        assert other.path.startswith(str(second))
        other.close()
    finally:
        store.table.header.version -= 1


def test_the_lock_file_of_another_user_is_not_used(start, base):
    if os.geteuid():
        pytest.skip("needs root to make another user's file")
    path = f"{base}/collfs-{os.geteuid()}.lock"
    with open(path, "w"):
        pass
    os.chown(path, 12345, 12345)
    with pytest.raises(StoreError, match="another user"):
        start()
    os.unlink(path)
    os.symlink("/dev/null", path)
    with pytest.raises(StoreError):
        start()


def test_a_start_waits_for_another_start_only_so_long(start, base, monkeypatch):
    monkeypatch.setattr(node, "LOCK_SECONDS", 0.05)
    fd = os.open(f"{base}/collfs-{os.geteuid()}.lock", os.O_RDWR | os.O_CREAT, 0o600)
    _libc.flock(fd, _libc.LOCK_EX)
    with pytest.raises(StoreError, match="another start"):
        start()
    os.close(fd)
    assert start().created


def test_waiting_for_a_lock_ends_early_when_there_is_nothing_to_wait_for(tmp_path):
    first, second = (os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600) for _ in range(2))
    assert node.wait_for_lock(first, _libc.LOCK_EX, 1)
    rounds = iter([False, False, True])
    assert not node.wait_for_lock(second, _libc.LOCK_EX, 60, lambda: next(rounds))
    os.close(first)
    assert node.wait_for_lock(second, _libc.LOCK_EX, 60)
    os.close(second)


# -- where a store may be --------------------------------------------------------------------------------------------


class Statvfs:
    """What os.statvfs gives, with something else in it."""

    def __init__(self, real, **other):
        self.__dict__.update({name: getattr(real, name) for name in dir(real) if name.startswith("f_")}, **other)


def test_the_candidates_are_absolute_and_each_is_named_once():
    assert node.candidates("/x", {"TMPDIR": "/y"}) == ["/x"]
    assert node.candidates(None, {"TMPDIR": "/scratch"}) == ["/dev/shm", "/scratch", "/tmp", "/var/tmp"]
    assert (
        node.candidates(None, {"TMPDIR": "relative"}) == node.candidates(None, {}) == ["/dev/shm", "/tmp", "/var/tmp"]
    )
    assert node.candidates(None, {"TMPDIR": "/tmp"}) == ["/dev/shm", "/tmp", "/var/tmp"]


@pytest.mark.parametrize("chosen", [True, False])
def test_noexec_is_never_suitable(base, monkeypatch, chosen):
    real = os.statvfs(base)
    monkeypatch.setattr(os, "statvfs", lambda path: Statvfs(real, f_flag=real.f_flag | os.ST_NOEXEC))
    assert "noexec" in node.unsuitable(base, chosen)


def test_too_small_or_shared_is_unsuitable_unless_chosen(base, monkeypatch):
    monkeypatch.setattr(mounts, "NETWORK", {})
    assert node.unsuitable(base, False) == ""
    monkeypatch.setattr(node, "network_name", lambda path: "lustre")
    assert "lustre" in node.unsuitable(base, False)
    assert node.unsuitable(base, True) == ""
    monkeypatch.setattr(node, "network_name", lambda path: "")
    real = os.statvfs(base)
    monkeypatch.setattr(os, "statvfs", lambda path: Statvfs(real, f_bavail=1))
    assert "MiB free" in node.unsuitable(base, False)
    assert node.unsuitable(base, True) == ""


def test_what_is_no_writable_directory_is_unsuitable(base, monkeypatch):
    assert node.unsuitable(base + "/nope", True) != ""
    with open(base + "/file", "w"):
        pass
    assert node.unsuitable(base + "/file", True) == "not a directory"
    monkeypatch.setattr(os, "access", lambda *a: False)
    assert node.unsuitable(base, True) == "not writable"


def test_the_next_candidate_is_taken_and_the_error_names_all(base, code, tmp_path):
    store = node.open_store("j", [str(tmp_path / "none"), base], code, chosen=True)
    assert store.path.startswith(base)
    store.close()
    with pytest.raises(StoreError) as error:
        node.open_store("j", [str(tmp_path / "none"), str(tmp_path / "neither")], code)
    assert "none: " in str(error.value)
    assert "neither: " in str(error.value)


NOEXEC = """
import sys
from collfs.store.node import unsuitable
print(unsuitable(sys.argv[1], True))
"""


def test_a_real_noexec_mount_is_seen(tmp_path):
    assert "noexec" in smalltmpfs.run(NOEXEC, tmp_path, "noexec")


FULL = """
import os, sys
from collfs.errors import StoreError
from collfs.interpose.machine.code import Code
from collfs.store.node import open_store
try:
    open_store("j", [sys.argv[1]], Code([], 0), chosen=True)
except StoreError as exc:
    print(exc, [name for name in os.listdir(sys.argv[1]) if not name.endswith(".lock")])
"""


def test_a_store_that_has_no_room_to_be_made_leaves_nothing_behind(tmp_path):
    said = smalltmpfs.run(FULL, tmp_path, "size=64k")
    assert "No space left" in said
    assert said.strip().endswith("[]")
