"""The root's side: what it stages is told to all leaders, and nobody is waited for.

With a thread, the one that wants something starts the first megabyte itself and leaves the rest to the thread, which
keeps a window of bytes under way. Without (below MPI_THREAD_MULTIPLE) all is started at once, since nobody comes back
for it.

Rules of the file: one thread at a time with the sender; no wait without a limit; what MPI raises ends the stream only.
"""

from __future__ import annotations

import time
from _thread import allocate_lock, get_ident

from collfs.stream import CHUNK, CLOSE, MARK
from collfs.stream.outgoing import held, messages, parcels, vain

from .groups import SHORT, wait_while_moving
from .stream import WINDOW, Sender

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mpi4py import MPI

    from collfs.record import Record, Want
    from collfs.stream import Message

CROWDED = 64 << 20  # bytes of content that wait in memory; beyond, the copies in the store are sent
AT_ONCE = 1 << 20  # bytes that the wanting thread sends itself, if there is a thread for the rest
SHARE, LONGEST = 1 / 8, 4e-3  # a pause: this part of the time in which nothing has moved, at most so many seconds
IDLE = 0.5  # seconds between two looks of the thread when nothing is left to do: who brings something wakes it


class Publisher:
    """The root's end of the stream."""

    def __init__(self, leaders: MPI.Comm, threaded: bool) -> None:
        """
        :param threaded: whether a thread calls :meth:`run`
        """
        self.sender = Sender(leaders, WINDOW if threaded else None)
        self.alone = leaders.Get_size() == 1
        self.threaded, self.main = threaded, get_ident()
        self._waiting = 0  # bytes of content in memory that aren't packed yet
        self._lock = allocate_lock()
        self._wake = allocate_lock()
        self._stop = self._closed = False
        self._later: list[Iterator[Message]] = []  # of threads that may not call MPI

    @property
    def orderly(self) -> bool:
        """Whether all that was started has been completed."""
        return not self.sender.broken and self._progress()

    def publish(self, records: Iterable[Record], copy_of: Callable[[str], str]) -> None:
        """Start sending *records*, or queue them.

        :param copy_of: the name of a path's copy in the store
        """
        found = parcels(records, copy_of, self._waiting > CROWDED)
        size = held(found)
        self._waiting += size

        def counted() -> Iterator[Message]:
            try:
                yield from messages(found)
            finally:
                self._waiting -= size

        self._send(counted())

    def give_up(self, wants: Sequence[Want]) -> None:
        """Say that nothing will come for *wants*."""
        self._send(vain(wants))

    def mark(self) -> None:
        """Say that what has been listed so far isn't believed any more."""
        self._send(iter([(MARK, b"")]))

    def _send(self, new: Iterator[Message]) -> None:
        self._later.append(new)
        if not self.threaded and get_ident() != self.main:
            return  # with the next of the main thread, or at the end
        if not self._progress(AT_ONCE if self.threaded else None):
            self.wake_up()

    def _progress(self, most: int | None = None) -> bool:
        while not self._lock.acquire(timeout=0.1):  # an unlimited acquire may miss a signal for good (bpo-30808)
            pass
        try:
            while self._later:
                self.sender.submit(self._later.pop(0))
            return self.sender.progress(most)
        finally:
            self._lock.release()

    # -- the thread ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """What is under way goes on while the program computes."""
        last, moved = 0.0, -1
        while not self._stop:
            if self._progress(CHUNK):
                self._wake.acquire(timeout=IDLE)
                continue
            now = time.monotonic()
            if self.sender.moved != moved:
                last, moved = now, self.sender.moved
            time.sleep(min(max(SHORT, (now - last) * SHARE), LONGEST))  # MPI moves much only while it is asked

    def wake_up(self) -> None:
        """Have the thread look now."""
        try:
            self._wake.release()
        except RuntimeError:
            pass  # it is awake

    def stop(self) -> None:
        """End the thread."""
        self._stop = True
        self.wake_up()

    # -- the end -------------------------------------------------------------------------------------------------

    def say_goodbye(self) -> None:
        """Say that nothing follows."""
        if not self._closed:
            self._closed = True
            self._send(iter([(CLOSE, b"")]))

    def finish(self, patience: float) -> None:
        """See all off, as long as somebody takes something within *patience*."""
        if self.alone:
            return
        self.say_goodbye()
        wait_while_moving(self._progress, lambda: self.sender.moved, patience)

    def fail(self) -> None:
        """No more MPI."""
        self.sender.broken = True

    def keep(self) -> None:
        """The stream didn't end well: MPI may still read its buffers."""
        self.sender.keep()
