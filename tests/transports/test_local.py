"""The local transport: the contract with and without a cache, and what a cache saves."""

from __future__ import annotations

import errno
import os
import textwrap

import pytest

from cachefiles import content_of, fill, keep_new_files, metadata
from collfs.record import CONTENT, META, Want
from collfs.testing import TransportContract, options
from collfs_local import transport
from collfs_local.cache import Cache

# -- the contract


class TestLocal(TransportContract):
    @pytest.fixture
    def transport(self, tree):
        made = transport(options())
        made.open([tree])
        yield made
        made.close()


class TestLocalWithAColdCache(TransportContract):
    @pytest.fixture
    def transport(self, tree, tmp_path, monkeypatch):
        keep_new_files(monkeypatch)
        made = transport(options(cache=str(tmp_path / "cache")))
        yield made
        made.close()
        assert made.counters()["cache_failed"] == 0


class TestLocalWithAWarmCache(TransportContract):
    @pytest.fixture
    def transport(self, tree, tmp_path, monkeypatch):
        keep_new_files(monkeypatch)
        first = transport(options(cache=str(tmp_path / "cache")))
        files = [os.path.join(folder, name) for folder, _, names in os.walk(tree) for name in names]
        list(first.fetch([Want(path, CONTENT) for path in files]))
        first.close()
        made = transport(options(cache=str(tmp_path / "cache")))
        yield made
        made.close()
        assert (made.counters()["cache_failed"], made.counters()["cache_stored"]) == (0, 0)


# -- through the transport


def test_a_warm_start_costs_one_lstat_per_file_and_reads_nothing(home, tmp_path, monkeypatch):
    keep_new_files(monkeypatch)
    paths = fill(Cache(str(tmp_path / "elsewhere"), 0), str(tmp_path), 20)
    wants = [Want(path, CONTENT) for path in paths]
    cold = transport(options(cache=home))
    first = {record.path: record.node_path for record in cold.fetch(wants)}
    assert {path: content_of(copy) for path, copy in first.items()} == {path: content_of(path) for path in paths}
    cold.close()
    warm = transport(options(cache=home))
    records = list(warm.fetch(wants))
    assert {record.path: record.node_path for record in records} == first
    assert {record.path: record.st for record in records} == {path: metadata(path) for path in paths}
    counters = warm.counters()
    assert (counters["ops"], counters["bytes_read"], counters["cache_hits"]) == (20, 0, 20)
    warm.close()


def test_a_link_is_served_from_the_copy_of_what_it_leads_to_and_still_told_as_a_link(home, original, monkeypatch):
    keep_new_files(monkeypatch)
    os.symlink("original", original + "-link")
    made = transport(options(cache=home))
    assert content_of(made.mmap(original + "-link")) == b"first"
    (record,) = made.fetch([Want(original + "-link", CONTENT)])
    assert content_of(record.node_path) == b"first"
    assert (record.target, record.st) == ("original", metadata(original))
    made.close()


def test_a_file_above_the_limit_is_not_served_from_an_older_copy(home, original, monkeypatch):
    keep_new_files(monkeypatch)
    first = transport(options(cache=home))
    assert first.mmap(original) is not None
    first.close()
    limited = transport(options(cache=home, max_file_bytes=4))
    (record,) = limited.fetch([Want(original, CONTENT)])
    assert (record.node_path, record.content, record.st) == (None, None, metadata(original))
    limited.close()


def test_answer_raises_what_the_original_raises(tmp_path):
    made = transport(options())
    with pytest.raises(FileNotFoundError) as caught:
        made.answer(Want(str(tmp_path / "missing"), META))
    assert caught.value.filename == str(tmp_path / "missing")


def test_without_a_cache_no_code_of_it_is_loaded(run_python):
    code = """
        import sys
        from types import SimpleNamespace
        from collfs_local import transport
        transport(SimpleNamespace(cache=None, max_file_bytes=None))
        print([m for m in sys.modules if m.startswith("collfs_local.")], "hashlib" in sys.modules)
    """
    assert run_python(textwrap.dedent(code)).stdout.split() == ["[]", "False"]


def test_the_transport_serves_on_when_its_cache_fails(home, original, monkeypatch):
    keep_new_files(monkeypatch)
    made = transport(options(cache=home))

    def full(fd, data):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    (record,) = made.fetch([Want(original, CONTENT)])
    assert record.content == b"first"
    assert made.mmap(original) is None
    assert made.counters()["cache_failed"] == 1
    made.close()
