"""Two transports in one: a stream that comes by itself, and behind it a server that can be asked.

::

    want --> the stream brings it within `grace`? --> done
                        | no, or it has ended
                        v
             the node's server is asked, once --> done, or after `patience` native

The stream (transport mpi) does all that is collective. The server (transport zmq) is asked for what only this process
wants, for what comes too late, and for all that is wanted after the stream's end. A wait that needed the server makes
the next grace an eighth as long, because ranks that have parted ways stay apart; one that didn't doubles it again.

Rules of the file: knows neither MPI nor ZeroMQ; what fails in one part leaves the other one alone.
"""

from __future__ import annotations

import posixpath
import time
from _thread import get_ident

from ..interpose.machine.layout import K_ABSENT, K_DIR, K_FILE, K_REG, K_UNKNOWN
from ..record import META
from . import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..messages import Messages
    from ..record import Buffer, Name, Record, Stat, Want
    from ..store.table import Table

GRACE = 0.2  # seconds that the stream may be late
LEAST = 0.001
SHOWN = 1000  # paths in the report


class _Wait:
    """What one thread waits for."""

    __slots__ = ("asked", "due", "open", "wants")

    def __init__(self, wants: Sequence[Want], due: float) -> None:
        self.wants, self.due, self.asked = wants, due, False
        self.open: list[str] = []  # of the server, and not counted yet


class Handover(Transport):
    """See above. ``asked`` and ``served`` count wants; ``grace`` is in seconds."""

    bounded = True
    collective = True
    shares_store = True  # the server fills it, too

    def __init__(self, stream: Transport, server: Transport, table: Table, messages: Messages) -> None:
        """
        :param stream: open, as *server* is
        :param table: of this node's store
        """
        self.stream, self.server, self.table, self.messages = stream, server, table, messages
        self.name, self.token, self.node_store = stream.name, stream.token, stream.node_store
        self.is_root, self.follows = stream.is_root, stream.follows
        self.grace = GRACE
        self.asked = self.served = 0
        self.by_server: list[tuple[str, str]] = []  # (path, aspect) that the server was asked for
        self._told: set[str] = set()  # of the root: what it has sent
        self._waits: dict[int, _Wait] = {}  # by thread

    # -- who follows ---------------------------------------------------------------------------------------------

    def ask(self, wants: Sequence[Want]) -> None:
        """A wait of this thread begins."""
        before = self._waits.get(get_ident())
        if before is not None:
            self._count(before)
            if not before.asked:
                self.grace = min(GRACE, self.grace * 2)
        self._waits[get_ident()] = _Wait(wants, time.monotonic() + self.grace)

    def step(self) -> bool:
        """The stream first; the server when it is late, or nothing comes from it to this thread."""
        flows = self.stream.step()
        wait = self._waits.get(get_ident())
        if wait is None:
            return flows
        if not wait.asked:
            if flows and time.monotonic() < wait.due:
                return True
            wait.asked = True
            if flows:
                self.grace = max(self.grace / 8, LEAST)
            self._hand_over(wait)
        answers = self.server.step()
        if not answers:
            self._count(wait)
        why = getattr(self.server, "failure", "")
        if why:
            self.messages.warn("server", f"{why}: from now on what MPI doesn't bring in time is read natively")
        return flows or answers

    def _hand_over(self, wait: _Wait) -> None:
        kinds = (K_UNKNOWN, K_REG, K_DIR)  # of the last two, the table may lack content or names
        wants = [want for want in wait.wants if self.table.probe(want.path) & 0xFF in kinds]
        if wants:
            wait.open = [want.path for want in wants]
            self.asked += len(wants)
            self.by_server += [(want.path, want.aspect) for want in wants][: max(0, SHOWN - len(self.by_server))]
            self.server.ask(wants)

    def _count(self, wait: _Wait) -> None:
        paths, wait.open = wait.open, []
        found = (K_FILE, K_REG, K_DIR, K_ABSENT)
        self.served += sum([self.table.probe(path) & 0xFF in found for path in paths])

    def pause(self, seconds: float) -> None:
        wait = self._waits.get(get_ident())
        (self.server if wait is not None and wait.asked else self.stream).pause(seconds)

    # -- the stream's --------------------------------------------------------------------------------------------

    def listen(self, deliver: Callable[[Iterable[Record]], int], scratch: str, copy_of: Callable[[str], str]) -> None:
        for part in (self.stream, self.server):
            part.rest = self.rest  # type: ignore[method-assign]
            part.listen(deliver, scratch, copy_of)

    def fetch(self, wants: Sequence[Want]) -> Iterator[Record]:
        return self.stream.fetch(wants)

    def publish(self, records: Iterable[Record]) -> None:
        records = list(records)
        self._told.update([record.path for record in records])
        self.stream.publish(records)

    def give_up(self, wants: Sequence[Want]) -> None:
        self._told.update([want.path for want in wants])
        self.stream.give_up(wants)

    def disbelieve(self, number: int) -> int:
        return self.stream.disbelieve(number)

    def gather(self, report: dict[str, object]) -> list[dict[str, object]] | None:
        """The stream's. On the root, what a rank had from its server and the root never sent becomes a silence."""
        report["by_server"] = [list(pair) for pair in self.by_server]
        reports = self.stream.gather(report)
        if reports is not None and self.is_root:
            for one in reports:
                silences, asked = one.get("silences"), one.get("by_server")
                if isinstance(silences, list) and isinstance(asked, list):
                    silences += [path for path in dict.fromkeys(self._untold(asked)) if path not in silences]
        return reports

    def _untold(self, asked: Iterable[Sequence[str]]) -> Iterator[str]:
        for path, aspect in asked:
            if path not in self._told and (aspect != META or posixpath.dirname(path) not in self._told):
                yield path

    def abandon(self, exc: BaseException | None = None) -> None:
        self.stream.abandon(exc)

    def close(self) -> None:
        try:
            self.stream.close()
        finally:
            self.server.close()

    # -- single questions, and what the report asks --------------------------------------------------------------

    def stat(self, path: str) -> Stat:
        return self.stream.stat(path)

    def lstat(self, path: str) -> tuple[Stat, str | None]:
        return self.stream.lstat(path)

    def listdir(self, path: str) -> Sequence[Name]:
        return self.stream.listdir(path)

    def read(self, path: str) -> Buffer:
        return self.stream.read(path)

    @property
    def failure(self) -> str:
        """Why nothing comes any more, from the stream or from the server; empty: no reason."""
        found = [getattr(part, "failure", "") for part in (self.stream, self.server)]
        return "; ".join([why for why in found if why])

    @property
    def role(self) -> str:
        """What this process is in the stream."""
        return str(getattr(self.stream, "role", ""))

    def counters(self) -> dict[str, int]:
        """Those of the stream; ``server_asked`` and ``server_served`` (wants), ``server_lost`` (how often)."""
        for wait in list(self._waits.values()):
            self._count(wait)
        counters = getattr(self.stream, "counters", dict)
        lost = int(getattr(self.server, "lost", 0))
        return {**counters(), "server_asked": self.asked, "server_served": self.served, "server_lost": lost}
