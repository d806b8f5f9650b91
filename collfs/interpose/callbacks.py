"""Python functions in the function-pointer table, for single-threaded programs that ask for it.

The dynamic linker calls them with its locks held. A second thread that enters dlopen, or merely starts, while it holds
the GIL then waits for the linker, and the linker for the GIL: measured, and not curable from Python. So this is for
experiments and tests; the default table has no Python in it.

Rules of the file: one barrier for all rows, through which no exception gets into C: OSError becomes its errno, anything
else is logged and becomes EIO. For KeyboardInterrupt, SystemExit and their kin the original call is made, and they are
raised again as soon as C has returned.
"""

from __future__ import annotations

import ctypes
import errno as _errno
import functools
import weakref
from _thread import get_ident

from ..errors import OptionError
from .api import PROTOTYPES, ROWS, LibcCollfsApi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Union

    Row = Callable[..., Union[int, None]]

NATIVE = -4096  # "make the original call": machine/arch.h

# Its third argument is for the dead reference that it gets as a weakref callback; a C function doesn't see it.
_set_async_exc = ctypes.pythonapi.PyThreadState_SetAsyncExc
_set_async_exc.argtypes, _set_async_exc.restype = (ctypes.c_ulong, ctypes.py_object, ctypes.py_object), ctypes.c_int

_references: list[object] = []


class _Leaving:
    """An object whose death is the end of the callback's frame."""

    __slots__ = ("__weakref__",)


def _raise_when_gone(leaving: _Leaving, exc: BaseException) -> None:
    """Raise *exc* again in this thread, but no earlier than when *leaving* dies.

    An exception set directly would be raised by the interpreter's next instruction, which still belongs to the callback;
    ctypes would print it, and C would get a result that nobody made. When the locals of a frame are released, its last
    instruction is done, and the next one belongs to whoever called C.
    """
    _references[:] = [weakref.ref(leaving, functools.partial(_set_async_exc, get_ident(), _kept(exc)))]


def _kept(exc: BaseException) -> type[BaseException]:
    """A class that makes an equal of *exc*: PyThreadState_SetAsyncExc takes classes only."""
    args = exc.args
    if not args and not getattr(exc, "code", None):
        return type(exc)  # KeyboardInterrupt itself: only for that very class does Python end itself by SIGINT

    class Again(type(exc)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(*args)

    Again.__name__ = Again.__qualname__ = type(exc).__name__
    Again.__module__ = type(exc).__module__
    return Again


def _barrier(name: str, function: Row) -> Row:
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
            leaving = _Leaving()
            _raise_when_gone(leaving, exc)
            return NATIVE
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
        setattr(table, name, PROTOTYPES[name](_barrier(name, function)))
    return table
