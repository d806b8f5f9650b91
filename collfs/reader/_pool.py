"""Reading ahead: a few threads answer many wants, the caller takes the records as they come.

One file after the other leaves a parallel file system idle for most of each round trip. The threads are bare ones of
``_thread``: threading and concurrent.futures would be imported for this alone.

::

    caller   <-- done: answers, then one None per thread --  threads: take a want, reserve, read
             --  freed: bytes that were taken           -->

Rules of the file: the caller holds no lock, ever (Ctrl-C may strike it anywhere); it only uses queues, whose operations
are whole or not begun. Nobody is joined: a thread that hangs in the file system can't hold up the caller. A thread that
waits for room holds ``turn``, and what others need to make room needs no ``turn``.
"""

from __future__ import annotations

from _queue import Empty, SimpleQueue
from _thread import allocate_lock, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Union

    from collfs.record import Record, Want

    Done = Union[tuple[Record, int], BaseException, None]

BUDGET = 64 << 20  #: bytes of content in flight; a single larger file may go alone
# Seconds. A signal that comes while the interpreter hands its lock around is noticed only after the next call
# (Python/ceval_gil.c looks for signals first and drops the lock then), and that call would be a wait without end.
PATIENCE = 0.1


class Stopped(Exception):
    """The caller has gone; the thread that gets this ends."""


class Hold:
    """What one answer in the making has reserved of the budget."""

    __slots__ = ("_pool", "size")

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.size = 0

    def reserve(self, size: int) -> None:
        """Wait until *size* bytes fit into the budget.

        What was reserved before is given up first: nobody may hold one share while waiting for another, or all could.

        :raises Stopped: if the caller has gone
        """
        self.release()
        self._pool._reserve(size)
        self.size = size

    def release(self) -> None:
        """Give up what is reserved."""
        if self.size:
            self._pool._freed.put((0, self.size))
            self.size = 0

    def check(self) -> None:
        """:raises Stopped: if the caller has gone"""
        if self._pool._stopped:
            raise Stopped


class Pool:
    """Answers of *answer* to all *wants* by at most *workers* threads. Use :meth:`records` once."""

    __slots__ = ("_answer", "_done", "_files", "_freed", "_held", "_next", "_stopped", "_turn", "_wants", "_workers")

    def __init__(self, answer: Callable[[Want, Hold | None], Record], wants: Sequence[Want], workers: int) -> None:
        self._answer = answer
        self._wants = wants
        self._workers = min(workers, len(wants))
        self._done: SimpleQueue[Done] = SimpleQueue()
        self._freed: SimpleQueue[tuple[int, int]] = SimpleQueue()  # answers and bytes
        self._stopped = False
        self._turn = allocate_lock()  # of the threads; guards what follows
        self._next = 0  # index of the first want that nobody has taken
        self._files = 0  # answers in the making or not yet taken
        self._held = 0  # their bytes

    def records(self) -> Iterator[Record]:
        """One record per want, in the order in which they get ready.

        :raises BaseException: what *answer* raised; the rest of the answers is dropped
        """
        try:
            running = self._start()
            if not running:
                for want in self._wants:
                    yield self._answer(want, None)
            while running:
                try:
                    done = self._done.get(timeout=PATIENCE)
                except Empty:
                    continue
                if done is None:
                    running -= 1
                elif isinstance(done, BaseException):
                    raise done
                else:
                    record, size = done
                    del done
                    yield record
                    del record
                    self._freed.put((1, size))
        finally:
            self._stopped = True
            self._freed.put((0, 0))  # wakes whoever waits for room; each finds out for itself

    def _start(self) -> int:
        """Start the threads; how many could be (limits of the system, or the interpreter is ending)."""
        for number in range(self._workers):
            try:
                start_new_thread(self._work, ())
            except RuntimeError:
                return number
        return self._workers

    def _work(self) -> None:
        try:
            while True:
                want = self._take()
                if want is None:
                    break
                hold = Hold(self)
                record = self._answer(want, hold)
                self._done.put((record, hold.size))
                del record
        except Stopped:
            pass
        except BaseException as exc:
            self._done.put(exc)
        self._done.put(None)

    def _take(self) -> Want | None:
        """The next want, as soon as there is room for its answer; None if there are no more.

        :raises Stopped: if the caller has gone
        """
        with self._turn:
            while self._files >= 2 * self._workers:
                self._settle()
            if self._stopped:
                raise Stopped
            if self._next == len(self._wants):
                return None
            self._files += 1
            self._next += 1
            return self._wants[self._next - 1]

    def _reserve(self, size: int) -> None:
        with self._turn:
            while self._held and self._held + size > BUDGET:
                self._settle()
            self._held += size

    def _settle(self) -> None:
        """Wait for something to be given back. Called with the turn held.

        :raises Stopped: if the caller has gone
        """
        if self._stopped:
            raise Stopped
        files, size = self._freed.get()
        self._files -= files
        self._held -= size
