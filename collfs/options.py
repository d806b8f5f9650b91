"""The options: one table, from which keywords, ``COLLFS_...`` variables, flags and help texts follow.

A new option is one row in :data:`ROWS` and one annotation in :class:`Options`. An explicit keyword or flag wins over
the environment, the environment over the default; an empty variable counts as not set.

Rules of the file: every rank loads it before its hooks are live, so it imports nothing that isn't loaded anyway and
touches no file.
"""

from __future__ import annotations

import os

from collfs.errors import OptionError
from collfs.option_kinds import (
    API,
    BOOTSTRAP,
    COMM,
    DIRECTORIES,
    GLOBS,
    JOB,
    MANIFEST,
    PATH,
    PROGRAM,
    RANK,
    SECONDS,
    SIZE,
    SWITCH,
    TRANSPORT,
    TRANSPORTS,
    Kind,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from collfs.interpose.api import LibcCollfsApi
    from collfs.option_kinds import Spec


class Row:
    """One option. ``flag`` and ``variable`` follow from the name; both are empty for what only Python code can give."""

    __slots__ = ("default", "flag", "help", "kind", "metavar", "name", "repeat", "variable")

    def __init__(
        self,
        name: str,
        kind: Kind,
        default: object,
        metavar: str,
        help: str,
        *,
        flag: str | None = None,
        repeat: bool = False,
        api_only: bool = False,
    ) -> None:
        """:param repeat: the flag takes one item and may come several times"""
        self.name = name
        self.kind = kind
        self.default = default
        self.metavar = metavar
        self.help = help
        self.repeat = repeat
        self.flag = "" if api_only else flag or "--" + name.replace("_", "-")
        self.variable = "" if api_only else "COLLFS_" + name.upper()

    def checked(self, value: object, shown: str) -> object:
        """The value to keep for *value*; *shown* is how the user wrote it.

        :raises OptionError: if it isn't allowed
        """
        if value is None and self.default is None:
            return None
        try:
            return self.kind.check(value) if not self.kind.separator else self._items(value)
        except (ValueError, OSError) as exc:  # OSError: a relative path, and no working directory
            reason = f": {exc}" if str(exc) else ""
            raise OptionError(f"{shown} is not possible{reason}. Give {self.kind.allowed}") from None

    def _items(self, value: object) -> tuple[object, ...]:
        if isinstance(value, (str, bytes, os.PathLike)):
            raise ValueError("one alone is no list, write it as [...]")
        try:
            items: list[object] = list(value)  # type: ignore[call-overload]
        except TypeError:
            raise ValueError from None
        return tuple([self.kind.check(item) for item in items])

    def from_text(self, text: str, shown: str) -> object:
        """The value that *text*, from the environment or after a flag, stands for.

        :raises OptionError: if it isn't allowed
        """
        if not self.kind.separator:
            return self.checked(text, shown)
        return self.checked([item for item in text.split(self.kind.separator) if item], shown)

    def from_flag(self, text: str, before: object) -> object:
        """The value that *text* after the flag stands for; *before* is that of an earlier one, or None.

        :raises OptionError: if it isn't allowed
        """
        shown = f"flag {self.flag} {text!r}"
        if not self.repeat:
            return self.from_text(text, shown)
        added = self.checked([text], shown)
        return before + added if isinstance(before, tuple) and isinstance(added, tuple) else added


ROWS: tuple[Row, ...] = (
    Row(
        "transport",
        TRANSPORT,
        "auto",
        "NAME",
        "how the content of files reaches this node: auto, a name such as local, or module:object",
    ),
    Row(
        "fallback",
        TRANSPORTS,
        (),
        "NAME,...",
        "transports to try, in this order, if the first one can't work",
    ),
    Row(
        "bootstrap",
        BOOTSTRAP,
        "none",
        "zmq|none",
        "with transport mpi: who serves mpi4py and the MPI library itself, and files that only one rank wants: "
        "zmq, the server of the node; none, the file system",
    ),
    Row(
        "prefixes",
        DIRECTORIES,
        None,
        "DIR",
        "a directory to manage; without any, those of the Python installation and of sys.path and LD_LIBRARY_PATH "
        "that lie on a network file system",
        flag="--prefix",
        repeat=True,
    ),
    Row(
        "exclude",
        GLOBS,
        (),
        "GLOB",
        "absolute paths never to manage, such as '*/share/data/*'",
        repeat=True,
    ),
    Row(
        "manifest",
        MANIFEST,
        "auto",
        "FILE|auto|none",
        "the list of files that earlier runs wanted: kept per program, nowhere, or in FILE",
    ),
    Row("store", PATH, None, "DIR", "where the copies on this node go; without it, the node's memory file system"),
    Row(
        "max_store_bytes",
        SIZE,
        None,
        "SIZE",
        "limit for all copies on this node; without it, a quarter of what is free there, at most a quarter of memory",
    ),
    Row("max_file_bytes", SIZE, None, "SIZE", "larger files are left to the file system; without it, none is"),
    Row(
        "patience",
        SECONDS,
        30.0,
        "SECONDS",
        "how long to wait for a transport before the file system is asked instead",
    ),
    Row(
        "job",
        JOB,
        None,
        "NAME",
        "processes of one job share a store; without it, the launcher or batch system says which job this is",
    ),
    Row("cache", PATH, None, "DIR", "a directory on the node's disk for copies that outlive the job"),
    Row(
        "cache_max_bytes",
        SIZE,
        None,
        "SIZE",
        "limit for that directory; without it, 10 GiB or a quarter of what is free there",
    ),
    Row("report", PATH, None, "FILE.json", "write there at the end what was redirected, staged and missed"),
    Row(
        "quiet",
        SWITCH,
        False,
        "",
        "no messages but errors",
    ),
    Row("api", API, None, "", "function pointers of your own", api_only=True),
    Row("comm", COMM, None, "", "the communicator of transport mpi; without it, MPI_COMM_WORLD", api_only=True),
    Row("root", RANK, 0, "", "the rank in it that reads", api_only=True),
    Row("program", PROGRAM, None, "", "which program's manifest this is", api_only=True),
)


class Options:
    """All options, checked. Attributes are the names of :data:`ROWS`.

    >>> Options(patience=5, max_file_bytes="1.5K").max_file_bytes
    1536
    """

    __slots__ = tuple(row.name for row in ROWS)

    api: LibcCollfsApi | None
    bootstrap: str
    comm: object
    root: int
    cache: str | None
    cache_max_bytes: int | None
    exclude: tuple[str, ...]
    fallback: tuple[Spec, ...]
    job: str | None
    manifest: str
    max_file_bytes: int | None
    max_store_bytes: int | None
    patience: float
    prefixes: tuple[str, ...] | None
    program: str | None
    quiet: bool
    report: str | None
    store: str | None
    transport: Spec

    def __init__(self, **values: object) -> None:
        """What isn't given gets its default; the environment isn't looked at.

        :raises OptionError: a name is unknown or a value isn't allowed
        """
        for row in ROWS:
            if row.name in values:
                given = values.pop(row.name)
                setattr(self, row.name, row.checked(given, f"option {row.name}={given!r}"))
            else:
                setattr(self, row.name, row.default)
        for name in values:
            raise OptionError(unknown(f"option {name!r}", name, [row.name for row in ROWS]))
        if self.bootstrap != "none" and self.transport not in ("mpi", "auto"):
            raise OptionError(
                f"option bootstrap={self.bootstrap!r} is not possible with transport={_plain(self.transport)!r}: it"
                ' serves the start of MPI. Give transport="mpi" or "auto", or bootstrap="none"'
            )

    @classmethod
    def from_call(cls, keywords: Mapping[str, object], environ: Mapping[str, str]) -> Options:
        """What a call with *keywords* means in *environ*.

        :raises OptionError: naming the keyword or the variable that is wrong
        """
        values = dict(keywords)
        for row in ROWS:
            if row.variable and row.name not in values:
                text = environ.get(row.variable)
                if text:
                    values[row.name] = row.from_text(text, f"variable {row.variable}={text!r}")
        return cls(**values)

    def as_dict(self) -> dict[str, object]:
        """All options in the order of the table, as values that JSON has; objects by their name."""
        plain: dict[str, object] = {}
        for row in ROWS:
            value = getattr(self, row.name)
            plain[row.name] = [_plain(item) for item in value] if isinstance(value, tuple) else _plain(value)
        return plain

    def __repr__(self) -> str:
        changed = [f"{r.name}={getattr(self, r.name)!r}" for r in ROWS if getattr(self, r.name) != r.default]
        return f"Options({', '.join(changed)})"


def _plain(value: object) -> object:
    if value is None or isinstance(value, (str, int, float)):
        return value
    return getattr(value, "name", "") or type(value).__qualname__


def unknown(shown: str, name: str, known: Sequence[str]) -> str:
    """The message for a *name* that is none of *known*."""
    import difflib  # only now that something is wrong

    near = difflib.get_close_matches(name, known, n=3)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return f"{shown} does not exist. {hint}There are: {', '.join(known)}"
