"""The checksum of contents is XXH64: compared with its own library, and with the sums that its specification gives."""

from __future__ import annotations

import mmap
import os

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from collfs.stream.sums import checksum


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1), st.integers(0, 16))
def test_it_is_xxh64_for_all_lengths_seeds_and_alignments(data, seed, skip):
    assert checksum(memoryview(data)[skip:], seed) == xxhash.xxh64_intdigest(data[skip:], seed)


def test_each_length_around_the_blocks_of_the_algorithm():
    data = os.urandom(200)
    for size in range(len(data)):
        assert checksum(data[:size], size) == xxhash.xxh64_intdigest(data[:size], size), size


@pytest.mark.parametrize("size", [1 << 20, (8 << 20) + 5])
def test_large_ones_too(size):
    data = os.urandom(size)
    assert checksum(data) == checksum(bytearray(data)) == xxhash.xxh64_intdigest(data)


def test_known_sums():
    assert checksum(b"") == 0xEF46DB3751D8E999
    assert checksum(b"abc") == 0x44BC2CF5AD770999


def test_every_single_bit_counts():
    data = bytearray(os.urandom(100))
    before = checksum(data)
    for bit in range(800):
        data[bit // 8] ^= 1 << bit % 8
        assert checksum(data) != before
        data[bit // 8] ^= 1 << bit % 8


def test_what_is_not_contiguous_is_an_error():
    with pytest.raises(BufferError):
        checksum(memoryview(b"abcdef")[::2])


def test_more_than_4_gib_are_summed_to_the_end():
    # anonymous and never written: one page of zeros, seen a million times
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, (1 << 32) + 100, flags=flags, prot=mmap.PROT_READ) as zeros, memoryview(zeros) as view:
        assert checksum(view) == xxhash.xxh64_intdigest(view)


def test_the_buffer_is_given_back():
    data = bytearray(100)
    checksum(data)
    data.append(1)  # BufferError, if somebody held it
