"""The server of this node as a process: its place in the tree, its store, its start and its end.

::

    collfs serve ...        --commandline.py-->  Place, Options  --+
                                                                   +--> serve --> Server.run, until all have gone
    start.py (a process     --started-->         Place, Options  --+
    that needs a server)

Rules of the file: ends as it began, with its store removed if nobody else uses it; one server for a job on a node.
Imports nothing that is read from the shared file system needlessly (argparse, logging, signal, socket): every node's
processes wait for it.
"""

from __future__ import annotations

import _socket
import os
import sys
from _blake2 import blake2b

from collfs import _libc
from collfs.errors import CollfsError, OptionError, StoreError
from collfs.interpose.machine.code import Code
from collfs.lifecycle import _matcher
from collfs.messages import Messages
from collfs.options import Options
from collfs.prefixes import automatic, explicit
from collfs.record.wire import pack_wants
from collfs.store.node import NodeStore, candidates, job_id, open_store
from collfs.store.stager import Stager, default_limit

from .keys import Keys, find_secret
from .log import Log
from .server import Server
from .shelf import NodeShelf

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Sequence
else:
    import _signal  # signal makes an enumeration of them

PORTS = (20000, 20000)  # first, and how many: for --tree without --port, the same on all nodes of a job
_SIGNALS: dict[int, str] = {_signal.SIGTERM: "SIGTERM", _signal.SIGINT: "SIGINT"}


class Place:
    """Where a server stands, and how long."""

    def __init__(
        self,
        *,
        root: str = "",
        bind: str = "",
        tree: bool = False,
        port: int = 0,
        host: str = "",
        fanout: int = 16,
        linger: float = 5.0,
        first: float = 600.0,
        inside: str = "",
    ) -> None:
        """
        :param root: address of the root's server; empty: as in ``COLLFS_ROOT``, or this is the root
        :param bind: address at which other servers are taken
        :param tree: ask the launcher where the root is
        :param port: of the root, with *tree*; 0: from the job's name
        :param host: name or address by which other nodes reach this one
        :param linger: seconds after the last process
        :param first: seconds that it waits for the first one
        :param inside: an existing node store, of the process that starts this server
        """
        self.root = root or os.environ.get("COLLFS_ROOT", "")
        self.bind, self.tree, self.port, self.host = bind, tree, port, host
        self.fanout, self.linger, self.first, self.inside = fanout, linger, first, inside


def serve(place: Place, options: Options, ready: int = -1) -> int:
    """Serve until nobody is here any more; the exit status.

    :param ready: a descriptor that gets ``ready``, or why not, and is closed
    :raises OptionError: for a bad argument
    """
    log = Log(options.quiet)
    pack_wants(())  # imports what it needs: later, no descriptor may be left for that
    _allow_descriptors()
    try:
        root, bind = _addresses(place)
        server = _make(place, options, root, bind, log)
    except (CollfsError, OSError) as exc:
        _tell(ready, f"{exc}")
        if isinstance(exc, OptionError):
            raise
        log.complain(f"{exc}")
        return 1
    for number in _SIGNALS:
        _signal.signal(number, lambda which, frame: server.stop(_SIGNALS[which]))
    where = server.address or "this node"
    log.say(f"serving {where} in {server.shelf.store.path}")
    if server.address:
        sys.stdout.write(f"{server.address}\n")
        sys.stdout.flush()
    _tell(ready, "")
    try:
        why = server.run()
        log.say(f"ends: {why}; {server.report()}")
    finally:
        server.close()
        server.shelf.store.close()
    if not root:  # of a job's servers one will do
        from collfs.bundle import write

        write()
    return 0


def started(words: Sequence[str]) -> int:
    """Serve as :mod:`.start` has asked for it.

    :param words: ``NAME=VALUE``: ``inside``, ``ready``, ``tree`` and the options of the session, as text; some of them
        several times
    """
    given: dict[str, object] = {}
    inside, ready, tree = "", -1, False
    for word in words:
        name, _, value = word.partition("=")
        if name == "inside":
            inside = value
        elif name == "ready":
            ready = int(value)
        elif name == "tree":
            tree = True
        elif name in ("prefixes", "exclude"):
            given.setdefault(name, []).append(value)  # type: ignore[attr-defined]
        else:
            given[name] = {"patience": float, "quiet": bool}.get(name, str)(value)
    try:
        return serve(Place(tree=tree, inside=inside), Options.from_call(given, os.environ), ready)
    except OptionError as exc:
        Log().complain(f"{exc}")
        return 2


def _allow_descriptors() -> None:
    """As many as may be had: each process of the node needs one, and many sites give 1,024 at first (getrlimit(2))."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass


def _addresses(place: Place) -> tuple[str, str]:
    """(address of the root, address to bind), as given or as the launcher says."""
    root, bind = place.root, place.bind
    if place.fanout < 1:
        raise OptionError(f"flag --fanout {place.fanout} is not possible. Give a number from 1 up")
    if not place.tree:
        return root, bind or ("tcp://*:0" if root else "")
    from collfs.launch import place as launched

    here = launched(scan=True)
    if not here.job or here.node < 0 or (not here.root_host and not root):
        raise OptionError(
            f"flag --tree: the launcher doesn't say enough ({here}). Give --bind on one node and --root on the others,"
            " or COLLFS_NODE, COLLFS_NODES and COLLFS_JOB"
        )
    chosen = int.from_bytes(blake2b(here.job.encode(), digest_size=4).digest(), "little") % PORTS[1]
    port = place.port or PORTS[0] + chosen
    if here.node == 0:
        return "", bind or f"tcp://*:{port}"
    return root or f"tcp://{here.root_host}:{port}", bind or "tcp://*:0"


def _make(place: Place, options: Options, root: str, bind: str, log: Log) -> Server:
    for name, address in (("--root", root), ("--bind", bind)):
        if address and not address.startswith(("tcp://", "ipc://")):
            raise OptionError(f"{name} {address!r} is not possible. Give tcp://HOST:PORT")
    keys = None
    if root or bind:
        secret = find_secret(os.environ)
        if not secret:
            raise OptionError(
                "servers of several nodes need a secret of the job: export COLLFS_SECRET=$(collfs secret) before the"
                " launcher, or COLLFS_SECRET_FILE=FILE"
            )
        keys = Keys(secret)
    prefixes = explicit(options.prefixes) if options.prefixes is not None else automatic(os.environ)[0]
    if not prefixes:
        raise OptionError("no directory to manage: name one, --prefix DIR")
    store = _store(options, place.inside)
    try:
        _only_one(store)
        limit = options.max_store_bytes if options.max_store_bytes is not None else default_limit(store.path)
        for path in prefixes:
            if path not in store.table.prefixes():
                store.table.add_prefix(path)
        shelf = NodeShelf(
            store,
            Stager(store, limit),
            prefixes=prefixes,
            exclude=_matcher(options.exclude),
            patience=options.patience,
            messages=Messages(options.quiet),
        )
        return Server(
            shelf,
            prefixes,
            token=os.path.basename(store.path),
            root=root,
            bind=bind,
            host=place.host or _own_host(root),
            keys=keys,
            fanout=place.fanout,
            patience=options.patience,
            linger=place.linger,
            first=place.first,
            max_file_bytes=options.max_file_bytes if options.max_file_bytes is not None else limit // 4 or None,
            log=log,
        )
    except BaseException:
        store.close()
        raise


def _store(options: Options, inside: str) -> NodeStore:
    code = Code([], 0)
    if not inside:
        # of a job with steps, all: the programs run in others than the servers
        job = options.job or job_id(os.environ, step=False) or None
        return open_store(job, candidates(options.store, os.environ), code, chosen=options.store is not None)
    return NodeStore(inside, "", False, code)


def _only_one(store: NodeStore) -> None:
    """Be the one server of *store*; the lock is kept until the process ends."""
    fd = os.open(f"{store.path}/serving", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _libc.flock(fd, _libc.LOCK_EX | _libc.LOCK_NB):
        os.close(fd)
        raise StoreError(17, f"this job has a server on this node already, in {store.path}")
    try:
        os.unlink(f"{store.path}/server")  # of one that was killed
    except FileNotFoundError:
        pass


def _own_host(root: str) -> str:
    """The address by which the others reach this node: that of the interface towards the root, else the host name."""
    host = root[len("tcp://") :].rpartition(":")[0].strip("[]") if root.startswith("tcp://") else ""
    if not host:
        return os.uname().nodename
    try:
        # bytes: for a text, CPython would load the codec "idna"
        found = _socket.getaddrinfo(host.encode(), 9, _socket.AF_UNSPEC, _socket.SOCK_DGRAM)
        family, kind, _, _, address = found[0]
        probe = _socket.socket(family, kind)
        try:
            probe.connect(address)  # sends nothing: the kernel chooses a route
            own = str(probe.getsockname()[0])
        finally:
            probe.close()
    except OSError:
        return os.uname().nodename
    return f"[{own}]" if ":" in own else own


def _tell(fd: int, trouble: str) -> None:
    """Tell who started us."""
    if fd >= 0:
        os.write(fd, (trouble or "ready").encode("utf-8", "replace")[:4000])
        os.close(fd)
