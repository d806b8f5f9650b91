"""Frames of a node's socket: any split of the bytes gives the same frames, and a length is never believed."""

from __future__ import annotations

import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collfs_zmq import local

frames = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=300)),
    max_size=8,
)


def pieces(raw, cuts):
    at = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    return [raw[start:end] for start, end in zip(at, at[1:])]


@given(frames, st.lists(st.integers(0, 2600), max_size=30))
def test_frames_come_back_however_the_bytes_are_split(sent, cuts):
    raw = b"".join([local.frame(*one) for one in sent])
    taker, found = local.Frames(), []
    for piece in pieces(raw, cuts):
        found += taker.add(piece)
    assert found == sent
    assert taker.pending == 0


@given(frames.filter(bool), st.data())
def test_what_is_not_whole_waits(sent, data):
    raw = b"".join([local.frame(*one) for one in sent])
    cut = data.draw(st.integers(1, local.HEAD.size + len(sent[-1][2])))
    taker = local.Frames()
    assert taker.add(raw[:-cut]) == sent[:-1]
    assert taker.pending == local.HEAD.size + len(sent[-1][2]) - cut
    assert taker.add(raw[-cut:]) == sent[-1:]


@pytest.mark.parametrize("length", [local.MOST + 1, 2**31, 2**32 - 1])
def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept(length):
    taker = local.Frames()
    with pytest.raises(ValueError, match=f"a frame of {length} bytes"):
        taker.add(struct.pack("<IBI", length, local.WANT, 1))


def test_the_limit_itself_is_allowed():
    taker = local.Frames(10)
    assert taker.add(local.frame(1, 2, b"x" * 10)) == [(1, 2, b"x" * 10)]
    with pytest.raises(ValueError, match="at most 10"):
        taker.add(local.frame(1, 2, b"x" * 11))


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_arbitrary_bytes_give_frames_or_a_value_error(stream):
    taker = local.Frames(1000)
    try:
        for piece in stream:
            taker.add(piece)
            assert taker.pending <= 1000 + local.HEAD.size
    except ValueError:
        pass


@pytest.fixture
def listener(tmp_path):
    sock = local.listen(str(tmp_path / "server"))
    sock.setblocking(True)
    sock.settimeout(20)
    yield sock
    sock.close()


def accepted(listener):
    fd, _ = listener._accept()
    sock = socket.socket(fileno=fd)
    sock.settimeout(20)
    return sock


def test_a_link_sends_and_receives_and_knows_who_is_there(tmp_path, listener):
    link = local.Link(str(tmp_path / "server"), 20)
    with accepted(listener) as end:
        assert local.peer(end) == (os.getpid(), os.geteuid())
        assert link.receive() == [], "nothing has come, and it doesn't wait"
        link.send(local.WANT, 7, b"abc")
        assert end.recv(100) == local.frame(local.WANT, 7, b"abc")
        end.sendall(local.frame(local.DONE, 7) + local.frame(local.GOING)[:4])
        assert link.receive(wait=True) == [(local.DONE, 7, b"")]
        end.sendall(local.frame(local.GOING)[4:])
        assert link.receive(wait=True) == [(local.GOING, 0, b"")]
    with pytest.raises(OSError, match="has ended"):
        link.receive(wait=True)
    assert not link.alive
    link.close()


def test_a_link_refuses_a_hostile_length(tmp_path, listener):
    link = local.Link(str(tmp_path / "server"), 20)
    with accepted(listener) as end:
        end.sendall(struct.pack("<IBI", 2**32 - 1, local.DONE, 1))
        with pytest.raises(OSError, match="at most"):
            link.receive(wait=True)
    assert not link.alive
    link.close()


def test_a_link_to_nobody_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        local.Link(str(tmp_path / "server"), 1)


def test_the_socket_is_for_its_user_alone(tmp_path, listener):
    assert os.stat(tmp_path / "server").st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match="in use"):
        local.listen(str(tmp_path / "server"))


def test_a_store_deep_below_is_reached_and_leaves_no_descriptor_behind(tmp_path):
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    before = len(os.listdir("/proc/self/fd"))
    listener = local.listen(str(deep / "server"))
    for _ in range(3):
        local.Link(str(deep / "server"), 20).close()
    listener.close()
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            local.Link(str(deep / "server"), 20)
    assert len(os.listdir("/proc/self/fd")) == before
