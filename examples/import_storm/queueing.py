"""The shared file server as a queue: so many slots for metadata, one link for bytes, first come, first served.

::

    operation of any node ---> the slot that is free first, for SERVICE nanoseconds ---> answer
    read of any node      ---> the link, for as long as its bytes take              ---> answer

Time is virtual: what is kept is when each slot and the link become free, so whoever asks knows at once when its answer
is due, and sleeps until then. Nothing is polled, and a late wake-up of one never delays another.

Rules of the file: :class:`Queue` is arithmetic on whole nanoseconds, knows no clock and no process;
:class:`SharedQueue` puts it into a file that all mounts share, under a lock.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from typing import NamedTuple

SECOND = 1_000_000_000
WORD = 8  # bytes of one time in the shared file


class Load(NamedTuple):
    """What the file server can do, and what its clients believe without asking again (seconds)."""

    slots: int = 1
    service_s: float = 0.001
    bandwidth: float = 1e9  # bytes a second; 0: without limit
    attributes: float = 0.0
    entries: float = 0.0
    negatives: float = 0.0


class Queue:
    """Times at which each slot is free, followed by that of the link, in *free*."""

    def __init__(self, load: Load, free: list[int] | memoryview[int]) -> None:
        """
        :param free: ``load.slots + 1`` numbers, at first 0
        """
        self.slots, self.free = load.slots, free
        self.service = round(load.service_s * SECOND)
        self.bandwidth = load.bandwidth

    def metadata(self, now: int) -> int:
        """When an operation that comes *now* is answered."""
        slot = min(range(self.slots), key=self.free.__getitem__)
        end = self.free[slot] = max(now, self.free[slot]) + self.service
        return end

    def transfer(self, now: int, size: int) -> int:
        """When *size* bytes that are asked for *now* have come through the link."""
        if not self.bandwidth:
            return now
        end = self.free[self.slots] = max(now, self.free[self.slots]) + round(size * SECOND / self.bandwidth)
        return end


class SharedQueue:
    """One queue of several processes and their threads. Both methods return when the answer is due."""

    def __init__(self, path: str, load: Load) -> None:
        """
        :param path: a file that :func:`create` has made; each process opens it for itself, since a lock belongs to
            whoever has opened it (flock(2))
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._map = mmap.mmap(self._fd, WORD * (load.slots + 1))
        self._queue = Queue(load, memoryview(self._map).cast("q"))
        self._mutex = threading.Lock()

    def metadata(self) -> None:
        """One operation."""
        with self._mutex:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            end = self._queue.metadata(time.monotonic_ns())
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        _until(end)

    def transfer(self, size: int) -> None:
        """One read of *size* bytes."""
        with self._mutex:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            end = self._queue.transfer(time.monotonic_ns(), size)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        _until(end)


def create(path: str, load: Load) -> None:
    """Make the file of a new queue."""
    with open(path, "xb") as file:
        file.write(bytes(WORD * (load.slots + 1)))


def _until(end: int) -> None:
    left = end - time.monotonic_ns()
    if left > 0:
        time.sleep(left / SECOND)
