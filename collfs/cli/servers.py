"""``collfs serve``, ``collfs stop``, ``collfs secret``: the servers of transport zmq.

Rule of the file: pyzmq is needed by ``serve`` only, and what to do without it is said.
"""

from __future__ import annotations

import argparse
import os
import sys

from ..errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(command: str, argv: Sequence[str]) -> int:
    """Run one of the three; the exit status."""
    try:
        return {"serve": _serve, "stop": _stop, "secret": _secret}[command](argv)
    except OptionError as exc:
        sys.stderr.write(f"collfs {command}: {exc}\n")
        return 2


def _serve(argv: Sequence[str]) -> int:
    try:
        from collfs_zmq.commandline import main as serve
    except ModuleNotFoundError as exc:
        if exc.name not in ("zmq", "collfs_zmq"):
            raise
        sys.stderr.write('collfs serve: needs pyzmq: pip install "collfs[zmq]"\n')
        return 1
    return serve(argv)


def _secret(argv: Sequence[str]) -> int:
    argparse.ArgumentParser(
        prog="collfs secret", description="Print a new secret for COLLFS_SECRET or a file with mode 600."
    ).parse_args(list(argv))
    from collfs_zmq.keys import new_secret

    sys.stdout.write(new_secret() + "\n")
    return 0


def _stop(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="collfs stop", description="End the server of a job on this node.")
    parser.add_argument("--job", help="as in collfs run; without it, the job that this shell belongs to")
    parser.add_argument("--store", metavar="DIR", help="as in collfs run")
    parser.add_argument("--all", action="store_true", help="the servers of all your jobs on this node")
    arguments = parser.parse_args(list(argv))
    from collfs_zmq import local
    from collfs_zmq.start import find

    from ..options import Options
    from ..store.node import candidates, jobs

    given = {name: value for name in ("job", "store") if (value := getattr(arguments, name)) is not None}
    options = Options.from_call(given, os.environ)
    ended = 0
    for base in candidates(options.store, os.environ):
        for path in jobs(base, None if arguments.all else (options.job,)):
            link = find(path, 5.0)
            if link is None:
                continue
            try:
                link.send(local.STOP)
                while any(kind != local.GOING for kind, _, _ in link.receive(wait=True)):
                    pass
            except OSError:
                pass  # it has gone
            link.close()
            ended += 1
    if not ended:
        sys.stderr.write("collfs stop: no server of this job runs on this node; --job NAME names another, --all all\n")
        return 1
    return 0
