"""The manifest: a hint that ages, keeps its order, survives any file that lies in its place, and is never torn."""

from __future__ import annotations

import os
import stat
import tracemalloc
from threading import Event, Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collfs.errors import ManifestError, RecordError
from collfs.record import CONTENT, LIST, META, NAMES, Want, manifest
from collfs.record.checks import check_path
from collfs.record.manifest import ABSENT, LETTERS, MAX_RUNS, Manifest
from collfs.record.wire import pack_wants, unpack_wants

# The file changes only together with its first line.
GOLDEN = b"""collfs-manifest 1
M 0 /sw
N 0 /sw
A 0 /sw/a.abi3.so
C 1 /sw/caf%E9 \xc3\xa9.py
L 7 /sw/100%25%0A%7F
"""
ENTRIES = {
    "/sw": {META: 0, NAMES: 0},
    "/sw/a.abi3.so": {ABSENT: 0},
    "/sw/caf\udce9 é.py": {CONTENT: 1},
    "/sw/100%\n\x7f": {LIST: 7},
}

parts = st.one_of(
    st.sampled_from(["a", "b", "é", "%", "%41", "a b", "\n", "\r", "\x85", "\u2028", "\udcff", "\x7f"]),
    st.binary(min_size=1, max_size=20).map(lambda b: os.fsdecode(b.replace(b"\0", b"0").replace(b"/", b"|"))),
).filter(lambda part: part not in (".", ".."))
paths = st.lists(parts, max_size=3).map(lambda found: "/" + "/".join(found))
aspects = st.sampled_from(sorted(LETTERS))
runs = st.lists(st.lists(st.tuples(paths, aspects), max_size=12), max_size=12)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return str(tmp_path_factory.mktemp("manifests") / "m.manifest")


def made(*used):
    found = Manifest()
    for run in used:
        found.merge(run)
    return found


def put(path, data):
    with open(path, "wb") as file:
        file.write(data)
    return path


def flat(found):
    return [(path, aspect, age) for path, ages in found.entries.items() for aspect, age in ages.items()]


# -- the file --------------------------------------------------------------------------------------------------------


def test_the_text_is_that_of_this_version(tmp_path):
    found = Manifest()
    found.entries = ENTRIES
    found.save(str(tmp_path / "m"))
    assert (tmp_path / "m").read_bytes() == GOLDEN
    assert flat(Manifest.load(str(tmp_path / "m"))) == flat(found)


@given(runs)
def test_what_was_saved_is_loaded_in_the_same_order(place, history):
    found = made(*history)
    found.save(place)
    again = Manifest.load(place)
    assert flat(again) == flat(found)
    assert again.wants() == found.wants()


def test_no_file_is_an_empty_manifest(tmp_path):
    assert Manifest.load(str(tmp_path / "no" / "m")).entries == {}
    put(tmp_path / "file", b"")
    assert Manifest.load(str(tmp_path / "file" / "m")).entries == {}
    assert Manifest().wants() == []


def test_saving_makes_private_files_and_directories_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "cache" / "collfs" / "m"
    for used in ([("/a", META)], [("/b", META)]):
        made(used).save(str(path))
    assert [p.name for p in path.parent.iterdir()] == ["m"]
    assert Manifest.load(str(path)).entries == {"/b": {META: 0}}
    assert [stat.S_IMODE(os.stat(p).st_mode) for p in (path, path.parent, path.parent.parent)] == [0o600, 0o700, 0o700]


def test_a_relative_path_works_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made([("/a", META)]).save("m")
    made([("/b", META)]).save("below/m")
    assert (flat(Manifest.load("m")), flat(Manifest.load("below/m"))) == ([("/a", META, 0)], [("/b", META, 0)])


def test_a_save_that_fails_leaves_no_litter(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    with pytest.raises(OSError, match="m"):
        made([("/a", META)]).save(str(tmp_path / "m"))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    put(tmp_path / "file", b"")
    with pytest.raises(NotADirectoryError):
        made([("/a", META)]).save(str(tmp_path / "file" / "m"))
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(FileNotFoundError):
        made([("/a", META)]).save("below/m")


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = str(tmp_path / "m")
    kinds = [made([(f"/{name}/{i}", CONTENT) for i in range(size)]) for name, size in (("a", 3000), ("b", 10))]
    kinds[0].save(path)
    stop = Event()

    def write(found):
        while not stop.is_set():
            found.save(path)

    writers = [Thread(target=write, args=(found,)) for found in kinds]
    for writer in writers:
        writer.start()
    try:
        seen = {len(Manifest.load(path).entries) for _ in range(300)}
    finally:
        stop.set()
        for writer in writers:
            writer.join(30)
    assert not any(writer.is_alive() for writer in writers)
    assert seen <= {3000, 10}
    assert os.listdir(tmp_path) == ["m"]


# -- garbage ---------------------------------------------------------------------------------------------------------


def load_or_refuse(path, data):
    """Whatever *data* is, loading it gives a manifest or ManifestError; a manifest is saved as exactly these lines."""
    put(path, data)
    try:
        found = Manifest.load(path)
    except ManifestError:
        return None
    found.save(path + ".again")
    with open(path + ".again", "rb") as file:
        assert sorted(file.read().split(b"\n")) == sorted(data.split(b"\n"))
    return found


@given(st.binary(max_size=200), st.booleans())
def test_garbage_is_refused_or_a_manifest(place, garbage, headed):
    load_or_refuse(place, b"collfs-manifest 1\n" * headed + garbage)


@given(st.data())
def test_a_damaged_manifest_is_refused_or_a_manifest(place, data):
    text = bytearray(GOLDEN)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"%", b"%0a", b"%+1", b"%2F", b"%00", b"\n", b" ", b"/.."])
        )
    load_or_refuse(place, bytes(text))


def test_a_manifest_cut_anywhere_but_after_a_line_is_refused(place):
    for length in range(len(GOLDEN)):
        found = load_or_refuse(place, GOLDEN[:length])
        assert (found is not None) == (GOLDEN[:length].endswith(b"\n") and length > 0), GOLDEN[:length]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", r"expected b'collfs-manifest 1\\n' at its start, found b''"),
        (b"collfs-manifest 2\n", "found b'collfs-manifest 2"),
        (GOLDEN + b"X 0 /a\n", "line 7: expected a letter, a digit and a path, found b'X 0 /a"),
        (GOLDEN + b"M 8 /a\n", "line 7"),
        (GOLDEN + b"M -1 /a\n", "line 7"),
        (GOLDEN + b"M 0 a\n", "line 7"),
        (GOLDEN + b"M 0 //a\n", "line 7"),
        (GOLDEN + b"M 0 /a/../b\n", "line 7"),
        (GOLDEN + b"M 0 /a", "line 7"),
        (GOLDEN + b"M 0 /a\r\n", "line 7"),
        (GOLDEN + b"M 0 /%\n", "line 7"),
        (GOLDEN + b"M 0 /%4\n", "line 7"),
        (GOLDEN + b"M 0 /%41\n", "line 7"),
        (GOLDEN + b"M 0 /%0a\n", "line 7"),
        (GOLDEN + b"M 0 /%00\n", "line 7"),
        (GOLDEN + b"M 0 /\xff\n", "line 7"),
        (GOLDEN + b"M 0 /" + b"a" * 4096 + b"\n", "line 7"),
        (GOLDEN + b"\n", "line 7"),
        (GOLDEN + b"M 3 /sw\n", "line 7: expected each aspect of a path once"),
    ],
)
def test_a_bad_file_is_refused_with_its_line_and_what_was_expected(place, text, says):
    put(place, text)
    with pytest.raises(ManifestError, match=says):
        Manifest.load(place)


def test_a_path_that_cannot_be_read_as_a_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    os.symlink("loop", tmp_path / "loop")
    for path in (str(tmp_path), str(tmp_path / "fifo"), str(tmp_path / "loop"), "/dev/null", "a\0b", "\ud800"):
        with pytest.raises(ManifestError, match="manifest"):
            Manifest.load(path)


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = put(str(tmp_path / "m"), GOLDEN)
    os.truncate(path, manifest.MAX_BYTES + 1)  # with a hole: no bytes on the disk
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError, match=f"at most {64 << 20} bytes"):
            Manifest.load(path)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("text", [b"a", b"%41", b"\xff"])
def test_a_huge_line_is_refused_without_looking_at_all_of_it(place, text):
    size = put(place, b"collfs-manifest 1\nM 0 /" + text * 1_000_000 + b"\n") and os.path.getsize(place)
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError, match="line 2") as caught:
            Manifest.load(place)
        assert tracemalloc.get_traced_memory()[1] < 5 * size  # the file, the line, and some slices of it
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 1000


def test_too_many_lines_are_refused_before_they_are_looked_at(place):
    put(place, b"collfs-manifest 1\n" + b"\n" * manifest.MAX_LINES)
    with pytest.raises(ManifestError, match="at most 4000000 lines"):
        Manifest.load(place)


@pytest.mark.parametrize(("limit", "value"), [("MAX_LINES", 4), ("MAX_BYTES", len(GOLDEN) // 2)])
def test_what_would_pass_the_limits_is_not_saved(place, monkeypatch, limit, value):
    found = made([(f"/{i}", META) for i in range(9)])
    found.save(place)
    monkeypatch.setattr(manifest, limit, value)
    with pytest.raises(ManifestError, match=f"at most {value}"):
        Manifest.load(place)
    found.save(place)
    kept = flat(Manifest.load(place))
    assert 0 < len(kept) < 9
    assert kept == flat(found)[: len(kept)]


# -- merging ---------------------------------------------------------------------------------------------------------


@given(runs)
def test_merging_is_what_a_plain_dict_of_ages_would_do(history):
    found = Manifest()
    model: dict[tuple[str, str], int] = {}
    for used in history:
        model = {pair: age + 1 for pair, age in model.items() if age + 1 < MAX_RUNS and pair not in used}
        model.update(dict.fromkeys(used, 0))
        found.merge(iter(used))
        assert {(path, aspect): age for path, aspect, age in flat(found)} == model
        assert all(found.entries.values())


def test_an_entry_is_dropped_after_eight_runs_without_it():
    found = made([("/a", META), ("/a", CONTENT)])
    for age in range(8):
        assert found.entries["/a"][CONTENT] == age
        found.merge([("/a", META)])
    assert found.entries == {"/a": {META: 0}}


def test_used_paths_come_first_in_the_order_of_this_run_and_the_others_keep_theirs():
    found = made([(p, CONTENT) for p in ("/a", "/b", "/c", "/d")], [("/d", CONTENT), ("/b", CONTENT)])
    assert list(found.entries) == ["/d", "/b", "/a", "/c"]


def test_content_is_in_the_order_in_which_content_was_used_not_metadata():
    used = [("/a", META), ("/b", META), ("/b", CONTENT), ("/a", CONTENT), ("/b", CONTENT)]
    assert made(used).wants() == [Want("/b", CONTENT), Want("/a", CONTENT)]


@given(st.text("/.a\0%", max_size=8) | paths)
def test_merge_takes_exactly_the_paths_that_the_wire_takes(path):
    found = made([(path, META)])
    try:
        check_path(os.fsencode(path), "path")
    except RecordError:
        assert found.entries == {}
    else:
        assert unpack_wants(pack_wants(found.wants())) == [Want(path, META)]


def test_merge_leaves_out_what_no_want_can_carry_and_refuses_an_unknown_aspect():
    found = made([("/ok", META), ("relative", META), ("/\ud800", META), ("/" + "a" * 4096, META)])
    assert list(found.entries) == ["/ok"]
    with pytest.raises(ManifestError, match="must be one of meta, list, names, content, absent, not 'stat'"):
        found.merge([("/new", META), ("/ok", "stat")])
    assert found.entries == {"/ok": {META: 0}}


# -- wants -----------------------------------------------------------------------------------------------------------


def test_wants_are_listings_from_the_top_then_metadata_then_content():
    used = [
        *(("/sw/p/b.so", CONTENT), ("/sw/p", META), ("/sw/p", LIST), ("/sw/z.py", META), ("/sw", NAMES), ("/", LIST)),
        *(("/etc/x", ABSENT), ("/sw/p/a.so", META), ("/sw/p/a.so", CONTENT)),
    ]
    assert made(used).wants() == [
        *(Want("/", NAMES), Want("/sw", NAMES), Want("/sw/p", NAMES)),
        *(Want("/sw/z.py", META), Want("/etc/x", META)),
        *(Want("/sw/p/b.so", CONTENT), Want("/sw/p/a.so", CONTENT)),
    ]


@pytest.mark.parametrize("aspect", [LIST, NAMES])
def test_what_was_absent_is_not_wanted_if_the_listing_of_its_directory_tells(aspect):
    assert made([("/sw", aspect), ("/sw/no", ABSENT)]).wants() == [Want("/sw", NAMES)]
    assert made([("/sw", META), ("/sw/no", ABSENT)]).wants() == [Want("/sw", META), Want("/sw/no", META)]
