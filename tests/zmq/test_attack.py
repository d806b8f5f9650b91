"""Attacks on a real server: refused, counted, and everybody else is served on."""

from __future__ import annotations

import os
import signal
import socket
import struct

import pytest
import zmq

from collfs.record import CONTENT, META, Want
from collfs.record.wire import pack_wants
from collfs.stream import RECORDS
from collfs_zmq import local, wire
from collfs_zmq.keys import Keys, new_secret
from collfs_zmq.server import LARGEST
from wireframes import framed
from zmqservers import LIMIT, Stranger, memory
from zmqtarget import Target

FAILED = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH


@pytest.fixture
def target(bench):
    return Target(bench)


# -- who doesn't know the secret -------------------------------------------------------------------------------------


def other_client(keys):
    """The server's key is known (it could be learned), the client's is another job's."""
    keys.client, keys.client_secret = Keys(new_secret()).client, None
    stranger = Keys(new_secret())
    keys.client, keys.client_secret = stranger.client, stranger.client_secret
    return keys


@pytest.mark.parametrize("who", ["another job", "another client", "no CURVE"])
def test_who_does_not_know_the_secret_never_gets_a_word_in(target, who):
    keys = {
        "another job": lambda: Keys(new_secret()),
        "another client": lambda: other_client(Keys(target.bench.secret)),
        "no CURVE": lambda: None,
    }[who]()
    with Stranger(target.address, keys) as stranger:
        stranger.say(wire.JOIN, 0, wire.join("tcp://127.0.0.1:9", orphan=True))
        stranger.say(wire.WANTS, 1, b"\0" + pack_wants([Want(target.good[0], CONTENT)]))
        assert stranger.events(FAILED | zmq.EVENT_DISCONNECTED)
        assert target.serves()
        assert stranger.silence(0.2)
    report = target.report()
    assert report["strangers"] >= 1
    assert report["asked"] == 2, "of those who may"
    assert "refused a connection" in target.server.log()


def test_another_mechanism_than_curve_is_refused(target):
    with Stranger(target.address, None, PLAIN_USERNAME=b"collfs", PLAIN_PASSWORD=target.bench.secret.encode()) as one:
        one.say(wire.JOIN, 0, wire.join("tcp://127.0.0.1:9", orphan=True))
        assert one.events(FAILED | zmq.EVENT_DISCONNECTED)
        assert one.silence(0.2)
    assert target.serves()
    assert target.report()["strangers"] >= 1


def test_who_connects_and_says_nothing_is_cut_off(target):
    host, port = target.address[len("tcp://") :].split(":")
    silent = [socket.create_connection((host, int(port)), LIMIT) for _ in range(20)]
    assert target.serves(), "nobody waits for them"
    for sock in silent:
        sock.settimeout(LIMIT)
        while sock.recv(4096):  # its greeting, then the end
            pass
        sock.close()
    assert target.report()["strangers"] >= 20


def test_garbage_on_the_port_is_cut_off(target):
    host, port = target.address[len("tcp://") :].split(":")
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 200, b"\xff\0\0\0\0\0\0\0\1\x7f\3" + b"NULL".ljust(20, b"\0")):
        with socket.create_connection((host, int(port)), LIMIT) as sock:
            sock.settimeout(LIMIT)
            sock.sendall(garbage)
            try:
                while sock.recv(4096):
                    pass
            except ConnectionResetError:
                pass
    assert target.serves()
    target.report()


# -- another user ----------------------------------------------------------------------------------------------------

NOBODY = 65534
AS_NOBODY = """
import os, socket, struct, sys
from collfs_zmq import local
os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX)
sock.settimeout(30)
try:
    sock.connect(sys.argv[1])
except PermissionError:
    print("no way in")
    sys.exit()
try:
    sock.sendall(local.frame(local.HELLO, 0, local.HELLO_HEAD.pack(1)) + local.frame(local.STOP))
    print("answer", sock.recv(100))
except (BrokenPipeError, ConnectionResetError):
    print("answer b''")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_finds_no_way_in_and_where_he_does_the_kernel_says_who_he_is(target, run_python):
    def attack():
        return run_python(["-c", AS_NOBODY, target.socket], cwd="/").stdout.strip()

    assert attack() == "no way in"
    above = target.store
    changed = []
    try:
        while above != "/":
            mode = os.stat(above).st_mode & 0o7777
            if not mode & 0o001:
                changed.append((above, mode))
                os.chmod(above, mode | 0o055)
            above = os.path.dirname(above)
        os.chmod(target.socket, 0o666)
        assert attack() == "answer b''"
    finally:
        for path, mode in changed:
            os.chmod(path, mode)
    assert target.serves()
    assert target.report()["refused"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_a_process_does_not_talk_to_a_server_of_another_user(tmp_path):
    fake = local.listen(str(tmp_path / "server"))
    fake.setblocking(True)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        # SO_PEERCRED of a connection names who called listen(2)
        os.setuid(NOBODY)
        fake.listen(5)
        os.write(write, b"!")
        signal.pause()
        os._exit(0)
    try:
        assert os.read(read, 1) == b"!"
        with pytest.raises(PermissionError, match="another user"):
            local.Link(str(tmp_path / "server"), LIMIT)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
        fake.close()


# -- paths -----------------------------------------------------------------------------------------------------------


def want_frame(*paths, aspect=4):
    """A frame of wants with right sums and lengths, whatever the paths are."""
    rows = b"".join([bytes([aspect]) + struct.pack("<H", len(path)) + path for path in paths])
    return framed(7, struct.pack("<I", len(paths)) + rows)


def hostile(tree):
    here = os.fsencode(tree)
    return [
        here + b"/../secret",
        here + b"/./data0",
        here + b"//data0",
        b"/" + here + b"/data0",
        here + b"/data0\0",
        here + b"/data0/",
        here + b"/..",
        b"data0",
        b"",
        b"/" + b"x" * 5000,
    ]


@pytest.mark.parametrize("index", range(10))
def test_a_path_that_is_not_plain_costs_the_connection(target, index):
    path = hostile(target.bench.tree)[index]
    with target.knock() as sock:
        sock.sendall(local.frame(local.WANT, 1, want_frame(path)))
        (kind, _, said), *_ = local.Frames().add(sock.recv(4096))
        assert kind == local.REFUSED
        assert said
        assert sock.recv(1) == b""
    with Stranger(target.address, target.keys) as child:
        child.join()
        child.say(wire.WANTS, 1, b"\0" + want_frame(path))
        child.say(wire.PING, 0, wire.U32.pack(0))
        assert child.silence(0.2), "it is no child any more"
    assert target.serves()
    assert target.report()["refused"] == 2


@pytest.mark.parametrize("path", ["/etc/passwd", "{folder}/secret", "{tree}x/data0", "/", "/proc/self/environ"])
def test_what_lies_outside_the_prefixes_is_not_read(target, path):
    path = path.format(folder=target.bench.folder, tree=target.bench.tree)
    with target.child() as child:
        (record,) = target.asked(child, path)
        assert (record.st, record.content, record.errno) == (None, None, 11)
    link = local.Link(target.socket, LIMIT)
    link.send(local.WANT, 1, pack_wants([Want(path, CONTENT)]))
    assert link.receive(wait=True) == [(local.DONE, 1, b"")]
    link.close()
    assert target.serves()
    assert target.report()["refused"] == 2


@pytest.mark.parametrize("aspect", [CONTENT, META, "list"])
@pytest.mark.parametrize("name", ["out", "out.folder", "out.folder/secret"])
def test_a_link_out_of_the_prefixes_gives_nothing_of_what_it_leads_to(target, name, aspect):
    with target.child() as child:
        (record,) = target.asked(child, f"{target.bench.tree}/{name}", aspect=aspect)
        assert (record.st, record.content, record.names, record.errno) == (None, None, None, 13)
        (listing,) = target.asked(child, str(target.bench.tree), aspect="list")
        assert {one.name: one.st for one in listing.names if one.name.startswith("out")} == dict.fromkeys(
            ["out", "out.folder"]
        )
    assert target.serves()
    target.report()


# -- frames ----------------------------------------------------------------------------------------------------------

BAD_FRAMES = {
    "a length of 2^32 - 1": struct.pack("<IBI", 2**32 - 1, local.WANT, 1),
    "a length just above the limit": struct.pack("<IBI", local.MOST + 1, local.WANT, 1),
    "2^63 bytes of content": local.frame(local.WANT, 1, framed(7, b"\0\0\0\0", size=2**63)),
    "2^32 - 1 bytes of wants": local.frame(local.WANT, 1, framed(7, b"\0\0\0\0", meta_size=2**32 - 1)),
    "2^32 - 1 wants": local.frame(local.WANT, 1, framed(7, b"\xff\xff\xff\xff")),
    "a record": local.frame(local.WANT, 1, framed(1, b"\2\0/p\2\0")),
    "a frame of the server": local.frame(local.WELCOME, 0, b"\1token"),
    "an unknown kind": local.frame(99),
    "another version": local.frame(local.HELLO, 0, b"\2\0"),
    "no version": local.frame(local.HELLO),
    "a plan of nothing": local.frame(local.PLAN, 1, b""),
}


@pytest.mark.parametrize("what", BAD_FRAMES)
def test_a_bad_frame_costs_its_sender_the_connection_and_no_memory(target, what):
    before = memory(target.server.pid)
    with target.knock() as sock:
        sock.sendall(BAD_FRAMES[what])
        (kind, _, said), *_ = local.Frames().add(sock.recv(4096))
        assert kind == local.REFUSED
        assert said
        assert sock.recv(1) == b""
    assert memory(target.server.pid) - before < 16 << 20
    assert target.serves()
    assert target.report()["refused"] == 1


UP = wire.head(wire.PING)
BAD_MESSAGES = {
    "ADOPT from below": [wire.head(wire.ADOPT), wire.adopt(["tcp://127.0.0.1:9"], {})],
    "REDIRECT from below": [wire.head(wire.REDIRECT), wire.texts(["tcp://127.0.0.1:9"])],
    "DATA from below": [wire.head(wire.DATA, 1, RECORDS), framed(1, b"\2\0/p\2\0")],
    "DONE from below": [wire.head(wire.DONE, 1), b""],
    "CLAIMED from below": [wire.head(wire.CLAIMED, 1), b"\1"],
    "PONG from below": [wire.head(wire.PONG), b""],
    "an unknown kind": [wire.HEAD.pack(wire.MAGIC, 77, 0, 0, 0), b""],
    "another magic": [wire.HEAD.pack(1, wire.PING, 0, 0, 0), b""],
    "one frame": [UP],
    "three frames": [UP, b"\0\0\0\0", b""],
    "nothing": [b"", b""],
    "PING of 3 bytes": [UP, b"\0\0\0"],
    "CREDIT of 3 bytes": [wire.head(wire.CREDIT), b"\0\0\0"],
    "WANTS of nothing": [wire.head(wire.WANTS, 1), b""],
    "WANTS of 2^63 bytes": [wire.head(wire.WANTS, 1), b"\0" + framed(7, b"\0\0\0\0", size=2**63)],
    "CLAIM of nothing": [wire.head(wire.CLAIM, 1), wire.texts([])],
    "PLAN of nothing": [wire.head(wire.PLAN), b""],
    "JOIN with half an address": [wire.head(wire.JOIN), wire.join("tcp://a:1", orphan=True)[:-1]],
    "JOIN with an address that is no text": [wire.head(wire.JOIN), wire.join("\udcff\udcfe\n", orphan=True)],
    "JOIN with a NUL": [wire.head(wire.JOIN), wire.join("tcp://a\0:1", orphan=True)],
}


@pytest.mark.parametrize("what", BAD_MESSAGES)
def test_a_bad_message_costs_its_sender_the_place(target, what):
    with Stranger(target.address, target.keys) as child:
        child.join()
        child.send(*BAD_MESSAGES[what])
        child.say(wire.PING, 0, wire.U32.pack(0))
        assert child.silence(0.1), "it is no child any more"
        child.join()  # which may come again
    assert target.serves()
    assert target.report()["refused"] == 1


def test_a_message_that_is_too_large_costs_the_connection(target):
    before = memory(target.server.pid)
    with Stranger(target.address, target.keys) as child:
        child.join()
        child.send(wire.head(wire.WANTS, 1), bytes(LARGEST + 1))
        assert child.events(zmq.EVENT_DISCONNECTED)
    assert memory(target.server.pid) - before < 32 << 20
    assert target.serves()
    target.report()


def test_a_credit_of_2_to_the_64_is_no_credit_beyond_the_limit(target):
    with Stranger(target.address, target.keys) as child:
        child.join()
        for _ in range(3):
            child.say(wire.CREDIT, 0, wire.U64.pack(2**64 - 1))
        child.say(wire.PING, 0, wire.U32.pack(2**32 - 1))
        child.heard(wire.PONG)
    assert target.serves()
    assert target.report()["refused"] == 0


# -- slowness --------------------------------------------------------------------------------------------------------
