"""The audit hook: the events that carry a path before the C library sees it (PEP 578).

==================  ==========================================  =====================================
event               argument                                    want
==================  ==========================================  =====================================
open                the path, of a call that only reads         its content
import              the file of an extension module             that library with all that it needs
ctypes.dlopen       the name                                    the same
os.listdir          the path                                    its listing
os.scandir          the path                                    its listing
==================  ==========================================  =====================================

There are tens of thousands of events in an import, and most of these five announce what the node has already: the hook
is machine code (``interpose/machine/python.h``), which calls the handlers here only where something may be missing. It
can't be removed, and returns at once after ``finalize``.

::

    PySys_Audit --> py_audit --(one of the five, under a prefix, not known)--> _dispatchers --> handler of the session

Rules of the file: never raises (an exception would stop the very call that is announced) but KeyboardInterrupt. What
the machine code has a pointer to lives for ever.
"""

from __future__ import annotations

import ctypes
import os

from ..interpose.machine.code import hooked
from ..interpose.machine.layout import EVENTS, K_DIR
from ..record import CONTENT, LIST, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..fetcher import Fetcher
    from .library import Libraries

    Handler = Callable[[tuple[object, ...]], None]

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

_handlers: dict[str, Handler] = {}  # of the session that is serving


def _dispatcher(event: str) -> Handler:
    def dispatch(args: tuple[object, ...]) -> None:
        handler = _handlers.get(event)
        if handler is not None:
            handler(args)

    return dispatch


_dispatchers = [_dispatcher(event) for event in EVENTS]
for _function in _dispatchers:
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(_function))


class Audit:
    """The handlers of the events, and the switch."""

    def __init__(self, fetcher: Fetcher, libraries: Libraries) -> None:
        self.fetcher, self.libraries = fetcher, libraries
        self.handlers: dict[str, Handler] = {
            "open": self._barrier(self._open),
            "import": self._barrier(self._import),
            "ctypes.dlopen": self._barrier(self._dlopen),
            "os.listdir": self._barrier(self._list),
            "os.scandir": self._barrier(self._list),
        }

    def install(self) -> None:
        """Have the events handled. The hook is added once for the rest of this interpreter's life.

        :raises RuntimeError: if another audit hook refuses it
        """
        _handlers.update(self.handlers)
        table = self.fetcher.table
        events = table.code.hook_events(table.address)
        events.all = not self.fetcher.table_suffices
        for number, function in enumerate(_dispatchers):
            events.handlers[number] = id(function)

    def stop(self) -> None:
        """From now on the hook does nothing."""
        for events in hooked:
            events.handlers[:] = [0] * len(EVENTS)
        _handlers.clear()

    def _barrier(self, handler: Handler) -> Handler:
        def handle(args: tuple[object, ...]) -> None:
            try:
                handler(args)
            except Exception as exc:
                self._failed(exc)

        return handle

    def _failed(self, exc: Exception) -> None:
        self.stop()
        self.fetcher.messages.warn("audit", f"the open trigger failed and is off: {type(exc).__name__}: {exc}")

    def _path(self, value: object) -> str:
        if isinstance(value, bytes):
            value = os.fsdecode(value)
        return value if isinstance(value, str) and value.startswith("/") and self.fetcher.managed(value) else ""

    def _open(self, args: tuple[object, ...]) -> None:
        path, flags = self._path(args[0]), args[2]
        if not path or (isinstance(flags, int) and flags & WRITING) or self.fetcher.settled(path, CONTENT):
            return
        path = os.path.normpath(path)
        if self.fetcher.kind(path) != K_DIR:
            self.fetcher.want([Want(path, CONTENT)])

    def _import(self, args: tuple[object, ...]) -> None:
        file = args[1]
        if isinstance(file, str) and file:
            self.libraries.want(file)

    def load(self, file: str) -> None:
        """Want a module's file as if it were imported now, if it is a library."""
        if file.endswith(".so"):
            self._import(("", file))

    def _dlopen(self, args: tuple[object, ...]) -> None:
        path = self._path(args[0])
        if path:
            self.libraries.want(path)

    def _list(self, args: tuple[object, ...]) -> None:
        path = self._path(args[0])
        if path:
            self.fetcher.want([Want(os.path.normpath(path), LIST)])
