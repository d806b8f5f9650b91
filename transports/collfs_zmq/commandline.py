"""``collfs serve``: the server of this node, started by hand or by a launcher.

::

    collfs serve                                  this node alone
    collfs serve --bind tcp://*:7000              the root: it reads, and takes the servers of other nodes
    collfs serve --root tcp://node0:7000          another node
    srun --ntasks-per-node=1 collfs serve --tree  all of it: who is the root, the launcher says

Rule of the file: the command line only; what a server is and does: serve.py.
"""

from __future__ import annotations

import argparse
import os

from collfs.options import Options

from .serve import Place, serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


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
    add("--ready", type=int, default=-1, metavar="FD", help=argparse.SUPPRESS)  # told when it serves, or why not
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
    place = Place(
        root=arguments.root or "",
        bind=arguments.bind or "",
        tree=arguments.tree,
        port=arguments.port,
        host=arguments.host or "",
        fanout=arguments.fanout,
        linger=arguments.linger,
        first=arguments.first,
    )
    return serve(place, options_of(arguments), arguments.ready)
