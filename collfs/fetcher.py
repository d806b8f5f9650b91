"""From wants to entries of the path table: who fetches, who waits, and for how long.

::

    trigger --wants--> known already? --no--> write lock of the node --> transport.fetch --> stager --> path table
                            |                       |
                            yes: done               busy: wait until the table knows it, at most `patience`

One process of a node fetches at a time (the write lock of its store), so every file is read once: who gets the lock
next finds it in the table. Whatever goes wrong leaves the path native.

Rules of the file: never raises but KeyboardInterrupt and its kin; never called in a hooked call, only from triggers and
the session; a thread that is fetching doesn't trigger itself.
"""

from __future__ import annotations

import os
from _thread import LockType, allocate_lock, get_ident

from . import _libc
from .interpose.machine.layout import F_COMPLETE, K_ABSENT, K_DIR, K_FILE, K_REG, K_UNKNOWN
from .record import CONTENT, LIST, META, NAMES, Want
from .store.node import wait_for_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .messages import Messages
    from .record import Record
    from .store.node import NodeStore
    from .store.stager import Stager
    from .transport import Transport


class Fetcher:
    """Turns wants into staged files. Counters: ``wants``, ``fetched``, ``failed``, ``timeouts``."""

    def __init__(
        self,
        transport: Transport,
        store: NodeStore,
        stager: Stager,
        *,
        prefixes: Sequence[str],
        exclude: Callable[[str], bool] | None,
        patience: float,
        messages: Messages,
    ) -> None:
        """
        :param exclude: says of a path whether it must stay native
        :param patience: seconds to wait for another process of the node, or for the transport
        """
        self.transport, self.store, self.stager, self.messages = transport, store, stager, messages
        self.table = store.table
        self.prefixes = tuple(p + "/" for p in prefixes)
        self.exclude, self.patience = exclude, patience
        self.pid = os.getpid()
        self.dead = False
        self.wants = self.fetched = self.failed = self.timeouts = 0
        self.log: list[Want] = []  # what this process wanted, in order, for the manifest
        self._lock: LockType = allocate_lock()
        self._busy: set[int] = set()
        self._refused: set[str] = set()

    # -- what is missing -----------------------------------------------------------------------------------------

    def managed(self, path: str) -> bool:
        """Whether *path* lies under a prefix and isn't excluded."""
        if not path.startswith(self.prefixes) and path + "/" not in self.prefixes:
            return False
        return self.exclude is None or not self.exclude(path)

    def missing(self, want: Want) -> bool:
        """Whether the table lacks what *want* asks for, and asking may help."""
        word = self.table.probe(want.path)
        kind = word & 0xFF
        if kind == K_UNKNOWN:
            return True
        if want.aspect == CONTENT:
            return kind == K_REG and want.path not in self._refused
        if want.aspect in (LIST, NAMES):
            return kind == K_DIR and not word & F_COMPLETE
        if kind in (K_REG, K_DIR):
            entry = self.table.entry(want.path)
            return entry is not None and not entry.st
        return False

    def known_names(self, directory: str) -> list[str] | None:
        """The names in a completely listed directory; None: not known."""
        word = self.table.probe(directory)
        if word & 0xFF != K_DIR or not word & F_COMPLETE or not word >> 32:
            return None
        try:
            return os.listdir(self.table.copy_of(word))
        except OSError:
            return None

    def kind(self, path: str) -> int:
        """The kind of *path* in the table, one of ``K_...``."""
        return self.table.probe(path) & 0xFF

    def file_exists(self, path: str) -> bool:
        """Whether the table knows a regular file there."""
        return self.kind(path) in (K_FILE, K_REG)

    # -- fetching ------------------------------------------------------------------------------------------------

    def want(self, wants: Iterable[Want]) -> None:
        """Have *wants* staged, as far as that is possible now."""
        if self.dead or os.getpid() != self.pid:
            return
        me = get_ident()
        if me in self._busy:
            return
        todo = [w for w in wants if self.managed(w.path) and self.missing(w)]
        if not todo:
            return
        self.wants += len(todo)
        self.log += todo
        self._busy.add(me)
        try:
            if not self._lock.acquire(timeout=self.patience):
                self._too_long(todo)
                return
            try:
                self._fetch(todo)
            finally:
                self._lock.release()
        finally:
            self._busy.discard(me)

    def _fetch(self, todo: list[Want]) -> None:
        fd = self.store.write
        try:
            locked = wait_for_lock(
                fd, _libc.LOCK_EX, self.patience, lambda: not any(self.missing(want) for want in todo)
            )
        except OSError as exc:
            self._die(f"the store's lock failed: {exc}")
            return
        if not locked:
            todo = [w for w in todo if self.missing(w)]
            if todo:
                self._too_long(todo)
            return
        try:
            todo = [w for w in todo if self.missing(w)]
            if todo:
                self._run(todo)
        finally:
            _libc.flock(fd, _libc.LOCK_UN)

    def _run(self, todo: list[Want]) -> None:
        """The transport's turn; the write lock is held."""
        epoch = int(self.table.header.epoch)
        staged: list[Record] = []
        try:
            for record in self.transport.fetch(todo):
                if not self.managed(record.path):
                    continue
                done = self.stager.stage(record, epoch)
                self.fetched += done
                self.failed += not done
                if done:
                    staged.append(record)
                if record.content is None and record.node_path is None and record.names is None:
                    self._refused.add(record.path)  # no content to be had: don't ask at every open
            self.transport.publish(staged)
        except Exception as exc:
            self._die(f"transport {self.transport.name!r} failed: {type(exc).__name__}: {exc}")
        if self.stager.trouble:
            self.messages.warn("stage", f"some files stay on the original file system: {self.stager.trouble}")

    def _too_long(self, todo: list[Want]) -> None:
        """Waited in vain: these go native, and nobody waits again."""
        self.timeouts += 1
        self._die(f"waited {self.patience:g} s for {todo[0].path}; from now on what isn't staged is read natively")

    def _die(self, why: str) -> None:
        self.dead = True
        self.messages.warn("dead", why)

    # -- the way back from a table to a manifest -----------------------------------------------------------------

    def used(self) -> list[tuple[str, str]]:
        """(path, aspect) of everything that the node's processes asked for, and of the misses.

        Contents come in the order in which they were staged.
        """
        out: list[tuple[str, str]] = []
        contents: list[tuple[int, str]] = []
        for path, entry in self.table:
            kind = entry.word & 0xFF
            if not entry.used or not self.managed(path):
                continue
            if kind == K_FILE:
                contents.append((entry.word >> 32, path))
            elif kind == K_DIR:
                out.append((path, NAMES if entry.word & F_COMPLETE and entry.used & 16 else META))
                if entry.word & F_COMPLETE and not entry.used & 16:
                    out.append((path, NAMES))
            elif kind in (K_REG, K_ABSENT):
                out.append((path, META))
        out += [(path, CONTENT) for _, path in sorted(contents)]
        aspects = {"open": CONTENT, "opendir": NAMES}
        out += [(path, aspects.get(op, META)) for path, op in self.table.misses() if self.managed(path)]
        return out
