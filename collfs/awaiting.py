"""Waiting for what others stage: the processes of a node whose transport says ``follows``.

`patience` limits silence: a wait goes on as long as the table grows meanwhile, though not for ever. A silence that ends
in vain makes the next one an eighth as long, because ranks that have parted ways stay apart; what arrives in time
doubles it again.

Rules of the file: waits politely, by sleeping or as the transport can; holds no lock while it waits.
"""

from __future__ import annotations

import _imp
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .record import Want
    from .store.table import Table
    from .transport import Transport

LONGEST = 10  # times `patience`: one wait, however much the table grows meanwhile
LEAST = 2.0**-14  # of `patience`: a silence after many that were in vain
PAUSE, LONG_PAUSE = 0.0001, 0.01


class Awaiting:
    """The patience of one process."""

    def __init__(self, transport: Transport, table: Table, patience: float, missing: Callable[[Want], bool]) -> None:
        """
        :param missing: whether a want isn't fulfilled yet
        """
        self.transport, self.table, self.patience, self.missing = transport, table, patience, missing
        self.quiet = patience  # how long a silence may last now

    def _open(self, want: Want) -> bool:
        """Whether others may still fulfil *want*: what the job has changed itself on this node is native."""
        return self.missing(want) and not self.table.written(want.path)

    def wait(self, wants: Sequence[Want]) -> list[Want]:
        """Wait for all of *wants*; what was in vain: silence, though nothing says that the end has come."""
        header = self.table.header
        left = list(reversed(wants))

        def fulfilled() -> bool:  # up to the first that isn't: a look at all of a bulk start costs milliseconds
            while left and not self._open(left[-1]):
                left.pop()
            return not left

        begun = since = time.monotonic()
        before, asked = -1, False
        last = begun + LONGEST * self.patience
        while True:
            if fulfilled():
                self.quiet = min(self.patience, self.quiet * 2)
                return []
            if not asked:
                asked = True
                self.transport.ask([want for want in reversed(left) if self._open(want)])
            # then once more: what came before the end has come
            if not self.transport.step() and not fulfilled():
                return []
            now, grown = time.monotonic(), header.entries + header.staged_files + header.sequence
            if grown != before and now < last:
                before, since = grown, now
            elif now - since > self.quiet:
                self.quiet = max(self.quiet / 8, self.patience * LEAST)
                return [want for want in reversed(left) if self._open(want)]
            # an eighth of the wait so far: many ranks that wait long must not keep those that work from it
            self.transport.pause(min(max(PAUSE, (now - begun) / 8), LONG_PAUSE))


def while_it_grows(table: Table, wait: Callable[[], bool]) -> bool:
    """Repeat *wait*, which takes ``patience`` seconds when it fails, until it succeeds or the table rests."""
    header = table.header
    while True:
        before = (header.entries, header.staged_bytes, header.sequence)
        if wait():
            return True
        if (header.entries, header.staged_bytes, header.sequence) == before:
            return False


def give_import_lock() -> int:
    """Release the global import lock if this thread has it; how often it had it.

    importlib holds it while it calls a finder (_bootstrap._find_spec), and a thread that imports something for the
    transport, ours or its own, would wait for us while we wait for it.
    """
    times = 0
    try:
        while True:
            _imp.release_lock()
            times += 1
    except RuntimeError:
        return times
