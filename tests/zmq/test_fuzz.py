"""Whatever bytes come to a live server: it doesn't end, doesn't grow, and serves the next good one."""

from __future__ import annotations

import select
import socket
from contextlib import contextmanager

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collfs.record import ASPECTS, Want
from collfs.record.wire import pack_wants
from collfs_zmq import local, wire
from collfs_zmq.keys import Keys, new_secret
from wireframes import FRAMES, framed
from zmqservers import LIMIT, Node, Stranger, memory, until

ROUNDS = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
GROWTH = 48 << 20  # bytes that all rounds together may cost

numbers = st.one_of(st.integers(0, 20), st.sampled_from([2**16, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))
paths = st.sampled_from(["/", "/etc/passwd", "@/f0", "@/f1", "@/none", "@", "@/sub/x", "/" + "x" * 4000])
good_wants = st.lists(st.tuples(paths, st.sampled_from(ASPECTS)), max_size=5)
blobs = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(sorted(FRAMES.values())),
    st.builds(
        framed,
        st.integers(0, 9),
        st.binary(max_size=40),
        flags=st.integers(0, 7),
        size=st.sampled_from([0, 1, 2**32, 2**63]),
        meta_size=st.one_of(st.none(), numbers),
    ),
    st.builds(wire.texts, st.lists(st.text(max_size=9).filter(str.isascii), max_size=3)),
)


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """A root in this process: what it can't stand is seen as an exception."""
    folder = tmp_path_factory.mktemp("fuzz")
    tree = folder / "tree"
    tree.mkdir()
    for number in range(40):
        (tree / f"f{number}").write_bytes(b"%d." % number * 100)
    made = Node(folder / "node", tree, new_secret())
    made.tree, made.before = tree, memory()  # type: ignore[attr-defined]
    yield made
    made.close()


def still_serves(target):
    """Both ways, with files that may be staged already."""
    assert not target.failure
    assert target.ask(f"{target.tree}/f3") == b"3." * 100
    with Stranger(target.address, target.server.keys) as child:
        child.join()
        child.say(wire.WANTS, 1, b"\0" + pack_wants([Want(f"{target.tree}/f4", "content")]))
        assert b"4." * 100 in child.heard(wire.DATA)
        child.say(wire.LEAVE)
    grown = memory() - target.before
    assert grown < GROWTH, f"{grown >> 20} MiB more"


def wants_of(target, pairs):
    return pack_wants([Want(path.replace("@", str(target.tree)), aspect) for path, aspect in pairs])


def drained(sock):
    """Wait until the server has read all, and answered or closed."""
    try:
        sock.sendall(local.frame(local.WANT, 0xFFFFFFFF, pack_wants([])))
        taker = local.Frames()
        while (piece := sock.recv(65536)) and not any(
            kind == local.DONE and number == 0xFFFFFFFF for kind, number, _ in taker.add(piece)
        ):
            pass
    except OSError:
        pass


@contextmanager
def knock(target):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(LIMIT)
        sock.connect(f"{target.store.path}/{local.NAME}")
        yield sock


@ROUNDS
@given(pieces=st.lists(st.binary(max_size=80), max_size=6))
def test_arbitrary_bytes_on_the_unix_socket(target, pieces):
    with knock(target) as sock:
        try:
            for piece in pieces:
                sock.sendall(piece)
        except OSError:
            pass
        select.select([sock], [], [], 0)
    still_serves(target)


@ROUNDS
@given(
    frames=st.lists(st.tuples(st.one_of(st.integers(1, 4), st.integers(0, 255)), numbers, blobs), max_size=6),
    wants=good_wants,
    where=st.integers(0, 6),
)
def test_arbitrary_frames_on_the_unix_socket(target, frames, wants, where):
    frames = [one for one in frames if one[0] != local.STOP]  # which would be obeyed
    frames.insert(where, (local.WANT, 7, wants_of(target, wants)))
    with knock(target) as sock:
        try:
            for kind, number, payload in frames:
                sock.sendall(local.frame(kind, number, payload))
        except OSError:
            pass
        drained(sock)
    still_serves(target)


@ROUNDS
@given(
    messages=st.lists(
        st.one_of(
            st.lists(st.binary(max_size=40), min_size=1, max_size=4),
            st.tuples(
                st.builds(wire.head, st.integers(0, 20), st.integers(0, 2**64 - 1), st.integers(0, 9)),
                st.one_of(blobs, st.binary(max_size=9), blobs.map(b"\0".__add__)),
            ),
        ),
        max_size=8,
    ),
    wants=good_wants,
    joined=st.booleans(),
)
def test_arbitrary_messages_of_one_who_knows_the_secret(target, messages, wants, joined):
    with Stranger(target.address, target.server.keys) as child:
        if joined:
            child.join()
        for message in messages:
            child.send(*message)
        child.say(wire.WANTS, 1, b"\1" + wants_of(target, wants))
        child.join()  # after all that, and in order
        while child.socket.poll(0):
            child.socket.recv_multipart()
    still_serves(target)


def test_nothing_of_all_that_is_kept(target):
    until(lambda: not target.server.crowd.here, "the processes have gone")
    until(lambda: not target.server.desk.under_way, "nothing is under way")
    assert len(target.server.downlink.children) < 2000
    still_serves(target)


@pytest.fixture
def parent():
    """A ROUTER that knows the secret and plays a server above."""
    secret = new_secret()
    keys = Keys(secret)
    context = zmq.Context()
    sock = context.socket(zmq.ROUTER)
    sock.setsockopt(zmq.CURVE_SERVER, 1)
    sock.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret)
    sock.setsockopt(zmq.LINGER, 0)
    sock.setsockopt(zmq.RCVTIMEO, int(LIMIT * 1000))
    sock.bind("tcp://127.0.0.1:0")
    yield sock, secret
    context.destroy(0)


def test_arbitrary_messages_from_above(parent, tmp_path):
    sock, secret = parent
    (tmp_path / "tree").mkdir()
    address = sock.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
    node = Node(tmp_path / "node", tmp_path / "tree", secret, root=address)
    before = memory()

    def joining():
        """The identity of who asks for a place."""
        while True:
            identity, head, *_ = sock.recv_multipart()
            if head[4] == wire.JOIN:
                return identity

    @settings(max_examples=150)
    @given(
        st.lists(
            st.one_of(
                st.lists(st.binary(max_size=40), min_size=1, max_size=4),
                st.tuples(
                    st.builds(wire.head, st.integers(0, 20), st.integers(0, 3), st.integers(0, 9)),
                    st.one_of(blobs, st.binary(max_size=9)),
                ),
            ),
            max_size=8,
        )
    )
    def rounds(messages):
        identity = joining()
        sock.send_multipart([identity, wire.head(wire.ADOPT), wire.adopt([address], {})])
        for message in messages:
            sock.send_multipart([identity, *message])
        sock.send_multipart([identity, wire.head(wire.LEAVE), b""])
        assert not node.failure
        assert memory() - before < GROWTH

    try:
        rounds()
    finally:
        node.close()
