"""Content that goes straight into a directory of the node: the same bytes, whole or not at all."""

from __future__ import annotations

import errno
import os

import pytest

from collfs.reader import PLACED, Reader
from collfs.record import CONTENT, Want

SIZE = (1 << 20) + 3


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "tree" / "library.so"
    path.parent.mkdir()
    path.write_bytes(os.urandom(SIZE))
    path.chmod(0o4751)
    os.utime(path, ns=(10**18, 10**18 + 7))
    return path


@pytest.fixture
def reader(tmp_path):
    (tmp_path / "scratch").mkdir()
    reader = Reader()
    reader.scratch = str(tmp_path / "scratch")
    return reader


def left(reader):
    return os.listdir(reader.scratch)


def content(path):
    return Want(str(path), CONTENT)


def refuse(code):
    def sendfile(*arguments):
        raise OSError(code, os.strerror(code))

    return sendfile


def test_a_large_file_is_copied_with_its_mode_and_times_and_is_counted(reader, file):
    record = reader.answer(content(file))
    assert record.content is None
    assert record.node_path is not None
    assert os.path.dirname(record.node_path) == reader.scratch
    with open(record.node_path, "rb") as copy:
        assert copy.read() == file.read_bytes()
    have, original = os.stat(record.node_path), file.stat()
    assert (have.st_mode, have.st_mtime_ns) == (original.st_mode, original.st_mtime_ns)
    assert (reader.files_read, reader.bytes_read, reader.ops) == (1, SIZE, 1)


def test_a_link_to_it_says_both(reader, file):
    link = file.with_name("link.so")
    link.symlink_to(file.name)
    record = reader.answer(content(link))
    assert (record.target, record.st.st_size) == (file.name, SIZE)
    assert os.path.getsize(record.node_path) == SIZE


def test_what_is_smaller_or_has_no_place_stays_in_memory(reader, file):
    os.truncate(file, PLACED - 1)
    assert len(reader.answer(content(file)).content) == PLACED - 1
    os.truncate(file, PLACED)
    reader.scratch = ""
    assert len(reader.answer(content(file)).content) == PLACED
    assert Reader().answer(content(file)).node_path is None


def test_many_at_once_get_a_file_each(reader, file):
    wants = []
    for number in range(40):
        path = file.with_name(f"f{number}")
        path.write_bytes(bytes([number]) * PLACED)
        wants.append(content(path))
    for record in reader.fetch(wants):
        with open(record.node_path, "rb") as copy:
            assert copy.read() == bytes([int(record.path.rpartition("f")[2])]) * PLACED
    assert len(left(reader)) == 40


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_that_can_not_be_spliced_from_is_read(reader, file, monkeypatch, code):
    monkeypatch.setattr(os, "sendfile", refuse(code))
    record = reader.answer(content(file))
    with open(record.node_path, "rb") as copy:
        assert copy.read() == file.read_bytes()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_without_room_the_record_says_so_and_nothing_is_left(reader, file, monkeypatch, code):
    monkeypatch.setattr(os, "sendfile", refuse(code))
    record = reader.answer(content(file))
    assert (record.errno, record.content, record.node_path) == (code, None, None)
    assert left(reader) == []


@pytest.mark.parametrize("changes", [-1, 1])
def test_a_file_that_changes_while_it_is_copied_is_refused_and_nothing_is_left(reader, file, monkeypatch, changes):
    original, calls = os.sendfile, []

    def changing(*arguments):
        calls.append(1)
        os.truncate(file, os.path.getsize(file) + changes)
        return original(*arguments)

    monkeypatch.setattr(os, "sendfile", changing)
    assert reader.answer(content(file)).errno == errno.EAGAIN
    assert len(calls) >= 3
    assert left(reader) == []


def test_one_that_stops_changing_is_read_again(reader, file, monkeypatch):
    original, calls = os.sendfile, []

    def changing(*arguments):
        calls.append(1)
        if len(calls) == 1:
            with open(file, "r+b") as other:
                other.write(b"new")
        return original(*arguments)

    monkeypatch.setattr(os, "sendfile", changing)
    record = reader.answer(content(file))
    with open(record.node_path, "rb") as copy:
        assert copy.read(3) == b"new"
    assert len(left(reader)) == 1


def test_an_error_of_the_original_is_its_own(reader, file, monkeypatch):
    monkeypatch.setattr(os, "sendfile", refuse(errno.EINVAL))
    monkeypatch.setattr(os, "readv", refuse(errno.EIO))
    assert reader.answer(content(file)).errno == errno.EIO
    assert left(reader) == []


def test_ctrl_c_leaves_no_half_file(reader, file, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "sendfile", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reader.answer(content(file))
    assert left(reader) == []
