"""Fixtures: an environment with the real packages, and programs run plain and under collfs."""

from __future__ import annotations

import os
import textwrap

import pytest

import realstack

CHECK = """
import collfs as _collfs
_said = _collfs.stats()["warnings"]
assert _said == [], _said
"""


def pytest_collection_modifyitems(items):
    here = os.path.dirname(__file__)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.real_stack)


@pytest.fixture(scope="session")
def stack(tmp_path_factory):
    """The environment that all tests share: they only read it."""
    reason = realstack.missing()
    if reason:
        pytest.skip(reason)
    return realstack.Stack(tmp_path_factory.mktemp("stack"))


@pytest.fixture(scope="module")
def own_stack(tmp_path_factory):
    """One for a single test file, whose tests may rename and remove files in it."""
    reason = realstack.missing()
    if reason:
        pytest.skip(reason)
    return realstack.Stack(tmp_path_factory.mktemp("own"))


@pytest.fixture
def job():
    """A name for a job, so that no two tests share a store."""
    return f"test-{os.getpid()}-{os.urandom(4).hex()}"


@pytest.fixture
def venv(tmp_path):
    """An empty environment, for tests that fill it themselves."""
    return realstack.Bare(tmp_path)


@pytest.fixture
def same(job):
    """Run a program plain and under collfs, demand the same output to the byte, and return it."""

    def run(where, program, *, warnings=False, env=None, cwd=None, **options):
        program, start = textwrap.dedent(program), where.start(job, **options)
        env = {"PYTHONHASHSEED": "0", **(env or {})}  # sets in the order of their hashes decide what is imported first
        plain = where.run("\n" * start.count("\n") + program, env=env, cwd=cwd, check=False)  # the same line numbers
        hooked = where.run(start + program + ("" if warnings else CHECK), env=env, cwd=cwd, check=False)
        assert plain.rc == 0, plain.describe()
        assert hooked.rc == 0, hooked.describe()
        assert hooked.stdout == plain.stdout
        return plain.stdout

    return run
