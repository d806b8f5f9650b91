"""What a collective session tells those who follow, and what a follower makes of what it is told."""

from __future__ import annotations

import os
from errno import EACCES, EAGAIN
from types import SimpleNamespace

import pytest

from collfs.fetcher import Fetcher
from collfs.interpose.machine.layout import F_COMPLETE, K_ABSENT, K_DIR, K_FILE, K_NATIVE, K_REG, K_WRITTEN
from collfs.messages import Messages
from collfs.record import CONTENT, LIST, META, NAMES, Record, Want
from collfs.transport import Transport
from collfs.triggers.finder import Finder
from faketable import FILE, Stager, Table


class Follows(Transport):
    """Is told."""

    name, bounded, collective, follows, is_root = "follows", True, True, True, False


class Tells(Transport):
    """Notes what others are told that nothing will come for."""

    name, bounded, collective = "tells", True, True

    def __init__(self):
        self.told: list[str] = []

    def fetch(self, wants):
        return iter(())

    def give_up(self, wants):
        self.told += [want.path for want in wants]


@pytest.fixture
def make(tmp_path):
    fd = os.open(tmp_path / "write", os.O_RDWR | os.O_CREAT)

    def fetcher(transport):
        table = Table()
        return Fetcher(
            transport,
            SimpleNamespace(table=table, write=fd, created=True),  # type: ignore[arg-type]
            Stager(table),  # type: ignore[arg-type]
            prefixes=["/p"],
            exclude=None,
            patience=5.0,
            messages=Messages(quiet=True),
        )

    yield fetcher
    os.close(fd)


@pytest.fixture
def follower(make):
    return make(Follows())


@pytest.fixture
def root(make):
    return make(Tells())


# -- a follower ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [EAGAIN, EACCES])
@pytest.mark.parametrize("known", [K_DIR, K_DIR | F_COMPLETE])
def test_a_directory_that_the_root_cannot_list_goes_native_though_this_node_has_it(follower, code, known):
    # the job has changed it there: what this node knows of it is from before
    follower.table.kinds["/p/d"] = known
    follower.deliver([Record("/p/d", errno=code)])
    assert follower.kind("/p/d") == K_NATIVE


@pytest.mark.parametrize("code", [EAGAIN, EACCES])
def test_an_error_for_a_file_that_this_node_has_is_ignored(follower, code):
    follower.table.kinds["/p/f"] = K_FILE
    follower.deliver([Record("/p/f", errno=code)])
    assert follower.kind("/p/f") == K_FILE


@pytest.mark.parametrize("known", [None, K_REG])
def test_an_error_for_a_file_that_this_node_lacks_makes_it_native_so_that_nobody_waits(follower, known):
    if known is not None:
        follower.table.kinds["/p/f"] = known
    follower.deliver([Record("/p/f", errno=EAGAIN)])
    assert follower.kind("/p/f") == K_NATIVE


def test_a_file_that_is_absent_is_known_to_be(follower):
    follower.deliver([Record("/p/f", errno=2)])
    assert follower.kind("/p/f") == K_ABSENT


def test_content_that_the_store_does_not_take_goes_native(follower):
    stage = follower.stager.stage

    def full(record, epoch):
        return stage(Record(record.path, record.st) if record.content is not None else record, epoch)

    follower.stager.stage = full
    follower.deliver([Record("/p/f", FILE, content=b"abc")])
    assert follower.kind("/p/f") == K_NATIVE


def test_a_thread_that_rests_still_rests_after_it_has_delivered(follower):
    follower.rest(True)
    follower.deliver([Record("/p/f", FILE, content=b"abc")])
    assert follower.resting()
    follower.rest(False)
    follower.deliver([])
    assert not follower.resting()


# -- a root ----------------------------------------------------------------------------------------------------------


def test_a_directory_that_the_root_has_changed_is_told_once(root):
    root.table.kinds["/p/d"] = K_WRITTEN
    for aspect in (LIST, NAMES, LIST):
        root.want([Want("/p/d", aspect)])
    assert root.transport.told == ["/p/d"]


def test_it_is_told_again_after_invalidate_caches(root):
    # the others may have listed it anew meanwhile
    root.table.kinds["/p/d"] = K_WRITTEN
    for count in (1, 2, 3):
        root.want([Want("/p/d", LIST)])
        assert root.transport.told == ["/p/d"] * count
        Finder(root, lambda: None).invalidate_caches()


def test_nothing_is_told_of_what_has_not_changed_or_is_no_listing(root):
    root.table.kinds.update({"/p/d": K_DIR | F_COMPLETE, "/p/w": K_WRITTEN})
    root.want([Want("/p/d", LIST), Want("/p/w", CONTENT), Want("/p/w", META), Want("/q/w", LIST)])
    assert root.transport.told == []


def test_a_follower_tells_nothing(make):
    class Both(Follows, Tells):
        name = "both"

    follower = make(Both())
    follower.table.kinds["/p/d"] = K_WRITTEN
    follower.want([Want("/p/d", LIST)])
    assert follower.transport.told == []
