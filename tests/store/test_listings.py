"""Listings: every name becomes known and every other absent, and what is known of the names is not lost by it."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collfs.interpose.machine.layout import (
    F_COMPLETE,
    F_MIRROR,
    F_STAT,
    K_ABSENT,
    K_DIR,
    K_FILE,
    K_NATIVE,
    K_REG,
    K_UNKNOWN,
    K_WRITTEN,
)
from collfs.reader import Reader
from collfs.record import CONTENT, LIST, META, NAMES, Want


def kind(stager, path):
    return stager.table.probe(path) & 0xFF


def copy(stager, path):
    return stager.table.copy_of(stager.table.probe(path))


def test_a_listing_makes_every_name_known_and_every_other_absent(stager, stage, tree):
    assert stage(LIST, tree) == [True]
    word = stager.table.probe(tree)
    assert word & 0xFF == K_DIR
    assert word & F_COMPLETE
    assert word & F_MIRROR
    kinds = {name: kind(stager, f"{tree}/{name}") for name in os.listdir(tree)}
    files, others = ("f", "g", "hard", "link"), ("broken", "fifo", "socket")
    assert kinds == {
        **dict.fromkeys(files, K_REG),
        **dict.fromkeys(others, K_NATIVE),
        "sub": K_DIR,
        "to-sub": K_DIR,
    }
    assert kind(stager, tree + "/nope") == K_ABSENT
    assert kind(stager, tree + "/nope/deeper") == K_ABSENT
    assert kind(stager, tree + "/sub/anything") == K_UNKNOWN


def test_a_mirror_has_the_names_and_kinds_and_nothing_else(stager, stage, tree):
    stage(LIST, tree)
    with os.scandir(tree) as a, os.scandir(copy(stager, tree)) as b:
        original = {e.name: stat.S_IFMT(e.stat(follow_symlinks=False).st_mode) for e in a}
        mirror = {e.name: e for e in b}
        assert {n: stat.S_IFMT(e.stat(follow_symlinks=False).st_mode) for n, e in mirror.items()} == original
    for entry in mirror.values():
        if entry.is_symlink():
            assert os.readlink(entry.path) == os.readlink(f"{tree}/{entry.name}")
        else:
            assert stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) == 0
            assert entry.stat(follow_symlinks=False).st_size == 0 or entry.is_dir()


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sets(
        st.binary(min_size=1, max_size=255).filter(
            lambda b: b not in (b".", b"..") and b"/" not in b and b"\0" not in b
        ),
        max_size=6,
    )
)
def test_any_name_that_a_file_may_have_is_listed_as_it_is(stager, stage, tree, names):
    directory = os.path.join(tree, os.urandom(8).hex())
    os.mkdir(directory)
    for name in names:
        with open(os.fsencode(directory) + b"/" + name, "w"):
            pass
    stage(LIST, directory)
    if len(os.fsencode(directory)) < 700:
        assert set(os.listdir(os.fsencode(copy(stager, directory)))) == names
        for name in names:
            assert kind(stager, directory + "/" + os.fsdecode(name)) == K_REG


def test_listing_again_drops_what_has_vanished_with_all_below_it(stager, stage, tree):
    os.makedirs(tree + "/kept/deep")
    with open(tree + "/kept/deep/y", "w"):
        pass
    stage(LIST, tree, tree + "/sub", tree + "/kept")
    stage(CONTENT, tree + "/sub/x", tree + "/f", tree + "/g", tree + "/kept/deep/y")
    for name in ("f", "sub/x"):
        os.unlink(f"{tree}/{name}")
    os.rmdir(tree + "/sub")
    with open(tree + "/new", "w"):
        pass
    assert stage(LIST, tree) == [True]
    for name in ("f", "sub"):
        assert kind(stager, f"{tree}/{name}") == K_ABSENT, name
    for name in ("sub/x", "sub/deeper/still"):
        assert kind(stager, f"{tree}/{name}") in (K_ABSENT, K_UNKNOWN), name
    assert kind(stager, tree + "/g") == kind(stager, tree + "/kept/deep/y") == K_FILE
    assert kind(stager, tree + "/kept/deep") == K_DIR
    assert kind(stager, tree + "/new") == K_REG
    assert "new" in os.listdir(copy(stager, tree))
    assert "f" not in os.listdir(copy(stager, tree))


def test_a_directory_that_has_become_absent_takes_everything_below_it_along(stager, stage, tree):
    stage(LIST, tree + "/sub")
    stage(CONTENT, tree + "/sub/x")
    os.unlink(tree + "/sub/x")
    os.rmdir(tree + "/sub")
    assert stage(META, tree + "/sub") == [True]
    assert kind(stager, tree + "/sub") == K_ABSENT
    assert kind(stager, tree + "/sub/x") == K_ABSENT


def test_what_the_user_invalidates_is_not_absent_and_neither_is_its_directory(stager, stage, tree):
    stage(LIST, tree, tree + "/sub")
    assert kind(stager, tree + "/sub/new") == kind(stager, tree + "/new/x") == K_ABSENT
    stager.table.forget(tree + "/sub/new")
    assert kind(stager, tree + "/sub/new") == K_UNKNOWN
    assert kind(stager, tree + "/sub") == K_DIR  # only what is in it has become doubtful
    assert stager.table.entry(tree + "/sub").st == 0
    assert kind(stager, tree + "/nope") == K_ABSENT
    stager.table.forget(tree + "/new/x")
    assert kind(stager, tree + "/new/x") == kind(stager, tree + "/new") == K_UNKNOWN
    assert stage(LIST, tree) == [True]
    assert kind(stager, tree + "/nope") == K_ABSENT


@pytest.mark.parametrize("aspect", [NAMES, LIST])
def test_a_listing_does_not_take_contents_away(stager, stage, tree, aspect):
    names = ("f", "hard", "link", "sub/x")
    stage(CONTENT, *[f"{tree}/{name}" for name in names])
    before = {name: copy(stager, f"{tree}/{name}") for name in names}
    assert stage(aspect, tree, tree + "/sub") == [True, True]
    assert {name: copy(stager, f"{tree}/{name}") for name in names} == before
    assert all(kind(stager, f"{tree}/{name}") == K_FILE for name in names)


@pytest.mark.parametrize(("aspect", "known"), [(NAMES, False), (LIST, True)])
def test_a_listing_brings_the_metadata_of_its_names_or_does_not(stager, stage, tree, aspect, known):
    assert stage(aspect, tree) == [True]
    assert [bool(stager.table.probe(f"{tree}/{name}") & F_STAT) for name in ("f", "sub")] == [known, known]
    assert bool(stager.table.entry(tree + "/f").st) == known
    assert stage(META, tree + "/f", tree + "/sub") == [True, True]
    assert [bool(stager.table.probe(f"{tree}/{name}") & F_STAT) for name in ("f", "sub")] == [True, True]


def test_a_listing_with_other_metadata_does_take_them_away(stager, stage, tree):
    stage(CONTENT, tree + "/f")
    with open(tree + "/f", "a") as file:
        file.write("more")
    stage(LIST, tree)
    assert kind(stager, tree + "/f") == K_REG
    assert stager.table.stat_of(stager.table.entry(tree + "/f"))[7] == len("content of fmore")


def test_a_name_that_the_job_wrote_stays_native_in_every_listing(stager, stage, tree):
    stage(LIST, tree)
    stager.table.code.forget(stager.table.address, os.fsencode(tree + "/f"), 1, 0)
    assert stage(LIST, tree) == [False]
    assert stage(CONTENT, tree + "/f") == [False]
    assert (kind(stager, tree), kind(stager, tree + "/f")) == (K_WRITTEN, K_WRITTEN)
    assert kind(stager, tree + "/nope") == K_UNKNOWN


def test_what_was_changed_while_it_was_read_is_not_published(stager, tree):
    reader = Reader()
    epoch = int(stager.table.header.epoch)
    record, listing = reader.answer(Want(tree + "/f", CONTENT)), reader.answer(Want(tree, LIST))
    stager.table.code.forget(stager.table.address, os.fsencode(tree + "/f"), 1, 0)
    assert not stager.stage(record, epoch)
    assert not stager.stage(listing, epoch)
    assert kind(stager, tree + "/f") not in (K_FILE, K_REG)
    assert not stager.table.probe(tree) & F_COMPLETE


def test_a_mirror_that_cant_be_made_leaves_a_listing_without_one(stager, stage, tree, monkeypatch):
    def fail(*args, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "mknod", fail)
    assert stage(LIST, tree) == [True]
    word = stager.table.probe(tree)
    assert word & F_COMPLETE
    assert not word & F_MIRROR
    assert kind(stager, tree + "/nope") == K_ABSENT
    assert "No space left" in stager.trouble
