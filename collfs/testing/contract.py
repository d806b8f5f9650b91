"""The contract: what every transport must do, as tests. How to use it: :mod:`collfs.testing`.

Rules of the file: each test asks one thing and its name says which; the truth is always what :mod:`os` says about the
same tree; nothing is asked that :class:`~collfs.transport.Transport` doesn't promise; every test has a time limit.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import threading
from typing import TYPE_CHECKING

import pytest

from collfs.record import CONTENT, LIST, META, NAMES, Name, Record, Stat, Want
from collfs.transport import Transport

from .tree import make_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from collfs.record import Buffer

FILES = ("empty", "one", "all_bytes", "big", "private", "script", "package/sub/deep/er/file.txt")
FOLDERS = ("", "empty_dir", "many", "odd", "package", "package/sub")


class TransportContract:
    """Subclass it with a fixture ``transport`` that serves the directory of the fixture ``tree``."""

    #: how exactly your transport keeps mtimes, in nanoseconds (a zip file: 2 * 10**9)
    mtime_granularity_ns: int = 1
    #: seconds that one test may take
    time_limit: float = 60.0

    # -- fixtures ------------------------------------------------------------------------------------------------

    @pytest.fixture
    def tree(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        """The name of a directory with files of all kinds (:func:`collfs.testing.make_tree`). No test may change it."""
        root = os.path.join(os.path.realpath(tmp_path_factory.getbasetemp()), "collfs-contract-tree")
        if not os.path.exists(root):  # built once per run
            make_tree(root + ".new")
            os.rename(root + ".new", root)
        return root

    @pytest.fixture
    def transport(self, tree: str) -> Iterator[Transport]:
        """Yours: a transport that is open and serves *tree* under its own name."""
        raise NotImplementedError("override the fixture `transport` of TransportContract: see collfs.testing")

    @pytest.fixture(autouse=True)
    def _within_time_limit(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread gets signals
            return

        def too_long(signum: int, frame: FrameType | None) -> None:
            pytest.fail(f"the transport took longer than {self.time_limit} s")  # no OSError: nothing may swallow it

        before = signal.signal(signal.SIGALRM, too_long)
        timer = signal.setitimer(signal.ITIMER_REAL, self.time_limit)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, before)

    # -- metadata ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", [*FILES, *FOLDERS])
    def test_stat_says_what_the_file_system_says(self, transport: Transport, tree: str, name: str) -> None:
        path = join(tree, name)
        self.same_metadata(transport.stat(path), os.stat(path))

    def test_an_mtime_is_kept_to_the_promised_granularity(self, transport: Transport, tree: str) -> None:
        path = join(tree, "times")
        self.same_metadata(transport.stat(path), os.stat(path))

    @pytest.mark.parametrize("name", ["link_to_file", "link_to_dir", "link_to_link", "package/link_up"])
    def test_stat_follows_a_link(self, transport: Transport, tree: str, name: str) -> None:
        path = join(tree, name)
        self.same_metadata(transport.stat(path), os.stat(path))

    @pytest.mark.parametrize("name", ["link_to_file", "link_to_dir", "dangling", "package/link_up"])
    def test_a_link_that_is_told_as_one_has_the_right_text(self, transport: Transport, tree: str, name: str) -> None:
        path = join(tree, name)
        if name == "dangling" and type(transport).lstat is Transport.lstat:
            return  # it knows no links, so there is nothing
        st, target = transport.lstat(path)
        if target is None:  # it gives links as what they lead to
            self.same_metadata(st, os.stat(path))
        else:
            assert target == os.readlink(path)
            assert stat.S_ISLNK(st.st_mode)

    # -- listings ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", FOLDERS)
    def test_a_listing_is_complete_and_names_nothing_twice(self, transport: Transport, tree: str, name: str) -> None:
        path = join(tree, name)
        assert sorted(entry.name for entry in transport.listdir(path)) == sorted(os.listdir(path))

    @pytest.mark.parametrize("name", FOLDERS)
    def test_a_listing_gives_the_kinds(self, transport: Transport, tree: str, name: str) -> None:
        path = join(tree, name)
        for entry in transport.listdir(path):
            self.right_kind(entry, os.path.join(path, entry.name))

    def test_a_listing_follows_a_link_to_a_directory(self, transport: Transport, tree: str) -> None:
        path = join(tree, "link_to_dir")
        assert sorted(entry.name for entry in transport.listdir(path)) == sorted(os.listdir(path))

    def test_files_with_odd_names_are_found_under_them(self, transport: Transport, tree: str) -> None:
        for name in os.listdir(join(tree, "odd")):
            path = join(tree, "odd", name)
            self.same_metadata(transport.stat(path), os.stat(path))
            assert bytes(transport.read(path)) == content_of(path)

    # -- contents ------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", [*FILES, "link_to_file", "link_to_link", "package/link_up"])
    def test_read_gives_every_byte(self, transport: Transport, tree: str, name: str) -> None:
        path = join(tree, name)
        assert bytes(transport.read(path)) == content_of(path)

    def test_a_content_stays_as_it_is_when_the_next_is_read(self, transport: Transport, tree: str) -> None:
        first = transport.read(join(tree, "all_bytes"))
        transport.read(join(tree, "big"))
        assert bytes(first) == content_of(join(tree, "all_bytes"))

    @pytest.mark.parametrize("name", ["empty", "one", "big"])
    def test_a_file_offered_in_place_holds_the_same_bytes(self, transport: Transport, tree: str, name: str) -> None:
        path = join(tree, name)
        copy = transport.mmap(path)
        if copy is not None:
            assert content_of(copy) == content_of(path)

    # -- errors --------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("missing", errno.ENOENT),
            ("missing/child", errno.ENOENT),
            ("empty_dir/missing", errno.ENOENT),
            ("dangling", errno.ENOENT),
            ("one/child", errno.ENOTDIR),
            ("one/child/grandchild", errno.ENOTDIR),
        ],
    )
    def test_what_is_not_there_gives_the_right_errno(
        self, transport: Transport, tree: str, name: str, expected: int
    ) -> None:
        for call in (transport.stat, transport.read, transport.listdir):
            assert errno_of(call, join(tree, name)) == expected, f"{call.__name__} of {name}"

    def test_a_link_to_itself_is_an_error(self, transport: Transport, tree: str) -> None:
        for call in (transport.stat, transport.read, transport.listdir):
            assert errno_of(call, join(tree, "loop")), call.__name__

    def test_a_directory_has_no_content(self, transport: Transport, tree: str) -> None:
        found = errno_of(transport.read, join(tree, "package"))
        assert found not in (errno.ENOENT, errno.ENOTDIR), "this would make the directory known absent"

    def test_a_file_has_no_listing(self, transport: Transport, tree: str) -> None:
        assert errno_of(transport.listdir, join(tree, "one")) == errno.ENOTDIR

    # -- many wants at once --------------------------------------------------------------------------------------

    def test_fetch_answers_every_want_of_a_mixed_batch(self, transport: Transport, tree: str) -> None:
        wants = [
            Want(join(tree, "one"), META),
            Want(join(tree, "all_bytes"), CONTENT),
            Want(join(tree, "link_to_file"), CONTENT),
            Want(join(tree, "package"), LIST),
            Want(join(tree, "many"), NAMES),
            Want(join(tree, "missing"), META),
            Want(join(tree, "missing/child"), CONTENT),
            Want(join(tree, "one/child"), LIST),
        ]
        found = records_by_path(transport, wants)
        for want in wants:
            assert want.path in found, f"no record for {want}"
            if "missing" in want.path or "child" in want.path:
                assert {record.errno for record in found[want.path]} <= {errno.ENOENT, errno.ENOTDIR}
            else:
                assert any(self.answers(record, want) for record in found[want.path]), f"{want}: {found[want.path]}"

    def test_fetch_of_a_content_gives_what_read_gives(self, transport: Transport, tree: str) -> None:
        wants = [Want(join(tree, name), CONTENT) for name in FILES]
        found = records_by_path(transport, wants)
        for want in wants:
            assert any(self.answers(record, want) for record in found[want.path]), f"{want}: {found[want.path]}"

    def test_fetch_does_a_large_batch_and_the_same_want_twice(self, transport: Transport, tree: str) -> None:
        paths = [join(tree, "many", name) for name in os.listdir(join(tree, "many"))]
        wants = [Want(path, aspect) for path in paths for aspect in (CONTENT, META)] + [Want(paths[0], CONTENT)]
        found = records_by_path(transport, wants)
        for path in paths:
            assert any(self.answers(record, Want(path, CONTENT)) for record in found[path]), path

    def test_fetch_of_nothing_gives_nothing_it_was_not_asked_to_fail_for(self, transport: Transport) -> None:
        assert all(not record.errno for record in transport.fetch([]))

    def test_a_batch_that_is_not_taken_to_its_end_does_no_harm(self, transport: Transport, tree: str) -> None:
        paths = [join(tree, "many", name) for name in os.listdir(join(tree, "many"))]
        batch = iter(transport.fetch([Want(path, CONTENT) for path in paths]))
        next(batch)
        del batch
        assert bytes(transport.read(join(tree, "one"))) == b"x"

    def test_a_wrong_kind_is_never_told_as_absent(self, transport: Transport, tree: str) -> None:
        wants = [Want(join(tree, "package"), CONTENT), Want(join(tree, "one"), LIST), Want(join(tree, "one"), NAMES)]
        for record in transport.fetch(wants):
            assert record.errno not in (errno.ENOENT, errno.ENOTDIR), record
            assert not (record.path.endswith("package") and record.content is not None), record
            assert not (record.path.endswith("one") and record.names is not None), record

    # -- life cycle ----------------------------------------------------------------------------------------------

    def test_records_of_others_are_taken_without_a_word(self, transport: Transport, tree: str) -> None:
        path = join(tree, "one")
        st = Stat.from_stat_result(os.stat(path))
        strangers = [
            Record(path, st, content=b"x"),
            Record("/never/heard/of", errno=errno.ENOENT),
            Record(join(tree, "many"), Stat.from_stat_result(os.stat(join(tree, "many"))), names=[Name("000.py", 8)]),
        ]
        transport.publish(strangers)
        transport.publish([])
        assert bytes(transport.read(path)) == b"x"

    def test_threads_get_the_same_answers_at_once(self, transport: Transport, tree: str) -> None:
        if not transport.concurrent:
            pytest.skip("the core calls this transport from one thread at a time")
        paths = [join(tree, name) for name in (*FILES, "many/000.py", "many/001.py")]
        truth = {path: content_of(path) for path in paths}
        barrier = threading.Barrier(8, timeout=self.time_limit)
        wrong: list[str] = []

        def ask(start: int) -> None:
            try:
                barrier.wait()
                for path in paths[start:] + paths[:start]:
                    assert bytes(transport.read(path)) == truth[path], path
                    assert transport.stat(path).st_size == len(truth[path]), path
            except BaseException as exc:
                wrong.append(repr(exc))

        threads = [threading.Thread(target=ask, args=(number,), daemon=True) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(self.time_limit)
            assert not thread.is_alive(), "a call didn't come back"
        assert wrong == []

    def test_closing_twice_is_harmless(self, transport: Transport) -> None:
        transport.close()
        transport.close()

    # -- the wire ------------------------------------------------------------------------------------------------

    def test_what_it_gives_can_travel(self, transport: Transport, tree: str) -> None:
        from collfs.record.wire import pack, unpack

        names = ("one", "empty", "all_bytes", "link_to_file")
        wants = [Want(join(tree, name), CONTENT) for name in names]
        wants += [Want(join(tree, "odd"), LIST), Want(join(tree, "odd"), NAMES), Want(join(tree, "missing"), META)]
        for record in transport.fetch(wants):
            frame = b"".join(pack(record))
            again, end = unpack(frame)
            assert end == len(frame)
            assert again == record

    # -- comparing -----------------------------------------------------------------------------------------------

    def same_metadata(self, found: Stat, truth: os.stat_result) -> None:
        """Fail unless size, kind, permissions and mtime of *found* are those of the original."""
        assert isinstance(found, Stat)
        assert stat.S_IFMT(found.st_mode) == stat.S_IFMT(truth.st_mode), "kind"
        assert stat.S_IMODE(found.st_mode) == stat.S_IMODE(truth.st_mode), "permissions"
        assert abs(found.st_mtim - truth.st_mtime_ns) < self.mtime_granularity_ns, "mtime"
        if not stat.S_ISDIR(truth.st_mode):
            assert found.st_size == truth.st_size, "size"

    def right_kind(self, entry: Name, path: str) -> None:
        """Fail unless the kind of *entry*, and the metadata that it may carry, are those of *path*."""
        kinds = {stat.S_IFMT(os.lstat(path).st_mode) >> 12, 0}  # IFTODT and DT_UNKNOWN of <dirent.h>
        if os.path.islink(path) and os.path.exists(path):
            kinds.add(stat.S_IFMT(os.stat(path).st_mode) >> 12)  # it gives links as what they lead to
        assert entry.d_type in kinds, f"{entry} is none of {kinds}"
        if entry.lst is not None and entry.d_type == stat.S_IFMT(os.lstat(path).st_mode) >> 12:
            self.same_metadata(entry.lst, os.lstat(path))
        if entry.st is not None:
            self.same_metadata(entry.st, os.stat(path))
        if entry.target is not None:
            assert entry.target == os.readlink(path)

    def answers(self, record: Record, want: Want) -> bool:
        """Whether *record* answers *want*; fail if what it says is wrong."""
        if record.errno or record.st is None:
            return False
        self.same_metadata(record.st, os.stat(want.path))
        if record.target is not None:
            assert record.target == os.readlink(want.path)
        if want.aspect == CONTENT:
            data = bytes_of(record)
            assert data is None or data == content_of(want.path), f"wrong content in {record}"
            return data is not None
        if want.aspect in (LIST, NAMES):
            if record.names is None:
                return False
            assert sorted(entry.name for entry in record.names) == sorted(os.listdir(want.path))
            for entry in record.names:
                self.right_kind(entry, os.path.join(want.path, entry.name))
        return True


def records_by_path(transport: Transport, wants: list[Want]) -> dict[str, list[Record]]:
    """All records that *transport* gives for *wants*."""
    found: dict[str, list[Record]] = {}
    for record in transport.fetch(wants):
        assert isinstance(record, Record)
        found.setdefault(record.path, []).append(record)
    return found


def errno_of(call: Callable[[str], object], path: str) -> int:
    """The errno with which *call* fails; a failure of the test if it doesn't."""
    try:
        given = call(path)
    except OSError as exc:
        return exc.errno or 0
    pytest.fail(f"{call.__name__}({path!r}) should have raised an OSError, and gave {given!r}")


def bytes_of(record: Record) -> bytes | None:
    """The content of *record*, wherever it is."""
    content: Buffer | None = record.content
    if record.node_path is not None:
        assert content is None, f"{record} has both content and node_path"
        return content_of(record.node_path)
    return None if content is None else bytes(content)


def content_of(path: str) -> bytes:
    """What the file system has."""
    with open(path, "rb") as file:
        return file.read()


def join(*parts: str) -> str:
    """As os.path.join, but an empty part adds nothing."""
    return os.path.join(*[part for part in parts if part])
