"""The MPI transport: one rank of the whole job reads, the network carries. Needs mpi4py >= 4.

::

    root rank                      leaders (one rank of each node)              the other ranks
    reads, stages, publishes --->  take what arrives off the stream, --------> wait for the table
              Isend, never waits   pass it on, stage it in their node's store

Only the root and the leaders exchange messages, over communicators of their own (:mod:`.groups`): a stream
(:mod:`.stream`, along a tree) of records in messages (:mod:`collfs.stream`). The root publishes what it stages for
itself and waits for nobody. A rank that wants a path waits until its node's table knows it, as long as the stream moves
and for ``patience`` seconds when it is silent; then that path goes native, the event is counted and reported, and the
next silent wait is an eighth of that. So ranks that diverge cost file-system calls, never a hang.

With MPI_THREAD_MULTIPLE (what mpi4py asks for by itself) a thread of each leader receives, and one of the root moves
what is under way. Below that, MPI is called by the main thread only, inside its own wants; other threads' wants go
native.
"""

from __future__ import annotations

import os

from collfs.errors import OptionError, TransportUnavailable
from collfs.transport.registry import launched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collfs.transport import Transport
    from collfs.transport.registry import TransportOptions

MPI4PY = (4, 0)


def transport(options: TransportOptions) -> Transport:
    """The transport for MPI_COMM_WORLD, or for the communicator in ``options.comm``.

    Initialises MPI if the program hasn't (mpi4py does, when it is imported).

    :raises TransportUnavailable: if MPI is finalized already, or mpi4py is too old
    :raises ImportError: if there is no mpi4py
    """
    import mpi4py

    found = tuple(int(part) for part in mpi4py.__version__.split(".")[:2])
    if found < MPI4PY:
        raise TransportUnavailable(
            f"transport 'mpi' needs mpi4py >= {MPI4PY[0]}.{MPI4PY[1]}, found {mpi4py.__version__}:"
            ' pip install --upgrade "mpi4py>=4"'
        )
    from mpi4py import MPI

    if not MPI.Is_initialized() or MPI.Is_finalized():
        raise TransportUnavailable("transport 'mpi' works between MPI_Init and MPI_Finalize only")
    if MPI.Query_thread() < MPI.THREAD_MULTIPLE and not MPI.Is_thread_main():
        raise TransportUnavailable(
            "transport 'mpi' needs MPI_THREAD_MULTIPLE in another thread than that of MPI_Init: call initialize there,"
            " or let mpi4py ask for it (mpi4py.rc.thread_level = 'multiple')"
        )
    comm = getattr(options, "comm", None)
    if comm is None:
        comm = MPI.COMM_WORLD
        if comm.Get_size() == 1 and launched(os.environ):
            raise TransportUnavailable(
                f"transport 'mpi' finds one rank in MPI_COMM_WORLD, but the launcher started several"
                f" ({launched(os.environ)}): mpi4py belongs to {MPI.Get_library_version().split(',')[0].strip()!r}."
                " Start the job with the mpiexec of that MPI, or install mpi4py for the other one"
            )
    elif comm == MPI.COMM_NULL:
        raise OptionError("option comm=MPI.COMM_NULL is not possible. Give a communicator that this rank belongs to")
    root = getattr(options, "root", 0)
    if root >= comm.Get_size():
        raise OptionError(f"option root={root} is not possible. The communicator has ranks 0 to {comm.Get_size() - 1}")
    from .roles import MpiTransport

    return MpiTransport(comm, options)
