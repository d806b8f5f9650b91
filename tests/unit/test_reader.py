"""The reader's answers compared with :mod:`os`, and the number of path operations that they cost."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import tempfile
import textwrap

import pytest

from collfs.errors import OptionError
from collfs.reader import Reader, listing, native
from collfs.reader.listing import _scandir, entries
from collfs.record import CONTENT, LIST, META, NAMES, Record, Stat, Want
from collfs.record.checks import kind_of
from collfs.testing.tree import MANY, make_tree

GIB = 1 << 30


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Nobody changes it."""
    root = os.path.join(os.path.realpath(tmp_path_factory.mktemp("reader")), "tree")
    make_tree(root)
    os.mkfifo(os.path.join(root, "fifo"))
    with socket.socket(socket.AF_UNIX) as end:
        here = os.getcwd()
        os.chdir(root)  # a socket's name has at most 107 bytes
        try:
            end.bind("socket")
        finally:
            os.chdir(here)
    return root


def everything(root):
    """All paths of the tree, without following links."""
    found = [root]
    for folder, folders, names in os.walk(root):
        found += [os.path.join(folder, name) for name in folders + names]
    return found


def answer(path, aspect, reader=None):
    """The record, which must be of an allowed shape."""
    record = (reader or Reader()).answer(Want(path, aspect))
    kind_of(record)
    assert record.path == path
    return record


def told(st):
    """What os says, as a Stat without the access time, which our own reading moves."""
    found = Stat.from_stat_result(st)
    found.st_atim = 0
    return found


def without_atime(st):
    st.st_atim = 0
    return st


def expected_link(path):
    return os.readlink(path) if os.path.islink(path) else None


def write_bytes(path, mode):
    with open(path, "wb") as file:
        file.write(b"x")
    os.chmod(path, mode)


def content_of(path):
    with open(path, "rb") as file:
        return file.read()


def test_single_questions_get_what_os_says(tree):
    reader = Reader()
    for path in everything(tree):
        lst, target = reader.lstat(path)
        assert (without_atime(lst), target) == (told(os.lstat(path)), expected_link(path))
        if os.path.exists(path):
            assert without_atime(reader.stat(path)) == told(os.stat(path))
        if os.path.isdir(path):
            assert sorted(n.name for n in reader.listdir(path, False)) == sorted(os.listdir(path))
        if os.path.isfile(path):
            st, content = reader.read(path)
            assert (without_atime(st), bytes(content)) == (told(os.stat(path)), content_of(path))


def test_metadata_of_everything_is_what_os_says(tree):
    for path in everything(tree):
        record = answer(path, META)
        if not os.path.exists(path):
            assert record == Record(path, errno=errno.ELOOP), "a link to nothing is neither absent nor known"
            continue
        assert record.st is not None
        assert without_atime(record.st) == told(os.stat(path))
        assert record.target == expected_link(path)
        if record.lst is not None:
            assert without_atime(record.lst) == told(os.lstat(path))


@pytest.mark.parametrize("aspect", [LIST, NAMES])
def test_listings_of_everything_are_what_os_says(tree, aspect):
    for path in everything(tree):
        record = answer(path, aspect)
        if not os.path.isdir(path):
            assert record.names is None
            continue
        assert record.names is not None
        assert without_atime(record.st) == told(os.stat(path))
        assert record.target == expected_link(path)
        assert sorted(n.name for n in record.names) == sorted(os.listdir(path))
        for name in record.names:
            full = os.path.join(path, name.name)
            assert name.d_type == stat.S_IFMT(os.lstat(full).st_mode) >> 12
            if aspect == NAMES:
                assert (name.lst, name.st, name.target) == (None, None, None)
                continue
            assert without_atime(name.lst) == told(os.lstat(full))
            assert name.target == expected_link(full)
            if name.target is None or not os.path.exists(full):
                assert name.st is None
            else:
                assert without_atime(name.st) == told(os.stat(full))


def test_contents_of_everything_are_what_os_says(tree):
    for path in everything(tree):
        record = answer(path, CONTENT)
        if os.path.isfile(path):
            assert record.content is not None
            assert bytes(record.content) == content_of(path)
            assert without_atime(record.st) == told(os.stat(path))
            assert record.target == expected_link(path)
        else:
            assert record.content is None
            assert record.errno == (0 if os.path.exists(path) else errno.ELOOP)


@pytest.mark.parametrize("aspect", [META, LIST, NAMES, CONTENT])
@pytest.mark.parametrize(("name", "code"), [("missing", errno.ENOENT), ("one/child", errno.ENOTDIR)])
def test_what_is_not_there_is_known_absent(tree, aspect, name, code):
    path = os.path.join(tree, name)
    assert answer(path, aspect) == Record(path, errno=code)


def test_errors_are_those_of_os_and_name_the_plain_path(tree):
    path = os.path.join(tree, "one/child")
    for call in (Reader().stat, Reader().lstat, Reader().read, lambda p: Reader().listdir(p, True)):
        with pytest.raises(NotADirectoryError) as caught:
            call(path)
        assert caught.value.filename == path


def test_read_refuses_what_has_no_content(tree):
    with pytest.raises(IsADirectoryError):
        Reader().read(os.path.join(tree, "package"))
    with pytest.raises(OSError, match="Invalid argument"):
        Reader().read(os.path.join(tree, "fifo"))


@pytest.mark.parametrize(
    ("path", "code"),
    [("relative", errno.EINVAL), ("", errno.EINVAL), ("/a\0b", errno.EINVAL), ("/\ud800", errno.EILSEQ)],
)
def test_a_path_that_no_file_can_have_is_an_error_and_no_operation(path, code):
    reader = Reader()
    for aspect in (META, LIST, NAMES, CONTENT):
        assert reader.answer(Want(path, aspect)) == Record(path, errno=code)
    assert reader.ops == 0


def test_wrong_arguments_are_refused_with_what_is_allowed():
    with pytest.raises(OptionError, match=r"max_file_bytes=-1: .* or None"):
        Reader(-1)
    with pytest.raises(OptionError, match=r"max_workers=0: .* from 1"):
        Reader().fetch([], 0)
    with pytest.raises(ValueError, match="aspect 'all': use one of meta"):
        Reader().answer(Want("/", "all"))


def test_every_path_goes_out_in_the_native_spelling(tree, monkeypatch):
    spelled = []

    def watched(original):
        def call(path, *args, **kwargs):
            if kwargs.get("dir_fd") is None:
                spelled.append(path)
            return original(path, *args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        for name in ("open", "stat", "lstat", "readlink"):
            patched.setattr(os, name, watched(getattr(os, name)))
        for name in ("", "one", "link_to_file", "link_to_dir", "dangling", "fifo"):
            for aspect in (META, LIST, NAMES, CONTENT):
                Reader().answer(Want(os.path.join(tree, name) if name else tree, aspect))
    assert len(spelled) > 24
    assert all(path.startswith("/" + tree) for path in spelled)
    assert native("/") == "//"


def test_listings_by_system_call_and_by_scandir_agree_even_over_many_buffers(tmp_path):
    for number in range(1500):
        (tmp_path / f"{number:0200}").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        found = entries(fd)
        os.lseek(fd, 0, os.SEEK_SET)
        assert sorted(found) == sorted(_scandir(fd))
    finally:
        os.close(fd)
    assert len(found) == 1502


def test_a_machine_with_unknown_system_calls_lists_by_scandir(tree, monkeypatch):
    monkeypatch.setattr(listing, "_GETDENTS64", 0)
    record = answer(tree, LIST)
    assert sorted(n.name for n in record.names or ()) == sorted(os.listdir(tree))


def test_an_error_while_listing_is_an_os_error(tree):
    fd = os.open(os.path.join(tree, "one"), os.O_RDONLY)
    try:
        with pytest.raises(NotADirectoryError):
            entries(fd)
    finally:
        os.close(fd)


def test_unreadable_things_give_their_error_and_leave_the_rest_readable(run_python):
    code = """
        import errno, os, sys
        from collfs.reader import Reader
        from collfs.record import *
        if os.getuid() == 0:
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
        get = lambda name, aspect: Reader().answer(Want(root + "/" + name, aspect))
        for name, aspect in (("secret", CONTENT), ("closed", LIST), ("closed", NAMES), ("closed/file", META)):
            assert get(name, aspect).errno == errno.EACCES, (name, aspect, get(name, aspect))
        assert get("secret", META).st.st_size == 1
        [name] = get("names_only", LIST).names
        assert (name.name, name.d_type, name.lst) == ("file", 8, None), name
        print("done")
    """
    with tempfile.TemporaryDirectory() as root:  # not tmp_path: those above it are closed to others
        os.chmod(root, 0o755)
        write_bytes(os.path.join(root, "secret"), 0)
        for name, mode in (("closed", 0), ("names_only", 0o444)):
            os.mkdir(os.path.join(root, name))
            write_bytes(os.path.join(root, name, "file"), 0o644)
            os.chmod(os.path.join(root, name), mode)
        try:
            result = run_python(f"root = {root!r}\n{textwrap.dedent(code)}")
        finally:
            for name in ("closed", "names_only"):
                os.chmod(os.path.join(root, name), 0o700)
    assert result.stdout == "done\n"


def test_changed_notices_each_way_of_becoming_another_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    reader = Reader()
    st = reader.stat(str(path))
    assert not reader.changed(str(path), st)
    os.utime(path, ns=(0, st.st_mtim + 1))
    assert reader.changed(str(path), st)
    os.utime(path, ns=(0, st.st_mtim))
    assert reader.changed(str(path), st), "ctime"
    st = reader.stat(str(path))
    path.rename(tmp_path / "other")
    assert reader.changed(str(path), st)
    (tmp_path / "other").rename(path)
    for field in ("st_size", "st_ino", "st_mtim", "st_ctim"):
        other = reader.stat(str(path))
        setattr(other, field, getattr(other, field) + 1)
        assert reader.changed(str(path), other), field
    assert reader.ops == 14


@pytest.mark.parametrize(
    ("name", "aspect", "ops"),
    [
        ("one", META, 1),
        ("link_to_file", META, 3),
        ("dangling", META, 3),
        ("missing", META, 1),
        ("package", NAMES, 1),
        ("many", NAMES, 1),
        ("many", LIST, 1 + MANY),
        ("link_to_dir", NAMES, 4),
        ("one", LIST, 2),
        ("one", CONTENT, 1),
        ("big", CONTENT, 1),
        ("missing", CONTENT, 1),
        ("fifo", CONTENT, 1),
        ("link_to_file", CONTENT, 4),
        ("", LIST, 1 + 16 + 2 * 6),
    ],
)
def test_operations_are_as_few_as_promised_and_counted_as_strace_sees_them(tree, strace_counts, name, aspect, ops):
    path = os.path.join(tree, name) if name else tree
    code = (
        "import sys; from collfs.reader import Reader; from collfs.record import Want; r = Reader();"
        "r.answer(Want(*sys.argv[1:])); print(r.ops)"
    )
    result, counts = strace_counts([sys.executable, "-c", code, path, aspect], [path])
    seen = [op for op in counts.ops if op.kind != "listing"]  # getdents64 works on a descriptor
    assert (int(result.stdout), len(seen)) == (ops, ops), seen
