"""Which libraries are walked through, and when another process of the node has done that already."""

from __future__ import annotations

import os

import pytest

from collfs.interpose.machine.layout import K_FILE
from collfs.record import Want
from collfs.triggers import library

FIRST, SECOND, LAST = "/p/libfirst.so", "/p/libsecond.so", "/p/liblast.so"


class Fetcher:
    """Has copies of some files in a folder; the other ones stay unknown."""

    def __init__(self, folder, *names):
        self.folder, self.table = folder, self
        self.kinds, self.places = dict.fromkeys(names, K_FILE), [FIRST, SECOND, LAST]
        for name in names:
            self.copy(name).write_bytes(b"")
        self.told = False

    def copy(self, path):
        return self.folder / path.replace("/", "%")

    def managed(self, path):
        return path.startswith("/p/")

    def resting(self):
        return False

    def want(self, wants):
        list(wants)

    def probe(self, path):
        return self.kinds.get(path, 0)

    def copy_of(self, word):
        return str(self.copy(self.latest))

    def offset(self, path):
        self.latest = path
        return self.places.index(path) + 1

    @property
    def table_suffices(self):
        return not self.told

    def settled(self, path, aspect):
        self.latest = path
        return not self.told and not self.lacks(Want(path, aspect))

    def lacks(self, want):
        return want.path not in self.kinds


@pytest.fixture
def walks(monkeypatch):
    """The libraries that were walked through, and what was loaded at the last time. The first needs the second."""

    class Seen(list):
        loaded: set[str]
        needs: dict[str, list[str]]

    seen = Seen()
    seen.needs = {"libfirst.so": ["libsecond.so"], "libsecond.so": ["libm.so.6", "second"]}

    class Closure:
        def __init__(self, path, *args, loaded=(), **more):
            seen.append(path)
            seen.loaded = set(loaded)
            self.needs = seen.needs

        def rounds(self):
            yield [Want(SECOND, "content")]

    monkeypatch.setattr(library, "Closure", Closure)
    return seen


def libraries(fetcher, library_path):
    return library.Libraries(fetcher, library_path)


def test_who_comes_second_walks_through_nothing(tmp_path, walks):
    fetcher = Fetcher(tmp_path, FIRST, SECOND)
    libraries(fetcher, "/lib").want(FIRST)
    assert walks == [FIRST]
    libraries(fetcher, "/lib").want(FIRST)
    assert walks == [FIRST]
    libraries(fetcher, "/lib").want(SECOND)
    assert walks == [FIRST, SECOND]


def test_another_search_path_or_other_libraries_loaded_are_another_question(tmp_path, walks, monkeypatch):
    fetcher = Fetcher(tmp_path, FIRST, SECOND)
    libraries(fetcher, "/lib").want(FIRST)
    libraries(fetcher, "/lib:/more").want(FIRST)
    assert len(walks) == 2
    monkeypatch.setattr(library, "program_rpath", lambda: "/opt/lib")
    libraries(fetcher, "/lib").want(FIRST)
    assert len(walks) == 3
    monkeypatch.setattr(library, "link_map", lambda: [(0, "/usr/lib/libmore.so.1")])
    libraries(fetcher, "/lib").want(FIRST)
    assert len(walks) == 4
    ours = "/p/module" + library.EXTENSION[0]  # no library needs an extension module
    monkeypatch.setattr(library, "link_map", lambda: [(0, "/usr/lib/libmore.so.1"), (0, ours)])
    libraries(fetcher, "/lib").want(FIRST)
    assert len(walks) == 4


def test_a_walk_that_found_less_than_it_wanted_tells_nobody_that_it_was_done(tmp_path, walks):
    fetcher = Fetcher(tmp_path, FIRST)
    first = libraries(fetcher, "/lib")
    first.want(FIRST)
    fetcher.kinds[SECOND] = K_FILE
    first.want(SECOND)
    libraries(fetcher, "/lib").want(SECOND)
    assert walks == [FIRST, SECOND, SECOND]
    walks[:] = [FIRST, FIRST]
    libraries(fetcher, "/lib").want(FIRST)
    assert len(walks) == 3
    libraries(fetcher, "/lib").want(FIRST)
    assert len(walks) == 3


def test_who_tells_others_what_it_wants_always_walks(tmp_path, walks):
    fetcher = Fetcher(tmp_path, FIRST, SECOND)
    fetcher.told = True
    for _ in range(2):
        libraries(fetcher, "/lib").want(FIRST)
    assert len(walks) == 2


def test_new_content_and_another_place_are_walked_through_anew(tmp_path, walks):
    fetcher = Fetcher(tmp_path, FIRST, SECOND)
    libraries(fetcher, "/lib").want(FIRST)
    fetcher.folder = tmp_path / "new"
    fetcher.folder.mkdir()
    libraries(fetcher, "/lib").want(FIRST)
    assert len(walks) == 2
    fetcher.places.reverse()  # the same copy, wanted by another of its names: $ORIGIN is another directory
    libraries(fetcher, "/lib").want(FIRST)
    assert len(walks) == 3


def test_a_store_that_takes_no_mark_costs_a_walk(tmp_path, walks, monkeypatch):
    fetcher = Fetcher(tmp_path, FIRST, SECOND)

    def refuse(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "symlink", refuse)
    for _ in range(2):
        libraries(fetcher, "/lib").want(FIRST)
    assert len(walks) == 2


def test_what_is_loaded_is_the_same_whether_walked_or_marked(tmp_path, walks):
    fetcher = Fetcher(tmp_path, FIRST, SECOND, LAST)
    first, process = libraries(fetcher, "/lib"), libraries(fetcher, "/lib")
    for one in (first, process):
        one.want(FIRST)
    seen = [first._loaded, process._loaded]
    assert walks == [FIRST]
    assert seen[0] == seen[1] >= {"libfirst.so", "libsecond.so", "second", "libm.so.6"}
    process.want(LAST)
    assert walks == [FIRST, LAST]
    assert walks.loaded == seen[0] - {"liblast.so"}


def test_a_mark_of_who_relied_on_marks_says_no_less(tmp_path, walks):
    """What each of the marked libraries brings along isn't known to that process: each may bring them all."""
    fetcher = Fetcher(tmp_path, FIRST, SECOND, LAST)
    libraries(fetcher, "/lib").want(FIRST)
    process = libraries(fetcher, "/lib")
    process.want(FIRST)
    walks.needs = {"liblast.so": ["second"]}
    process.want(LAST)
    other = libraries(fetcher, "/lib")
    other.want(LAST)
    assert walks == [FIRST, LAST]
    assert other._loaded >= {"liblast.so", "second", "libsecond.so", "libm.so.6"}


def test_names_that_are_too_many_for_a_mark_leave_none(tmp_path, walks):
    fetcher = Fetcher(tmp_path, FIRST, SECOND)
    process = libraries(fetcher, "/lib")
    process._needs.update({"libm.so.6": [f"lib{i}.so" for i in range(1000)]})
    process.want(FIRST)
    libraries(fetcher, "/lib").want(FIRST)
    assert walks == [FIRST, FIRST]
