"""What is asked for, how often, and how long somebody waits. The table is a dict here, the stager a few lines."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace

import pytest

from collfs import _libc
from collfs.fetcher import Fetcher
from collfs.interpose.machine.layout import K_FILE, K_REG, K_UNKNOWN
from collfs.messages import Messages
from collfs.record import CONTENT, META, Record, Want
from collfs.transport import Transport
from collfs.triggers.finder import Finder
from faketable import FILE, Stager, Table


class Answers(Transport):
    """Knows files with three bytes, and notes what it is asked."""

    name = "answers"
    bounded = True

    def __init__(self):
        self.asked: list[Want] = []
        self.published: list[list[Record]] = []

    def fetch(self, wants):
        self.asked += wants
        for want in wants:
            if want.path.endswith("silent"):
                continue
            if want.path.endswith("absent"):
                yield Record(want.path, errno=2)
            elif want.path.endswith("ill"):
                yield Record(want.path, errno=5)
            elif want.path.endswith("short"):
                yield Record(want.path, FILE, content=b"ab")
            else:
                yield Record(want.path, FILE, content=b"abc" if want.aspect == CONTENT else None)


class Publishes(Answers):
    """Tells others."""

    def publish(self, records):
        self.published.append(list(records))


@pytest.fixture
def make(tmp_path):
    opened = []

    def fetcher(transport=None, patience=30.0, exclude=None, fd=None):
        table = Table()
        fd = os.open(tmp_path / "write", os.O_RDWR | os.O_CREAT) if fd is None else fd
        opened.append(fd)
        return Fetcher(
            transport or Answers(),
            SimpleNamespace(table=table, write=fd),  # type: ignore[arg-type]
            Stager(table),  # type: ignore[arg-type]
            prefixes=["/p"],
            exclude=exclude,
            patience=patience,
            messages=Messages(quiet=True),
        )

    yield fetcher
    for fd in opened:
        os.close(fd)


def asked(fetcher):
    return [(want.path, want.aspect) for want in fetcher._transport.asked]


def test_what_is_known_is_not_asked_for_again(make):
    fetcher = make()
    for _ in range(3):
        fetcher.want([Want("/p/a", META), Want("/p/absent", CONTENT)])
    assert asked(fetcher) == [("/p/a", META), ("/p/absent", CONTENT)]
    assert (fetcher.wants, fetcher.fetched, fetcher.unanswered) == (2, 2, 0)


def test_metadata_that_is_known_doesnt_stand_in_the_way_of_content(make):
    fetcher = make()
    fetcher.want([Want("/p/a.py", META)])
    fetcher.want([Want("/p/a.py", CONTENT)])
    assert fetcher.kind("/p/a.py") == K_FILE


@pytest.mark.parametrize("forgives", ["forgive", "invalidate_caches"])
def test_what_is_not_answered_is_asked_once_until_somebody_forgives(make, forgives):
    fetcher = make()
    for _ in range(3):
        fetcher.want([Want("/p/silent", META)])
    assert asked(fetcher) == [("/p/silent", META)]
    assert fetcher.unanswered == 1
    if forgives == "forgive":
        fetcher.forgive()
    else:
        Finder(fetcher, lambda: None).invalidate_caches()
    fetcher.want([Want("/p/silent", META)])
    assert len(asked(fetcher)) == 2


def test_paths_outside_and_excluded_ones_are_never_asked_for(make):
    fetcher = make(exclude=lambda path: path.endswith(".bin"))
    fetcher.want([Want("/q/a", META), Want("/p/a.bin", META), Want("/pp", META), Want("/p", META)])
    assert asked(fetcher) == [("/p", META)]


def test_content_that_stat_contradicts_is_refused(make):
    fetcher = make()
    fetcher.want([Want("/p/short", CONTENT)])
    assert (fetcher.refused, fetcher.fetched, fetcher.kind("/p/short")) == (1, 0, K_UNKNOWN)
    assert "2 bytes of content" in fetcher.messages.warnings[0]


def test_an_ill_file_system_is_said_and_counted_but_no_reason_to_give_up(make):
    fetcher = make()
    fetcher.want([Want("/p/ill", CONTENT), Want("/p/a", META)])
    assert (fetcher.failed, fetcher.fetched, fetcher.dead) == (1, 1, "")
    assert fetcher.messages.warnings == [
        "/p/ill: Input/output error. What can't be read in advance is read natively",
    ]


def test_what_the_table_took_is_published_errors_too_but_nothing_unfit(make):
    fetcher = make(Publishes())
    fetcher.want([Want("/p/a", CONTENT), Want("/p/short", CONTENT), Want("/p/ill", META)])
    assert [[record.path for record in batch] for batch in fetcher._transport.published] == [["/p/a", "/p/ill"]]


def test_a_wait_for_the_lock_ends_after_patience(make, tmp_path):
    fetcher = make(patience=0.2)
    other = os.open(tmp_path / "write", os.O_RDWR)
    try:
        assert _libc.flock(other, _libc.LOCK_EX)
        fetcher.want([Want("/p/a", META)])
    finally:
        os.close(other)
    assert asked(fetcher) == []
    assert (fetcher.timeouts, fetcher.unanswered) == (1, 1)
    assert "waited 0.2 s for /p/a" in fetcher.dead


def test_it_goes_on_as_long_as_the_table_grows(make, tmp_path):
    fetcher = make(patience=0.5)
    other = os.open(tmp_path / "write", os.O_RDWR)
    assert _libc.flock(other, _libc.LOCK_EX)

    def somebody_stages():
        for _ in range(10):
            time.sleep(0.1)
            fetcher.table.header.staged_bytes += 1
        os.close(other)

    thread = threading.Thread(target=somebody_stages)
    thread.start()
    try:
        fetcher.want([Want("/p/a", META)])
    finally:
        thread.join(30)
    assert (fetcher.dead, fetcher.kind("/p/a")) == ("", K_REG)


def test_it_ends_early_when_another_process_has_staged_it(make, tmp_path):
    fetcher = make()
    other = os.open(tmp_path / "write", os.O_RDWR)
    assert _libc.flock(other, _libc.LOCK_EX)
    timer = threading.Timer(0.2, lambda: fetcher.table.kinds.update({"/p/a": K_REG}))
    timer.start()
    try:
        began = time.monotonic()
        fetcher.want([Want("/p/a", META)])
    finally:
        timer.join(30)
        os.close(other)
    assert time.monotonic() - began < 15
    assert asked(fetcher) == []
    assert fetcher.dead == ""


def test_while_it_fetches_other_threads_may_import(make):
    """importlib holds its global lock while it calls a finder: a fetch there must not keep it."""
    import _imp

    held = []

    def imports():
        _imp.acquire_lock()
        held.append(1)
        _imp.release_lock()

    class Imports(Answers):
        def fetch(self, wants):
            thread = threading.Thread(target=imports)
            thread.start()
            thread.join(5)
            return super().fetch(wants)

    fetcher = make(Imports())
    _imp.acquire_lock()
    _imp.acquire_lock()
    try:
        fetcher.want([Want("/p/a", META)])
        assert _imp.lock_held()
    finally:
        _imp.release_lock()
        _imp.release_lock()
    assert held == [1]


def test_an_endless_patience_is_possible(make):
    fetcher = make(patience=1e300)
    fetcher.want([Want("/p/a", META)])
    assert fetcher.fetched == 1
