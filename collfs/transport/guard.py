"""A stranger's transport, with a limit on its time and a look at what it says.

::

    thread of the program                    thread of the call
      fetch ---- start_new_thread ------------> transport.fetch(wants)
        | <------------- given ------------------ one record
        | (staged meanwhile)                      | waits
        | -------------- taken -----------------> the next one ...
        x  nothing came for `patience` seconds: left alone, and the transport is never called again

A transport whose class says ``bounded`` promises to end by itself and is called directly, without this module. The
limit is on silence: a bulk start may take longer than ``patience`` as long as records keep coming.

Rules of the file: one call at a time; a thread that hangs is left behind, since nothing can stop it; it holds no lock
that anybody else waits for; triggers rest in it (its number is in *busy*), or the transport's own imports would wait
for the very call that they are part of.
"""

from __future__ import annotations

import os
import stat
from _thread import LockType, allocate_lock, get_ident, start_new_thread

from ..errors import RecordError
from ..record import Record
from ..record.checks import KIND_PLACED, check_name, check_name_bytes, check_path, check_target, encoded, kind_of
from ..store.table import pack_stat
from . import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..record import Want


class _Call:
    """One call in a thread of its own. What it yields is handed over one by one, so no more than one lies about."""

    __slots__ = ("_busy", "_done", "_error", "_given", "_item", "_left", "_taken", "_work")

    def __init__(self, work: Callable[[], Iterable[object]], busy: set[int], done: LockType) -> None:
        """
        :param work: the call
        :param busy: the thread's number is in it as long as the thread lives
        :param done: released when the call is over
        """
        self._work, self._busy, self._done = work, busy, done
        self._given, self._taken = allocate_lock(), allocate_lock()
        self._given.acquire()
        self._taken.acquire()
        self._item: object = None
        self._error: BaseException | None = None
        self._left = False

    def run(self) -> None:
        """The thread."""
        me = get_ident()
        self._busy.add(me)
        try:
            for item in self._work():
                self._item = (item,)
                self._given.release()
                self._taken.acquire()
                if self._left:
                    return
        except BaseException as exc:
            self._error = exc
        finally:
            self._busy.discard(me)
            self._item = None
            self._done.release()
            if not self._left:
                self._given.release()

    def results(self, patience: float) -> Iterator[object]:
        """What the call yields.

        :raises TimeoutError: nothing came for *patience* seconds
        :raises RuntimeError: the call raised something that isn't an Exception, such as SystemExit
        """
        try:
            while self._given.acquire(timeout=patience):
                item, self._item = self._item, None
                if not isinstance(item, tuple):
                    if self._error is None or isinstance(self._error, Exception):
                        if self._error is not None:
                            raise self._error
                        return
                    raise RuntimeError(f"it raised {type(self._error).__name__}: {self._error}")
                yield item[0]
                del item
                self._taken.release()
            raise TimeoutError(f"no answer for {patience:g} s")
        finally:
            self._left = True
            if self._taken.locked():
                self._taken.release()


class Guard:
    """*transport* as the fetcher may call it: ``fetch``, ``publish`` and ``close``, none of which waits too long."""

    __slots__ = ("_busy", "_idle", "hung", "name", "patience", "transport")

    def __init__(self, transport: Transport, patience: float, busy: set[int]) -> None:
        """
        :param patience: seconds of silence
        :param busy: numbers of the threads in which triggers rest
        """
        self.transport, self.patience, self.name = transport, patience, transport.name
        self.hung = False  # it is never called again
        self._busy = busy
        self._idle = allocate_lock()  # held by the call that is under way

    def fetch(self, wants: Sequence[Want]) -> Iterator[object]:
        """:meth:`Transport.fetch`; what it yields is not checked yet (:func:`flaw`).

        :raises TimeoutError: it hangs, and ``hung`` is set
        :raises Exception: what it raised
        """
        return self._call(lambda: self.transport.fetch(wants))

    def publish(self, records: Sequence[Record]) -> None:
        """:meth:`Transport.publish`. Raises as :meth:`fetch`."""

        def work() -> Iterable[object]:
            self.transport.publish(records)
            return ()

        for _ in self._call(work):
            pass

    def close(self) -> None:
        """:meth:`Transport.close`, unless it hangs already. Raises as :meth:`fetch`."""

        def work() -> Iterable[object]:
            self.transport.close()
            return ()

        if self.hung:
            return
        try:
            for _ in self._call(work):
                pass
        except RuntimeError as exc:
            if "interpreter shutdown" not in str(exc):
                raise
            # 3.12 starts no thread in an atexit function (cpython issue 113964): then without a limit
            self.transport.close()

    def _call(self, work: Callable[[], Iterable[object]]) -> Iterator[object]:
        if self.hung:
            return
        # an earlier call may be under way still, if Ctrl-C has taken us out of it
        if not self._idle.acquire(timeout=self.patience):
            self.hung = True
            raise TimeoutError(f"an earlier call didn't end within {self.patience:g} s")
        call = _Call(work, self._busy, self._idle)
        try:
            start_new_thread(call.run, ())
        except RuntimeError:
            self._idle.release()
            raise
        results = call.results(self.patience)
        while True:
            try:
                item = next(results)
            except StopIteration:
                return
            except TimeoutError:
                # its own, or ours? The call that is over has given the lock back
                self.hung = self._idle.locked()
                raise
            yield item


def flaw(record: object) -> str:
    """What is wrong with a record, in a few words; an empty string: it may be staged."""
    if not isinstance(record, Record):
        return f"a {type(record).__name__} instead of a Record"
    try:
        _text(record.path, check_path, "path")
        kind = kind_of(record)
        for st in (record.st, record.lst):
            if st is not None:
                pack_stat(st)
        if record.target is not None:
            _text(record.target, check_target, "target")
        if record.names is not None:
            _look_at_names(record)
        if kind == KIND_PLACED:
            return _look_at_copy(record)
    except RecordError as exc:
        return str(exc)
    except Exception as exc:  # attributes of all types are possible
        return f"{record.path!r}: {type(exc).__name__}: {exc}"
    return ""


def _text(value: object, check: Callable[[bytes, str], None], what: str) -> None:
    if not isinstance(value, str):  # os.fsencode takes more than that
        raise RecordError(f"{what} must be str, found {value!r}")
    encoded(value, check, what)


def _look_at_names(record: Record) -> None:
    assert record.names is not None
    seen = set()
    for name in record.names:
        _text(name.name, check_name_bytes, "name")
        check_name(name)
        if name.name in seen:
            raise RecordError(f"{record.path!r}: name {name.name!r} is listed twice")
        seen.add(name.name)
        for st in (name.lst, name.st):
            if st is not None:
                pack_stat(st)
        if name.target is not None:
            _text(name.target, check_target, "target")


def _look_at_copy(record: Record) -> str:
    assert record.node_path is not None
    assert record.st is not None
    _text(record.node_path, check_path, "node_path")
    have = os.stat("/" + record.node_path)
    if not stat.S_ISREG(have.st_mode) or have.st_size != record.st.st_size:
        return f"{record.path!r}: {record.node_path} is no file of {record.st.st_size} bytes"
    return ""
