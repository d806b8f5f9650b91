"""A leader's side: what arrives is staged in its node's store.

Rules of the file: one thread takes from the stream: ours, or below MPI_THREAD_MULTIPLE the main one; no wait without a
limit; what MPI raises, or a message that can't be one, ends the stream only.
"""

from __future__ import annotations

import time
from _thread import allocate_lock

from mpi4py import MPI

from collfs.errors import RecordError
from collfs.stream import MARK
from collfs.stream.devices import mended
from collfs.stream.intake import Intake

from .groups import LONG, SHORT, wait_while_moving
from .stream import Receiver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from collfs.record import Record

# Seconds between two looks of the thread at a silent stream: a twentieth of the silence, from .. to. On a crowded node
# a look costs 0.3 ms, most of it the two changes of the GIL's owner (measured, 16 ranks on 2 cores).
IDLE, REST, RESTED = 0.02, 0.1, 1 / 20
# So long after a message no pause is made: if a payload is on its way, or it isn't. What a leader passes on to others
# moves only while it asks, too: with pauses at each of 16 nodes, 128 MiB took 14 s instead of 3 (measured over TCP).
BRISK, BRIEF = 0.05, 2e-4
FLOWING = 3e-4  # the longest pause in the second after a message or a want
HURRY = 1.0  # so long after a message, or a wait in this process, it looks more often


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
        self._wake = allocate_lock()
        self._wake.acquire()
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
        pause, last = SHORT, time.monotonic()
        while not self._stop and not self.receiver.closed:
            if self._take():
                pause, last = SHORT, time.monotonic()
                continue
            now = time.monotonic()
            if now - last < (BRISK if self.receiver.expecting else BRIEF):
                time.sleep(0)  # much of what MPI moves, it moves while it is asked
                continue
            self._wake.acquire(timeout=pause)
            silence = now - max(last, self._hurry)
            longest = LONG if self.receiver.expecting else min(max(IDLE, silence * RESTED), REST)
            pause = min(pause * 1.3, FLOWING if silence < HURRY else longest)

    def hurry(self) -> None:
        """Somebody waits for what is to come."""
        now = time.monotonic()
        resting, self._hurry = now - self._hurry > HURRY, now
        if resting and self._wake.locked():
            try:
                self._wake.release()
            except RuntimeError:
                pass  # another thread was faster

    def pump(self) -> bool:
        """One message, unless a thread takes them; whether there was one."""
        return not self.threaded and self._take()

    def _take(self) -> bool:
        receiver, intake = self.receiver, self.intake
        if intake is None or receiver.closed:
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
        """Take what comes until the stream is closed; give up when it has been silent for *patience*."""
        receiver = self.receiver

        def closed() -> bool:
            self.pump()
            return receiver.closed

        wait_while_moving(closed, lambda: (receiver.sequence, receiver.bytes), patience)

    def stop(self) -> None:
        """End the thread."""
        self._stop = True
        self._hurry = 0.0
        self.hurry()

    def fail(self) -> None:
        """No more MPI."""
        self.receiver.closed = True
