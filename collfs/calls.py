"""The session of this process, as programs use it: initialize, finalize, and what lies between.

Rules of the file: one session at a time in a process; a wrong call is an error that says which state collfs is in.
"""

from __future__ import annotations

import atexit
import os
import sys

from .errors import StateError
from .lifecycle import CLOSED, SERVING, UNINITIALISED, Session
from .options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .transport import Transport

__all__ = ["Session", "finalize", "initialize", "invalidate", "prefetch", "session", "stats"]

_current: Session | None = None
_registered = False


def initialize(transport: str | Transport | None = None, **options: object) -> Session:
    """Start collfs in this process. From here on, files under the managed prefixes come from the node.

    Collective if the transport is (``mpi``: on all ranks of its communicator); ``local`` isn't.

    :param transport: ``"auto"``, a name, ``"module:object"``, or a :class:`~collfs.transport.Transport`; None: that of
        ``COLLFS_TRANSPORT``, or ``"auto"``
    :param options: see ``collfs --help`` or :mod:`collfs.options`; each can also be given as ``COLLFS_...``
    :raises OptionError: an option is unknown or its value isn't allowed
    :raises StateError: collfs is serving already
    :raises TransportNotFound: there is no transport of that name
    :raises TransportUnavailable: it can't work here, and no ``fallback`` can

    >>> import collfs
    >>> collfs.initialize("local", prefixes=["/shared/venv"])              # doctest: +SKIP
    """
    global _current, _registered
    if _current is not None and _current.state not in (CLOSED, UNINITIALISED):
        raise StateError(f"collfs is {_current.state} in this process already; call finalize() first")
    if transport is not None:
        options["transport"] = transport
    session = Session(Options.from_call(options, os.environ))
    if not _registered:
        atexit.register(_at_exit)
        os.register_at_fork(before=_before_fork, after_in_parent=_forked, after_in_child=_after_fork)
        _registered = True
    _current = session
    session.start()
    return session


def _before_fork() -> None:
    if _current is not None and _current.store is not None:
        _current.store.before_fork()


def _forked() -> None:
    if _current is not None and _current.store is not None:
        _current.store.forked()


def _at_exit() -> None:
    # sys.last_type: the interpreter has just printed an uncaught exception (PyErr_PrintEx). The launcher is going to
    # end the job, as `python -m mpi4py` makes it do, and the other ranks aren't waited for.
    if _current is not None and _current.transport is not None and hasattr(sys, "last_type"):
        _current.transport.abandon()
    finalize()


def _after_fork() -> None:
    if _current is not None and _current.state == SERVING:
        _current.after_fork()


def finalize() -> None:
    """Stop: triggers off, every patched byte restored, manifest and report written, transport closed.

    Idempotent; also called at exit. Collective if the transport is.
    """
    if _current is not None:
        _current.finalize()


def prefetch(names_or_paths: Iterable[str]) -> None:
    """Stage files before anything asks for them: modules by name, files and whole directories by absolute path.

    :raises StateError: outside a session
    """
    _need("prefetch").prefetch(names_or_paths)


def invalidate(path: str) -> None:
    """Forget what is known of *path* and below it on this node: it is fetched anew when it is wanted again.

    :raises StateError: outside a session
    :raises StoreError: if another process holds the store's lock for longer than ``patience``
    """
    _need("invalidate").invalidate(path)


def stats() -> dict[str, object]:
    """What happened so far in this process: the ``processes`` entry of the report (``collfs run --report``).

    :raises StateError: outside a session
    """
    return _need("stats").stats()


def serving() -> Session | None:
    """The session of this process, if it serves. For other parts of collfs."""
    return _current if _current is not None and _current.state == SERVING else None


def _need(what: str) -> Session:
    if _current is None or _current.state != SERVING:
        state = UNINITIALISED if _current is None else _current.state
        raise StateError(f"{what}: collfs is {state}. Call initialize first")
    return _current


class session:
    """``with collfs.session(...)``: :func:`initialize` and :func:`finalize` around a block."""

    def __init__(self, transport: str | Transport | None = None, **options: object) -> None:
        self._arguments = (transport, options)

    def __enter__(self) -> Session:
        transport, options = self._arguments
        return initialize(transport, **options)

    def __exit__(self, *exc: object) -> None:
        finalize()
