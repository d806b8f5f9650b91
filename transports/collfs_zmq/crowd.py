"""The processes of this node: they come by a Unix socket in the node store, and ask.

Rules of the file: one thread; a process that sends nonsense, too much or too slowly is shut out, the others go on;
another user's process is never listened to (the directory has mode 0700, and the kernel says who it is).
"""

from __future__ import annotations

import _socket
import os
import time
from errno import EAGAIN, EINTR, EMFILE, ENFILE, ENOBUFS, ENOMEM, EWOULDBLOCK

from collfs.errors import RecordError
from collfs.record.wire import unpack_wants

from . import local
from .wire import LONGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .desk import Desk
    from .plans import Plans

BLOCK = 1 << 18
SLOW = 10.0  # seconds for the rest of a frame that has begun
MOST_WAITING = 8 << 20  # bytes of answers that a process doesn't take
REQUESTS = 1 << 14  # of one process, unanswered: a thread has one
FULL = (EMFILE, ENFILE, ENOBUFS, ENOMEM)  # of accept(2): whoever knocks stays in the queue, and poll says so at once
PAUSE = 1.0  # seconds without accept then, or until a process leaves


class Process:
    """One process of this node. ``local``: what is staged it finds in the table."""

    local = True

    def __init__(self, sock: _socket.socket, crowd: Crowd) -> None:
        self.sock, self.crowd = sock, crowd
        self.program = ""
        self.frames = local.Frames()
        self.slow = 0.0  # for how long a frame isn't whole
        self.open = 0  # requests that aren't answered
        self._out = bytearray()

    def give(self, number: int, record: object) -> None:
        """Never called: see ``local``."""

    def done(self, number: int) -> None:
        """See :class:`collfs_zmq.desk.Asker`."""
        self.open -= 1
        self.send(local.DONE, number)

    def send(self, kind: int, request: int = 0, payload: bytes = b"") -> None:
        """Send, or keep for later."""
        self._out += local.frame(kind, request, payload)
        self.flush()

    def flush(self) -> None:
        """Send what is kept."""
        try:
            while self._out:
                del self._out[: self.sock.send(self._out, _socket.MSG_NOSIGNAL)]
        except OSError as exc:
            if exc.errno not in (EAGAIN, EWOULDBLOCK, EINTR) or len(self._out) > MOST_WAITING:
                self._out.clear()
                self.crowd.leave(self)

    @property
    def waiting(self) -> bool:
        """Whether there is something to send."""
        return bool(self._out)


class Crowd:
    """All processes of the node that are here. ``refused`` counts those that were shut out."""

    def __init__(self, path: str, desk: Desk, plans: Plans, token: str) -> None:
        """
        :param path: of the socket
        :raises OSError: if there is a server already
        """
        self.path, self.desk, self.plans, self.token = path, desk, plans, token
        self.listener = local.listen(path)
        self.here: dict[int, Process] = {}  # by descriptor
        self.claim: Callable[[str, Callable[[bool], None]], None] = lambda program, answer: answer(False)
        self.report: Callable[[bytes, Callable[[bool], None]], None] = lambda report, answer: answer(False)
        self.stop: Callable[[], None] = lambda: None
        self.warn: Callable[[str], None] = lambda text: None
        self.came = self.refused = self.pauses = 0
        self._paused = 0.0  # since when nobody is accepted; 0: all are
        self._ticked = time.monotonic()
        self.watch: Callable[[int], None] = lambda fd: None
        self.unwatch: Callable[[int], None] = lambda fd: None

    def accept(self) -> None:
        """Take in who knocks."""
        while True:
            try:
                fd, _ = self.listener._accept()  # type: ignore[attr-defined]
            except OSError as exc:
                if exc.errno in FULL:
                    self._pause()
                return
            sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd)
            sock.setblocking(False)
            if local.peer(sock)[1] != os.geteuid():
                self.refused += 1
                sock.close()
                continue
            self.came += 1
            self.here[fd] = Process(sock, self)
            self.watch(fd)

    def _pause(self) -> None:
        """No descriptor is left: who knocks waits, or the loop would turn round and round for him."""
        self.unwatch(self.listener.fileno())
        self._paused = time.monotonic()
        if not self.pauses:
            self.warn("no descriptor is left for another process of this node (ulimit -n): it waits until one has gone")
        self.pauses += 1

    def _go_on(self) -> None:
        if self._paused:
            self._paused = 0.0
            self.watch(self.listener.fileno())

    def receive(self, fd: int) -> None:
        """Something has come from the process behind *fd*."""
        process = self.here.get(fd)
        if process is None:
            return
        try:
            piece = process.sock.recv(BLOCK)
        except OSError as exc:
            if exc.errno not in (EAGAIN, EWOULDBLOCK, EINTR):
                self.leave(process)
            return
        if not piece:
            self.leave(process)
            return
        try:
            found = process.frames.add(piece)
            if found:
                process.slow = 0.0
            for kind, request, payload in found:
                self._handle(process, kind, request, payload)
        except (RecordError, ValueError) as exc:
            self.refused += 1
            process.send(local.REFUSED, 0, str(exc).encode("utf-8", "replace")[:1000])
            self.leave(process)

    def _handle(self, process: Process, kind: int, request: int, payload: bytes) -> None:
        if kind == local.HELLO:
            self._hello(process, payload)
        elif kind == local.WANT:
            self._opened(process)
            self.desk.request(process, request, unpack_wants(payload))
        elif kind == local.PLAN:
            wants = [want for want in unpack_wants(payload) if self.desk.shelf.managed(want.path)]
            self._opened(process)
            self.plans.offer(process.program, wants, source=process)
            self.desk.request(process, request, wants)
        elif kind == local.REPORT:
            if len(payload) > local.LARGEST_REPORT:
                raise RecordError(f"a report of {len(payload)} bytes; at most {local.LARGEST_REPORT} are allowed")
            self._opened(process)
            self.report(payload, lambda good: self._reported(process, request, good))
        elif kind == local.STOP:
            process.send(local.GOING)
            self.stop()
        else:
            raise RecordError(f"no frame of kind {kind} may come from a process")

    @staticmethod
    def _reported(process: Process, request: int, good: bool) -> None:
        process.open -= 1
        process.send(local.REPORTED, request, bytes([good]))

    @staticmethod
    def _opened(process: Process) -> None:
        if process.open >= REQUESTS:
            raise RecordError(f"more than {REQUESTS} requests at a time")
        process.open += 1

    def _hello(self, process: Process, payload: bytes) -> None:
        size = local.HELLO_HEAD.size
        if len(payload) < size or local.HELLO_HEAD.unpack_from(payload)[0] != local.VERSION:
            raise RecordError(f"the server speaks version {local.VERSION}: another version of collfs runs on this node")
        process.program = payload[size : size + LONGEST].decode("utf-8", "surrogateescape")

        def answer(chief: bool) -> None:
            process.send(local.WELCOME, 0, bytes([chief]) + self.token.encode())

        if process.program:
            self.plans.arrived(process.program)
            self.claim(process.program, answer)
        else:
            answer(False)

    def leave(self, process: Process) -> None:
        """A process has gone, or has to."""
        fd = process.sock.fileno()
        if self.here.pop(fd, None) is not None:
            self.unwatch(fd)
            process.sock.close()
            self.desk.gone(process)
            self._go_on()

    def tick(self) -> None:
        """Several times a second: who began a frame and doesn't end it is shut out; a byte now and then is no help."""
        now = time.monotonic()
        past, self._ticked = min(now - self._ticked, 0.5), now  # while this server was stopped, nobody was slow
        if now - self._paused > PAUSE:
            self._go_on()
        for process in list(self.here.values()):
            if process.frames.pending:
                process.slow += past
                if process.slow > SLOW:
                    self.refused += 1
                    self.leave(process)

    def flush(self) -> None:
        """Send what waits."""
        for process in list(self.here.values()):
            if process.waiting:
                process.flush()

    def close(self) -> None:
        """Say that the server ends, and close."""
        for process in list(self.here.values()):
            process.send(local.GOING)
            self.leave(process)
        self.listener.close()
        try:
            os.unlink(self.path)
        except OSError:
            pass
