"""The command line: ``collfs COMMAND ...``, also as ``python -m collfs COMMAND ...``.

Rule of the file: every rank of ``collfs run`` comes through here before its hooks are live, so each command, the help
texts and the version are loaded only by those who ask for them.
"""

from __future__ import annotations

import sys

import collfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: Every command, and what it does.
COMMANDS = {
    "run": "run a Python program; its files are read by one process for all",
    "check": "say what collfs would do here, without running a program",
    "serve": "serve the processes of a job on this node (transport zmq)",
    "stop": "end the server of a job on this node",
    "secret": "make a secret for the servers of a job",
    "stub": "write the library to link C code with that uses collfs.h",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that *argv* names (default: that of this process) and return its exit status.

    ``collfs run`` lets the exceptions of the program through, so that the interpreter treats them as always.
    """
    collfs.use_bundle()
    words = list(sys.argv[1:] if argv is None else argv)
    first = words[0] if words else ""
    if first == "run":
        from collfs.cli.run import main as run

        return run(words[1:])
    if first == "check":
        from collfs.cli.check import main as check

        return check(words[1:])
    if first in ("serve", "stop", "secret"):
        from collfs.cli.servers import main as servers

        return servers(first, words[1:])
    if first == "stub":
        from collfs.cli.stub import main as stub

        return stub(words[1:])
    if first in ("-h", "--help"):
        from collfs.cli.help import overview

        sys.stdout.write(overview())
        return 0
    if first == "--version":
        from collfs.cli.help import version

        sys.stdout.write(version())
        return 0
    what = f"unknown command {first!r}" if words else "a command is missing"
    sys.stderr.write(f"collfs: {what}. Commands: {', '.join(COMMANDS)}. Try: collfs --help\n")
    return 2
