"""The life cycle of a session: what starts in which order, and ends in the reverse one.

::

    uninitialised --> starting --> serving --> closing --> closed --> starting ...
                          |                                  ^
                          +-------- a bad argument ----------+

A session that can't redirect anything (no prefixes, an unknown C library, no place for a store) is serving all the
same: it is *idle*, says why, and every call goes native.

Rules of the file: hooks first, so that whatever is imported afterwards already comes from the node; the order of
closing is the reverse of the order of starting; a forked child keeps its redirects and never talks to the transport.
"""

from __future__ import annotations

import os
import sys

from .errors import CollfsError, InterposeRefused, OptionError, StateError, StoreError
from .messages import Messages
from .options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .bulk import Bulk
    from .fetcher import Fetcher
    from .interpose.interposer import Interposer
    from .store.node import NodeStore
    from .store.stager import Stager
    from .transport import Transport
    from .transport.registry import Choice
    from .triggers.audit import Audit
    from .triggers.finder import Finder

UNINITIALISED, STARTING, SERVING, CLOSING, CLOSED = "uninitialised", "starting", "serving", "closing", "closed"
MOVES = {
    UNINITIALISED: (STARTING,),
    STARTING: (SERVING, CLOSED),
    SERVING: (CLOSING,),
    CLOSING: (CLOSED,),
    CLOSED: (STARTING,),
}


class Session:
    """One start of collfs in this process. Made by :func:`initialize`; all methods are for the process that made it."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.state = UNINITIALISED
        self.pid = os.getpid()
        self.messages = Messages(options.quiet)
        self.prefixes: list[str] = []
        self.prefix_reasons: dict[str, str] = {}
        self.idle = ""  # why nothing is redirected
        self.interposer: Interposer | None = None
        self.store: NodeStore | None = None
        self.choice: Choice | None = None
        self.transport: Transport | None = None
        self.stager: Stager | None = None
        self.fetcher: Fetcher | None = None
        self.bulk: Bulk | None = None
        self._finder: Finder | None = None
        self.audit: Audit | None = None
        self._wrote_bytecode = sys.dont_write_bytecode

    def _move(self, state: str) -> None:
        if state not in MOVES[self.state]:
            raise StateError(f"collfs is {self.state} and can't become {state}")
        self.state = state

    # -- starting ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """See :func:`initialize`."""
        self._move(STARTING)
        try:
            why = _unsupported()
            if why:
                self._go_idle(why)
                self._move(SERVING)
                return
            self._find_prefixes()
            if self.options.bootstrap != "none":
                from .bootstrap import prepare

                prepare()
            if not self.idle or self.options.api is not None:
                self._redirect()
            self._connect()
            if not self.idle:
                loaded = len(sys.modules)
                self.start_triggers()
                self._stage_manifest(loaded)
        except BaseException as exc:
            self._release()
            if isinstance(exc, CollfsError) or not isinstance(exc, Exception):
                self._move(CLOSED)
                raise
            self._go_idle(f"{type(exc).__name__}: {exc} (this is a mistake in collfs, please report it)")
        self._move(SERVING)

    def _find_prefixes(self) -> None:
        from .prefixes import automatic, explicit

        if self.options.prefixes is not None:
            self.prefixes = explicit(self.options.prefixes)
        else:
            self.prefixes, self.prefix_reasons = automatic(os.environ)
        if not self.prefixes:
            self.idle = "no directory to manage"
            if self.options.api is None:
                self.messages.warn(
                    "idle",
                    "nothing to do: this Python and its path lie on local file systems. To manage a directory all the"
                    " same, name it: --prefix DIR, COLLFS_PREFIXES=DIR or prefixes=[DIR]",
                )

    def _redirect(self) -> None:
        from .redirect import redirect

        try:
            self.interposer, self.store = redirect(self.options, [] if self.idle else self.prefixes, self.messages)
        except StoreError as exc:
            if self.options.store is not None:
                raise OptionError(f"store={self.options.store!r}: {exc}. Give a directory on this node") from exc
            self._go_idle(exc)
        except InterposeRefused as exc:
            self._go_idle(exc)

    def _go_idle(self, why: object) -> None:
        self.idle = str(why)
        self.messages.warn("idle", f"files are read as without collfs: {why}")

    def _connect(self) -> None:
        """Choose and open the transport; what the user asked for by name must work or be an error, idle or not."""
        from .transport.registry import choose, launched

        options, store = self.options, ""
        if self.store is not None:
            from .store.stager import Stager, default_limit

            store = self.store.path
            limit = options.max_store_bytes if options.max_store_bytes is not None else default_limit(store)
            if options.max_file_bytes is None:
                options.max_file_bytes = limit // 4 if limit else None
            self.stager = Stager(self.store, limit)
        elif options.transport == "auto" and not launched(os.environ):
            return
        if options.bootstrap != "none" and (options.transport == "mpi" or launched(os.environ)):
            from .bootstrap import choose_mpi

            self.choice = choose_mpi(self)
        else:
            self.choice = choose(
                options.transport, options, fallback=options.fallback, prefixes=self.prefixes, store=store
            )
        self.transport = self.choice.transport
        if self.store is None:
            # a rank that redirects nothing still takes its part in what is collective, or the others would wait for it
            self.transport.listen(lambda records: 0, "", lambda path: "")

    def start_triggers(self) -> None:
        from .fetcher import Fetcher
        from .triggers.audit import Audit
        from .triggers.finder import Finder
        from .triggers.library import Libraries

        assert self.store is not None
        assert self.stager is not None
        assert self.transport is not None
        self.fetcher = Fetcher(
            self.transport,
            self.store,
            self.stager,
            prefixes=self.prefixes,
            exclude=_matcher(self.options.exclude),
            patience=self.options.patience,
            messages=self.messages,
        )
        self.transport.rest = self.fetcher.rest  # type: ignore[method-assign]
        self.transport.listen(self.fetcher.deliver, self.store.path + "/f", self.fetcher.copy_of)
        self.audit = Audit(self.fetcher, Libraries(self.fetcher, os.environ.get("LD_LIBRARY_PATH", "")))
        self.audit.install()
        self._finder = Finder(self.fetcher, self._believe_no_absence)
        sys.meta_path.insert(0, self._finder)
        if not self.store.created or self.transport.collective or self.transport.follows:
            sys.dont_write_bytecode = True  # one writer is enough, and each write makes a directory native

    def _believe_no_absence(self) -> None:
        """``importlib.invalidate_caches()``: listings made so far are no longer believed in this process."""
        if self.interposer is not None and self.store is not None and os.getpid() == self.pid:
            number = int(self.store.table.header.sequence)
            self.interposer.code.cell.floor = (
                self.transport.disbelieve(number) if self.transport is not None else number
            )

    def _announce(self, names: list[str]) -> None:
        """Want the modules *names*, which this process has loaded for itself: the program that imports them next finds
        them in memory here, but on the other ranks it doesn't.
        """
        assert self._finder is not None
        assert self.audit is not None
        for name in names:
            module, parent = sys.modules.get(name), sys.modules.get(name.rpartition(".")[0])
            file = getattr(getattr(module, "__spec__", None), "origin", None)
            if isinstance(file, str) and file.startswith("/"):
                self._finder.find_spec(name, getattr(parent, "__path__", None))
                self.audit.load(file)

    def _stage_manifest(self, loaded: int) -> None:
        """One bulk transfer of what earlier runs of this program wanted.

        :param loaded: how many modules there were before the triggers: the same on all ranks of a program
        """
        assert self.fetcher is not None
        assert self.store is not None
        if self.transport is not None and self.transport.is_root and self.transport.collective:
            from .triggers.interpreter import interpreter_wants

            self.fetcher.want(interpreter_wants(self.prefixes))
            self._announce(list(sys.modules)[loaded:])
            self.fetcher.on_loaded = self._announce
        elif self.transport is not None and self.transport.follows and not self.transport.collective:
            from .triggers.interpreter import interpreter_wants

            self.fetcher.want(interpreter_wants(self.prefixes, self.fetcher.want))
        if self.options.manifest == "none" or self.transport is None or not self.transport.is_root:
            return
        from .bulk import Bulk

        self.bulk = Bulk(self.options, self.messages)
        if self.store.created or self.transport.collective or self.transport.follows:
            self.bulk.stage(self.fetcher)

    # -- serving -------------------------------------------------------------------------------------------------

    def prefetch(self, names_or_paths: Iterable[str]) -> None:
        """See :func:`prefetch`."""
        self._serving("prefetch")
        if self.fetcher is not None:
            from .triggers.prefetch import prefetch as walk

            assert self._finder is not None
            walk(self.fetcher, names_or_paths)

    def invalidate(self, path: str) -> None:
        """See :func:`invalidate`."""
        self._serving("invalidate")
        if self.store is None:
            return
        from . import _libc
        from .store.node import wait_for_lock

        path, fetcher, patience = os.path.abspath(path), self.fetcher, self.options.patience
        # the store's lock is the process's: a thread that stages would not notice us
        if fetcher is not None and not fetcher.exclusive(patience):
            raise StoreError(110, f"invalidate({path!r}): another thread is staging for more than {patience:g} s")
        try:
            if not wait_for_lock(self.store.write, _libc.LOCK_EX, patience):
                raise StoreError(110, f"invalidate({path!r}): the node store is locked by another process")
            try:
                self.store.table.forget(path)
                if fetcher is not None:
                    fetcher.forgive(path)
            finally:
                _libc.flock(self.store.write, _libc.LOCK_UN)
        finally:
            if fetcher is not None:
                fetcher.release()

    def _serving(self, what: str) -> None:
        if self.state != SERVING or os.getpid() != self.pid:
            raise StateError(f"{what}: collfs is {self.state}. Call it between initialize and finalize, not in a fork")

    def stats(self) -> dict[str, object]:
        """See :func:`stats`."""
        from .report import process_report

        return process_report(self)

    # -- closing -------------------------------------------------------------------------------------------------

    def finalize(self) -> None:
        """See :func:`finalize`."""
        if self.state != SERVING:
            return
        self._move(CLOSING)
        try:
            if os.getpid() == self.pid:
                self.stop_triggers()
                if self.bulk is not None and self.store is not None and self.fetcher is not None:
                    self.bulk.save(self.store, self.fetcher)
                self._write_bytecode()
                self._write_report()
                self._write_bundle()
        finally:
            self._release()
            self._move(CLOSED)

    def _write_bytecode(self) -> None:
        transport, fetcher = self.transport, self.fetcher
        if transport is None or fetcher is None or sys.dont_write_bytecode or not transport.is_root:
            return
        if transport.collective or transport.follows:
            from .triggers.bytecode import write_missing

            write_missing(fetcher.managed)

    def _write_bundle(self) -> None:
        transport, store = self.transport, self.store
        if transport is None or store is None:
            return
        # one process will do: of a whole job, of a program whose servers make the stores, or of a node
        if transport.is_root if transport.collective or transport.follows else store.created:
            from .bundle import write

            write()

    def stop_triggers(self) -> None:
        if self.audit is not None:
            self.audit.stop()
        if self._finder is not None:
            self._finder.active = False
            if self._finder in sys.meta_path:
                sys.meta_path.remove(self._finder)
        sys.dont_write_bytecode = self._wrote_bytecode

    def _write_report(self) -> None:
        if self.options.report is None:
            return
        from .report import process_report, write

        try:
            mine = process_report(self)
            reports = [mine] if self.transport is None else self.transport.gather(mine)
            if reports is not None:
                write(self, reports)
        except OSError as exc:
            self.messages.warn("report", f"the report can't be written: {exc}")

    def _release(self) -> None:
        """Give everything back, in reverse order. Never raises."""
        if os.getpid() == self.pid:
            self.stop_triggers()
        if self.interposer is not None and self.interposer.patches:
            try:
                self.interposer.uninstall()
            except CollfsError as exc:
                self.messages.warn("uninstall", f"the redirects stay in memory, without a table: {exc}")
        if self.transport is not None and os.getpid() == self.pid:
            try:
                (self.fetcher or self.transport).close()
            except Exception as exc:
                self.messages.warn("close", f"transport {self.transport.name!r}: {type(exc).__name__}: {exc}")
            self.transport = None
        if self.store is not None:
            self.store.close()
            self.store = None

    def after_fork(self) -> None:
        """In a forked child: the redirects stay, the triggers rest (the fetcher compares the pid)."""
        if self._finder is not None:
            self._finder.active = False
        if self.audit is not None:
            self.audit.stop()
        if self.store is not None:
            self.store.after_fork()


def _unsupported() -> str:
    """Why nothing of the rest can even be imported here, or an empty string."""
    if not sys.platform.startswith("linux"):
        return f"collfs redirects on Linux only, this is {sys.platform}"
    if sys.maxsize < 1 << 32:
        return "collfs redirects in 64-bit processes only"
    try:
        import ctypes  # noqa: F401
    except ImportError as exc:  # a Python built without it, a sub-interpreter of 3.12 with a GIL of its own
        return f"ctypes can't be loaded: {exc}"
    return ""


def _matcher(globs: tuple[str, ...]) -> Callable[[str], bool] | None:
    """A function that says whether a path matches one of *globs* (as in :mod:`fnmatch`, ``*`` crosses slashes)."""
    if not globs:
        return None
    import fnmatch
    import re

    match = re.compile("|".join(f"(?:{fnmatch.translate(glob)})" for glob in globs)).match
    return lambda path: match(path) is not None
