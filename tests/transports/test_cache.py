"""The cache of the local transport: what it serves, and what it takes for damage."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachefiles import content_of, keep, kept, metadata, rewrite, sidecar_of
from collfs_local import sidecar
from collfs_local.cache import Cache

# -- what is served


def test_a_copy_outlives_its_maker_and_looks_like_the_original(opened, original):
    first = opened()
    assert first.get(original, metadata(original)) is None
    copy = kept(first, original)
    first.close()
    found = opened().get(original, metadata(original))
    assert found == copy
    assert found is not None
    assert content_of(found) == b"first"
    ours, theirs = os.stat(found), os.stat(original)
    assert (ours.st_mode, ours.st_size, ours.st_mtime_ns) == (theirs.st_mode, theirs.st_size, theirs.st_mtime_ns)


@pytest.mark.parametrize("content", [b"second", b"other"])
def test_a_changed_original_is_not_served_even_with_the_old_size_mtime_and_inode(opened, original, content):
    cache = opened()
    old = kept(cache, original)
    before = os.stat(original)
    rewrite(original, content)
    assert (os.stat(original).st_ino, os.stat(original).st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert cache.get(original, metadata(original)) is None
    new = kept(cache, original)
    assert content_of(cache.get(original, metadata(original))) == content
    assert new != old
    assert content_of(old) == b"first", "a running store may link to it"


@pytest.mark.parametrize("field", ["st_mtim", "st_ctim", "st_size", "st_ino", "st_mode"])
def test_every_field_of_the_originals_metadata_counts(opened, original, field):
    cache = opened()
    keep(cache, original)
    other = metadata(original)
    setattr(other, field, getattr(other, field) ^ 1)
    assert cache.get(original, other) is None
    assert cache.get(original, metadata(original)) is not None


def test_a_remount_does_not_count(opened, original):
    cache = opened()
    keep(cache, original)
    other = metadata(original)
    other.st_dev += 1
    assert cache.get(original, other) is not None


def test_the_content_of_one_file_is_never_served_for_another_not_even_if_hashes_collide(
    opened, original, tmp_path, monkeypatch
):
    monkeypatch.setattr(sidecar, "name_of", lambda key: "0" * 40 + ".meta")
    cache = opened()
    other = str(tmp_path / "other")
    os.link(original, other)  # the same in all but the path
    keep(cache, original)
    assert cache.get(original, metadata(original)) is not None
    assert cache.get(other, metadata(other)) is None


def test_all_names_of_a_file_lead_to_one_copy_as_ld_so_must_not_load_it_twice(opened, original, tmp_path, monkeypatch):
    cache = opened()
    hard, soft, twin = (str(tmp_path / name) for name in ("hard", "soft", "twin"))
    os.link(original, hard)
    os.symlink("original", soft)
    first = kept(cache, original)
    inode = os.stat(first).st_ino
    cache.close()
    again = opened()
    with monkeypatch.context() as patch:
        patch.setattr(again, "_room", lambda size: False)  # a second copy would need room; another name of it doesn't
        assert kept(again, hard) == kept(again, soft) == first
    assert again.get(original, metadata(original)) == again.get(soft, metadata(soft)) == first
    assert os.stat(first).st_ino == inode
    rewrite(twin, b"first")  # the same bytes, but another file
    assert kept(again, twin) != first


def test_a_copy_that_another_process_has_just_made_is_left_in_its_place(opened, original, monkeypatch):
    first, second = opened(), opened()
    copy = kept(first, original)
    inode = os.stat(copy).st_ino
    late = iter([False, True])  # the second doesn't see it before it has written its own
    monkeypatch.setattr(second, "_intact", lambda name, st: next(late))
    assert kept(second, original) == copy
    assert os.stat(copy).st_ino == inode


# -- damage


@pytest.mark.parametrize("damage", ["empty", "short", "long", "flipped", "zeros", "gone", "directory", "link"])
def test_a_damaged_sidecar_is_a_miss_and_is_mended_by_the_next_copy(opened, original, damage):
    cache = opened()
    kept(cache, original)
    meta = sidecar_of(cache, original)
    good = content_of(meta)
    os.unlink(meta)
    if damage == "directory":
        os.mkdir(meta)
    elif damage == "link":
        with open(meta + ".real", "wb") as file:
            file.write(good)
        os.symlink(meta + ".real", meta)
    elif damage != "gone":
        flipped = good[:20] + bytes([good[20] ^ 1]) + good[21:]
        bad = {"empty": b"", "short": good[:-1], "long": good + b"x", "flipped": flipped, "zeros": bytes(len(good))}
        with open(meta, "wb") as file:
            file.write(bad[damage])
    assert cache.get(original, metadata(original)) is None
    if damage == "directory":
        assert keep(cache, original) is None
        assert "collfs-cache" in cache.reason
    else:
        assert keep(cache, original) is not None
        assert cache.get(original, metadata(original)) is not None


@pytest.mark.parametrize("damage", ["shorter", "longer", "touched", "chmod", "gone", "directory"])
def test_a_damaged_copy_is_a_miss(opened, original, damage):
    cache = opened()
    copy = kept(cache, original)
    if damage in ("shorter", "longer"):
        os.chmod(copy, 0o600)
        rewrite(copy, b"firs" if damage == "shorter" else b"first!")
    elif damage == "touched":
        os.utime(copy)
    elif damage == "chmod":
        os.chmod(copy, 0o755)
    else:
        os.unlink(copy)
        if damage == "directory":
            os.mkdir(copy)
    assert cache.get(original, metadata(original)) is None


def test_after_another_boot_a_copy_is_compared_with_its_checksum_once(opened, original, monkeypatch):
    keep(opened(), original)
    monkeypatch.setattr(sidecar, "boot_id", lambda: b"b" * 36)
    compared = []
    digest_of = sidecar.digest_of

    def counted(st, parts):
        compared.append(st)
        return digest_of(st, parts)

    monkeypatch.setattr(sidecar, "digest_of", counted)
    for _ in range(2):
        assert opened().get(original, metadata(original)) is not None
    assert len(compared) == 1


def test_after_another_boot_a_copy_with_lost_bytes_is_a_miss(opened, original, monkeypatch):
    copy = kept(opened(), original)
    rewrite(copy, bytes(5))  # size, mode and mtime are right: what a file system may leave after a power cut
    monkeypatch.setattr(sidecar, "boot_id", lambda: b"b" * 36)
    assert opened().get(original, metadata(original)) is None


def test_without_a_boot_id_every_use_is_compared(opened, original, monkeypatch):
    monkeypatch.setattr(sidecar, "boot_id", lambda: sidecar.NO_BOOT)
    copy = kept(opened(), original)
    assert opened().get(original, metadata(original)) is not None
    rewrite(copy, bytes(5))
    assert opened().get(original, metadata(original)) is None


@given(st.binary(max_size=200), st.binary(min_size=20, max_size=20))
def test_a_sidecar_gives_back_what_was_put_in(key, digest):
    assert sidecar.unpack(sidecar.pack(key, digest, b"b" * 36)) == (key, digest, b"b" * 36)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_sidecar_are_nothing(blob):
    assert sidecar.unpack(blob) is None


@given(st.binary(max_size=60), st.integers(min_value=0), st.integers(1, 255))
def test_one_wrong_byte_makes_a_sidecar_nothing(key, at, change):
    blob = bytearray(sidecar.pack(key, b"d" * 20, b"b" * 36))
    blob[at % len(blob)] ^= change
    assert sidecar.unpack(bytes(blob)) is None


# -- what is not kept


def test_a_file_that_has_just_changed_is_not_kept(home, original):
    cache = Cache(home)  # with the real settling time; the original was made a moment ago
    assert keep(cache, original) is None
    assert (cache.refused, cache.reason) == (1, "")
    cache.close()


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1644, 0o040])
def test_special_and_unreadable_files_are_not_kept(opened, original, mode):
    cache = opened()
    st = metadata(original)
    st.st_mode = stat.S_IFREG | mode
    assert cache.put(original, st, b"first") is None
    assert cache.refused == 1


def test_a_content_that_does_not_fit_its_metadata_is_not_kept(opened, original):
    cache = opened()
    assert cache.put(original, metadata(original), b"firs") is None


def test_a_time_beyond_what_can_be_set_is_not_kept(opened, original):
    st = metadata(original)
    st.st_mtim = 1 << 70
    assert opened().put(original, st, b"first") is None
