"""``collfs serve``: the server of this node, started by hand, by a launcher, or by the first process that needs it.

::

    collfs serve                                  this node alone
    collfs serve --bind tcp://*:7000              the root: it reads, and takes the servers of other nodes
    collfs serve --root tcp://node0:7000          another node
    srun --ntasks-per-node=1 collfs serve --tree  all of it: who is the root, the launcher says

Rules of the file: ends as it began, with its store removed if nobody else uses it; one server for a job on a node.
"""

from __future__ import annotations

import argparse
import logging
import os
import resource
import signal
import socket
import sys
from binascii import crc32

from collfs import _libc
from collfs.errors import CollfsError, OptionError, StoreError
from collfs.interpose.machine.code import Code
from collfs.lifecycle import _matcher
from collfs.messages import Messages
from collfs.options import Options
from collfs.prefixes import automatic, explicit
from collfs.store.node import NodeStore, candidates, job_id, open_store
from collfs.store.stager import Stager, default_limit

from .keys import Keys, find_secret
from .server import Server
from .shelf import NodeShelf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PORTS = (20000, 20000)  # first, and how many: for --tree without --port, the same on all nodes of a job


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="collfs serve", description="Serve the processes of one job on this node.")
    add = made.add_argument
    add("--root", metavar="ADDRESS", help="address of the root's server, tcp://HOST:PORT (default: COLLFS_ROOT)")
    add("--bind", metavar="ADDRESS", help="take servers of other nodes here, such as tcp://*:7000 (port 0: any)")
    add("--tree", action="store_true", help="ask the launcher: node 0 is the root, the others find it by its name")
    add("--port", type=int, default=0, help="with --tree: the root's port (default: from the job's id)")
    add("--host", metavar="NAME", help="name or address by which other nodes reach this one")
    add("--fanout", type=int, default=16, help="servers that one server takes (default: 16)")
    add("--linger", type=float, default=5.0, metavar="SECONDS", help="end so long after the last process (default: 5)")
    add("--first", type=float, default=600.0, metavar="SECONDS", help="wait so long for the first one (default: 600)")
    add("--prefix", action="append", metavar="DIR", help="as in collfs run")
    add("--exclude", action="append", metavar="GLOB", help="as in collfs run")
    for name in ("job", "store", "max-store-bytes", "max-file-bytes", "patience"):
        add(f"--{name}", help="as in collfs run")
    add("--quiet", action="store_true", help="as in collfs run")
    add("--in", dest="inside", metavar="DIR", help=argparse.SUPPRESS)  # an existing store: for who starts us
    add("--ready", type=int, default=-1, metavar="FD", help=argparse.SUPPRESS)
    return made


def options_of(arguments: argparse.Namespace) -> Options:
    """The options that ``collfs run`` has, too.

    :raises OptionError: for a bad value
    """
    given: dict[str, object] = {}
    for name in ("job", "store", "max_store_bytes", "max_file_bytes", "patience"):
        value = getattr(arguments, name)
        if value is not None:
            given[name] = float(value) if name == "patience" else value
    if arguments.prefix:
        given["prefixes"] = arguments.prefix
    if arguments.exclude:
        given["exclude"] = arguments.exclude
    if arguments.quiet:
        given["quiet"] = True
    return Options.from_call(given, os.environ)


def main(argv: Sequence[str]) -> int:
    """Serve until nobody is here any more; the exit status.

    :raises OptionError: for a bad argument
    """
    arguments = parser().parse_args(list(argv))
    logging.basicConfig(format="collfs serve: %(message)s", level=logging.WARNING if arguments.quiet else logging.INFO)
    log = logging.getLogger("collfs.serve")
    _allow_descriptors()
    try:
        root, bind = _place(arguments)
        server = _make(arguments, root, bind)
    except (CollfsError, OSError) as exc:
        _ready(arguments.ready, f"{exc}")
        if isinstance(exc, OptionError):
            raise
        log.error("%s", exc)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda which, frame: server.stop(signal.Signals(which).name))
    where = server.address or "this node"
    log.info("serving %s in %s", where, server.shelf.store.path)
    if server.address:
        sys.stdout.write(f"{server.address}\n")
        sys.stdout.flush()
    _ready(arguments.ready, "")
    try:
        why = server.run()
        log.info("ends: %s; %s", why, server.report())
    finally:
        server.close()
        server.shelf.store.close()
    if not root:  # of a job's servers one will do
        from collfs.bundle import write

        write()
    return 0


def _allow_descriptors() -> None:
    """As many as may be had: each process of the node needs one, and many sites give 1,024 at first (getrlimit(2))."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass


def _place(arguments: argparse.Namespace) -> tuple[str, str]:
    """(address of the root, address to bind), as given or as the launcher says."""
    root = arguments.root or os.environ.get("COLLFS_ROOT", "")
    bind = arguments.bind or ""
    if arguments.fanout < 1:
        raise OptionError(f"flag --fanout {arguments.fanout} is not possible. Give a number from 1 up")
    if not arguments.tree:
        return root, bind or ("tcp://*:0" if root else "")
    from collfs.launch import place

    here = place(scan=True)
    if not here.job or here.node < 0 or (not here.root_host and not root):
        raise OptionError(
            f"flag --tree: the launcher doesn't say enough ({here}). Give --bind on one node and --root on the others,"
            " or COLLFS_NODE, COLLFS_NODES and COLLFS_JOB"
        )
    port = arguments.port or PORTS[0] + crc32(here.job.encode()) % PORTS[1]
    if here.node == 0:
        return "", bind or f"tcp://*:{port}"
    return root or f"tcp://{here.root_host}:{port}", bind or "tcp://*:0"


def _make(arguments: argparse.Namespace, root: str, bind: str) -> Server:
    options = options_of(arguments)
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
    store = _store(options, arguments.inside)
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
            host=arguments.host or _own_host(root),
            keys=keys,
            fanout=arguments.fanout,
            patience=options.patience,
            linger=arguments.linger,
            first=arguments.first,
            max_file_bytes=options.max_file_bytes if options.max_file_bytes is not None else limit // 4 or None,
        )
    except BaseException:
        store.close()
        raise


def _store(options: Options, inside: str | None) -> NodeStore:
    code = Code([], 0)
    if inside is None:
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
        return socket.gethostname()
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)  # sends nothing: the kernel chooses a route
            found = str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
    return f"[{found}]" if ":" in found else found


def _ready(fd: int, trouble: str) -> None:
    """Tell who started us."""
    if fd >= 0:
        os.write(fd, (trouble or "ready").encode("utf-8", "replace")[:4000])
        os.close(fd)
