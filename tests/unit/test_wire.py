"""The wire format: what goes out comes back, the bytes stay the same, what makes no sense is refused on both sides."""

from __future__ import annotations

import os
import struct
from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collfs.errors import RecordError
from collfs.record import ASPECTS, META, Name, Record, Stat, Want, checks, wire
from collfs.record.wire import pack, pack_wants, unpack, unpack_all, unpack_wants
from wireframes import DIR, DIR_HEX, FILE, FRAMES, GOLDEN, LNK, WANTS, WANTS_HEX, framed, joined

# -- strategies ----------------------------------------------------------------------------------------------------

i64 = st.integers(-(2**63), 2**63 - 1)
u64 = st.integers(0, 2**64 - 1)
seconds_and_ns = st.builds(lambda s, ns: s * 10**9 + ns, i64, st.integers(0, 10**9 - 1))


@st.composite
def stats(draw, file_type, size=None):
    mode = file_type | draw(st.integers(0, 0o7777))
    first = [mode, *(draw(u64) for _ in range(3)), draw(i64), draw(i64), draw(u64)]
    return Stat(
        *first, draw(i64) if size is None else size, draw(i64), draw(i64), *(draw(seconds_and_ns) for _ in "amc")
    )


name_bytes = st.one_of(
    st.text("ab.é", min_size=1, max_size=6).map(str.encode),
    st.binary(min_size=1, max_size=255).map(lambda b: b.translate(None, b"\0/")),
).filter(lambda b: b not in (b"", b".", b".."))
file_names = name_bytes.map(os.fsdecode)
paths = st.lists(file_names, max_size=5).map(lambda parts: "/" + "/".join(parts))
targets = st.binary(min_size=1, max_size=300).map(lambda b: b.replace(b"\0", b".")).map(os.fsdecode)
not_links = st.sampled_from([0o100000, 0o40000, 0o20000, 0o60000, 0o10000, 0o140000])
links: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({}) | st.fixed_dictionaries(
    {"lst": stats(0o120000), "target": targets}
)
listed = st.one_of(
    st.builds(Name, file_names, st.sampled_from([0, 4, 8]), st.none() | not_links.flatmap(stats)),
    st.builds(
        Name,
        file_names,
        st.just(10),
        st.none() | stats(0o120000),
        st.none() | not_links.flatmap(stats),
        st.none() | targets,
    ),
)


@st.composite
def records(draw):
    path, shape = draw(paths), draw(st.sampled_from(["errno", "metadata", "listing", "content", "placed"]))
    if shape == "errno":
        return Record(path, errno=draw(st.integers(1, 4095)))
    link = draw(links)
    if shape == "metadata":
        return Record(path, draw(not_links.flatmap(stats)), **link)
    if shape == "listing":
        return Record(path, draw(stats(0o40000)), names=draw(st.lists(listed, max_size=4)), **link)
    if shape == "placed":
        return Record(path, draw(stats(0o100000)), node_path=draw(paths), **link)
    content = draw(st.binary(max_size=50))
    return Record(path, draw(stats(0o100000, len(content))), content=content, **link)


wants = st.lists(st.builds(Want, paths, st.sampled_from(ASPECTS)), max_size=20)


# -- there and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", GOLDEN)
def test_the_bytes_of_each_shape_are_those_of_this_version(shape):
    record, checksum, _ = GOLDEN[shape]
    assert joined(record, checksum=checksum).hex() == FRAMES[shape].hex()
    assert unpack(FRAMES[shape]) == (record, len(FRAMES[shape]))


def test_the_bytes_of_wants_are_those_of_this_version():
    assert pack_wants(WANTS).hex() == bytes.fromhex(WANTS_HEX).hex()
    assert unpack_wants(bytes.fromhex(WANTS_HEX)) == WANTS


@given(st.lists(records(), max_size=4), st.booleans(), st.binary(max_size=9))
def test_records_come_back_as_they_were(sent, checksum, before):
    buffer = before + b"".join(joined(r, checksum=checksum) for r in sent)
    assert list(unpack_all(memoryview(buffer)[len(before) :])) == sent
    offset = len(before)
    for record in sent:
        found, offset = unpack(buffer, offset)
        assert found == record
    assert offset == len(buffer)


@given(wants)
def test_wants_come_back_as_they_were(sent):
    assert unpack_wants(bytearray(pack_wants(iter(sent)))) == sent


def test_names_of_exactly_the_longest_length_are_taken():
    name, path = "n" * 255, "/" + "p" * 4095
    record = Record(path, DIR, names=[Name(name, 8)])
    assert unpack(joined(record))[0] == record


def test_content_is_neither_copied_when_packed_nor_when_unpacked():
    content = bytearray(b"pass\n")
    head, sent = pack(Record("/sw/a.py", FILE, content=content))
    assert isinstance(sent, memoryview)
    content[:4] = b"exec"
    assert bytes(sent) == b"exec\n"

    buffer = bytearray(bytes(head) + b"pass\n")
    record, _ = unpack(buffer)
    buffer[-5:] = b"exec\n"
    assert isinstance(record.content, memoryview)
    assert bytes(record.content) == b"exec\n"


@pytest.mark.parametrize("content", [array("i"), memoryview(b"")])
def test_an_empty_file_is_content_too(content):
    empty = Stat(0o100644, 7, 1, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0)
    found, _ = unpack(joined(Record("/e", empty, content=content), checksum=True))
    assert found.content is not None
    assert bytes(found.content) == b""


def test_content_may_be_any_contiguous_buffer():
    st_8 = Stat(0o100644, 7, 1, 1, 0, 0, 0, 8, 1, 0, 0, 0, 0)
    numbers = memoryview(array("i", [1, 2]))
    found, _ = unpack(joined(Record("/n", st_8, content=numbers)))
    assert found.content == numbers.tobytes()
    with pytest.raises(RecordError, match="contiguous"):
        pack(Record("/n", st_8, content=memoryview(bytes(16))[::2]))


# -- what makes no sense is refused on both sides --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (Record("/a"), "expected metadata"),
        (Record("/a", FILE, errno=2), "has nothing else, found st"),
        (Record("/a", errno=2, lst=LNK, target="b"), "found lst, target"),
        (Record("/a", names=[], errno=13), "found names"),
        (Record("/a", errno=-1), "errno must be in"),
        (Record("/a", errno=4096), "errno must be in"),
        (Record("/a", names=[]), "expected metadata"),
        (Record("/a", FILE, names=[]), "names goes with file type 0o40000, found mode 0o100644"),
        (Record("/a", DIR, content=b"x" * 60), "content goes with file type 0o100000, found mode 0o40755"),
        (Record("/a", DIR, node_path="/x"), "node_path goes with"),
        (Record("/a", FILE, content=b"pass\n", node_path="/x"), "found content, node_path"),
        (Record("/a", FILE, content=b"pass"), "expected st_size = 5 bytes of content, found 4"),
        (Record("/a", FILE, content="pass\n"), "found str"),  # type: ignore[arg-type]
        (Record("/a", FILE, lst=LNK), "found only lst"),
        (Record("/a", FILE, target="b"), "found only target"),
        (Record("/a", FILE, lst=FILE, target="b"), "lst must be of a symbolic link, found mode 0o100644"),
        (Record("/a", LNK), "st is of what a link leads to"),
        (Record("/a", FILE, lst=LNK, target=""), "target must have 1 to 4096 bytes"),
        (Record("/a", FILE, lst=LNK, target="b\0"), "target must have 1 to 4096 bytes"),
        (Record("/a", FILE, lst=LNK, target="b" * 4097), r"\(4097 bytes\)"),
        (Record("/a", FILE, node_path="x"), "node_path must be absolute"),
        (Record("/a", Stat(0o100644, -1, *FILE.values()[2:])), "expected the numbers of a struct stat"),
        (Record("/a", Stat(*FILE.values()[:12], 1 << 200)), "expected the numbers of a struct stat"),
        (Record("/a", DIR, names=[Name("x", 3)]), "d_type must be one of"),
        (Record("/a", DIR, names=[Name("x", 8, st=FILE)]), "st and target are for symbolic links"),
        (Record("/a", DIR, names=[Name("x", 8, FILE, target="b")]), "st and target are for symbolic links"),
        (Record("/a", DIR, names=[Name("x", 10, LNK, LNK)]), "st is of what a link leads to"),
        (Record("/a", DIR, names=[Name("x", 10, target="")]), "target must have"),
    ],
)
def test_a_record_without_a_proper_shape_is_not_packed(wrong, says):
    with pytest.raises(RecordError, match=says):
        pack(wrong)


BAD_PATHS = [
    "",
    "a",
    "a/b",
    "/a\0b",
    "/" + "a" * 4096,
    "//",
    "//a",
    "/a//b",
    "/a/",
    "/.",
    "/..",
    "/a/./b",
    "/a/../b",
    "/\ud800",
]
BAD_NAMES = ["", ".", "..", "a/b", "/", "a\0", "n" * 256, "é" * 128, "\ud800"]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_path_that_is_not_absolute_and_normalised_is_refused_on_both_sides(path):
    with pytest.raises(RecordError, match="path must be"):
        pack(Record(path, errno=2))
    with pytest.raises(RecordError, match="path must be"):
        pack_wants([Want("/a", META), Want(path, META)])
    raw = path.encode("utf-8", "surrogatepass")
    if "\ud800" not in path:  # as bytes it is a name like any other
        with pytest.raises(RecordError, match="path must be"):
            unpack(framed(checks.KIND_ABSENT, struct.pack("<H", len(raw)) + raw + b"\2\0"))
        with pytest.raises(RecordError, match="path must be"):
            unpack_wants(framed(wire.KIND_WANTS, b"\1\0\0\0\1" + struct.pack("<H", len(raw)) + raw + b"/"[: not raw]))


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_no_directory_can_hold_is_refused_on_both_sides(name):
    with pytest.raises(RecordError, match="name must"):
        pack(Record("/a", DIR, names=[Name(name, 8)]))
    raw = name.encode("utf-8", "surrogatepass")
    if "\ud800" not in name and len(raw) < 256:
        listing = b"\2\0/a" + bytes.fromhex(DIR_HEX) + b"\1\0\0\0\x08\0" + bytes((len(raw),)) + raw
        with pytest.raises(RecordError, match=r"name must|don't fit"):
            unpack(framed(checks.KIND_LISTING, listing))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (b"\x08\x08\1x", "unknown flags 0b1000"),
        (b"\x03\0\1x", "d_type must be one of"),
        (b"\x08\4\1x\1\0t", "st and target are for symbolic links"),
        (b"\x0a\4\1x\0\0", "target must have 1 to 4096 bytes"),
    ],
)
def test_a_name_that_pack_would_not_send_is_not_taken(name, says):
    with pytest.raises(RecordError, match=says):
        unpack(framed(checks.KIND_LISTING, b"\2\0/a" + bytes.fromhex(DIR_HEX) + b"\1\0\0\0" + name))


def test_an_unknown_aspect_is_refused():
    with pytest.raises(RecordError, match="must be one of meta, list, names, content, not 'absent'"):
        pack_wants([Want("/a", "absent")])
