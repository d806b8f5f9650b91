"""The server above: how this one finds its place, asks, and goes on when the one above dies.

::

    JOIN --> root --REDIRECT--> one of its children --REDIRECT--> ... --ADOPT--> joined
                                                                          |
     silent for `dead` seconds, or LEAVE: join the grandparent, ... , the root <-+
     nobody answers for `patience` / 2: alone: what is wanted goes native, joining is tried again with growing pauses

Requests are repeated to the new parent as they are: asking twice is harmless.

Who adopts says who is above; a server that finds itself there has come into a ring, and searches again.

Rules of the file: one thread; never waits; a socket that is given up lingers for a LEAVE only.
"""

from __future__ import annotations

import time

from collfs.errors import RecordError
from collfs.record.wire import pack_wants
from collfs.stream.devices import mended, renamed
from collfs.stream.intake import Intake

from . import wire
from .libzmq import Again, ZMQError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collfs.record import Want

    from .desk import Desk
    from .plans import Plans
    from .sockets import Socket

JOINING, JOINED, ALONE = "joining", "joined", "alone"
HOPS = 64  # of one search; a tree of any size is less deep
TRY = 2.0  # seconds for an answer to JOIN, at most
PARTING = 500  # milliseconds for LEAVE: a parent that was only slow must not believe that this server is still there
PING = 1.0  # seconds between two, at most
LEAST_PAUSE, MOST_PAUSE = 0.5, 10.0  # between two tries of a server that is alone
QUESTIONS = 64 << 20  # bytes of reports and claims that wait for an answer
RETURN = 4 << 20  # bytes taken, after which credit is given back


class Uplink:
    """The DEALER socket towards the server above; an upstream for the desk."""

    def __init__(
        self,
        connect: Callable[[str], Socket],
        disconnect: Callable[[Socket, int], None],
        root: str,
        own: Callable[[], str],
        desk: Desk,
        scratch: str,
        *,
        patience: float,
    ) -> None:
        """
        :param connect: makes a DEALER socket to an address
        :param disconnect: closes it, lingering for so many milliseconds
        :param own: the address at which this server takes others
        :param patience: seconds that processes wait; the search for a parent takes less, or all had waited in vain
        """
        self.connect, self.disconnect, self.root, self.own = connect, disconnect, root, own
        self.desk, self.scratch = desk, scratch
        self.patience, self.dead = patience / 2, min(max(patience / 4, 1.0), 10.0)
        self.ping = min(PING, self.dead / 4)  # or a parent were dead between two answers
        self.trial = min(max(patience / 8, 0.5), TRY)
        self.plans: Plans | None = None
        self.adopted: Callable[[Sequence[str]], None] = lambda ancestors: None
        self.below: Callable[[], int] = lambda: 0
        self.state = JOINING
        self.socket: Socket | None = None
        self.refused = self.joins = 0
        self._requests: dict[int, tuple[Sequence[Want], bool]] = {}
        self._intakes: dict[int, Intake] = {}
        self._questions: dict[int, tuple[int, bytes, Callable[[bool], None]]] = {}  # kind, payload
        self._asking = 0  # bytes of them
        self._number = 0
        self._taken = 0
        self.devices: dict[str, int] = {}  # st_dev of this node by prefix
        self._renamed: dict[int, int] = {}  # st_dev of the parent's node -> the same file system's on this node
        self._ancestors: list[str] = [root]
        self._candidates: list[str] = []
        self._hops = 0
        self._told = self._sent = self._since = time.monotonic()
        self._pause = LEAST_PAUSE
        self._search(orphan=False)

    # -- asking --------------------------------------------------------------------------------------------------

    def ask(self, wants: Sequence[Want], fresh: bool) -> None:
        """See :class:`collfs_zmq.desk.Upstream`."""
        if self.state == ALONE:
            self.desk.finished(wants)
            return
        for piece in wire.pieces(wants):
            self._number += 1
            self._requests[self._number] = (piece, fresh)
            if self.state == JOINED:
                self._send_request(self._number)

    def _send_request(self, number: int) -> None:
        wants, fresh = self._requests[number]
        self._send(wire.WANTS, number, bytes([fresh]) + pack_wants(wants))

    def claim(self, program: str, answer: Callable[[bool], None]) -> None:
        """Ask the root whether this is the first process of *program*; *answer* is called once."""
        self._question(wire.CLAIM, wire.texts([program]), answer)

    def report(self, report: bytes, answer: Callable[[bool], None]) -> None:
        """Hand on the report of a process; *answer* is called once: whether it is in the file."""
        self._question(wire.REPORT, report, answer)

    def _question(self, kind: int, payload: bytes, answer: Callable[[bool], None]) -> None:
        if self.state == ALONE or self._asking + len(payload) > QUESTIONS:
            answer(False)
            return
        self._number += 1
        self._asking += len(payload)
        self._questions[self._number] = (kind, payload, answer)
        if self.state == JOINED:
            self._send(kind, self._number, payload)

    def tell_plan(self, program: str, index: int, piece: bytes) -> None:
        """Tell the server above what *program* will want."""
        if self.state == JOINED:
            self._send(wire.PLAN, 0, wire.plan(program, index, piece))

    def _send(self, kind: int, request: int = 0, payload: bytes = b"") -> None:
        if self.socket is None:
            return
        try:
            self.socket.send([wire.head(kind, request), payload])
            self._sent = time.monotonic()
        except ZMQError:  # its queue is full: it will be found dead
            pass

    # -- finding a place -----------------------------------------------------------------------------------------

    def _search(self, orphan: bool) -> None:
        """Look for a parent: those above the last one, nearest first, then the root."""
        if self.state == JOINED:
            self._part()
        self._orphan, self._hops = orphan, 0
        self._candidates = self._ancestors[-2::-1] if orphan and len(self._ancestors) > 1 else []
        if self.root not in self._candidates:
            self._candidates.append(self.root)
        if self.state == JOINED:
            self.state, self._since = JOINING, time.monotonic()
        self._try_next()

    def _try_next(self) -> None:
        self._hang_up()
        if not self._candidates or self._hops >= HOPS:
            self._candidates, self._tried = [], time.monotonic()
            return
        self._hops += 1
        address = self._candidates.pop(0)
        try:
            self.socket = self.connect(address)
        except ZMQError:
            self._tried = 0.0
            return
        self._tried = time.monotonic()
        self._send(wire.JOIN, 0, wire.join(self.own(), self._orphan))

    def _hang_up(self) -> None:
        if self.socket is not None:
            self.disconnect(self.socket, 0)
            self.socket = None
        for intake in self._intakes.values():
            intake.close()
        self._intakes.clear()
        self._taken = 0

    def _part(self) -> None:
        if self.socket is not None:
            self._send(wire.LEAVE)
            self.disconnect(self.socket, PARTING)
            self.socket = None

    def _adopt(self, ancestors: list[str], devices: dict[str, int]) -> None:
        if self.own() and self.own() in ancestors:
            if self.state == JOINED:
                self._search(orphan=True)
            else:
                self._part()
                self._try_next()
        elif self.state == JOINED:  # those above the parent have changed
            self._ancestors = ancestors or [self.root]
            self.adopted(self._ancestors)
        else:
            self._joined(ancestors, devices)

    def _joined(self, ancestors: list[str], devices: dict[str, int]) -> None:
        self._renamed = renamed(devices, self.devices)
        self.state, self._pause = JOINED, LEAST_PAUSE
        self.joins += 1
        self._ancestors = ancestors or [self.root]
        self.adopted(self._ancestors)
        for number in list(self._requests):
            self._send_request(number)
        for number, (kind, payload, _) in list(self._questions.items()):
            self._send(kind, number, payload)
        if self.plans is not None:
            for plan in self.plans.all():
                self.tell_plan(*plan)

    def _give_up(self) -> None:
        """Nobody above: what is asked for goes native, on this node and below."""
        self.state = ALONE
        requests, self._requests = self._requests, {}
        questions, self._questions, self._asking = self._questions, {}, 0
        for wants, _ in requests.values():
            self.desk.finished(wants)
        for _, _, answer in questions.values():
            answer(False)

    # -- what comes ----------------------------------------------------------------------------------------------

    def receive(self, most: int = 200) -> bool:
        """Take what has come, at most *most* messages; whether there may be more."""
        for _ in range(most):
            socket = self.socket
            if socket is None:
                return False
            try:
                first, *rest = socket.receive_views()
            except Again:
                return False
            try:
                if len(rest) != 1:
                    raise RecordError(f"{len(rest) + 1} frames")
                self._handle(*wire.unpack_head(bytes(first), wire.DOWN), payload=rest[0])
            except (RecordError, ValueError):
                self.refused += 1
                self._search(orphan=True)
        return True

    def _handle(self, kind: int, request: int, part: int, payload: memoryview) -> None:
        self._told = time.monotonic()
        if kind in (wire.DATA, wire.DONE, wire.PLAN):
            self._taken += wire.cost(payload)
        if kind == wire.DATA:
            self._data(request, part, payload)
        elif kind == wire.DONE:
            intake = self._intakes.pop(request, None)
            if intake is not None:
                intake.close()
            wants, _ = self._requests.pop(request, ((), False))
            self.desk.finished(wants)
        elif kind == wire.ADOPT:
            self._adopt(*wire.unpack_adopt(bytes(payload)))
        elif kind == wire.REDIRECT:
            addresses = [one for one in wire.unpack_addresses(bytes(payload))[0] if one and one != self.own()]
            self._candidates = addresses[:2] + self._candidates
            self._try_next()
        elif kind in (wire.CLAIMED, wire.REPORTED):
            self._answered(kind, request, bool(wire.number(wire.U8, bytes(payload))))
        elif kind == wire.PLAN and self.plans is not None:
            self.plans.learn(*wire.unpack_plan(bytes(payload)), source=self)
        elif kind == wire.LEAVE:
            self._search(orphan=True)
        if self._taken >= RETURN:
            self._send(wire.CREDIT, 0, wire.U64.pack(self._taken))
            self._taken = 0

    def _answered(self, kind: int, request: int, yes: bool) -> None:
        asked, payload, answer = self._questions.get(request, (0, b"", None))
        if answer is not None and (asked, kind) in ((wire.CLAIM, wire.CLAIMED), (wire.REPORT, wire.REPORTED)):
            del self._questions[request]
            self._asking -= len(payload)
            answer(yes)

    def _data(self, request: int, part: int, payload: memoryview) -> None:
        if request in self._requests:
            intake = self._intakes.get(request)
            if intake is None:
                intake = self._intakes[request] = Intake(self.scratch)
            records = intake.add(part, payload)
            if records:
                self.desk.landed([mended(record, self._renamed) for record in records])

    def tick(self) -> None:
        """Several times a second: signs of life, and what to do without them."""
        now = time.monotonic()
        if self.state == JOINED:
            if now - self._sent > self.ping:
                self._send(wire.PING, 0, wire.U32.pack(self.below()))
            if now - self._told > self.dead:
                self._told = now
                self._search(orphan=True)
            return
        if self.state == JOINING and now - self._since > self.patience:
            self._give_up()
        if self.socket is not None:
            if now - self._tried > self.trial:
                self._try_next()
        elif self._candidates:
            self._try_next()
        elif now - self._tried > self._pause:
            self._pause = min(self._pause * 2, MOST_PAUSE) if self.state == ALONE else LEAST_PAUSE
            self._search(orphan=True)

    def close(self) -> None:
        """Leave the tree."""
        if self.state == JOINED:
            self._part()
        self._hang_up()
