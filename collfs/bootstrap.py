"""MPI started through the node's ZeroMQ server: ``bootstrap="zmq"``.

::

    hooks live --> server of the node found or started --> triggers on --> mpi4py, libmpi, MPI_Init --> MPI takes over
                   (transport zmq, without a manifest)     their files come from the server             (handover.py)

Without it, each rank reads mpi4py, libmpi and what these open from the shared file system before MPI can carry
anything.

Whether it works is decided by all ranks together: one whose server doesn't come starts MPI all the same and says so
there (:attr:`collfs.transport.Transport.trouble`), and then transport mpi fails on every rank for that reason.

Rules of the file: imported only if it was asked for; what is collective happens on each rank, whatever has failed.
"""

from __future__ import annotations

import sys

from .errors import CollfsError, TransportNotFound, TransportUnavailable
from .options import Options
from .record import LIST, META, Want
from .transport.handover import Handover
from .transport.registry import Choice, choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .lifecycle import Session
    from .transport import Transport


def prepare() -> None:
    """Import what asking a server needs of Python itself. Before the hooks are live: behind them these modules would be
    read past the table all the same, because nobody can be asked yet.
    """
    import _socket  # noqa: F401
    import binascii  # noqa: F401
    import select  # noqa: F401


def choose_mpi(session: Session) -> Choice:
    """Transport mpi with the node's server behind it, or what ``fallback`` names. Collective as transport mpi is.

    :raises CollfsError: as :func:`collfs.transport.registry.choose`
    """
    options = session.options
    store = "" if session.store is None else session.store.path
    server, trouble = None, ""
    if store:
        try:
            server = choose("zmq", _for_the_start(options), prefixes=session.prefixes, store=store).transport
        except CollfsError as exc:
            trouble = f"bootstrap={options.bootstrap!r}: {exc}"
    try:
        choice = _start_mpi(session, server, store, trouble)
    except (TransportNotFound, TransportUnavailable) as exc:
        if server is not None:
            server.close()
        if not options.fallback:
            raise
        first, *others = options.fallback
        choice = choose(first, options, fallback=others, prefixes=session.prefixes, store=store)
        choice.asked = "mpi"
        choice.reasons.insert(0, ("mpi", str(exc)))
    except BaseException:
        if server is not None:
            server.close()
        raise
    session.transport = None
    return choice


def _start_mpi(session: Session, server: Transport | None, store: str, trouble: str) -> Choice:
    if server is not None:
        session.transport = server
        _want_its_files(session)
    try:
        choice = choose("mpi", session.options, prefixes=session.prefixes, store=store, trouble=trouble)
    finally:
        if server is not None:
            session.stop_triggers()
            session.transport = session.fetcher = None
    if server is not None and session.store is not None:
        choice.transport = Handover(choice.transport, server, session.store.table, session.messages)
        choice.reasons.append(("zmq", "has served the start of MPI, and serves what MPI doesn't bring"))
    return choice


def _want_its_files(session: Session) -> None:
    """Triggers on, with those that the start of MPI needs besides."""
    session.start_triggers()
    from .triggers.interpreter import interpreter_wants
    from .triggers.mpi_library import MpiLibrary

    fetcher, audit = session.fetcher, session.audit
    assert fetcher is not None
    assert audit is not None
    fetcher.want(interpreter_wants(session.prefixes, fetcher.want))
    # mpi4py looks there, by os.path.isdir, for an MPI library from a wheel (mpi4py/_mpiabi.py)
    folders = [f"{prefix}/lib" for prefix in dict.fromkeys((sys.exec_prefix, sys.base_exec_prefix))]
    fetcher.want([Want(folder, aspect) for folder in folders for aspect in (META, LIST)])
    MpiLibrary(fetcher, audit.libraries)


def _for_the_start(options: Options) -> Options:
    """*options* as the server shall see them: the manifest is the business of the rank that reads."""
    copy = Options.__new__(Options)
    for name in Options.__slots__:
        setattr(copy, name, getattr(options, name))
    copy.manifest = "none"
    return copy
