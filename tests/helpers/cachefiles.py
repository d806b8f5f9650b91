"""Files and caches for the tests of the local transport's cache."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from collfs.record import Stat
from collfs_local import cache as cache_module
from collfs_local import sidecar

if TYPE_CHECKING:
    import pytest

    from collfs_local.cache import Cache

HOUR_NS = 3600 * 10**9
OLD_NS = 1_600_000_000 * 10**9


def keep_new_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let caches that are made from now on keep what was written a moment ago."""
    monkeypatch.setattr(cache_module.Cache.__init__, "__kwdefaults__", {"settle_ns": -HOUR_NS})


def rewrite(path: str, content: bytes, mode: int = 0o640) -> None:
    """Write *content* in place, with the same mtime each time."""
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)
    os.utime(path, ns=(OLD_NS, OLD_NS))


def metadata(path: str) -> Stat:
    """What stat says now."""
    return Stat.from_stat_result(os.stat(path))


def content_of(path: str | None) -> bytes:
    """All bytes of a file that must be there."""
    assert path is not None
    with open(path, "rb") as file:
        return file.read()


def keep(cache: Cache, path: str) -> str | None:
    """Put *path* as it is now into *cache*."""
    return cache.put(path, metadata(path), content_of(path))


def kept(cache: Cache, path: str) -> str:
    """The name of the copy that *cache* makes of *path*; it must make one."""
    name = keep(cache, path)
    assert name is not None
    return name


def sidecar_of(cache: Cache, path: str) -> str:
    """The name of the sidecar of *path* as it is now."""
    return f"{cache.folder}/{sidecar.name_of(sidecar.key_of(path, metadata(path)))}"


def copies(home: str) -> set[str]:
    """Names of what is kept in the cache of *home*, sidecars too."""
    return {name for name in os.listdir(f"{home}/{cache_module.FOLDER}") if name not in ("lock", "bound")}


def fill(cache: Cache, folder: str, count: int, size: int = 1000) -> list[str]:
    """Make *count* files of *size* bytes and put them into *cache*: their paths."""
    paths = []
    for number in range(count):
        path = os.path.join(folder, f"file{number}")
        if not os.path.exists(path):
            rewrite(path, b"%03d" % number + bytes(size - 3))
        paths.append(path)
        keep(cache, path)
    return paths
