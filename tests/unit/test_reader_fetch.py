"""Many wants at once: all are answered, memory is bounded, and nobody hangs when something goes wrong."""

from __future__ import annotations

import _thread
import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

import collfs.reader._pool
from collfs.reader import Reader
from collfs.reader._pool import BUDGET, Pool
from collfs.record import CONTENT, LIST, META, NAMES, Record, Want
from collfs.testing.tree import MANY, make_tree

LIMIT = 30.0  # seconds for any wait
MIB = 1 << 20


@pytest.fixture(scope="module")
def wants(tmp_path_factory):
    root = os.path.join(os.path.realpath(tmp_path_factory.mktemp("fetch")), "tree")
    make_tree(root)
    found = [Want(root, LIST), Want(root + "/missing", META), Want(root + "/one/child", CONTENT)]
    for folder, folders, names in os.walk(root):
        found += [Want(os.path.join(folder, name), CONTENT) for name in names]
        found += [Want(os.path.join(folder, name), NAMES) for name in folders]
    assert len(found) > MANY
    return found


@pytest.fixture(autouse=True)
def _no_thread_stays():
    before = _thread._count()
    yield
    until(lambda: _thread._count() <= before)


def until(condition):
    """Wait for what another thread is about to do."""
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.001)


def plain(record):
    """Something that can be compared and sorted; access times move by reading."""
    names = None if record.names is None else sorted(n.name for n in record.names)
    content = None if record.content is None else bytes(record.content)
    return record.path, record.errno, record.st and record.st.st_mtim, record.target, names, content


@pytest.mark.parametrize("max_workers", [1, 2, 8, 50])
def test_every_want_is_answered_as_if_asked_alone(wants, max_workers):
    reader = Reader()
    alone = Reader()
    got = sorted((plain(r) for r in reader.fetch(wants, max_workers)), key=repr)
    assert got == sorted((plain(alone.answer(w)) for w in wants), key=repr)
    for counter in ("ops", "bytes_read", "files_read", "skipped"):
        assert getattr(reader, counter) == getattr(alone, counter), counter


def test_nothing_wanted_is_nothing_answered():
    assert list(Reader().fetch([])) == []


def test_few_wants_start_no_thread(wants, monkeypatch):
    monkeypatch.setattr(collfs.reader._pool, "start_new_thread", lambda *a: pytest.fail("a thread was started"))
    assert len(list(Reader().fetch(wants[:4]))) == 4


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_where_threads_can_not_be_started_the_caller_or_those_that_could_do_it(wants, monkeypatch, allowed):
    left = [allowed]
    start = _thread.start_new_thread

    def limited(function, args):
        if left[0] == 0:
            raise RuntimeError("can't start new thread")
        left[0] -= 1
        return start(function, args)

    monkeypatch.setattr(collfs.reader._pool, "start_new_thread", limited)
    assert sorted(r.path for r in Reader().fetch(wants)) == sorted(w.path for w in wants)


def test_the_pool_does_not_run_ahead_of_a_slow_caller():
    started = threading.Semaphore(0)

    def answer(want, hold):
        started.release()
        return Record(want.path, errno=errno.ENOENT)

    records = Pool(answer, [Want(f"/{n}", META) for n in range(100)], 4).records()
    next(records)
    for _ in range(8):
        assert started.acquire(timeout=LIMIT)
    assert not started.acquire(timeout=0.2), "more than twice as many answers as threads are held"
    next(records)
    assert started.acquire(timeout=LIMIT)
    records.close()  # type: ignore[attr-defined]


def test_content_in_flight_stays_within_the_budget_and_a_larger_file_goes_alone():
    sizes = [BUDGET + 1, 30 * MIB, 30 * MIB, 1, BUDGET, 2 * BUDGET, 0, 40 * MIB] * 6
    seen = []
    held = [0]
    guard = threading.Lock()

    def answer(want, hold):
        size = sizes[int(want.path[1:])]
        hold.reserve(1)
        hold.reserve(size)  # a second try of a file that has changed: in place of the first
        with guard:
            held[0] += size
            seen.append((held[0], size))
        return Record(want.path, content=memoryview(bytearray(1)))

    for record in Pool(answer, [Want(f"/{n}", CONTENT) for n in range(len(sizes))], 8).records():
        with guard:
            held[0] -= sizes[int(record.path[1:])]
    assert len(seen) == len(sizes)
    # At the moment of counting the one that was just handed to the caller may be counted still.
    assert all(total <= BUDGET or total == size for total, size in seen), seen


def test_a_failed_read_gives_its_share_of_the_budget_back():
    def answer(want, hold):
        hold.reserve(BUDGET)
        return Record(want.path, errno=errno.EIO)

    assert len(list(Pool(answer, [Want(f"/{n}", CONTENT) for n in range(50)], 4).records())) == 50


def test_an_unexpected_exception_in_a_thread_reaches_the_caller(wants):
    class Broken(Reader):
        def _whole(self, fd, size, hold):
            if self.files_read > 20:
                raise ZeroDivisionError("broken")
            return super()._whole(fd, size, hold)

    with pytest.raises(ZeroDivisionError, match="broken"):
        for _ in Broken().fetch(wants):
            pass


def test_an_early_end_stops_the_threads_even_those_that_wait_for_room(tmp_path):
    paths = []
    for number in range(20):
        paths.append(str(tmp_path / str(number)))
        with open(paths[-1], "wb") as file:
            file.truncate(40 * MIB)
    reader = Reader()
    records = reader.fetch([Want(path, CONTENT) for path in paths])
    next(records)
    records.close()  # type: ignore[attr-defined]
    until(lambda: _thread._count() == 0 or reader.files_read <= 8)


def test_ctrl_c_ends_a_fetch_at_once_though_all_threads_hang(tmp_path):
    code = """
        import sys, threading
        from collfs.reader import Reader
        from collfs.record import CONTENT, Want

        class Hanging(Reader):
            def _whole(self, fd, size, hold):
                started.release()
                threading.Event().wait()

        started = threading.Semaphore(0)
        for n in range(20):
            open(f"{sys.argv[1]}/{n}", "w").close()

        def say():
            for _ in range(8):
                started.acquire()
            print("hanging", flush=True)

        threading.Thread(target=say, daemon=True).start()
        try:
            for record in Hanging().fetch([Want(f"{sys.argv[1]}/{n}", CONTENT) for n in range(20)]):
                pass
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "hanging\n"
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=LIMIT)
    finally:
        child.kill()
        child.wait(LIMIT)
        child.stdout.close()
    assert (out, child.returncode) == ("interrupted\n", 0)
