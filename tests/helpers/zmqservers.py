"""Several servers of one job in this process, each in a thread; and a stranger's way to talk to one.

For what can't be seen from outside: states, parents, counters. Nodes are directories, as everywhere in these tests.

Rules of the file: what is started is ended, in any case; every wait has a limit.
"""

from __future__ import annotations

import os
import time
from threading import Thread
from typing import TYPE_CHECKING

import zmq

from collfs.interpose.machine.code import Code
from collfs.messages import Messages
from collfs.record import Want
from collfs.record.wire import pack_wants
from collfs.store.node import open_store
from collfs.store.stager import Stager
from collfs_zmq import local, wire
from collfs_zmq.keys import Keys
from collfs_zmq.server import Server
from collfs_zmq.shelf import NodeShelf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

LIMIT = 30.0  # seconds for whatever is awaited


def until(true: Callable[[], object], what: str = "", seconds: float = LIMIT) -> None:
    """Wait until *true*.

    :raises AssertionError: if it doesn't become so in time
    """
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.005)


class Node:
    """A server in a thread of this process."""

    def __init__(
        self,
        folder: Path,
        tree: Path,
        secret: str,
        *,
        root: str = "",
        bind: str = "tcp://127.0.0.1:0",
        fanout: int = 2,
        patience: float = 4.0,
    ) -> None:
        folder.mkdir(exist_ok=True)
        code = Code([], 0)
        self.store = open_store(f"job {secret[:8]}", [str(folder)], code, chosen=True)
        for path in [str(tree)]:
            if path not in self.store.table.prefixes():
                self.store.table.add_prefix(path)
        self.shelf = NodeShelf(
            self.store,
            Stager(self.store, 1 << 30),
            prefixes=[str(tree)],
            exclude=None,
            patience=patience,
            messages=Messages(True),
        )
        self.server = Server(
            self.shelf,
            [str(tree)],
            token="token",
            root=root,
            bind=bind,
            host="127.0.0.1",
            keys=Keys(secret),
            fanout=fanout,
            patience=patience,
            linger=600.0,
        )
        self.failure: list[BaseException] = []
        self._thread = Thread(target=self._run, name=f"server {self.server.address}")
        self._thread.start()

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as exc:  # told by close
            self.failure.append(exc)
        finally:
            self.server.close()

    @property
    def address(self) -> str:
        """Where it takes others."""
        return self.server.address

    @property
    def above(self) -> list[str]:
        """Addresses of those above, root first; empty: not joined."""
        uplink = self.server.uplink
        return list(uplink._ancestors) if uplink is not None and uplink.state == "joined" else []

    @property
    def children(self) -> list[str]:
        """Addresses of those below."""
        downlink = self.server.downlink
        return [] if downlink is None else [child.address for child in list(downlink.children.values())]

    def ask(self, path: str, aspect: str = "content", seconds: float = LIMIT) -> bytes:
        """The content of *path* as staged on this node after a process has asked for it; empty: native."""
        link = self.link(seconds)
        try:
            link.send(local.WANT, 1, pack_wants([Want(path, aspect)]))
            while (local.DONE, 1, b"") not in link.receive(wait=True):
                pass
        finally:
            link.close()
        copy = self.shelf.copy_of(path)
        if not copy:
            return b""
        with open(copy, "rb") as file:
            return file.read()

    def link(self, seconds: float = LIMIT) -> local.Link:
        """What a process of the node has."""
        link = local.Link(f"{self.store.path}/{local.NAME}", seconds)
        link.send(local.HELLO, 0, local.HELLO_HEAD.pack(local.VERSION))
        while not any(kind == local.WELCOME for kind, _, _ in link.receive(wait=True)):
            pass
        return link

    def close(self) -> None:
        """End it; what it failed with is raised."""
        self.server.stop("test")
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), "the server hangs"
        self.store.close()
        if self.failure:
            raise self.failure[0]


class Stranger:
    """A DEALER socket that says what it likes to a server.

    :param keys: of the job; None: no CURVE at all
    """

    def __init__(self, address: str, keys: Keys | None, **options: object) -> None:
        self.context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(LIMIT * 1000))
        self.socket.setsockopt(zmq.SNDTIMEO, int(LIMIT * 1000))
        if keys is not None:
            self.socket.setsockopt(zmq.CURVE_SERVERKEY, keys.server)
            self.socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.client)
            self.socket.setsockopt(zmq.CURVE_SECRETKEY, keys.client_secret)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)  # type: ignore[arg-type]
        self.monitor = self.socket.get_monitor_socket()
        self.socket.connect(address)

    def __enter__(self) -> Stranger:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.disable_monitor()
        self.context.destroy(0)

    def say(self, kind: int, request: int = 0, payload: bytes = b"") -> None:
        """One message as it should be."""
        self.send(wire.head(kind, request), payload)

    def send(self, *frames: bytes) -> None:
        """Any message."""
        self.socket.send_multipart(list(frames))

    def hear(self) -> tuple[int, int, int, bytes]:
        """(kind, request, part, payload) of the next message."""
        head, payload = self.socket.recv_multipart()
        return (*wire.unpack_head(head, wire.DOWN), payload)

    def heard(self, kind: int) -> bytes:
        """The payload of the next message of *kind*; others are ignored."""
        while True:
            found, _, _, payload = self.hear()
            if found == kind:
                return payload

    def join(self, address: str = "tcp://127.0.0.1:9") -> None:
        """Become a child."""
        self.say(wire.JOIN, 0, wire.join(address, orphan=True))
        self.heard(wire.ADOPT)

    def silence(self, seconds: float) -> bool:
        """Whether nothing comes for so long."""
        return not self.socket.poll(int(seconds * 1000))

    def events(self, wanted: int, seconds: float = LIMIT) -> int:
        """The first event of those *wanted* (zmq.EVENT_...); 0: none in time."""
        end = time.monotonic() + seconds
        while self.monitor.poll(max(0, int((end - time.monotonic()) * 1000))):
            frame = self.monitor.recv_multipart()[0]
            event = int.from_bytes(frame[:2], "little")
            if event & wanted:
                return event
        return 0


def memory(pid: int | None = None) -> int:
    """Bytes of memory that a process has in use."""
    with open(f"/proc/{pid or os.getpid()}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def parents(nodes: Sequence[Node]) -> dict[str, str]:
    """Who is whose parent, by address; the root has none."""
    return {node.address: node.above[-1] for node in nodes if node.above}
