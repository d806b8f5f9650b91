"""What the import trigger wants, by a fetcher that only takes notes."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from collfs.interpose.machine.layout import F_COMPLETE, K_ABSENT, K_DIR, K_REG, SEEK_ASK
from collfs.record import CONTENT, LIST, META
from collfs.triggers.finder import Finder


class Fetcher:
    """Manages all, knows nothing."""

    table_suffices = True

    def __init__(self):
        self.wanted = []
        self.table = self

    def managed(self, path):
        return True

    def probe(self, path: str) -> int:
        return 0

    def searcher(self, suffixes, bytecode):
        return lambda directory, name: SEEK_ASK

    def want(self, wants):
        self.wanted += wants

    def kind(self, path):
        return self.probe(path) & 0xFF


@pytest.fixture
def fetcher(monkeypatch):
    monkeypatch.setattr(sys, "path", ["/p"])
    return Fetcher()


def test_a_module_that_is_no_built_in_is_looked_for_in_sys_path(fetcher):
    Finder(fetcher, lambda: None).find_spec("wanted")
    assert [(want.path, want.aspect) for want in fetcher.wanted] == [("/p", LIST)]


def test_built_in_modules_are_no_wants(fetcher):
    # every start would list the first directory of sys.path for them, on ranks that import nothing from there
    finder = Finder(fetcher, lambda: None)
    for name in sys.builtin_module_names:
        finder.find_spec(name)
    assert fetcher.wanted == []


def test_a_submodule_with_the_name_of_a_built_in_is_wanted(fetcher):
    Finder(fetcher, lambda: None).find_spec("package.time", ["/p/package"])
    assert [want.path for want in fetcher.wanted] == ["/p/package"]


class Knowing(Fetcher):
    """One directory with one module is listed; of paths it has what the test says."""

    def __init__(self):
        super().__init__()
        self.kinds = {"/p": K_DIR | F_COMPLETE, "/p/module.py": K_REG}
        self.settles = set()

    def probe(self, path):
        return self.kinds.get(path, 0)

    def kind(self, path):
        return self.kinds.get(path, 0)

    def settled(self, path, aspect):
        return (path, aspect) in self.settles


def found(fetcher, without=(LIST,)):
    finder = Finder(fetcher, lambda: None)
    finder.find_spec("module", ["/p"])
    return [(want.path, want.aspect) for want in fetcher.wanted if want.aspect not in without]


@pytest.mark.parametrize("prefix", [None, "/elsewhere"])
def test_what_python_reads_of_a_module_is_wanted_as_long_as_anything_is_missing(monkeypatch, prefix):
    monkeypatch.setattr(sys, "pycache_prefix", prefix)
    bytecode = importlib.util.cache_from_source("/p/module.py")
    both = [("/p/module.py", META), (bytecode, CONTENT)]
    fetcher = Knowing()
    assert found(fetcher) == both
    for known in both:
        fetcher.wanted, fetcher.settles = [], {known}
        assert found(fetcher) == both
    fetcher.wanted, fetcher.settles = [], set(both)
    assert found(fetcher) == []


def test_a_listing_that_others_may_have_to_be_told_of_is_wanted_though_it_is_known(fetcher):
    fetcher = Knowing()
    fetcher.table_suffices = False
    assert ("/p", LIST) in found(fetcher, ())


def test_an_entry_of_the_path_that_is_absent_is_no_want(fetcher, monkeypatch):
    monkeypatch.setattr(fetcher, "probe", lambda path: K_ABSENT)
    Finder(fetcher, lambda: None).find_spec("module", ["/p/python.zip"])
    assert fetcher.wanted == []
