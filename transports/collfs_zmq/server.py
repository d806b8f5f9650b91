"""The server of a node: one loop over its sockets, and nothing that waits.

::

             +-- crowd: the node's processes (Unix socket)
    loop ----+-- downlink: servers below (ROUTER, CURVE)          all of them ask, and are answered by, the desk
             +-- uplink: the server above (DEALER, CURVE), or source: the threads that read, on the root

Rules of the file: what one peer does wrong ends at its own connection; the loop ends by STOP, by a signal, or when the
node's processes and the servers below have gone for ``linger`` seconds.
"""

from __future__ import annotations

import os
import time

from collfs.stream.devices import devices

from . import libzmq as zmq
from . import local
from .admission import Admission
from .crowd import Crowd
from .desk import Desk
from .downlink import MESSAGES, Downlink
from .libzmq import Again, ZMQError
from .log import Log
from .plans import Plans
from .sockets import Context, Poller, Socket
from .uplink import Uplink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .keys import Keys
    from .reports import Reports
    from .shelf import NodeShelf
    from .sockets import Source as Pollable
    from .source import Source

TICK = 0.25  # seconds
LARGEST = (8 << 20) + 4096  # bytes of a message: a chunk of collfs.stream, or a frame of wants
HANDSHAKE = 5000  # milliseconds: who connects and says nothing is cut off (ZMQ_HANDSHAKE_IVL)
SHOWN = 10  # refused connections in the log; all are counted
STRANGERS = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
DOMAIN = "collfs"  # of ZAP: marks sockets that only take the clients of this job (RFC 27/ZAP)


class Server:
    """One server. Make it, then :meth:`run` it."""

    def __init__(
        self,
        shelf: NodeShelf,
        prefixes: Sequence[str],
        *,
        token: str,
        root: str = "",
        bind: str = "",
        host: str = "",
        keys: Keys | None = None,
        fanout: int = 16,
        patience: float = 30.0,
        linger: float = 5.0,
        first: float = 600.0,
        max_file_bytes: int | None = None,
        log: Log | None = None,
    ) -> None:
        """
        :param root: address of the root's server; empty: this is the root
        :param bind: ZeroMQ address to take other servers at, such as ``tcp://*:0``; empty: none are taken
        :param host: name or address under which others reach this one
        :param keys: of the job; needed with *root* or *bind*
        :param linger: seconds without processes and servers below, after which it ends
        :param first: the same before the first one has come
        :raises OSError: if this node has a server already
        :raises ZMQError: if *bind* can't be bound
        """
        self.log = log or Log()
        self.context = Context()
        self.shelf, self.keys, self.patience, self.linger, self.first = shelf, keys, patience, linger, first
        self.desk = Desk(shelf)
        self.plans = Plans(self.desk)
        self.address = ""
        self.stopping = ""
        self.reports: Reports | None = None
        self.uplink: Uplink | None = None
        self.source: Source | None = None
        self.downlink: Downlink | None = None
        self.strangers = 0  # connections that were refused
        self._monitor: Socket | None = None
        self.admission: Admission | None = None
        self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.poller = Poller()
        self.poller.register(self._wake_in)
        self.crowd = Crowd(f"{shelf.store.path}/{local.NAME}", self.desk, self.plans, token)
        try:
            if bind:
                self._bind(bind, host, fanout)
            if root:
                self._join(root)
            else:  # the others needn't load this: threads, queues, json
                from .reports import Reports
                from .source import BoundReader, Source

                self.reports = Reports(token, self.wake)
                reader = BoundReader(prefixes, max_file_bytes)
                reader.scratch = shelf.scratch
                self.source = self.desk.source = Source(reader, self.wake)
        except BaseException:
            self.close()
            raise
        self.crowd.claim, self.crowd.report = self.claim, self.take_report
        self.crowd.stop = lambda: self.stop("asked to")
        self.crowd.watch, self.crowd.unwatch = self.poller.register, self.poller.unregister
        self.crowd.warn = self.log.complain
        self.poller.register(self.crowd.listener.fileno())
        self.plans.relay = self._relay
        self._name_devices(prefixes)

    # -- the tree ------------------------------------------------------------------------------------------------

    def _bind(self, bind: str, host: str, fanout: int) -> None:
        assert self.keys is not None
        self.admission = Admission(self.context, DOMAIN, self.keys.client_bytes)
        self.poller.register(self.admission.socket)
        socket = self.context.socket(zmq.ROUTER)
        self._limits(socket)
        socket.set(zmq.SNDHWM, MESSAGES)
        socket.set(zmq.ROUTER_MANDATORY, 1)  # who is full, or gone, is an error of send
        socket.set(zmq.ROUTER_HANDOVER, 1)
        socket.set(zmq.CURVE_SERVER, 1)
        socket.set(zmq.CURVE_SECRETKEY, self.keys.server_secret)
        socket.set(zmq.ZAP_DOMAIN, DOMAIN.encode())
        self._monitor = socket.monitor(STRANGERS)
        self.poller.register(self._monitor)
        socket.bind(bind)
        bound = socket.endpoint
        port = bound.rpartition(":")[2]
        self.address = f"tcp://{host}:{port}" if bound.startswith("tcp:") and host else bound
        self.downlink = Downlink(socket, self.desk, self.shelf.copy_of, fanout)
        self.downlink.ancestors = [self.address]
        self.downlink.plans, self.downlink.claim, self.downlink.report = self.plans, self.claim, self.take_report
        self.poller.register(socket)

    def _join(self, root: str) -> None:
        self.uplink = self.desk.source = Uplink(
            self._connect,
            self._disconnect,
            root,
            lambda: self.address,
            self.desk,
            self.shelf.scratch,
            patience=self.patience,
        )
        self.uplink.plans = self.plans
        self.uplink.below = lambda: self.downlink.below if self.downlink is not None else 0
        self.uplink.adopted = self._adopted

    def _connect(self, address: str) -> Socket:
        assert self.keys is not None
        socket = self.context.socket(zmq.DEALER)
        self._limits(socket)
        socket.set(zmq.CURVE_SERVERKEY, self.keys.server)
        socket.set(zmq.CURVE_PUBLICKEY, self.keys.client)
        socket.set(zmq.CURVE_SECRETKEY, self.keys.client_secret)
        try:
            socket.connect(address)
        except ZMQError:
            socket.close(0)
            raise
        self.poller.register(socket)
        return socket

    def _disconnect(self, socket: Socket, linger: int) -> None:
        self.poller.unregister(socket)
        socket.close(linger)

    @staticmethod
    def _limits(socket: Socket) -> None:
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.MAXMSGSIZE, LARGEST)
        socket.set(zmq.SNDHWM, 0)  # what goes up is bounded by what is asked for
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE)
        socket.set(zmq.HEARTBEAT_IVL, 2000)
        socket.set(zmq.HEARTBEAT_TIMEOUT, 10000)

    def _adopted(self, ancestors: Sequence[str]) -> None:
        if self.downlink is not None:
            self.downlink.moved([*ancestors, self.address])

    def _name_devices(self, prefixes: Sequence[str]) -> None:
        here = devices(prefixes)
        if self.uplink is not None:
            self.uplink.devices = here
        if self.downlink is not None:
            self.downlink.devices = here

    def claim(self, program: str, answer: Callable[[bool], None]) -> None:
        """Who is the job's first process of *program*: the root knows."""
        if self.uplink is not None:
            self.uplink.claim(program, answer)
        else:
            answer(self.plans.claim(program))

    def take_report(self, report: bytes, answer: Callable[[bool], None]) -> None:
        """The report of a process: up to the root, which writes it."""
        if self.uplink is not None:
            self.uplink.report(report, answer)
        elif self.reports is not None:
            self.reports.take(report, answer)
        else:
            answer(False)

    def _relay(self, source: object, program: str, index: int, piece: bytes) -> None:
        if self.uplink is not None and source is not self.uplink:
            self.uplink.tell_plan(program, index, piece)
        if self.downlink is not None:
            for child in list(self.downlink.children.values()):
                if child is not source:
                    child.tell_plan(program, index, piece)

    # -- the loop ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the loop look; from any thread or signal handler."""
        try:
            os.write(self._wake_out, b"\0")
        except OSError:
            pass  # it is awake already

    def stop(self, why: str) -> None:
        """End the loop; from any thread or signal handler."""
        self.stopping = self.stopping or why
        self.wake()

    def run(self) -> str:
        """Serve; why it ended."""
        last, quiet = 0.0, time.monotonic()
        more = served = False
        while not self.stopping:
            events = self.poller.poll(0 if more else int(TICK * 1000))
            more = self._turn(events)
            now = time.monotonic()
            if now - last > TICK:
                last = now
                self._tick()
            if self.crowd.here or (self.downlink is not None and self.downlink.children):
                quiet, served = now, True
            elif now - quiet > (self.linger if served or self.crowd.came else self.first):
                self.stopping = "nobody is here any more"
        return self.stopping

    def _turn(self, events: Sequence[Pollable]) -> bool:
        """What has happened; whether there is more to do at once."""
        more = False
        for which in events:
            if which == self._wake_in:
                try:
                    os.read(self._wake_in, 4096)
                except OSError:
                    pass
            elif which == self.crowd.listener.fileno():
                self.crowd.accept()
            elif isinstance(which, int):
                self.crowd.receive(which)
            elif which is self._monitor:
                self._count_strangers()
            elif self.admission is not None and which is self.admission.socket:
                self.admission.answer()
        if self.downlink is not None:
            self.downlink.receive()
        if self.uplink is not None:
            more = self.uplink.receive() or more
        if self.source is not None:
            records, finished = self.source.take()
            if records:
                self.desk.landed(records)
            if finished:
                self.desk.finished(finished)
        if self.reports is not None:
            self.reports.answer()
        if self.downlink is not None:
            more = self.downlink.pump() or more
        self.crowd.flush()
        return more

    def _count_strangers(self) -> None:
        """Somebody doesn't know the secret, speaks otherwise, or says nothing."""
        assert self._monitor is not None
        while True:
            try:
                self._monitor.receive()
            except Again:
                return
            self.strangers += 1
            if self.strangers <= SHOWN:
                self.log.complain(f"refused a connection to {self.address}: not with this job's secret")

    def _tick(self) -> None:
        self.crowd.tick()
        if self.downlink is not None:
            self.downlink.tick()
        if self.uplink is not None:
            self.uplink.tick()

    def close(self) -> None:
        """Close all; nothing waits for a peer. To be called once, after :meth:`run`."""
        if self.reports is not None:
            self.reports.close()
        self.crowd.close()
        if self.source is not None:
            self.source.close()
        if self.downlink is not None:
            self.downlink.close()
        if self.uplink is not None:
            self.uplink.close()
        if self.admission is not None:
            self.admission.close()
        os.close(self._wake_in)
        os.close(self._wake_out)
        self.context.destroy(1000)

    def report(self) -> dict[str, object]:
        """Counters, for the log."""
        found: dict[str, object] = {
            "came": self.crowd.came,
            "asked": self.desk.asked,
            "upstream": self.desk.upstream,
            "refused": self.desk.refused + self.crowd.refused + (self.downlink.refused if self.downlink else 0),
            "strangers": self.strangers,
        }
        if self.source is not None:
            found["ops"] = self.source.reader.ops
        if self.uplink is not None:
            found["joins"] = self.uplink.joins
        return found
