"""libzmq through ctypes, beside pyzmq: the same numbers, keys and bytes."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("zmq")

import zmq
from zmq.utils import z85

import zmqnode
from collfs_zmq import libzmq, sockets
from zmqservers import memory

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = [name for name in vars(libzmq) if name.isupper() and hasattr(zmq, name)]
MIB = 1 << 20


def test_numbers_are_those_of_the_header():
    assert len(NAMES) >= 25
    assert {name: getattr(libzmq, name) for name in NAMES} == {name: int(getattr(zmq, name)) for name in NAMES}


@given(st.binary(min_size=32, max_size=32))
def test_keys_and_texts_are_the_same(raw):
    text = libzmq.z85_encode(raw)
    assert text == z85.encode(raw)
    assert libzmq.z85_decode(text) == raw
    assert libzmq.curve_public(text) == zmq.curve_public(text)


@pytest.mark.parametrize(
    ("call", "bad"), [("z85_encode", b"abc"), ("z85_decode", b"abcd"), ("curve_public", b"too short")]
)
def test_what_is_no_key_and_no_text_is_refused(call, bad):
    with pytest.raises(libzmq.ZMQError):
        getattr(libzmq, call)(bad)


@pytest.fixture(scope="module")
def pair():
    """A ROUTER socket of ours and a DEALER socket of pyzmq, and a poller for ours."""
    ours, theirs = sockets.Context(), zmq.Context()
    router = ours.socket(libzmq.ROUTER)
    router.set(libzmq.ROUTER_MANDATORY, 1)
    router.bind("tcp://127.0.0.1:*")
    dealer = theirs.socket(zmq.DEALER)
    dealer.setsockopt(zmq.RCVTIMEO, 20000)
    dealer.setsockopt(zmq.IDENTITY, b"peer")
    dealer.connect(router.endpoint)
    poller = sockets.Poller()
    poller.register(router)
    yield router, dealer, poller
    dealer.close(0)
    theirs.destroy(0)
    ours.destroy(0)


MADE: dict[str, Callable[[bytes], bytes | bytearray | memoryview]] = {
    "bytes": bytes,
    "bytearray": bytearray,
    "view": lambda frame: memoryview(bytearray(frame)),
    "read-only": memoryview,
}
SIZES = st.sampled_from([0, 1, 255, 256, 65535, 65536, 65537, MIB])


@settings(deadline=None, max_examples=60)
@given(st.lists(SIZES, min_size=1, max_size=5), st.sampled_from(sorted(MADE)))
@example([9 * MIB], "bytearray")
def test_frames_arrive_as_they_were_both_ways(pair, sizes, kind):
    router, dealer, poller = pair
    frames = [os.urandom(size) for size in sizes]
    dealer.send_multipart(frames)
    assert poller.poll(20000) == [router]
    views = router.receive_views()
    assert [bytes(view) for view in views] == [b"peer", *frames]
    dealer.send_multipart(frames)
    assert poller.poll(20000) == [router]
    assert router.receive() == [b"peer", *frames]
    router.send([b"peer", *(MADE[kind](frame) for frame in frames)])
    assert dealer.recv_multipart() == frames
    with pytest.raises(libzmq.Again):
        router.receive()
    assert poller.poll(0) == []
    assert [bytes(view) for view in views] == [b"peer", *frames], "later messages leave views alone"


def test_what_nobody_looks_at_any_more_is_given_back(pair):
    router, dealer, poller = pair

    def take():
        dealer.send(b"x" * (16 * MIB))
        assert poller.poll(20000)
        return router.receive_views()[1]

    kept = take()[:10]
    for _ in range(3):
        take()
    before = memory()
    for _ in range(10):
        take()
    gc.collect()
    assert memory() - before < 64 * MIB
    assert bytes(kept) == b"x" * 10


def test_who_is_not_there_is_an_error_of_send(pair):
    with pytest.raises(libzmq.ZMQError) as caught:
        pair[0].send([b"nobody", b"x"])
    assert not isinstance(caught.value, libzmq.Again)
    assert isinstance(caught.value, OSError)


def test_an_address_in_use_or_none_is_an_error_with_its_name(pair):
    context = sockets.Context()
    try:
        for address in (pair[0].endpoint, "nothing://x"):
            with pytest.raises(OSError, match=address) as caught:
                context.socket(libzmq.ROUTER).bind(address)
            assert caught.value.errno
        with pytest.raises(OSError, match="nothing"):
            context.socket(libzmq.DEALER).connect("nothing://x")
        with pytest.raises(libzmq.ZMQError):
            context.socket(libzmq.DEALER).set(libzmq.CURVE_PUBLICKEY, b"short")
    finally:
        context.destroy(0)


def test_descriptors_are_polled_beside_sockets_until_they_are_taken_out(pair):
    read, write = os.pipe()
    poller = sockets.Poller()
    poller.register(pair[0])
    poller.register(read)
    try:
        assert poller.poll(0) == []
        os.write(write, b"x")
        assert poller.poll(20000) == [read]
        poller.unregister(read)
        assert poller.poll(0) == []
        with pytest.raises(ValueError, match=r"not in|remove"):
            poller.unregister(read)
        poller.register(read)
        poller.unregister(pair[0])  # the one before it
        assert poller.poll(20000) == [read]
        os.read(read, 1)
        assert poller.poll(0) == []
    finally:
        os.close(read)
        os.close(write)


def test_a_signal_ends_a_wait_and_its_handler_runs(pair):
    came = []
    old = signal.signal(signal.SIGALRM, lambda number, frame: came.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    begun = time.monotonic()
    try:
        assert pair[2].poll(20000) == []
        assert came == [signal.SIGALRM]
        assert time.monotonic() - begun < 15
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_the_monitor_tells_of_a_handshake_that_failed():
    ours, theirs = sockets.Context(), zmq.Context()
    router = ours.socket(libzmq.ROUTER)
    router.set(libzmq.CURVE_SERVER, 1)
    router.set(libzmq.CURVE_SECRETKEY, zmq.curve_keypair()[1])
    events = libzmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | libzmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    monitor = router.monitor(events)
    router.bind("tcp://127.0.0.1:*")
    poller = sockets.Poller()
    poller.register(monitor)
    plain = theirs.socket(zmq.DEALER)
    plain.connect(router.endpoint)
    try:
        assert poller.poll(20000) == [monitor]
        event = int.from_bytes(monitor.receive()[0][:2], sys.byteorder)
        assert event & events
    finally:
        theirs.destroy(0)
        ours.destroy(0)


FOUND = """
import sys
from collfs_zmq import libzmq
print("zmq" in sys.modules, libzmq.z85_encode(bytes(4)).decode())
"""


@pytest.mark.parametrize("wheel", [True, False])
def test_the_library_is_found_in_a_wheel_without_pyzmq_and_elsewhere_through_it(run_python, tmp_path, wheel):
    if not wheel:
        (tmp_path / "sitecustomize.py").write_text(zmqnode.NO_LIBRARY)
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    assert run_python(FOUND, env={"PYTHONPATH": path}).stdout == f"{not wheel} 00000\n"
