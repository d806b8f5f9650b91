"""Who may connect, asked as ZeroMQ asks; connections themselves: test_attack.py."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("zmq")

from collfs_zmq.admission import ENDPOINT, Admission
from collfs_zmq.libzmq import LINGER
from collfs_zmq.sockets import Context, Poller

REQ = 3  # zmq.h

KEY = bytes(range(32))
GOOD = [b"1.0", b"7", b"collfs", b"10.0.0.2", b"", b"CURVE", KEY]


@pytest.fixture(scope="module")
def ask():
    """A function that asks as libzmq does, and gives the reply."""
    context = Context()
    admission = Admission(context, "collfs", KEY)
    asker = context.socket(REQ)
    asker.set(LINGER, 0)
    asker.connect(ENDPOINT)
    poller = Poller()
    poller.register(admission.socket)
    poller.register(asker)

    def ask(frames):
        asker.send(frames)
        assert poller.poll(5000) == [admission.socket]
        admission.answer()
        assert poller.poll(5000) == [asker]
        return asker.receive()

    ask.__dict__["admission"] = admission
    yield ask
    asker.close(0)
    admission.close()
    context.destroy(0)


def test_the_key_of_the_job_may_come_in(ask):
    assert ask(GOOD) == [b"1.0", b"7", b"200", b"OK", b"", b""]


@pytest.mark.parametrize("at", range(7))
def test_every_other_version_domain_mechanism_or_key_may_not(ask, at):
    frames = list(GOOD)
    frames[at] = b"else"
    expected = b"200" if at in (1, 3, 4) else b"400"  # the request's number, address and identity decide nothing
    assert ask(frames)[2] == expected


@pytest.mark.parametrize("key", [b"", KEY[:31], KEY + b"\0", KEY[::-1]])
def test_a_key_that_is_nearly_the_right_one_may_not(ask, key):
    assert ask([*GOOD[:6], key])[2] == b"400"


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=9))
def test_whatever_is_asked_is_answered_by_no(ask, frames):
    before = ask.admission.refused
    reply = ask(frames)
    assert reply == [b"1.0", frames[1] if len(frames) > 1 else b"", b"400", b"No access", b"", b""]
    assert ask.admission.refused == before + 1


def test_more_frames_than_a_request_has_are_a_no(ask):
    assert ask([*GOOD, b""])[2] == b"400"
    assert ask(GOOD[:6])[2] == b"400"
