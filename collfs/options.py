"""The options: one table, from which keywords, ``COLLFS_...`` variables, flags and help texts follow.

A new option is one row in :data:`ROWS` and one annotation in :class:`Options`. An explicit keyword or flag wins over
the environment, the environment over the default; an empty variable counts as not set.

Rules of the file: every rank loads it before its hooks are live, so it imports nothing that isn't loaded anyway and
touches no file. A checker takes what a caller or a text gave, returns the value to keep and accepts its own result
again; what it refuses is a ValueError with the reason (or none), and the row says in whose words that is reported.
"""

from __future__ import annotations

import os

from collfs.errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Union

    from collfs.interpose.api import LibcCollfsApi
    from collfs.transport import Transport

    Check = Callable[[object], object]
    Spec = Union[str, Transport]

_JOB_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:")
_JOB_LENGTH = 128  # it becomes part of a file name; NAME_MAX is 255 (<linux/limits.h>)
_LARGEST = 2**63 - 1  # off_t of 64 bits (<sys/types.h>)
_SEP = os.pathsep
_YES = ("1", "true", "yes", "on")
_NO = ("0", "false", "no", "off")


class Kind:
    """One sort of value.

    ``check`` is the checker, ``allowed`` says in words what it takes. For a list it takes one item; ``separator``
    divides them in a text (empty: no list). ``by_itself`` marks a flag that needs no value.
    """

    __slots__ = ("allowed", "by_itself", "check", "separator")

    def __init__(self, check: Check, allowed: str, separator: str = "", by_itself: bool = False) -> None:
        self.check = check
        self.allowed = allowed
        self.separator = separator
        self.by_itself = by_itself


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


def _transport(value: object) -> object:
    if isinstance(value, str):
        if not value or value.split() != [value]:
            raise ValueError
        return value
    from collfs.transport import Transport

    if not isinstance(value, Transport):
        is_class = isinstance(value, type) and issubclass(value, Transport)
        raise ValueError("that is a class, give an object of it" if is_class else "")
    return value


def _path(value: object) -> str:
    """An absolute path without ``.``, ``..`` and double slashes; two in front would be the native spelling."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise ValueError
    path = os.fsdecode(value)
    if not path or "\0" in path:
        raise ValueError("a path is not empty and has no NUL character in it")
    if path[0] == "~":  # a shell leaves the one in --store=~/x alone
        path = os.path.expanduser(path)
    path = os.path.abspath(path)
    return path[1:] if path.startswith("//") else path


def _glob(value: object) -> str:
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise ValueError
    glob = os.fsdecode(value)
    if not glob or glob[0] not in "/*?[":
        raise ValueError(f"{glob!r} can't match an absolute path")
    return glob


def _manifest(value: object) -> object:
    return value if value in ("auto", "none") else _path(value)


# Powers as in GNU coreutils, "Block size": K and KiB are 1024, KB is 1000.
_UNITS: dict[str, int] = {"": 1, "B": 1}
for _power, _letter in enumerate("KMGTPE", 1):
    _UNITS[_letter] = _UNITS[_letter + "IB"] = 1024**_power
    _UNITS[_letter + "B"] = 1000**_power


def _size(value: object) -> object:
    if isinstance(value, str):
        value = _size_from_text(value.strip())
    if type(value) is not int:  # a bool is an int, too
        raise ValueError
    if not 0 <= value <= _LARGEST:
        raise ValueError("out of range")
    return value


def _size_from_text(text: str) -> int:
    number = text.rstrip("bBkKmMgGtTpPeEiI ")
    unit = _UNITS.get(text[len(number) :].strip().upper())
    whole, point, fraction = number.partition(".")
    digits = whole + fraction
    # No number of bytes that fits has more digits; int() of a very long text is slow or an error.
    if unit is None or not (digits.isascii() and digits.isdigit()) or len(digits) > 40 or (point and not fraction):
        raise ValueError
    size, rest = divmod(int(digits) * unit, int("1" + "0" * len(fraction)))
    if rest and unit == 1:
        raise ValueError("there is no part of a byte")
    return size


def _seconds(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        raise ValueError from None
    if not 0 < seconds < float("inf"):  # false for nan
        raise ValueError
    return seconds


def _job(value: object) -> object:
    if not isinstance(value, str) or not 0 < len(value) <= _JOB_LENGTH or not _JOB_CHARACTERS.issuperset(value):
        raise ValueError
    return value


def _yes_or_no(value: object) -> object:
    word = value.strip().lower() if isinstance(value, str) else value
    if word in _YES or word in _NO:
        return word in _YES
    if not isinstance(value, bool):
        raise ValueError
    return value


def _program(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError
    return value


def _api(value: object) -> object:
    from collfs.interpose.api import LibcCollfsApi

    if not isinstance(value, LibcCollfsApi):
        raise ValueError
    return value


_PATH = Kind(_path, "a path")
_SIZE = Kind(_size, "a number of bytes from 0 up, such as 1073741824, 512M, 2G or 1.5GiB")

ROWS: tuple[Row, ...] = (
    Row(
        "transport",
        Kind(_transport, '"auto", a name such as "local", "module:object", in Python also a Transport object'),
        "auto",
        "NAME",
        "how the content of files reaches this node: auto, a name such as local, or module:object",
    ),
    Row(
        "fallback",
        Kind(_transport, "names of transports: local,... in a text, ('local', ...) in Python", separator=","),
        (),
        "NAME,...",
        "transports to try, in this order, if the first one can't work",
    ),
    Row(
        "prefixes",
        Kind(_path, f"directories: a list in Python, divided by {_SEP!r} in a variable", _SEP),
        None,
        "DIR",
        "a directory to manage; without any, those of the Python installation and of sys.path and LD_LIBRARY_PATH "
        "that lie on a network file system",
        flag="--prefix",
        repeat=True,
    ),
    Row(
        "exclude",
        Kind(_glob, f"patterns that begin with / or *: a list in Python, divided by {_SEP!r} in a variable", _SEP),
        (),
        "GLOB",
        "absolute paths never to manage, such as '*/share/data/*'",
        repeat=True,
    ),
    Row(
        "manifest",
        Kind(_manifest, '"auto", "none", or the path of a file'),
        "auto",
        "FILE|auto|none",
        "the list of files that earlier runs wanted: kept per program, nowhere, or in FILE",
    ),
    Row("store", _PATH, None, "DIR", "where the copies on this node go; without it, the node's memory file system"),
    Row(
        "max_store_bytes",
        _SIZE,
        None,
        "SIZE",
        "limit for all copies on this node; without it, a quarter of what is free there, at most a quarter of memory",
    ),
    Row("max_file_bytes", _SIZE, None, "SIZE", "larger files are left to the file system; without it, none is"),
    Row(
        "patience",
        Kind(_seconds, "a number of seconds greater than 0, such as 30 or 2.5"),
        30.0,
        "SECONDS",
        "how long to wait for a transport before the file system is asked instead",
    ),
    Row(
        "job",
        Kind(_job, f"1 to {_JOB_LENGTH} letters, digits or any of . _ - :"),
        None,
        "NAME",
        "processes of one job share a store; without it, the launcher or batch system says which job this is",
    ),
    Row("cache", _PATH, None, "DIR", "a directory on the node's disk for copies that outlive the job"),
    Row("report", _PATH, None, "FILE.json", "write there at the end what was redirected, staged and missed"),
    Row(
        "quiet",
        Kind(_yes_or_no, f"one of {', '.join(_YES + _NO)} (True or False in Python)", by_itself=True),
        False,
        "",
        "no messages but errors",
    ),
    Row("api", Kind(_api, "a collfs.LibcCollfsApi"), None, "", "function pointers of your own", api_only=True),
    Row("program", Kind(_program, "a text"), None, "", "which program's manifest this is", api_only=True),
)


class Options:
    """All options, checked. Attributes are the names of :data:`ROWS`.

    >>> Options(patience=5, max_file_bytes="1.5K").max_file_bytes
    1536
    """

    __slots__ = tuple(row.name for row in ROWS)

    api: LibcCollfsApi | None
    cache: str | None
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
