"""Fixtures for the tests of transports."""

from __future__ import annotations

import pytest

from cachefiles import HOUR_NS, rewrite
from collfs_local.cache import Cache


@pytest.fixture
def home(tmp_path):
    """The directory that a user gives as cache."""
    return str(tmp_path / "cache")


@pytest.fixture
def original(tmp_path):
    path = str(tmp_path / "original")
    rewrite(path, b"first")
    return path


@pytest.fixture
def opened(home):
    """Make caches that are closed at the end."""
    made = []

    def make(max_bytes=1 << 20, directory=home):
        made.append(Cache(directory, max_bytes, settle_ns=-HOUR_NS))
        return made[-1]

    yield make
    for cache in made:
        cache.close()
