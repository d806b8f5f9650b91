"""What ``--help`` and ``--version`` print, made from the tables of options and commands."""

from __future__ import annotations

import textwrap

from collfs.cli import COMMANDS
from collfs.options import ROWS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collfs.options import Row

_WIDTH = 100
_INDENT = " " * 10
_PROGRAM = "(script.py | directory | archive.zip | - | -m module | -c code) [arguments]"


def overview() -> str:
    """For ``collfs --help``."""
    lines = ["usage: collfs COMMAND ...", "       collfs --version | --help", "", "Commands:"]
    lines += [f"  {name:<8}{text}" for name, text in COMMANDS.items()]
    lines += ["", "`collfs COMMAND --help` says more. `python -m collfs` is the same as `collfs`.", ""]
    return "\n".join(lines)


def run_usage() -> str:
    """For ``collfs run --help``."""
    brief = " ".join(_brief(row) for row in ROWS if row.flag)
    usage = textwrap.fill(
        f"usage: collfs run {brief} [--] {_PROGRAM}", _WIDTH, subsequent_indent=_INDENT, break_on_hyphens=False
    )
    intro = (
        "Runs the program as python would, but so that of all processes of a job, one reads the files below the "
        "managed prefixes, and the others get them from it. Options of python itself go in front: "
        "python -X utf8 -m collfs run ..."
    )
    parts = [usage, textwrap.fill(intro, _WIDTH), "Options, each with the environment variable that it wins over:"]
    parts += [_explain(row) for row in ROWS if row.flag]
    return "\n\n".join(parts) + "\n"


def markdown() -> str:
    """The same as a table, for docs/options.md."""
    lines = ["| flag | variable | default | |", "|---|---|---|---|"]
    for row in ROWS:
        if row.flag:
            flag = f"{row.flag} {row.metavar}".rstrip().replace("|", "\\|")
            lines.append(f"| `{flag}` | `{row.variable}` | {_default(row)} | {row.help}{_often(row)} |")
    return "\n".join(lines) + "\n"


def version() -> str:
    """For ``collfs --version``."""
    from collfs import __version__

    return f"collfs {__version__}\n"


def _brief(row: Row) -> str:
    # No-break spaces keep a flag and its value on one line; textwrap doesn't break there.
    words = f"{row.flag}\N{NO-BREAK SPACE}{row.metavar}" if row.metavar else row.flag
    return f"[{words}]{'...' if row.repeat else ''}"


def _default(row: Row) -> str:
    if isinstance(row.default, str):
        return row.default
    return f"{row.default:g}" if isinstance(row.default, float) else ""


def _often(row: Row) -> str:
    return "; may be given several times" if row.repeat else ""


def _explain(row: Row) -> str:
    default = f" (default: {_default(row)})" if _default(row) else ""
    text = f"{row.help[0].upper()}{row.help[1:]}{default}{_often(row)}."
    head = f"  {row.flag} {row.metavar}".rstrip()
    body = textwrap.fill(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT, break_on_hyphens=False)
    return f"{head:<40}{row.variable}\n{body}"
