"""A thread waits for a request of MPI, with pauses, and can be woken.

::

    our thread  --until(request)-->  machine code: MPI_Test, pause, MPI_Test, ...   (machine/wait.h; the GIL is free)
    any thread  --ring-->            ends the wait

Rules of the file: one thread waits; MPI is called by no other here. Where MPI_Test can't be found, the thread pauses in
Python and its caller tests.
"""

from __future__ import annotations

import ctypes
import time
from _thread import allocate_lock

from mpi4py import MPI

from collfs.interpose.machine.code import Code, latest
from collfs.interpose.machine.layout import Waiting
from collfs.stream.buffers import keep_for_ever

NANO = 1_000_000_000
SHARE = 1 / 8  # of the silence so far: a pause; the machine code has it, too


def _address_of_test() -> int:
    """The address of MPI_Test in the library that mpi4py uses; 0: not found."""
    try:
        library = ctypes.CDLL(MPI.__file__)  # loaded already: dlsym looks into what it needs as well
        return ctypes.cast(library.MPI_Test, ctypes.c_void_p).value or 0
    except (OSError, AttributeError):
        return 0


class Waiter:
    """One thread's waits."""

    def __init__(self) -> None:
        self._test = _address_of_test() if latest else 0
        self._code: Code | None = latest[0] if self._test else None
        self._waiting = Waiting(test=self._test)
        keep_for_ever([self._waiting])  # the machine code may be reading it when the interpreter ends
        self._bell = allocate_lock()
        self._bell.acquire()

    def until(self, request: MPI.Request, since: float, least: float, most: float, limit: float) -> None:
        """Wait until *request* may be complete, somebody has rung, or *limit* is over.

        :param request: of this process; it is tested, and is MPI_REQUEST_NULL when it is complete
        :param since: time.monotonic() when the silence began
        :param least: and *most*: seconds of a pause, which is an eighth of the silence in between
        :param limit: seconds
        """
        if self._code is None:
            pause = min(max(least, (time.monotonic() - since) * SHARE), most, limit)
            self._bell.acquire(timeout=pause)
            return
        waiting = self._waiting
        waiting.request = MPI._addressof(request)
        waiting.since, waiting.limit = int(since * NANO), int(limit * NANO)
        waiting.least, waiting.most = int(least * NANO), int(most * NANO)
        self._code.wait_for(waiting)  # an error of MPI comes again with the next test
        waiting.heard = waiting.bell

    def ring(self) -> None:
        """End the wait that goes on, or the next one. For any thread."""
        if self._code is not None:
            self._code.ring(self._waiting)
        elif self._bell.locked():
            try:
                self._bell.release()
            except RuntimeError:
                pass  # another thread was faster
