"""Content that goes straight into a directory of the node: the same bytes, whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
from types import SimpleNamespace

import pytest

from collfs.reader import PLACED, Reader, placing
from collfs.reader.placing import place
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


@pytest.fixture
def placed(reader, file):
    """Call place() on the file as it is, or as if it had another size; what is in the copy, None without one."""

    def call(size=SIZE, hold=None):
        with open(file, "rb", buffering=0) as opened:
            real = os.fstat(opened.fileno())
            st = SimpleNamespace(
                st_size=size, st_mode=real.st_mode, st_atime_ns=real.st_atime_ns, st_mtime_ns=real.st_mtime_ns
            )
            name = place(opened.fileno(), st, reader.scratch, hold)  # type: ignore[arg-type]
        if name is None:
            return None
        with open(name, "rb") as copy:
            return copy.read()

    return call


@pytest.fixture(params=["sendfile", "read"])
def how(request, monkeypatch):
    """Whether the kernel moves the bytes, or this process."""
    if request.param == "read":
        monkeypatch.setattr(os, "sendfile", refuse(errno.EINVAL))
    return request.param


def test_the_copy_has_as_many_bytes_as_were_announced_though_the_file_has_more(placed, file, how):
    assert placed(SIZE - 5) == file.read_bytes()[:-5]


def test_a_file_that_proves_shorter_is_no_copy(placed, reader, how):
    assert placed(SIZE + 1) is None
    assert left(reader) == []


class Checks:
    """A hold that counts, and has enough at some time."""

    def __init__(self, most=1000):
        self.count, self.most = 0, most

    def check(self):
        self.count += 1
        if self.count > self.most:
            raise InterruptedError


def test_a_large_file_is_copied_in_pieces_and_between_two_of_them_it_can_be_stopped(placed, reader, monkeypatch, file):
    monkeypatch.setattr(placing, "PIECE", 1 << 18)
    original, asked = os.sendfile, []

    def counted(copy, fd, offset, count):
        asked.append(count)
        return original(copy, fd, offset, count)

    monkeypatch.setattr(os, "sendfile", counted)
    assert placed(hold=Checks()) == file.read_bytes()
    assert asked == [1 << 18] * 4 + [3]
    before = left(reader)
    with pytest.raises(InterruptedError):
        placed(hold=Checks(2))
    assert left(reader) == before
    monkeypatch.undo()
    assert placing.PIECE == 8 << 20


def test_it_goes_on_by_reading_where_sending_has_ended(placed, file, monkeypatch):
    monkeypatch.setattr(placing, "PIECE", 1 << 18)
    original, calls = os.sendfile, []

    def once(*arguments):
        calls.append(1)
        return original(*arguments) if len(calls) == 1 else refuse(errno.EINVAL)()

    monkeypatch.setattr(os, "sendfile", once)
    assert placed() == file.read_bytes()


def test_reading_takes_little_memory_and_short_writes_lose_nothing(placed, file, monkeypatch):
    monkeypatch.setattr(os, "sendfile", refuse(errno.EINVAL))
    readv, write, sizes = os.readv, os.write, []

    def read(fd, buffers):
        sizes.append(sum(map(len, buffers)))
        return readv(fd, buffers)

    monkeypatch.setattr(os, "readv", read)
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: max(1, len(data) // 2)]))
    assert placed() == file.read_bytes()
    assert max(sizes) <= 1 << 20


@pytest.mark.parametrize("error", [OSError(errno.EPERM, "no"), KeyboardInterrupt()])
def test_without_its_time_a_copy_is_none_and_nothing_is_left(placed, reader, monkeypatch, error):
    def utime(*arguments, **more):
        raise error

    monkeypatch.setattr(os, "utime", utime)
    with pytest.raises(type(error)):
        placed()
    assert left(reader) == []


def test_a_name_that_is_there_already_is_not_written_to(placed, reader, monkeypatch):
    monkeypatch.setattr(placing, "_numbers", itertools.count(5))
    other = f"{reader.scratch}/in.{os.getpid()}.r5"
    with open(other, "w") as file:
        file.write("somebody's")
    with pytest.raises(FileExistsError):
        placed()
    with open(other) as file:
        assert file.read() == "somebody's"


def test_no_descriptor_stays_open(placed, how):
    before = len(os.listdir("/proc/self/fd"))
    placed()
    placed(SIZE + 1)
    assert len(os.listdir("/proc/self/fd")) == before
