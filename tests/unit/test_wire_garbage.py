"""Whatever comes over the wire: it is a frame, or RecordError and nothing else, and refusing it costs nothing."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collfs.errors import RecordError
from collfs.record import checks, wire
from collfs.record.wire import pack, pack_wants, unpack, unpack_all, unpack_wants
from wireframes import FRAMES, GOLDEN, WANTS, framed, joined

each_shape = pytest.mark.parametrize("shape", GOLDEN)


def peak_of_refusal(call, frame, says):
    """Refuse *frame* and give the most memory that this took, in bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(RecordError, match=says):
            call(frame)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200), st.integers(-3, 203))
def test_random_bytes_are_refused(garbage, offset):
    for call in (unpack, unpack_wants):
        with pytest.raises(RecordError):
            call(garbage)
    with pytest.raises(RecordError):
        unpack(garbage, offset)


@each_shape
def test_a_frame_cut_anywhere_is_refused(shape):
    frame = FRAMES[shape]
    for length in range(len(frame)):
        with pytest.raises(RecordError):
            unpack(frame[:length])
    with pytest.raises(RecordError):
        list(unpack_all(frame + frame[:-1]))


def test_a_frame_of_wants_cut_anywhere_or_followed_by_anything_is_refused():
    frame = pack_wants(WANTS)
    for wrong in (*(frame[:length] for length in range(len(frame))), frame + b"\0", frame + frame):
        with pytest.raises(RecordError):
            unpack_wants(wrong)


@each_shape
def test_each_flipped_bit_of_head_and_metadata_is_refused(shape):
    record, checksum, _ = GOLDEN[shape]
    head, *_ = pack(record, checksum=checksum)
    frame = bytearray(FRAMES[shape])
    for bit in range(len(head) * 8):
        frame[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordError):
            unpack(frame)
        frame[bit // 8] ^= 1 << bit % 8
    assert unpack(frame)[0] == record


def test_each_flipped_bit_of_wants_is_refused():
    frame = bytearray(pack_wants(WANTS))
    for bit in range(len(frame) * 8):
        frame[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordError):
            unpack_wants(frame)
        frame[bit // 8] ^= 1 << bit % 8
    assert unpack_wants(frame) == WANTS


def test_a_flipped_bit_of_content_is_refused_if_the_sender_made_a_crc():
    frame = bytearray(FRAMES["content with a crc"])
    for bit in range(5 * 8):
        frame[-1 - bit // 8] ^= 1 << bit % 8
        with pytest.raises(RecordError, match="content was damaged"):
            unpack(frame)
        frame[-1 - bit // 8] ^= 1 << bit % 8


@given(st.data())
def test_hostile_metadata_with_a_right_crc_is_refused_or_makes_sense(data):
    shape = data.draw(st.sampled_from(sorted(FRAMES)))
    kind, flags = FRAMES[shape][6:8]
    meta = bytearray(FRAMES[shape][28:])
    content = bytes(meta[-5:]) if kind == checks.KIND_CONTENT else b""
    del meta[len(meta) - len(content) :]
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(meta)))
        meta[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    kind = data.draw(st.just(kind) | st.integers(0, 255))
    flags = data.draw(st.just(flags) | st.integers(0, 255))
    content_crc = zlib.crc32(content) if flags & wire.CHECKSUM else 0
    frame = framed(kind, bytes(meta), content=content, flags=flags, content_crc=content_crc)
    # What is taken is what would have been sent: nothing means the same in two ways.
    try:
        record, _ = unpack(frame)
    except RecordError:
        pass
    else:
        assert joined(record, checksum=bool(flags & wire.CHECKSUM)) == frame
    try:
        found = unpack_wants(frame)
    except RecordError:
        pass
    else:
        assert pack_wants(found) == frame


@each_shape
def test_metadata_cut_anywhere_is_refused_even_with_a_right_crc(shape):
    kind, flags = FRAMES[shape][6:8]
    content = FRAMES[shape][-5:] if kind == checks.KIND_CONTENT else b""
    meta = FRAMES[shape][28 : len(FRAMES[shape]) - len(content)]
    crc = zlib.crc32(content) if flags & wire.CHECKSUM else 0
    assert framed(kind, meta, flags=flags, content=content, content_crc=crc) == FRAMES[shape]
    for length in range(len(meta)):
        with pytest.raises(RecordError):
            unpack(framed(kind, meta[:length], flags=flags, content=content, content_crc=crc))


def test_wants_cut_anywhere_are_refused_even_with_a_right_crc():
    meta = pack_wants(WANTS)[28:]
    for length in range(len(meta)):
        with pytest.raises(RecordError):
            unpack_wants(framed(wire.KIND_WANTS, meta[:length]))


@pytest.mark.parametrize(
    ("call", "frame", "says"),
    [
        (unpack, framed(checks.KIND_CONTENT, FRAMES["content"][28:-5], size=2**63), r"\+ 9223372036854775808 bytes"),
        (
            unpack,
            framed(checks.KIND_CONTENT, FRAMES["content"][28:-5], size=2**64 - 1),
            r"\+ 18446744073709551615 bytes",
        ),
        (unpack, framed(checks.KIND_METADATA, FRAMES["metadata"][28:], meta_size=2**32 - 1), r"4294967295 \+ 0 bytes"),
        (unpack, framed(checks.KIND_METADATA, b"\xff\xff" + bytes(99)), "path takes 65535 bytes, but 99 are left"),
        (
            unpack,
            framed(checks.KIND_LISTING, FRAMES["metadata"][28:] + b"\xff" * 4 + bytes(40)),
            "4294967295 names don't fit into the 40 bytes",
        ),
        (
            unpack_wants,
            framed(wire.KIND_WANTS, b"\xff" * 4 + b"\1\1\0/" * 9),
            "4294967295 wants don't fit into the 36 bytes",
        ),
    ],
)
def test_a_length_beyond_what_is_there_costs_nothing(call, frame, says):
    assert peak_of_refusal(call, frame, says) < 100_000


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (framed(checks.KIND_ABSENT, b"\2\0/a\2\0", version=2), "expected version 1, found 2"),
        (b"collfs-manifest 1\n" + bytes(20), "found b'coll'"),
        (framed(0, b""), r"kind must be one of \[1, 2, 3, 4, 5, 6, 7\], found 0"),
        (framed(checks.KIND_ABSENT, b"\2\0/a\2\0", flags=4), "found 0b100"),
        (framed(checks.KIND_ABSENT, b"\2\0/a\5\0"), "the frame says kind 1, what is in it makes kind 2"),
        (framed(checks.KIND_ERROR, b"\2\0/a\xff\xff"), "errno must be in 1..4095, found 65535"),
        (framed(checks.KIND_ABSENT, b"\2\0/a\0\0"), "expected metadata"),
        (framed(checks.KIND_ABSENT, b"\2\0/a\2\0?"), "expected the metadata to end at 6, found 7 bytes"),
        (framed(checks.KIND_ABSENT, b"\2\0/a\2\0", content=b"x"), "has no content, found 1 bytes"),
        (
            framed(checks.KIND_METADATA, b"\2\0/a" + b"\xff" * 112),
            "nanoseconds must be below 1000000000, found 4294967295",
        ),
        (framed(wire.KIND_WANTS, b"\1\0\0\0\7\1\0/"), "expected a record, found a frame of wants"),
    ],
)
def test_a_refusal_says_what_was_expected_and_what_was_found(frame, says):
    with pytest.raises(RecordError, match=says):
        unpack(frame)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (FRAMES["metadata"], "expected a frame of wants"),
        (framed(wire.KIND_WANTS, b"\1\0\0\0\7\1\0/"), r"aspect must be one of \[1, 2, 3, 4\], found 7"),
        (framed(wire.KIND_WANTS, b"\1\0\0\0\1\2\0a/"), "must be absolute"),
        (framed(wire.KIND_WANTS, b"\0\0\0\0\1"), "expected the metadata to end at 4, found 5"),
    ],
)
def test_wrong_wants_are_refused_with_expected_and_found(frame, says):
    with pytest.raises(RecordError, match=says):
        unpack_wants(frame)
