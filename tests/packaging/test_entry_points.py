"""Our own transports and plugins register as a stranger's do, yet are found without metadata: the lists must agree."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from collfs import launch
from collfs.transport.registry import GROUP, OWN, ROWS

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")


@pytest.fixture(scope="module")
def entry_points(root):
    if not (root / "pyproject.toml").is_file():
        pytest.skip("no pyproject.toml beside these tests: not a checkout")
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]


def test_the_table_of_our_own_transports_is_that_of_pyproject(entry_points):
    assert entry_points[GROUP] == OWN


def test_the_table_of_our_own_launchers_is_that_of_pyproject(entry_points):
    assert entry_points["collfs.plugins"] == launch.OWN


def test_every_transport_of_our_own_exists():
    for where in OWN.values():
        module, _, name = where.partition(":")
        assert callable(getattr(import_module(module), name)), where


def test_every_row_says_what_to_install():
    assert [name for name, _, install in ROWS if not install.startswith("pip install ")] == []
