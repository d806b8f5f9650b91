"""What the import trigger wants, by a fetcher that only takes notes."""

from __future__ import annotations

import sys

import pytest

from collfs.record import LIST
from collfs.triggers.finder import Finder


class Fetcher:
    """Manages all, knows nothing."""

    def __init__(self):
        self.wanted = []
        self.table = self

    def managed(self, path):
        return True

    def probe(self, path):
        return 0

    def want(self, wants):
        self.wanted += wants

    def known_names(self, directory):
        return None


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
