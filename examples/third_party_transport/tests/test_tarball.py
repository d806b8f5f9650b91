"""The contract that collfs ships, over this transport, found by its entry point as a user's would be."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

import pytest

from collfs.errors import TransportUnavailable
from collfs.testing import TransportContract, options
from collfs.transport.registry import select

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from collfs.transport import Transport


class TestTarball(TransportContract):
    mtime_granularity_ns = 1000  # tarfile keeps times as float: 53 bits for seconds since 1970 leave 240 ns

    @pytest.fixture
    def transport(self, tree: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
        archive = tmp_path / "tree.tar"
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(tree, arcname=".")
        monkeypatch.setenv("COLLFS_TAR", str(archive))
        monkeypatch.setenv("COLLFS_TAR_ROOT", tree)
        made = select("tarball", options(), prefixes=[tree])
        yield made
        made.close()


def test_without_an_archive_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLLFS_TAR", raising=False)
    with pytest.raises(TransportUnavailable, match="COLLFS_TAR="):
        select("tarball", options())
