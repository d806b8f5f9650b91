"""Contents are whole: in pieces, of any size, and of one moment although the file changes under the reader."""

from __future__ import annotations

import errno
import os

import pytest

import collfs.reader
from collfs.reader import PIECE, TRIES, Reader
from collfs.record import CONTENT, Record, Want

GIB = 1 << 30


def answer(path, reader=None):
    return (reader or Reader()).answer(Want(path, CONTENT))


def content_of(path):
    with open(path, "rb") as file:
        return file.read()


def test_contents_in_many_pieces_and_short_reads_are_whole(tmp_path, monkeypatch):
    data = os.urandom(100_003)
    (tmp_path / "file").write_bytes(data)
    readv = os.readv
    monkeypatch.setattr(collfs.reader, "PIECE", 4096)
    monkeypatch.setattr(os, "readv", lambda fd, views: readv(fd, [views[0][:777]]))
    reader = Reader()
    assert bytes(reader.read(str(tmp_path / "file"))[1]) == data
    assert (reader.ops, reader.files_read, reader.bytes_read) == (1, 1, len(data))


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1])
def test_sizes_around_one_piece_are_read_exactly(tmp_path, size):
    (tmp_path / "file").write_bytes(b"\1" * size)
    assert bytes(Reader().read(str(tmp_path / "file"))[1]) == b"\1" * size


@pytest.mark.slow
@pytest.mark.skipif(
    os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < 4 * GIB, reason="needs 4 GiB of free memory"
)
def test_files_of_more_than_two_gib_are_read_to_their_end(tmp_path):
    size = 2 * GIB + 4097
    marks = {0: b"first", 0x7FFFF000 - 2: b"across", size - 4: b"last"}
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(size)
        for offset, text in marks.items():
            file.seek(offset)
            file.write(text)
    st, content = Reader().read(str(tmp_path / "sparse"))
    assert len(content) == st.st_size == size
    for offset, text in marks.items():
        assert content[offset : offset + len(text)] == text


def test_files_above_the_limit_give_metadata_only_and_are_counted(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    path = str(tmp_path / "file")
    assert answer(path, Reader(5)).content == b"12345"
    reader = Reader(4)
    record = answer(path, reader)
    assert (record.content, record.st.st_size if record.st else None, reader.skipped) == (None, 5, 1)
    with pytest.raises(OSError, match="5 bytes are more than max_file_bytes=4"):
        reader.read(path)


class Meddler(Reader):
    """A reader during whose reads something happens to the file."""

    __slots__ = ("meddle", "times")

    def __init__(self, meddle, times):
        super().__init__()
        self.meddle = meddle
        self.times = times

    def _whole(self, fd, size, hold):
        def strike():
            if self.times > 0:
                self.times -= 1
                self.meddle()

        if self.meddle.__name__ == "before":
            strike()
            return super()._whole(fd, size, hold)
        content = super()._whole(fd, size, hold)
        strike()
        return content


def meddlers(path):
    """Each leaves a file with other bytes, one of them by replacing the file."""

    def before():  # while it is read, another size
        path.write_bytes(content_of(path)[:-1])

    def grown():
        path.write_bytes(content_of(path) + b"more")

    def rewritten():  # the same size, only times tell
        path.write_bytes(bytes(b ^ 1 for b in content_of(path)))
        os.utime(path, ns=(0, os.stat(path).st_mtime_ns + 10**9))

    def stale():
        path.write_bytes(b"new")
        raise OSError(errno.ESTALE, "Stale file handle")

    return [before, grown, rewritten, stale]


@pytest.mark.parametrize("which", range(4))
def test_a_file_that_changes_during_the_read_is_read_again(tmp_path, which):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    reader = Meddler(meddlers(path)[which], 1)
    st, content = reader.read(str(path))
    assert bytes(content) == content_of(path) != b"0123456789"
    assert st.st_mtim == os.stat(path).st_mtime_ns
    assert (reader.ops, reader.files_read) == (2, 1)


@pytest.mark.parametrize("which", range(4))
def test_a_file_that_never_stops_changing_is_refused(tmp_path, which):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    reader = Meddler(meddlers(path)[which], 99)
    assert answer(str(path), reader) == Record(str(path), errno=errno.EAGAIN)
    assert (reader.ops, reader.files_read) == (TRIES, 0)


def test_a_file_of_the_kernel_whose_size_is_a_lie_is_refused():
    assert answer("/proc/self/status").errno == errno.EAGAIN


def test_a_size_that_no_memory_holds_is_an_error(tmp_path):
    class Lied(Reader):
        def _whole(self, fd, size, hold):
            return super()._whole(fd, 1 << 62, hold)

    (tmp_path / "file").write_bytes(b"x")
    assert answer(str(tmp_path / "file"), Lied()).errno == errno.ENOMEM
