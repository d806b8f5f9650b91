"""A process's end: it asks its node's server and finds what comes in the path table.

Rules of the file: no zmq; nothing waits longer than ``patience``; without a server, everything goes native.
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock, get_ident

from collfs.errors import TransportUnavailable
from collfs.reader import Reader
from collfs.record.wire import pack_wants
from collfs.transport.reading import ReadingTransport
from collfs.transport.registry import tree

from . import local
from .start import find, find_or_start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from collfs.record import Want
    from collfs.transport.registry import TransportOptions

    from .local import Link

REPORTED = 10.0  # seconds that a process waits at its end until its report is in the job's file


class ZmqTransport(ReadingTransport):
    """One session's transport: ``follows``, since the server fills the table; the job's first process of a program is
    ``is_root``, for it keeps the manifest.
    """

    name = "zmq"
    follows = True
    bounded = True
    is_root = False

    def __init__(self, options: TransportOptions) -> None:
        super().__init__(Reader(options.max_file_bytes))  # for a process without a store, and for who asks directly
        self.options, self.patience = options, float(options.patience)
        self.pid = os.getpid()
        self.link: Link | None = None
        self.asked = self.answered = self.lost = 0
        self.failure = ""
        self._lock = allocate_lock()
        self._number = 0
        self._waiting: dict[int, int] = {}  # request -> thread
        self._reported: set[int] = set()  # requests

    # -- life cycle ----------------------------------------------------------------------------------------------

    def open(self, prefixes: Sequence[str]) -> None:
        """Find the node's server, or start it, and say who we are."""
        if not self.node_store:
            self.is_root = False
            return
        pack_wants(())  # imports what it needs: in the middle of a fetch that import would go native
        self.link = find_or_start(self.node_store, self.patience, self._words(prefixes))
        try:
            self._greet(self.link)
        except OSError as exc:
            raise TransportUnavailable(f"transport 'zmq': the server of this node: {exc}") from exc

    def _words(self, prefixes: Sequence[str]) -> list[str]:
        """What the server is told, as far as this session's options matter to it."""
        words = [f"patience={self.patience!r}"]
        words += [f"prefixes={path}" for path in prefixes]
        if not os.environ.get("COLLFS_ROOT") and tree(os.environ):
            words.append("tree")
        words += [f"exclude={glob}" for glob in getattr(self.options, "exclude", ())]
        for name in ("max_store_bytes", "max_file_bytes"):
            value = getattr(self.options, name, None)
            if value is not None:
                words.append(f"{name}={value}")
        if getattr(self.options, "quiet", False):
            words.append("quiet=1")
        return words

    def _greet(self, link: Link) -> None:
        program = ""
        if getattr(self.options, "manifest", "none") != "none":
            from collfs.bulk import program as current

            program = getattr(self.options, "program", None) or current()
        link.send(local.HELLO, 0, local.HELLO_HEAD.pack(local.VERSION) + os.fsencode(program))
        while True:
            for kind, _, payload in link.receive(wait=True):
                if kind == local.WELCOME:
                    self.is_root, self.token = bool(payload[:1] == b"\1"), os.fsdecode(payload[1:])
                    return
                if kind == local.REFUSED:
                    raise OSError(71, payload.decode("utf-8", "replace"))

    def close(self) -> None:
        """Leave. The server notices."""
        if self.link is not None and os.getpid() == self.pid:
            self.link.close()

    # -- asking --------------------------------------------------------------------------------------------------

    def ask(self, wants: Sequence[Want]) -> None:
        """Ask the server for *wants*."""
        self._send(local.WANT, wants)

    def plan(self, wants: Sequence[Want]) -> None:
        """Tell the server what earlier runs of this program wanted; wait for nothing."""
        self._send(local.PLAN, wants)

    def _send(self, kind: int, wants: Sequence[Want]) -> None:
        if os.getpid() != self.pid:
            return
        payload = pack_wants(wants)
        with self._lock:
            for _ in range(2):  # that a server has gone is often noticed only here: there may be another one already
                link = self._reached()
                if link is None:
                    return
                self._number += 1
                if kind == local.WANT:
                    self._waiting[self._number] = get_ident()
                try:
                    link.send(kind, self._number, payload)
                except OSError as exc:
                    self._lose(exc)
                    continue
                self.asked += len(wants)
                return

    def hand_over(self, path: str, report: dict[str, object]) -> str:
        """The root's server writes one file for the job; without its word in time, this process has one of its own."""
        link = self.link
        if link is None or os.getpid() != self.pid or (os.path.exists(path) and not os.path.isfile(path)):
            return path
        import json

        own = f"{path}.{os.uname().nodename}.{self.pid}"
        message = {"path": path, "id": os.urandom(8).hex(), "document": report}
        payload = json.dumps(message).encode()
        if len(payload) > local.LARGEST_REPORT:
            return own
        with self._lock:
            link = self._reached()
            if link is None:
                return own
            self._number += 1
            number = self._number
            self._waiting[number] = get_ident()
            try:
                link.send(local.REPORT, number, payload)
            except OSError as exc:
                self._lose(exc)
                return own
        end = time.monotonic() + min(self.patience, REPORTED)
        while number in self._waiting and time.monotonic() < end:
            if self.step():
                self.pause(0.05)
        self._waiting.pop(number, None)
        return "" if number in self._reported else own

    def _reached(self) -> Link | None:
        """The link; if it was lost, a server that was started again since."""
        link = self.link
        if link is not None and link.alive:
            return link
        if not self.node_store or self.link is None:
            return None
        found = find(self.node_store, 1.0)
        if found is None:
            return None
        try:
            found.send(local.HELLO, 0, local.HELLO_HEAD.pack(local.VERSION))
        except OSError:
            return None
        self.link = found
        return found

    def _lose(self, exc: OSError) -> None:
        self.lost += 1
        self.failure = f"the server of this node has gone ({exc.strerror or exc})"
        self._waiting.clear()
        if self.link is not None:
            self.link.close()

    def step(self) -> bool:
        """Take what the server says. False: this thread waits for nothing any more."""
        if os.getpid() != self.pid:
            return False
        with self._lock:
            link = self.link
            if link is None or not link.alive:
                self._waiting.clear()
                return False
            try:
                for kind, request, payload in link.receive():
                    if kind == local.DONE:
                        self._waiting.pop(request, None)
                        self.answered += 1
                    elif kind == local.REPORTED:
                        self._waiting.pop(request, None)
                        if payload == b"\1":
                            self._reported.add(request)
                    elif kind in (local.GOING, local.REFUSED):
                        raise OSError(32, "the server ends")
            except OSError as exc:
                self._lose(exc)
            return get_ident() in self._waiting.values()

    def pause(self, seconds: float) -> None:
        """Until the server says something."""
        link = self.link
        if link is None or not link.alive:
            super().pause(seconds)
        else:
            link.pause(seconds)

    def counters(self) -> dict[str, int]:
        """For the report: wants that were asked for, requests that were answered, servers that were lost."""
        return {"asked": self.asked, "answered": self.answered, "lost": self.lost, "ops": self.reader.ops}
