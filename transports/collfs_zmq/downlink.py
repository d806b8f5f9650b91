"""The servers below this one: they join, ask, and get what they may take.

::

    ROUTER socket  <-- JOIN / WANTS / CLAIM / PLAN / CREDIT / PING / LEAVE --  DEALER sockets of the servers below
                   --  ADOPT or REDIRECT, DATA ..., DONE, PLAN, PONG      -->

A server takes at most ``fanout`` others and sends the rest to those, so each finds its place in O(log N) steps and the
root speaks to few. DATA is sent on credit: what a slow one hasn't taken waits here as an iterator, not as bytes; what
several get is made once (batches.py).

Rules of the file: one thread; never waits; a message that isn't as it should be costs its sender the place.
"""

from __future__ import annotations

import time

from collfs.errors import RecordError
from collfs.record.wire import unpack_wants

from . import wire
from .batches import Batches
from .libzmq import Again, ZMQError
from .local import LARGEST_REPORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Iterator, Sequence

    from collfs.record import Buffer, Record
    from collfs.stream import Message

    from .desk import Desk
    from .plans import Plans
    from .sockets import Socket
else:
    from _collections import deque  # the package would read operator, keyword and reprlib beside it

CREDIT = 32 << 20  # bytes on their way to one server
MESSAGES = 1 << 17  # on their way to one server (ZMQ_SNDHWM): what the credit allows, and as many that need none
REQUESTS = 1 << 17  # of one server, unanswered: one for each process below it would still be few
SILENT = 30.0  # seconds without a sign (they PING every second): gone
MOST = 65536  # servers below, by fanout
_NOTHING: tuple[Message, ...] = ((0, b""),)  # one message without payload


class Child:
    """One server below. ``local`` is false: it is given records."""

    local = False

    def __init__(self, identity: bytes, address: str, link: Downlink) -> None:
        self.identity, self.address, self.link = identity, address, link
        self.credit = CREDIT
        self.below = 0  # servers that it takes care of, as it says
        self.seen = time.monotonic()
        self._ready: dict[int, list[Record]] = {}
        self.open = 0  # requests that aren't answered
        self._queue: deque[tuple[int, int, Iterator[Message]]] = deque()  # kind, request, what is to be sent

    def give(self, number: int, record: Record) -> None:
        """See :class:`collfs_zmq.desk.Asker`."""
        self._ready.setdefault(number, []).append(record)

    def done(self, number: int) -> None:
        """See :class:`collfs_zmq.desk.Asker`."""
        self.flush(number)
        self._queue.append((wire.DONE, number, iter(_NOTHING)))

    def flush(self, number: int | None = None) -> None:
        """What has been given becomes messages: records that come together travel together."""
        for key in list(self._ready) if number is None else [number]:
            records = self._ready.pop(key, None)
            if records:
                self._queue.append((wire.DATA, key, self.link.batches.take(records)))

    def tell_plan(self, program: str, index: int, piece: bytes) -> None:
        """Tell this server what *program* will want."""
        self._queue.append((wire.PLAN, 0, ((0, wire.plan(program, index, piece)) for _ in _NOTHING)))  # made when sent

    def pump(self) -> None:
        """Send what the credit allows."""
        while self._queue and self.credit > 0:
            kind, number, found = self._queue[0]
            try:
                message = next(found, None)
            except (OSError, ValueError):  # a copy has gone: what is missing at DONE goes native there
                message = None
            if message is None:
                self._queue.popleft()
                self.open -= kind == wire.DONE
                continue
            part, payload = message
            self.credit -= wire.cost(payload)
            self.link.send(self, kind, number, part, payload)

    @property
    def idle(self) -> bool:
        """Whether nothing waits that could be sent now."""
        return not self._ready and (not self._queue or self.credit <= 0)


class Downlink:
    """The ROUTER socket and who is behind it."""

    def __init__(self, socket: Socket, desk: Desk, copy_of: Callable[[str], str], fanout: int) -> None:
        self.socket, self.desk, self.fanout = socket, desk, fanout
        self.batches = Batches(copy_of)
        self.children: dict[bytes, Child] = {}
        self.ancestors: list[str] = []  # of a child: root first, this server last
        self.devices: dict[str, int] = {}  # st_dev of this node by prefix
        self.plans: Plans | None = None
        self.claim: Callable[[str, Callable[[bool], None]], None] = lambda program, answer: answer(False)
        self.report: Callable[[bytes, Callable[[bool], None]], None] = lambda report, answer: answer(False)
        self.refused = 0

    def send(self, child: Child, kind: int, request: int = 0, part: int = 0, payload: Buffer = b"") -> None:
        """Send, or lose it, and the peer: it has gone, or asks and asks and doesn't read what it is told."""
        try:
            self.socket.send([child.identity, wire.head(kind, request, part), payload])
        except ZMQError:
            self.drop(child)

    def receive(self, most: int = 200) -> None:
        """Take what has come, at most *most* messages."""
        for _ in range(most):
            try:
                frames = self.socket.receive()
            except Again:
                return
            self._handle(frames)

    def _handle(self, frames: Sequence[bytes]) -> None:
        identity = frames[0]
        child = self.children.get(identity)
        try:
            if len(frames) != 3:
                raise RecordError(f"{len(frames)} frames")
            kind, request, _ = wire.unpack_head(frames[1], wire.UP)
            if kind == wire.JOIN:
                self._join(identity, *wire.unpack_join(frames[2]))
                return
            if child is None:  # one that was dropped: it hears nothing, and joins again
                return
            child.seen = time.monotonic()
            self._serve(child, kind, request, frames[2])
        except (RecordError, ValueError):
            self.refused += 1
            if child is not None:
                self.drop(child)

    def _serve(self, child: Child, kind: int, request: int, payload: bytes) -> None:
        if kind == wire.WANTS:
            (fresh,) = payload[:1] or b"\0"
            if child.open >= REQUESTS:
                raise RecordError(f"more than {REQUESTS} requests at a time")
            child.open += 1
            self.desk.request(child, request, unpack_wants(memoryview(payload)[1:]), fresh=bool(fresh))
        elif kind == wire.CREDIT:
            child.credit = min(child.credit + wire.number(wire.U64, payload), CREDIT)
        elif kind == wire.CLAIM:
            (program,), _ = wire.unpack_texts(payload)
            self.claim(program, lambda yes: self.send(child, wire.CLAIMED, request, 0, wire.U8.pack(yes)))
        elif kind == wire.REPORT:
            if len(payload) > LARGEST_REPORT:
                raise RecordError(f"a report of {len(payload)} bytes")
            self.report(payload, lambda good: self.send(child, wire.REPORTED, request, 0, wire.U8.pack(good)))
        elif kind == wire.PING:
            child.below = min(wire.number(wire.U32, payload), MOST)
            self.send(child, wire.PONG)
        elif kind == wire.LEAVE:
            self.drop(child)
        elif kind == wire.PLAN and self.plans is not None:
            self.plans.learn(*wire.unpack_plan(payload), source=child)

    def _join(self, identity: bytes, address: str, orphan: bool) -> None:
        old = self.children.get(identity)
        if old is not None:
            self.drop(old)
        for one in [one for one in self.children.values() if address and one.address == address]:
            self.drop(one)  # it has come back, though it had not been found missing
        child = Child(identity, address, self)
        if address and address in self.ancestors[:-1]:  # a ring, if it was taken
            self.send(child, wire.REDIRECT, payload=wire.texts([]))
            return
        if len(self.children) >= self.fanout * (2 if orphan else 1):
            others = sorted(self.children.values(), key=lambda one: one.below)
            addresses = [one.address for one in others if one.address][:8]
            others[0].below += 1
            self.send(child, wire.REDIRECT, payload=wire.texts(addresses))
            return
        self.children[identity] = child
        self._tell_ancestors(child)
        if self.plans is not None:
            for program, index, piece in self.plans.all():
                child.tell_plan(program, index, piece)

    def moved(self, ancestors: Sequence[str]) -> None:
        """Others are above this server now: root first, this server last."""
        self.ancestors = list(ancestors)
        for child in list(self.children.values()):
            self._tell_ancestors(child)

    def _tell_ancestors(self, child: Child) -> None:
        self.send(child, wire.ADOPT, payload=wire.adopt(self.ancestors, self.devices))

    def drop(self, child: Child) -> None:
        """Forget a server below."""
        if self.children.get(child.identity) is child:
            del self.children[child.identity]
            self.desk.gone(child)

    def tick(self) -> None:
        """Once a second: who is silent has gone."""
        now = time.monotonic()
        for child in list(self.children.values()):
            if now - child.seen > SILENT:
                self.drop(child)

    def pump(self) -> bool:
        """Send what may be sent; whether more could be sent now."""
        for child in self.children.values():  # all of them first: what they share is made once
            child.flush()
        self.batches.settle()
        for child in list(self.children.values()):
            child.pump()
        return any(not child.idle for child in self.children.values())

    @property
    def below(self) -> int:
        """Servers below, at any depth."""
        return sum(1 + child.below for child in self.children.values())

    def close(self) -> None:
        """Tell those below to look for another one."""
        for child in list(self.children.values()):
            self.send(child, wire.LEAVE)
        self.children.clear()
        self.socket.close(1000)
