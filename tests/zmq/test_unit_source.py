"""The root's reading: nothing that lies outside the prefixes, in order, and no end that waits for a hanging file."""

from __future__ import annotations

import os
import time
from errno import EACCES, ELOOP, ENOENT
from threading import Event

import pytest

from collfs.reader import Reader
from collfs.record import CONTENT, LIST, META, NAMES, Record, Want
from collfs_zmq import source as source_module
from collfs_zmq.source import BoundReader, Source

LIMIT = 20.0


@pytest.fixture
def tree(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "in-not"
    for folder in (inside / "sub", outside / "sub"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("inside" if folder.is_relative_to(inside) else "secret")
    (inside / "link").symlink_to("sub/file")
    (inside / "folder").symlink_to("sub")
    (inside / "out").symlink_to(outside / "sub/file")
    (inside / "out.relative").symlink_to("../in-not/sub/file")
    (inside / "out.folder").symlink_to(outside / "sub")
    (inside / "out.twice").symlink_to("out")
    (inside / "nowhere").symlink_to("none")
    (inside / "itself").symlink_to("itself")
    return inside


@pytest.fixture
def reader(tree):
    return BoundReader([str(tree)])


def all_of(record):
    return repr((record, record.st, record.content, record.names, record.target))


@pytest.mark.parametrize("aspect", [CONTENT, META, LIST, NAMES])
@pytest.mark.parametrize("name", ["out", "out.relative", "out.folder", "out.twice", "out.folder/file"])
def test_a_link_out_of_the_prefixes_is_refused(tree, reader, name, aspect):
    path = f"{tree}/{name}"
    assert reader.answer(Want(path, aspect)) == Record(path, errno=EACCES)


@pytest.mark.parametrize("path", ["/sub/../../in-not/sub/file", "/../in-not/sub/file", "/../in-not", "/.."])
@pytest.mark.parametrize("aspect", [CONTENT, META, LIST])
def test_a_path_that_climbs_out_is_refused(tree, reader, path, aspect):
    assert reader.answer(Want(f"{tree}{path}", aspect)).errno == EACCES


def test_what_a_listing_says_of_links_ends_at_the_prefixes(tree, reader):
    names = {name.name: name for name in reader.answer(Want(str(tree), LIST)).names}
    assert names["link"].st.st_size == len("inside")
    assert names["folder"].st is not None
    for name in ("out", "out.relative", "out.folder", "out.twice"):
        assert names[name].st is None, "metadata of what lies outside"
        assert names[name].target is not None


def test_what_lies_inside_is_answered_as_by_any_reader(tree, reader):
    plain = Reader()
    for name in ("sub/file", "link", "folder", "folder/file", "sub", "nowhere", "itself", "none", "sub/file/x"):
        for aspect in (CONTENT, META, NAMES):
            want = Want(f"{tree}/{name}", aspect)
            one, other = reader.answer(want), plain.answer(want)
            for st in (one.st, other.st, one.lst, other.lst):
                if st is not None:
                    st.st_atim = 0  # of reading it
            assert one == other, want
    assert bytes(reader.answer(Want(f"{tree}/link", CONTENT)).content) == b"inside"
    assert reader.answer(Want(f"{tree}/none", META)).errno == ENOENT
    assert reader.answer(Want(f"{tree}/itself", META)).errno == ELOOP


def test_a_prefix_that_is_a_link_and_one_that_others_lead_to(tree, tmp_path):
    (tmp_path / "alias").symlink_to(tree)
    assert BoundReader([str(tmp_path / "alias")]).answer(Want(f"{tmp_path}/alias/sub/file", CONTENT)).content
    both = BoundReader([str(tree), str(tmp_path / "in-not")])
    assert bytes(both.answer(Want(f"{tree}/out", CONTENT)).content) == b"secret"  # type: ignore[arg-type]


def test_a_fifo_gives_metadata_and_nobody_waits_for_it(tree, reader):
    os.mkfifo(tree / "fifo")
    for aspect in (CONTENT, META, LIST):
        record = reader.answer(Want(f"{tree}/fifo", aspect))
        assert record.st is not None
        assert record.content is None


class Made(Reader):
    """Answers what it is told to."""

    def __init__(self, fetch):
        super().__init__()
        self.made = fetch

    def fetch(self, wants, max_workers=8):
        return self.made(wants)


@pytest.fixture
def start():
    made = []

    def start(fetch):
        awake = Event()
        source = Source(Made(fetch), awake.set)
        made.append(source)
        return source, awake

    yield start
    for source in made:
        source.close()
    for source in made:
        for thread in source._threads:
            thread.join(LIMIT)
            assert not thread.is_alive()


def gathered(source, awake, count):
    """All until *count* wants have ended: ("record", path) or ("finished", wants)."""
    seen, end, ended = [], time.monotonic() + LIMIT, 0
    while ended < count:
        assert awake.wait(end - time.monotonic()), f"only {len(seen)} came"
        awake.clear()
        records, finished = source.take()
        seen += [("record", record.path) for record in records]
        if finished:
            ended += len(finished)
            seen.append(("finished", [want.path for want in finished]))
    return seen


def wants_of(count, name="/p/"):
    return [Want(f"{name}{number}", META) for number in range(count)]


def test_the_end_of_a_batch_comes_after_all_of_its_records(start):
    source, awake = start(lambda wants: (Record(want.path, errno=ENOENT) for want in wants))
    source.ask(wants_of(99), False)
    seen = gathered(source, awake, 99)
    assert seen == [("record", f"/p/{n}") for n in range(99)] + [("finished", [f"/p/{n}" for n in range(99)])]


def test_what_is_read_and_not_taken_is_bounded(start):
    given, over = [], Event()

    def fetch(wants):
        for want in wants:
            given.append(want)
            if len(given) > source_module.AHEAD + 2:
                over.set()
            yield Record(want.path, errno=ENOENT)

    source, awake = start(fetch)
    source.ask(wants_of(5000), False)
    assert awake.wait(LIMIT)
    assert not over.wait(0.5), "it reads on though nobody takes"
    gathered(source, awake, 5000)
    assert len(given) == 5000


def test_a_reader_that_fails_ends_its_batch_and_the_next_one_is_served(start):
    def fetch(wants):
        yield Record(wants[0].path, errno=ENOENT)
        raise RuntimeError("broken")

    source, awake = start(fetch)
    source.ask(wants_of(3), False)
    source.ask(wants_of(2, "/q/"), True)
    seen = gathered(source, awake, 5)
    assert [path for what, path in seen if what == "record"] == ["/p/0", "/q/0"]
    ended = [path for what, paths in seen if what == "finished" for path in paths]
    assert ended == ["/p/0", "/p/1", "/p/2", "/q/0", "/q/1"]


def test_what_somebody_waits_for_does_not_stand_behind_a_bulk(start):
    go = Event()

    def fetch(wants):
        if len(wants) >= source_module.BULK:
            assert go.wait(LIMIT)
        return iter(())

    source, awake = start(fetch)
    source.ask(wants_of(source_module.BULK), False)
    source.ask(wants_of(1, "/q/"), False)
    assert gathered(source, awake, 1) == [("finished", ["/q/0"])]
    go.set()
    assert gathered(source, awake, source_module.BULK)[0][1][0] == "/p/0"


def test_closing_does_not_wait_for_a_read_that_hangs(start):
    go, begun = Event(), Event()

    def fetch(wants):
        begun.set()
        assert go.wait(LIMIT)
        return iter(())

    source, _ = start(fetch)
    source.ask(wants_of(1), False)
    assert begun.wait(LIMIT)
    before = time.monotonic()
    source.close()
    assert time.monotonic() - before < 1.0
    assert any(thread.is_alive() for thread in source._threads), "it hangs still"
    assert all(thread.daemon for thread in source._threads), "and keeps no process from its end"
    go.set()
