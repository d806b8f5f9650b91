"""The cache of the local transport: a full disk, its bound, who is in it, and whose directory it is."""

from __future__ import annotations

import errno
import os
import stat
import textwrap

import pytest

from cachefiles import HOUR_NS, OLD_NS, copies, fill, keep, kept, metadata, rewrite, sidecar_of
from collfs.errors import OptionError
from collfs.testing import options
from collfs_local import cache as cache_module
from collfs_local import transport

# -- full


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_or_broken_disk_is_counted_and_what_is_there_is_still_served(
    opened, original, tmp_path, monkeypatch, code
):
    cache = opened()
    keep(cache, original)
    other = str(tmp_path / "other")
    rewrite(other, b"other")

    def full(fd, data):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        assert keep(cache, other) is None
    assert cache.failed == 1
    assert os.strerror(code) in cache.reason
    assert keep(cache, other) is None, "it isn't tried again"
    assert cache.failed == 1
    assert cache.get(original, metadata(original)) is not None
    assert not [name for name in copies(os.path.dirname(cache.folder)) if name.endswith(".tmp")]


def test_it_never_grows_past_its_bound(opened, home, tmp_path):
    cache = opened(max_bytes=10_000)
    fill(cache, str(tmp_path), 30)
    assert cache.refused > 0
    assert cache.stored > 5
    folder = f"{home}/{cache_module.FOLDER}"
    assert sum(os.lstat(f"{folder}/{name}").st_size for name in copies(home)) < 10_000 * 1.2


def test_what_others_have_kept_counts_too(opened, tmp_path):
    first, second = opened(max_bytes=10_000), opened(max_bytes=10_000)
    fill(first, str(tmp_path), 9)
    rewrite(str(tmp_path / "more"), bytes(2000))
    assert keep(second, str(tmp_path / "more")) is None
    assert second.refused == 1


def test_the_default_bound_is_a_quarter_of_the_free_space(opened, original, monkeypatch):
    class Space:
        f_bavail, f_frsize, f_flag = 16, 1, 0

    monkeypatch.setattr(os, "statvfs", lambda name: Space)
    cache = opened(max_bytes=None)
    assert cache._bound(0) == 4
    assert keep(cache, original) is None
    Space.f_bavail = 1 << 60
    assert cache._bound(0) == 10 << 30


# -- eviction


def test_the_next_start_after_a_refusal_removes_the_least_recently_used(opened, home, tmp_path):
    cache = opened(max_bytes=10_000)
    paths = fill(cache, str(tmp_path), 30)
    held = [path for path in paths if cache.get(path, metadata(path))]
    for age, path in enumerate(reversed(held)):
        used = OLD_NS - age * HOUR_NS if path != held[0] else OLD_NS + HOUR_NS  # the oldest has been used again
        os.utime(cache.get(path, metadata(path)), ns=(used, OLD_NS))
    cache.close()
    after = opened(max_bytes=10_000)
    left = [path for path in held if after.get(path, metadata(path))]
    assert 0 < len(left) < len(held)
    assert left == [held[0], *held[len(held) - len(left) + 1 :]]
    rewrite(str(tmp_path / "new"), b"new")
    assert keep(after, str(tmp_path / "new")) is not None


def test_using_a_copy_makes_it_young_again(opened, original):
    cache = opened()
    copy = kept(cache, original)
    os.utime(copy, ns=(OLD_NS, OLD_NS))
    assert cache.get(original, metadata(original)) == copy
    assert os.stat(copy).st_atime_ns > OLD_NS
    assert os.stat(copy).st_mtime_ns == OLD_NS


def test_a_full_cache_in_which_all_was_found_is_left_alone(opened, home, tmp_path):
    cache = opened(max_bytes=10_000)
    paths = fill(cache, str(tmp_path), 8)
    before = copies(home)
    cache.close()
    again = opened(max_bytes=10_000)
    assert all(again.get(path, metadata(path)) for path in paths)
    assert copies(home) == before


def test_a_smaller_bound_removes_at_the_next_start(opened, home, tmp_path):
    cache = opened(max_bytes=100_000)
    fill(cache, str(tmp_path), 20)
    cache.close()
    opened(max_bytes=4_000)
    assert 0 < len(copies(home)) <= 2 * 3


def test_nothing_is_removed_while_anybody_uses_the_cache(opened, home, tmp_path):
    cache = opened(max_bytes=100_000)
    fill(cache, str(tmp_path), 20)
    before = copies(home)
    second = opened(max_bytes=4_000)
    assert copies(home) == before
    cache.close()
    second.close()
    opened(max_bytes=4_000)
    assert copies(home) < before


def test_another_process_protects_what_it_uses_and_a_forked_child_of_it_as_well(opened, home, tmp_path, run_python):
    cache = opened(max_bytes=100_000)
    fill(cache, str(tmp_path), 20)
    cache.close()
    code = f"""
        import os
        from collfs_local.cache import Cache
        def look():
            child = os.fork()
            if child == 0:
                before = len(os.listdir(cache.folder))
                other = Cache({home!r}, 4_000)
                os._exit(0 if len(os.listdir(cache.folder)) == before else 1)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        cache = Cache({home!r}, 100_000)
        print(look(), flush=True)
        # a child that goes on living keeps the lock when its parent has closed
        hear, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(tell)
            os.read(hear, 1)
            os._exit(0)
        os.close(hear)
        cache.close()
        print(look(), flush=True)
        os.close(tell)
        os.waitpid(child, 0)
        print(look())
    """
    result = run_python(textwrap.dedent(code))
    assert result.stdout.split() == ["0", "0", "1"], "0: nothing was removed"


def test_half_written_files_are_cleared_away_when_nobody_is_there(opened, home, original):
    cache = opened()
    copy = kept(cache, original)
    for name in ("deadbeef.tmp", "0" * 40, "1" * 40 + ".meta"):
        with open(f"{cache.folder}/{name}", "wb") as file:
            file.write(b"left over")
    second = opened(max_bytes=1 << 21)
    assert len(copies(home)) == 5, "the first still lives"
    cache.close()
    second.close()
    third = opened(max_bytes=1 << 22)
    assert copies(home) == {os.path.basename(copy), os.path.basename(sidecar_of(third, original))}
    assert third.get(original, metadata(original)) == copy


def test_a_lock_that_is_kept_by_another_turns_the_cache_off_after_a_while(home, opened, original, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    opened().close()
    monkeypatch.setattr(cache_module, "LOCK_PATIENCE", 0.05)
    with open(f"{home}/{cache_module.FOLDER}/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        cache = opened()
    assert "another process keeps it locked" in cache.reason
    assert (keep(cache, original), cache.get(original, metadata(original))) == (None, None)


# -- whose directory it is


def test_the_directory_is_made_private(opened, home):
    opened()
    for directory in (home, f"{home}/{cache_module.FOLDER}"):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o1777, 0o500])
def test_a_directory_that_is_not_private_is_refused(home, mode):
    os.mkdir(home)
    os.chmod(home, mode)
    with pytest.raises(OptionError, match=rf"cache='{home}' has mode {mode:04o} and must have 0700.*chmod 700"):
        transport(options(cache=home))
    assert os.listdir(home) == []


def test_a_directory_of_somebody_else_is_refused(home, monkeypatch):
    os.mkdir(home, 0o700)
    owner = os.stat(home).st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(OptionError, match=f"belongs to user {owner}, you are user {owner + 1}"):
        transport(options(cache=home))


def test_a_folder_in_it_that_is_not_private_is_refused(opened, home):
    opened().close()
    os.chmod(f"{home}/{cache_module.FOLDER}", 0o777)
    with pytest.raises(OptionError, match=rf"{cache_module.FOLDER}' has mode 0777"):
        transport(options(cache=home))


def test_a_symbolic_link_in_its_place_is_not_followed(home, tmp_path):
    (tmp_path / "real").mkdir(mode=0o700)
    os.symlink("real", home)
    with pytest.raises(OptionError, match="symbolic link is not followed"):
        transport(options(cache=home))
    assert os.listdir(tmp_path / "real") == []


def test_a_file_in_its_place_and_a_missing_parent_are_refused(home):
    with open(home, "w"):
        pass
    with pytest.raises(OptionError, match="is not a directory"):
        transport(options(cache=home))
    with pytest.raises(OptionError, match=r"can't be made \(Not a directory\)"):
        transport(options(cache=home + "/below"))
    with pytest.raises(OptionError, match=r"can't be made \(No such file or directory\)"):
        transport(options(cache=home + "-not/below"))


@pytest.mark.parametrize("value", ["relative/dir", "", 5, b"x", "/a\0b"])
def test_a_cache_that_is_no_absolute_path_is_refused(value):
    with pytest.raises(OptionError, match=r"cache=.*absolute name"):
        transport(options(cache=value))


@pytest.mark.parametrize("value", [-1, 1.5, "1G", True])
def test_a_bound_that_is_no_size_is_refused(home, value):
    with pytest.raises(OptionError, match=r"cache_max_bytes=.*number of bytes"):
        transport(options(cache=home, cache_max_bytes=value))


def test_a_directory_from_which_nothing_can_be_loaded_is_refused(home, monkeypatch):
    class Space:
        f_flag = os.ST_NOEXEC

    monkeypatch.setattr(os, "statvfs", lambda name: Space)
    with pytest.raises(OptionError, match="mounted noexec"):
        transport(options(cache=home))
