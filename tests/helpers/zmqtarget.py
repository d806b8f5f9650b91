"""A real server under attack, and a way to see whether it still serves."""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager

from collfs.record import CONTENT, Want
from collfs.record.wire import pack_wants, unpack_all
from collfs.stream import RECORDS
from collfs_zmq import local, wire
from collfs_zmq.keys import Keys
from zmqnode import inside
from zmqservers import LIMIT, Stranger


class Target:
    """A server of a job of ours, in a process of its own, and a way to see whether it still serves."""

    def __init__(self, bench):  # type: ignore[no-untyped-def]
        self.bench, self.node = bench, bench.node()
        self.secret_file = bench.folder / "secret"
        self.secret_file.write_text("not for others")
        (bench.tree / "out").symlink_to(self.secret_file)
        (bench.tree / "out.folder").symlink_to(bench.folder)
        self.server = bench.serve(self.node, "--bind", "tcp://127.0.0.1:0", "--linger", "60")
        self.address, self.keys = self.server.address, Keys(bench.secret)
        self.store = inside(self.node)[0]
        self.socket = f"{self.store}/{local.NAME}"
        self.good = [f"{bench.tree}/data{number}" for number in range(4)]

    def knock(self):  # type: ignore[no-untyped-def]
        """A plain Unix socket to it."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(LIMIT)
        sock.connect(self.socket)
        return sock

    def serves(self):  # type: ignore[no-untyped-def]
        """A process of the node and a server below get what they ask for."""
        link = local.Link(self.socket, LIMIT)
        link.send(local.HELLO, 0, local.HELLO_HEAD.pack(local.VERSION))
        link.send(local.WANT, 1, pack_wants([Want(self.good[0], CONTENT)]))
        while not any(frame == (local.DONE, 1, b"") for frame in link.receive(wait=True)):
            pass
        link.close()
        with self.child() as child:
            assert self.asked(child, self.good[1])[0].content  # type: ignore[no-untyped-call]
        return True

    @contextmanager
    def child(self, **options):  # type: ignore[no-untyped-def]
        """A server below, who knows the secret."""
        with Stranger(self.address, self.keys, **options) as made:
            made.join()
            yield made
            made.say(wire.LEAVE)

    @staticmethod
    def asked(child, *paths, aspect=CONTENT):  # type: ignore[no-untyped-def]
        """The records that *child* gets."""
        child.say(wire.WANTS, 1, b"\0" + pack_wants([Want(path, aspect) for path in paths]))
        found = []  # type: ignore[var-annotated]
        while True:
            kind, _, part, payload = child.hear()
            if kind == wire.DONE:
                return found
            if kind == wire.DATA:
                assert part == RECORDS
                found += unpack_all(payload)

    def report(self):  # type: ignore[no-untyped-def]
        """What it counted, when it ended as it should."""
        self.server.process.send_signal(signal.SIGTERM)
        assert self.server.wait(LIMIT) == 0, self.server.log()
        assert "Traceback" not in self.server.log()
        return self.server.report()
