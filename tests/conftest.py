"""Fixtures for all tests: children that may crash, and counts of path operations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import childproc
import countingfs
import stracecount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Two shared cores: the time that one example takes says nothing. Failing examples can be pasted from the log.
settings.register_profile("collfs", deadline=None, print_blob=True)
settings.load_profile("collfs")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout (or unpacked sdist) that these tests lie in."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def run_python() -> Callable[..., childproc.Result]:
    """:func:`childproc.run_python`: run program text or arguments in a child interpreter and get its Result."""
    return childproc.run_python


@pytest.fixture(scope="session")
def run_command() -> Callable[..., childproc.Result]:
    """:func:`childproc.run_command`: the same for any program."""
    return childproc.run_command


@pytest.fixture(scope="session")
def strace_counts() -> Callable[..., tuple[childproc.Result, stracecount.Counts]]:
    """:func:`stracecount.strace_counts`: run a command, count its path operations. Skips without strace."""
    reason = stracecount.why_not()
    if reason:
        pytest.skip(reason)
    return stracecount.strace_counts


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., countingfs.CountingMount]]:
    """Mount a directory over itself in the node of a process: (directory, pid, ...) as CountingMount."""
    if countingfs.why_not():
        pytest.skip(countingfs.why_not())
    with countingfs.over_themselves(tmp_path) as start:
        yield start
