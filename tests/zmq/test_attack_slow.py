"""Who is slow, on purpose: a server doesn't wait for him, and everybody else is served on."""

from __future__ import annotations

import os
import select
import signal
import sys

import pytest

from collfs.record import CONTENT, META, Want
from collfs.record.wire import pack_wants
from collfs_zmq import local
from collfs_zmq.keys import Keys
from zmqnode import inside
from zmqservers import LIMIT, memory, until
from zmqtarget import Target


@pytest.fixture
def target(bench):
    return Target(bench)


SLOW = """
import os
import select
import signal
import sys
import collfs_zmq.crowd
collfs_zmq.crowd.SLOW = 1.5
collfs_zmq.crowd.MOST_WAITING = 100 << 10
from collfs_zmq.commandline import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def impatient(bench):
    """A target that waits 1.5 s for the rest of a frame, and keeps 100 KiB of answers."""
    import zmqnode

    class Impatient(zmqnode.Child):
        report = zmqnode.Server.report

    target = Target.__new__(Target)
    target.bench, target.node = bench, bench.node()
    target.keys = Keys(bench.secret)
    folder = bench.folder / "slow"
    folder.mkdir()
    words = ["--bind", "tcp://127.0.0.1:0", "--host", "127.0.0.1", "--prefix", str(bench.tree), "--linger", "60"]
    target.server = Impatient(folder, [sys.executable, "-c", SLOW, *words], bench.env(target.node))
    bench._children.append(target.server)
    target.address = target.server.line()
    target.store = inside(target.node)[0]
    target.socket = f"{target.store}/{local.NAME}"
    target.good = [f"{bench.tree}/data{number}" for number in range(4)]
    return target


@pytest.mark.parametrize("way", ["at once", "byte by byte"])
def test_a_frame_that_is_begun_and_never_ended_costs_the_connection(impatient, way):
    quiet = impatient.knock()  # says nothing at all: may stay
    with impatient.knock() as sock:
        sock.sendall(local.HEAD.pack(100000, local.WANT, 1))
        sent = 0
        while not select.select([sock], [], [], 0.1 if way == "byte by byte" else LIMIT)[0]:
            sock.sendall(b"\0")
            sent += 1
            assert sent < 100, "it is still listened to"
        try:
            assert sock.recv(100) == b""
        except ConnectionResetError:
            pass
    assert impatient.serves()
    quiet.sendall(local.frame(local.HELLO, 0, local.HELLO_HEAD.pack(local.VERSION)))
    assert quiet.recv(100)
    quiet.close()
    assert impatient.report()["refused"] == 1


def test_a_frame_that_takes_long_because_the_server_stood_still_is_taken(impatient):
    payload = pack_wants([Want(path, CONTENT) for path in impatient.good] * 20000)
    raw = local.frame(local.WANT, 5, payload)
    with impatient.knock() as sock:
        sock.sendall(raw[:100])
        link = local.Link(impatient.socket, LIMIT)  # it has been taken in when the next one is
        link.send(local.HELLO, 0, local.HELLO_HEAD.pack(local.VERSION))
        link.receive(wait=True)
        link.close()
        os.kill(impatient.server.pid, signal.SIGSTOP)
        try:
            assert not select.select([sock], [], [], 2.5)[0]
        finally:
            os.kill(impatient.server.pid, signal.SIGCONT)
        sock.sendall(raw[100:])
        assert local.Frames().add(sock.recv(100)) == [(local.DONE, 5, b"")]
    assert impatient.report()["refused"] == 0


def test_a_process_that_takes_no_answers_costs_little_and_is_shut_out(impatient):
    target, before = impatient, memory(impatient.server.pid)
    want = local.frame(local.WANT, 1, pack_wants([Want("/etc/passwd", META)]))
    with target.knock() as sock:
        sock.setblocking(False)
        sent, block = 0, want * 2000
        while sent < 100 << 20:
            if not select.select([], [sock], [], LIMIT)[1]:
                break
            try:
                sent += sock.send(block)
            except (BrokenPipeError, ConnectionResetError):
                break
        assert sent < 100 << 20, "it is shut out"
    assert memory(target.server.pid) - before < 16 << 20
    assert target.serves()


def test_many_that_come_and_say_nothing_keep_nobody_out(target):
    crowd = [target.knock() for _ in range(300)]
    assert target.serves()
    for sock in crowd:
        sock.close()
    until(target.serves)
    target.report()
