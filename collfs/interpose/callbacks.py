"""Python functions in the function-pointer table, for single-threaded programs that ask for it.

The dynamic linker calls them with its locks held. A second thread that enters dlopen, or merely starts, while it holds
the GIL then waits for the linker, and the linker for the GIL: measured, and not curable from Python. So this is for
experiments and tests; the default table has no Python in it.

Rules of the file: one barrier for all rows, through which no exception gets into C: OSError becomes its errno, anything
else is logged and becomes EIO. KeyboardInterrupt, SystemExit and their kin are raised again as soon as C has returned,
which until then gets the original calls.
"""

from __future__ import annotations

import ctypes
import errno as _errno
import functools
import weakref

from ..errors import OptionError
from .api import PROTOTYPES, ROWS, LibcCollfsApi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Union

    Row = Callable[..., Union[int, None]]

NATIVE = -4096  # "make the original call": machine/arch.h

# The third argument is for the dead reference that a weakref callback gets; the C function doesn't see it.
_add_pending_call = ctypes.pythonapi.Py_AddPendingCall
_add_pending_call.argtypes, _add_pending_call.restype = (
    (ctypes.c_void_p, ctypes.py_object, ctypes.py_object),
    ctypes.c_int,
)
_is_true = ctypes.cast(ctypes.pythonapi.PyObject_IsTrue, ctypes.c_void_p).value

_waiting: list[tuple[_Raise, object]] = []


class _Raise:
    """A pending call: PyObject_IsTrue of it gives the rows back and raises the exception that one of them had."""

    __slots__ = ("cell", "exc", "table")

    def __init__(self, table: LibcCollfsApi, exc: BaseException) -> None:
        self.table, self.cell, self.exc = table, table.cell, exc

    def __bool__(self) -> bool:
        _waiting[:] = [(other, reference) for other, reference in _waiting if other is not self]
        if self.cell is not None:
            self.table.install(self.cell)
        raise self.exc


class _End:
    """Belongs to a result, and dies with it."""


class _Result(int):
    """What a row gives back; ctypes drops it when C has the number. (An int can't have weak references itself.)"""

    end: _End


def _raise_later(table: LibcCollfsApi, exc: BaseException) -> int:
    """The result that means "make the original call"; *exc* is raised when C has returned to the interpreter.

    A pending call runs at the next instruction of the interpreter. While the row itself runs that would still be its
    own (ctypes would print the exception, and C would get a result that nobody made), so it is added at the very end.
    Until then no other row may run, because it would get the exception.
    """
    later = _Raise(table, exc)
    table.stop()
    result = _Result(NATIVE)
    result.end = _End()
    _waiting.append((later, weakref.ref(result.end, functools.partial(_add_pending_call, _is_true, later))))
    return result


def _barrier(table: LibcCollfsApi, name: str, function: Row) -> Row:
    def call(*args: object) -> int:
        try:
            result = function(*args)
            return 0 if result is None else result
        except OSError as exc:
            ctypes.set_errno(exc.errno or _errno.EIO)
        except Exception:
            import logging

            logging.getLogger("collfs").exception("collfs: the %s row of the callback table failed", name)
            ctypes.set_errno(_errno.EIO)
        except BaseException as exc:
            return _raise_later(table, exc)
        return -1

    return call


def callback_table(**rows: Row) -> LibcCollfsApi:
    """A table whose rows are Python functions; rows that aren't given are NULL, the original call.

    A function gets the arguments of its row (paths as bytes, pointers as integers or None) and returns its result, or
    raises OSError. Inside it, ``os.open`` and the like are the plain calls.

    :raises OptionError: for a name that isn't a row

    >>> import os, collfs
    >>> table = collfs.callback_table(open=lambda path, flags, mode: os.open(path, flags, mode))
    """
    known = [name for name, _, _ in ROWS]
    table = LibcCollfsApi()
    for name, function in rows.items():
        if name not in known:
            raise OptionError(f"callback_table: {name!r} is no row of the table. There are: {', '.join(known)}")
        if not callable(function):
            raise OptionError(f"callback_table: {name}={function!r} can't be called")
        setattr(table, name, PROTOTYPES[name](_barrier(table, name, function)))
    return table
