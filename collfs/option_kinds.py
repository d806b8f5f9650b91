"""What values an option can take: the checkers of :mod:`collfs.options`.

Rules of the file: a checker takes what a caller or a text gave, returns the value to keep and accepts its own result
again; what it refuses is a ValueError with the reason (or none), and the row of the option says in whose words that is
reported. Every rank loads this before its hooks are live: no imports that aren't loaded anyway.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Union

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


def _bootstrap(value: object) -> object:
    if value not in ("none", "zmq"):
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


def _comm(value: object) -> object:
    # By name, as above: mpi4py isn't to be imported for this.
    if not any(kind.__name__ == "Intracomm" for kind in type(value).__mro__):
        raise ValueError
    return value


def _rank(value: object) -> object:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


TRANSPORT = Kind(_transport, '"auto", a name such as "local", "module:object", in Python also a Transport object')
BOOTSTRAP = Kind(_bootstrap, '"none" or "zmq"')
TRANSPORTS = Kind(_transport, "names of transports: local,... in a text, ('local', ...) in Python", separator=",")
DIRECTORIES = Kind(_path, f"directories: a list in Python, divided by {_SEP!r} in a variable", _SEP)
GLOBS = Kind(_glob, f"patterns that begin with / or *: a list in Python, divided by {_SEP!r} in a variable", _SEP)
MANIFEST = Kind(_manifest, '"auto", "none", or the path of a file')
PATH = Kind(_path, "a path")
SIZE = Kind(_size, "a number of bytes from 0 up, such as 1073741824, 512M, 2G or 1.5GiB")
SECONDS = Kind(_seconds, "a number of seconds greater than 0, such as 30 or 2.5")
JOB = Kind(_job, f"1 to {_JOB_LENGTH} letters, digits or any of . _ - :")
SWITCH = Kind(_yes_or_no, f"one of {', '.join(_YES + _NO)} (True or False in Python)", by_itself=True)
API = Kind(_api, "a collfs.LibcCollfsApi")
PROGRAM = Kind(_program, "a text")
COMM = Kind(_comm, "an intracommunicator of mpi4py.MPI")
RANK = Kind(_rank, "the number of a rank, from 0 up")
