"""From wants to entries of the path table: who fetches, who waits, and for how long.

::

    trigger --wants--> known already? --no--> write lock of the node --> transport.fetch --> stager --> path table
                            |                       |
                            yes: done               busy: wait until the table knows it, at most `patience`

One process of a node fetches at a time (the write lock of its store), so every file is read once: who gets the lock
next finds it in the table. Whatever goes wrong leaves the path native; what was asked for in vain isn't asked for
again.

`patience` limits silence: a wait goes on as long as the table grows meanwhile. Where others fill it: awaiting.py.

Rules of the file: never raises but KeyboardInterrupt and its kin; never called in a hooked call, only from triggers and
the session; a thread that is fetching doesn't trigger itself.
"""

from __future__ import annotations

import _imp
import os
import sys
from _thread import TIMEOUT_MAX, LockType, allocate_lock, get_ident
from errno import EAGAIN, EDQUOT, EHOSTDOWN, EIO, ENOENT, ENOSPC, ENOTDIR, EREMOTEIO, ESTALE, ETIMEDOUT

from . import _libc
from .awaiting import Awaiting, give_import_lock, while_it_grows
from .interpose.machine.layout import F_COMPLETE, F_STAT, K_ABSENT, K_DIR, K_FILE, K_NATIVE, K_REG, K_UNKNOWN, K_WRITTEN
from .record import CONTENT, LIST, META, NAMES, Record, Want
from .store.node import wait_for_lock
from .transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .messages import Messages
    from .store.node import NodeStore
    from .store.stager import Stager
    from .transport.guard import Guard

SILENCES = 1000  # paths in the report
PIECE = 4 << 20  # bytes of content, in memory or placed, for one call of Transport.publish
ILL = (EIO, ESTALE, ETIMEDOUT, EHOSTDOWN, EREMOTEIO, ENOSPC, EDQUOT)  # said of a file system, not of a file


class Fetcher:
    """Turns wants into staged files.

    Counters: ``wants``, of which ``unanswered`` (known afterwards as little as before); of records ``fetched``
    (staged), ``failed`` (the original's error, or the store's) and ``refused`` (unfit); ``timeouts``.
    """

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
        self.store, self.stager, self.messages = store, stager, messages
        self.table = store.table
        self.prefixes = tuple(p + "/" for p in prefixes)
        self.exclude, self.patience = exclude, min(patience, TIMEOUT_MAX)
        self.pid = os.getpid()
        self.dead = ""  # why the transport isn't asked any more
        self.wants = self.unanswered = self.fetched = self.failed = self.refused = self.timeouts = 0
        self.log: list[Want] = []  # what this process wanted, in order, for the manifest
        self._lock: LockType = allocate_lock()
        self._busy: set[int] = set()
        self._vain: set[Want] = set()
        self._awaiting: Awaiting | None = None
        # Told which modules were loaded while triggers rested: followers will want what this process then has already.
        self.on_loaded: Callable[[list[str]], None] | None = None
        self.silences: list[str] = []  # what was awaited in vain
        self._flaw: Callable[[object], str] = _rough_flaw
        self.transport = transport
        self._transport: Transport | Guard = transport
        self._publishes = type(transport).publish is not Transport.publish
        # A root whose store other sessions use as well: what it finds there, its followers needn't have been told.
        self._told: set[str] | None = None
        if transport.is_root and transport.collective and (transport.shares_store or not store.created):
            self._told = set()
        self._retold: set[str] | None = set() if transport.is_root and transport.collective else None
        if transport.follows:
            self._awaiting = Awaiting(transport, self.table, self.patience, self.missing)
        if not transport.bounded:
            from .transport.guard import Guard, flaw

            self._transport, self._flaw = Guard(transport, self.patience, self._busy), flaw

    # -- what is missing -----------------------------------------------------------------------------------------

    def managed(self, path: str) -> bool:
        """Whether *path* lies under a prefix and isn't excluded."""
        if not path.startswith(self.prefixes) and path + "/" not in self.prefixes:
            return False
        return self.exclude is None or not self.exclude(path)

    @property
    def table_suffices(self) -> bool:
        """Whether nothing need be wanted that the table knows; not so where others must be told of it."""
        return self._told is None

    def settled(self, path: str, aspect: str) -> bool:
        """Whether wanting *aspect* of the managed *path* would do nothing: a short way, for most are on the node."""
        return self._told is None and not self._lacks(path, aspect)

    def missing(self, want: Want) -> bool:
        """Whether the table lacks what *want* asks for, and asking may help."""
        if want in self._vain:
            return False
        return self.lacks(want) or (self._told is not None and self._untold(want))

    def _untold(self, want: Want) -> bool:
        """Whether the followers may lack what the table of the root knows. Metadata and absences come with listings."""
        if want.aspect == META or self.kind(want.path) in (K_ABSENT, K_NATIVE):
            return False
        return self._told is not None and _key(want) not in self._told

    def lacks(self, want: Want) -> bool:
        """Whether the table can't answer *want* yet."""
        return self._lacks(want.path, want.aspect)

    def _lacks(self, path: str, aspect: str) -> bool:
        word = self.table.probe(path)
        kind = word & 0xFF
        if kind == K_UNKNOWN:
            return True
        if aspect == CONTENT:
            return kind == K_REG
        if aspect in (LIST, NAMES):
            return kind == K_DIR and not word & F_COMPLETE
        return kind in (K_REG, K_DIR) and not word & F_STAT

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

    # -- fetching ------------------------------------------------------------------------------------------------

    def resting(self) -> bool:
        """Whether a want of this thread would be ignored, because it is part of a fetch."""
        return get_ident() in self._busy

    def rest(self, on: bool) -> None:
        """Have all wants of this thread ignored, or no longer: a thread that fills the table must not wait for it."""
        (self._busy.add if on else self._busy.discard)(get_ident())

    def want(self, wants: Iterable[Want]) -> None:
        """Have *wants* staged, as far as that is possible now."""
        if self.dead or os.getpid() != self.pid:
            return
        me = get_ident()
        if me in self._busy:
            return
        wants = [want for want in wants if self.managed(want.path)]
        if self._retold is not None:
            self._retell([w for w in wants if w.aspect in (LIST, NAMES) and self.kind(w.path) == K_WRITTEN])
        todo = [want for want in wants if self.missing(want)]
        if not todo:
            return
        self.wants += len(todo)
        self.log += todo
        self._busy.add(me)
        times, loaded = give_import_lock(), len(sys.modules)
        try:
            if self._awaiting is not None:
                self._await(todo)
                return
            if not while_it_grows(self.table, lambda: self._lock.acquire(timeout=self.patience)):
                self._too_long(todo)
                return
            try:
                if not self.dead:
                    self._fetch(todo)
            finally:
                self._lock.release()
        finally:
            for _ in range(times):
                _imp.acquire_lock()
            self._busy.discard(me)
        if self.on_loaded is not None and len(sys.modules) > loaded:
            self.on_loaded(list(sys.modules)[loaded:])

    def _retell(self, changed: list[Want]) -> None:
        """Directories that this process has changed and lists natively: others may want them as they are now."""
        assert self._retold is not None
        changed = [want for want in changed if want.path not in self._retold]
        if changed:
            self._retold.update([want.path for want in changed])
            self.transport.give_up(changed)

    def _await(self, todo: list[Want]) -> None:
        """Others fill the table."""
        assert self._awaiting is not None
        silent = self._awaiting.wait(todo)
        vain = [w for w in todo if self.missing(w)]
        self._vain.update(vain)
        self.unanswered += len(vain)
        if silent:  # else the stream has ended, and nobody has parted ways
            self.timeouts += 1
            self.silences += [w.path for w in silent][: max(0, SILENCES - len(self.silences))]
            self.messages.warn("silent", f"nobody sent {silent[0].path} in time: it is read natively (divergence)")
        elif vain and (why := getattr(self.transport, "failure", "")):
            self.messages.warn("lost", f"transport {self.transport.name!r}: {why}. What isn't staged is read natively")

    def deliver(self, records: Iterable[Record]) -> int:
        """Stage records that came by themselves, in whichever thread; the number of the table's last listing."""
        me, rested = get_ident(), self.resting()
        self._busy.add(me)
        try:
            while not self._lock.acquire(timeout=1.0):
                pass
            try:
                if not wait_for_lock(self.store.write, _libc.LOCK_EX, self.patience):
                    return 0
                try:
                    epoch = int(self.table.header.epoch)
                    for record in records:
                        self._take_over(record, epoch)
                    return int(self.table.header.sequence)
                finally:
                    _libc.flock(self.store.write, _libc.LOCK_UN)
            finally:
                self._lock.release()
        finally:
            if not rested:
                self._busy.discard(me)

    def _take_over(self, record: Record, epoch: int) -> None:
        """One record that came by itself. What can't be staged is marked native, or the node would wait for it."""
        error = record.errno not in (0, ENOENT, ENOTDIR)
        if error and self.kind(record.path) != K_DIR and not self.lacks(Want(record.path, CONTENT)):
            return  # this node has it; but a directory that the sender can't list has changed there
        staged = self._take(record, epoch)
        whole = record.content is not None or record.node_path is not None
        if not error and (not staged or (whole and self.kind(record.path) != K_FILE)):
            self._settle(record.path)

    def _settle(self, path: str) -> None:
        """Nothing will come for *path*: native, whatever has changed meanwhile."""
        self.stager.stage(Record(path, errno=EAGAIN), int(self.table.header.epoch))

    def exclusive(self, seconds: float) -> bool:
        """Keep other threads from writing into the table, until :meth:`release`."""
        return self._lock.acquire(timeout=min(seconds, TIMEOUT_MAX))

    def release(self) -> None:
        """See :meth:`exclusive`."""
        self._lock.release()

    def copy_of(self, path: str) -> str:
        """The name of the copy of *path*, or an empty string."""
        word = self.table.probe(path)
        return self.table.copy_of(word) if word & 0xFF == K_FILE else ""

    def _fetch(self, todo: list[Want]) -> None:
        known = False

        def all_known() -> bool:
            nonlocal known
            known = not any(self.missing(want) for want in todo)
            return known

        try:
            fd = self.store.write
            locked = while_it_grows(
                self.table, lambda: wait_for_lock(fd, _libc.LOCK_EX, self.patience, all_known) or known
            )
        except OSError as exc:
            self._die(f"the store's lock failed: {exc}")
            return
        if known:
            return
        todo = [w for w in todo if self.missing(w)]
        if not locked:
            if todo:
                self._too_long(todo)
            return
        try:
            if todo:
                self._run(todo)
        finally:
            _libc.flock(fd, _libc.LOCK_UN)

    def _run(self, todo: list[Want]) -> None:
        """The transport's turn; the write lock is held."""
        epoch, transport = int(self.table.header.epoch), self._transport
        staged: list[Record] = []
        held = 0
        try:
            for record in transport.fetch(todo):
                if self._take(record, epoch) and self._publishes and isinstance(record, Record):
                    staged.append(record)
                    held += 0 if record.st is None else record.st.st_size
                    if held > PIECE:
                        transport.publish(staged)
                        staged, held = [], 0
            if staged:
                transport.publish(staged)
        except Exception as exc:
            self.timeouts += getattr(transport, "hung", False)
            self._die(
                f"transport {transport.name!r} failed: {type(exc).__name__}: {exc}. From now on what isn't staged is"
                " read natively"
            )
        vain = [w for w in todo if self.lacks(w)]
        self._vain.update(vain)
        self.unanswered += len(vain)
        if self._told is not None:
            self._told.update([_key(want) for want in todo if want.aspect != META])
        if vain and self.transport.collective:  # others await these, too
            for want in vain:
                self._settle(want.path)
            self.transport.give_up(vain)
        if self.stager.trouble:
            self.messages.warn("stage", f"some files stay on the original file system: {self.stager.trouble}")

    def _take(self, record: object, epoch: int) -> bool:
        """Stage one record if it is fit; whether the table has it now, be it as an error."""
        why = self._flaw(record)
        if why:
            self.refused += 1
            self.messages.warn("refused", f"transport {self._transport.name!r} gave what can't be right: {why}")
            return False
        assert isinstance(record, Record)
        if not self.managed(record.path):
            self.refused += 1
            return False
        done = self.stager.stage(record, epoch)
        if done and (not record.errno or record.errno in (ENOENT, ENOTDIR)):
            self.fetched += 1
            return True
        self.failed += 1
        if record.errno in ILL:
            self.messages.warn(
                "ill", f"{record.path}: {os.strerror(record.errno)}. What can't be read in advance is read natively"
            )
        return done

    def _too_long(self, todo: list[Want]) -> None:
        """Waited in vain: these go native, and nobody waits again."""
        self.timeouts += 1
        self.unanswered += len(todo)
        self._die(f"waited {self.patience:g} s for {todo[0].path}; from now on what isn't staged is read natively")

    def _die(self, why: str) -> None:
        self.dead = why
        self.messages.warn("dead", why)

    def forgive(self, path: str = "") -> None:
        """What was asked for in vain may be asked for again: somebody says that files have changed, such as *path*."""
        self._vain.clear()
        if self._retold:
            self._retold.clear()
        if self._told:
            self._told = {key for key in self._told if key.rstrip("/") != path and not key.startswith(path + "/")}

    def close(self) -> None:
        """Close the transport, within ``patience`` if it is a stranger's, and not at all if it hangs already.

        :raises Exception: what it raised
        """
        self._transport.close()


def _key(want: Want) -> str:
    return want.path if want.aspect == CONTENT else want.path + "/"


def _rough_flaw(record: object) -> str:
    """What is wrong with a record of a transport that promises sound ones (``bounded``)."""
    if not isinstance(record, Record):
        return f"a {type(record).__name__} instead of a Record"
    if record.content is not None and (record.st is None or len(record.content) != record.st.st_size):
        return f"{record.path!r}: {len(record.content)} bytes of content, which stat doesn't say"
    return ""
