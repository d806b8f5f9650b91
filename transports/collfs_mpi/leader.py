"""A leader's side: what arrives is staged in its node's store.

Rules of the file: one thread takes from the stream: ours, or below MPI_THREAD_MULTIPLE the main one; no wait without a
limit; what MPI raises, or a message that can't be one, ends the stream only.
"""

from __future__ import annotations

import time

from mpi4py import MPI

from collfs.errors import RecordError
from collfs.stream import MARK
from collfs.stream.devices import mended
from collfs.stream.intake import Intake

from .groups import wait_while_moving
from .stream import Receiver
from .waiting import Waiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from collfs.record import Record

# Seconds of a pause, at least and at most: while a payload is on its way, while somebody waits, while nobody does. Each
# look moves what MPI moves, also what a leader passes on to others; but 16 leaders on 2 cores keep each other from it.
LEAST, EXPECTING, HURRIED, RESTING = 50e-6, 1e-3, 2e-3, 0.05
HURRY = 1.0  # so long after a message, or a wait in this process, somebody may wait for the next
LIMIT = 0.5  # seconds between two looks at what else has changed


class Leader:
    """A leader's end of the stream."""

    def __init__(self, leaders: MPI.Comm, threaded: bool, devices: dict[int, int]) -> None:
        """
        :param threaded: whether a thread calls :meth:`run`
        :param devices: ``st_dev`` of the root's node -> the same file system's on this node
        """
        self.receiver = Receiver(leaders)
        self.threaded, self.devices = threaded, devices
        self._hurry = 0.0
        self._waiter = Waiter()
        self.intake: Intake | None = None
        self._deliver: Callable[[Iterable[Record]], int] = lambda records: 0
        self._ended: Callable[[Exception | None], None] = lambda exc: None
        self._mark: Callable[[int], None] = lambda number: None
        self._stop = False
        self._missed = 0

    def listen(
        self,
        deliver: Callable[[Iterable[Record]], int],
        scratch: str,
        ended: Callable[[Exception | None], None],
        mark: Callable[[int], None],
    ) -> None:
        """
        :param ended: called when nothing comes any more, with what went wrong
        :param mark: called with the number of the last listing, when the root's program doesn't believe it any more
        """
        self._deliver, self._ended, self._mark, self.intake = deliver, ended, mark, Intake(scratch)

    @property
    def orderly(self) -> bool:
        """Whether the root has closed the stream."""
        return self.receiver.orderly

    def run(self) -> None:
        """The thread."""
        last, expecting = time.monotonic(), False
        while not self._stop and not self.receiver.finished:
            taken = self._take()
            now = time.monotonic()
            if taken or expecting != self.receiver.expecting:
                last, expecting = now, self.receiver.expecting
                if taken:
                    continue
            hurry = now - max(last, self._hurry) < HURRY
            longest = EXPECTING if expecting else HURRIED if hurry else RESTING
            self._waiter.until(self.receiver.request, last, LEAST, longest, LIMIT)

    def hurry(self) -> None:
        """Somebody waits for what is to come."""
        now = time.monotonic()
        resting, self._hurry = now - self._hurry > HURRY, now
        if resting:
            self._waiter.ring()

    def pump(self) -> bool:
        """One message, unless a thread takes them; whether there was one."""
        return not self.threaded and self._take()

    def _take(self) -> bool:
        receiver, intake = self.receiver, self.intake
        if intake is None or receiver.finished:
            return False
        try:
            message = receiver.take()
        except (RecordError, MPI.Exception) as exc:
            intake.refuse(str(exc))
            self._ended(exc)
            return False
        if message is None:
            if receiver.orderly:
                self._ended(None)
            return False
        if receiver.missed != self._missed:
            self._missed = receiver.missed
            self._deliver(intake.refuse("a message is missing"))
        if message[0] == MARK:
            self._mark(self._deliver([]))
            return True
        records = [mended(record, self.devices) for record in intake.add(*message)]
        if records:
            self._deliver(records)
        return True

    def finish(self, patience: float) -> None:
        """Take what comes and pass it on until the stream is closed; give up when it has been silent for *patience*."""
        receiver = self.receiver

        def closed() -> bool:
            self.pump()
            return receiver.finished

        wait_while_moving(closed, lambda: receiver.moved, patience)

    def stop(self) -> None:
        """End the thread."""
        self._stop = True
        self._waiter.ring()

    def fail(self) -> None:
        """No more MPI."""
        self.receiver.closed = True

    def keep(self) -> None:
        """The stream didn't end well: MPI may still write its buffers."""
        self.receiver.keep()
