"""Messages between servers: what is packed comes back, and whatever else is a RecordError."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collfs.errors import RecordError
from collfs.record import ASPECTS, Want
from collfs.record.wire import pack_wants
from collfs_zmq import wire

texts = st.lists(
    st.binary(max_size=50).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    max_size=8,
)
paths = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="/."), min_size=1, max_size=20)
wants = st.lists(st.builds(Want, paths.map("/p/".__add__), st.sampled_from(ASPECTS)), max_size=5)
addresses = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=50)
numbers = st.integers(0, 2**64 - 1)


@given(st.sampled_from(sorted(wire.UP | wire.DOWN)), numbers)
def test_a_head_comes_back(kind, request):
    raw = wire.head(kind, request, 1)
    for allowed in (wire.UP, wire.DOWN):
        if kind in allowed:
            assert wire.unpack_head(raw, allowed) == (kind, request, 1)
        else:
            with pytest.raises(RecordError):
                wire.unpack_head(raw, allowed)


@given(st.one_of(st.binary(max_size=40), st.binary(min_size=wire.HEAD.size, max_size=wire.HEAD.size)))
def test_no_other_bytes_are_a_head(raw):
    with pytest.raises(RecordError):
        wire.unpack_head(raw, wire.UP)


@pytest.mark.parametrize(
    "raw",
    [
        wire.HEAD.pack(wire.MAGIC + 1, wire.PING, 0, 0, 0),
        wire.HEAD.pack(wire.MAGIC, wire.PING, 0, 1, 0),
        wire.HEAD.pack(wire.MAGIC, 0, 0, 0, 0),
        wire.HEAD.pack(wire.MAGIC, wire.REPORTED + 1, 0, 0, 0),
        wire.HEAD.pack(wire.MAGIC, wire.REPORTED, 0, 0, 0),
        wire.HEAD.pack(wire.MAGIC, 255, 0, 0, 2**63),
        wire.head(wire.PING) + b"\0",
        wire.head(wire.PING)[:-1],
        b"",
    ],
)
def test_a_damaged_head_is_refused(raw):
    with pytest.raises(RecordError):
        wire.unpack_head(raw, wire.UP)


@pytest.mark.parametrize("part", [0, 8, 9, 255])
def test_data_of_a_kind_that_is_no_record_is_refused(part):
    with pytest.raises(RecordError):
        wire.unpack_head(wire.head(wire.DATA, 1, part), wire.DOWN)


@given(texts, st.binary(max_size=5), st.binary(max_size=5))
def test_texts_come_back_from_wherever_they_start(items, before, after):
    raw = before + wire.texts(items) + after
    assert wire.unpack_texts(raw, len(before)) == (items, len(raw) - len(after))


@given(texts.filter(bool), st.data())
def test_texts_that_are_cut_off_are_refused(items, data):
    raw = wire.texts(items)
    with pytest.raises(RecordError):
        wire.unpack_texts(raw[: data.draw(st.integers(0, len(raw) - 1))])


def test_texts_have_limits():
    with pytest.raises(RecordError):
        wire.texts(["x" * (wire.LONGEST + 1)])
    with pytest.raises(RecordError):
        wire.texts(["x"] * (wire.TEXTS + 1))
    with pytest.raises(RecordError):
        wire.unpack_texts(struct.pack("<H", wire.TEXTS + 1) + b"\0\0" * (wire.TEXTS + 1))
    with pytest.raises(RecordError):
        wire.unpack_texts(struct.pack("<HH", 1, wire.LONGEST + 1) + b"x" * (wire.LONGEST + 1))
    with pytest.raises(RecordError):
        wire.unpack_texts(struct.pack("<HH", 0xFFFF, 0xFFFF))


@given(st.lists(addresses, max_size=5), st.dictionaries(paths.map("/".__add__), numbers, max_size=4))
def test_adopt_comes_back(ancestors, devices):
    assert wire.unpack_adopt(wire.adopt(ancestors, devices)) == (ancestors, devices)


@given(addresses, st.booleans())
def test_join_comes_back(address, orphan):
    assert wire.unpack_join(wire.join(address, orphan)) == (address, orphan)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50), st.integers(0, 2**32 - 1), wants)
def test_a_piece_of_a_plan_comes_back(program, index, wanted):
    piece = pack_wants(wanted)
    assert wire.unpack_plan(wire.plan(program, index, piece)) == (program, index, piece)


PLAN = wire.plan("p", 0, pack_wants([]))


@pytest.mark.parametrize(
    ("unpack", "raw"),
    [
        (wire.unpack_plan, PLAN[:6]),
        (wire.unpack_join, b""),
        (wire.unpack_join, b"\0" + wire.texts([])),
        (wire.unpack_join, b"\0" + wire.texts(["a", "b"])),
        (wire.unpack_join, wire.join("tcp://a:1", orphan=True) + b"x"),
        (wire.unpack_plan, wire.texts([])),
        (wire.unpack_plan, wire.texts(["a", "b"]) + PLAN[5:]),
        (wire.unpack_plan, PLAN + b"x"),
        (wire.unpack_plan, PLAN[:-1]),
        (wire.unpack_adopt, wire.adopt(["a"], {}) + b"x"),
        (wire.unpack_adopt, wire.texts(["a"]) + wire.texts(["-1 /p"])),
        (wire.unpack_adopt, wire.texts(["a"]) + wire.texts(["/p"])),
        (wire.unpack_adopt, wire.texts(["a"]) + wire.texts(["٣ /p"])),
        (wire.unpack_adopt, wire.texts(["a"]) + wire.texts(["9" * 21 + " /p"])),
        (wire.unpack_adopt, wire.texts(["a"])),
    ],
)
def test_what_is_not_exactly_a_message_is_refused(unpack, raw):
    with pytest.raises(RecordError):
        unpack(raw)


@given(st.binary(max_size=80), st.sampled_from([wire.unpack_join, wire.unpack_plan, wire.unpack_adopt]))
def test_arbitrary_bytes_are_a_message_or_refused(raw, unpack):
    try:
        unpack(raw)
    except (RecordError, ValueError):
        pass


@given(st.sampled_from([wire.U8, wire.U16, wire.U32, wire.U64]), st.binary(max_size=12))
def test_a_number_has_its_size(layout, raw):
    if len(raw) == layout.size:
        assert wire.number(layout, raw) == int.from_bytes(raw, "little")
    else:
        with pytest.raises(RecordError):
            wire.number(layout, raw)


@pytest.mark.parametrize("address", ["tcp://a\0:1", "tcp://\udcff:1", "tcp://ü:1", "tcp://a:1\n"])
def test_an_address_is_plain_text(address):
    for unpack, raw in (
        (wire.unpack_join, wire.join(address, orphan=False)),
        (wire.unpack_adopt, wire.adopt([address], {})),
        (wire.unpack_addresses, wire.texts([address])),
    ):
        with pytest.raises(RecordError):
            unpack(raw)


@given(wants)
def test_wants_are_cut_into_messages_in_order(wanted):
    limit, wire.PIECE = wire.PIECE, 60
    try:
        found = list(wire.pieces(wanted))
    finally:
        wire.PIECE = limit
    assert [want for piece in found for want in piece] == wanted
    assert all(sum([3 + len(want.path.encode()) for want in piece]) <= 60 for piece in found)
    assert list(wire.pieces(wanted)) == [wanted]
