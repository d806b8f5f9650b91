"""The ZeroMQ transport: a server on each node, a tree of them to the root, which alone reads. Needs pyzmq.

::

    processes --Unix socket--> server of their node --CURVE over TCP--> ... --> server of the root
        |                         |    ^                                           |
        +---- path table <--------+    +---------- records -------------- reads ---+
              of the node

Works without MPI: dask, ray, torchrun, multiprocessing, job arrays. The processes ask and wait at their node's table
(:mod:`.client`); they need no pyzmq, the servers do (:mod:`.server`).

Rule of the file: imports nothing that a process doesn't need.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collfs.transport import Transport
    from collfs.transport.registry import TransportOptions


def transport(options: TransportOptions) -> Transport:
    """The transport that asks this node's server."""
    from .client import ZmqTransport

    return ZmqTransport(options)
