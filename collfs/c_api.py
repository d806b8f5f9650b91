"""The C interface: ``collfsinitialize``, ``collfsfinalize`` and ``_dl_collfs_api``, in this process.

::

    C client --> libcollfs.so.1 (interpose/libcollfs.py) --> machine/client.h --> here --> Interposer.give
                   _dl_collfs_api  <-------- rows -------- machine code of the trampolines

``include/collfs.h`` is the contract. What the rows of ``ld.so`` do:

=============================  ==========================================  ========================================
state                          routed                                      NULL in ``_dl_collfs_api``
=============================  ==========================================  ========================================
:func:`export_c_api`           all rows, so that a pointer that is stored  the row of the session, or the original
                               there takes part at once                    call
``collfsinitialize(table)``    the rows of *table* that aren't NULL        the original call, its bytes untouched
``collfsfinalize()``           those of the session, or none               the row of the session
=============================  ==========================================  ========================================

The session (``collfs.initialize``) may come and go before and after: libc's calls are always its own. A client stays
when it ends. A forked child has what its parent had, and may change it for itself.

Rules of the file: nothing that C may still call is ever freed; no exception gets into C; at Python's end the machine
code goes on alone.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import os
from ctypes import CFUNCTYPE, c_int, c_uint64, c_void_p

from . import _libc
from .calls import serving
from .errors import InterposeRefused
from .interpose.debug import announce
from .interpose.interposer import Interposer, of_process
from .interpose.libcollfs import MAGIC, SONAME, Slots, library
from .interpose.machine.layout import ROW_NAMES, Cell
from .messages import Messages

_messages = Messages(quiet=False)
_export: _Export | None = None
_ROWS = c_uint64 * len(ROW_NAMES)


class _Export:
    """What belongs to the one export of this process."""

    def __init__(self, interposer: Interposer) -> None:
        self.interposer, self.cell = interposer, interposer.code.cell
        self.under = ctypes.addressof(self.cell) + Cell.api.offset
        self.library = _load()
        try:
            self.slots = Slots.in_dll(self.library, "_collfs_slots")
        except ValueError:
            self.slots = Slots()
        if self.slots.magic != MAGIC:
            raise InterposeRefused(f"another {SONAME} is loaded in this process, not that of `collfs stub`")
        # a program that was linked with the table may have a copy of its own (R_X86_64_COPY), which then counts
        address = ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(None), "_dl_collfs_api"))
        self.table = _ROWS.from_address(address)
        # they get no reference to self: they are for as long as the process
        self.callbacks = (
            CFUNCTYPE(c_int, c_void_p, use_errno=True)(self.initialize),
            CFUNCTYPE(None, use_errno=True)(self.finalize),
        )
        self.cell.pid = os.getpid()
        self.cell.on_initialize, self.cell.on_finalize = (ctypes.cast(c, c_void_p).value or 0 for c in self.callbacks)
        interposer.export(address)
        base, header = interposer.code.base, interposer.code.header
        self.slots.initialize, self.slots.finalize = base + header.c_initialize, base + header.c_finalize

    def open(self) -> None:
        """Route all rows."""
        if self.cell.under == self.under:
            self.interposer.give(frozenset(ROW_NAMES))

    def store(self, rows: list[int]) -> None:
        """Change the table; each pointer in one piece, because another thread may be reading it."""
        for i, function in enumerate(rows):
            self.table[i] = function

    def initialize(self, address: int) -> int:
        """``collfsinitialize``; *address* isn't NULL and no row is running."""
        old = list(self.table)
        new = list(_ROWS.from_buffer_copy(ctypes.string_at(address, ctypes.sizeof(_ROWS))))
        under = self.cell.under
        try:
            self.store(new)
            self.cell.under = self.cell.rows
            self.interposer.give({name for name, function in zip(ROW_NAMES, new) if function})
        except BaseException as exc:
            self.store(old)
            self.cell.under = under
            return _failed("collfsinitialize", exc)
        return 0

    def finalize(self) -> None:
        """``collfsfinalize``; no row is running."""
        self.store([0] * len(ROW_NAMES))
        self.cell.under = self.under
        try:
            self.interposer.give(None)
        except BaseException as exc:
            _failed("collfsfinalize", exc)

    def leave(self) -> None:
        """Python ends; C may go on calling."""
        self.cell.on_initialize = self.cell.on_finalize = 0


def _failed(what: str, exc: BaseException) -> int:
    code = exc.errno if isinstance(exc, OSError) and exc.errno else errno.EPERM
    if not isinstance(exc, Exception):  # KeyboardInterrupt: it can't get through C
        code = errno.EINTR
    said = str(exc) if isinstance(exc, OSError) else f"{type(exc).__name__}: {exc}"
    _messages.warn(f"{what} {code}", f"{what}: {said}")
    ctypes.set_errno(code)
    return -1


def _load() -> ctypes.CDLL:
    """The library: the one that a program was linked with, or a new one. It is never unloaded (DF_1_NODELETE)."""
    mode = os.RTLD_NOW | os.RTLD_GLOBAL
    try:
        return ctypes.CDLL(SONAME, mode=mode | os.RTLD_NOLOAD, use_errno=True)
    except OSError:
        pass
    # the descriptor stays open: debuggers open the file by this name
    try:
        fd = _libc.high(_libc.memfd(SONAME.encode(), library()))
    except OSError as exc:
        raise InterposeRefused(exc.errno, f"no place for {SONAME}: {exc.strerror or exc}") from exc
    try:
        return ctypes.CDLL(f"/proc/{os.getpid()}/fd/{fd}", mode=mode, use_errno=True)
    except OSError as exc:
        os.close(fd)
        raise InterposeRefused(f"{SONAME} can't be loaded from memory: {exc}") from exc


def export_c_api(*, perf: bool = False) -> ctypes.CDLL:
    """Make ``collfsinitialize``, ``collfsfinalize`` and ``_dl_collfs_api`` known in this process, for C code.

    From here on ``dlsym(RTLD_DEFAULT, "collfsinitialize")`` finds them, libraries that are linked with
    ``libcollfs.so.1`` can be loaded, and a pointer that is stored into ``_dl_collfs_api`` takes part. It needs no
    session, and changes nothing in one. Idempotent; after ``collfsfinalize`` it opens ``_dl_collfs_api`` again.

    :param perf: write ``/tmp/perf-PID.map``, from which ``perf report`` has the names of the machine code; yours to
        delete
    :returns: the library, to call its functions from Python
    :raises InterposeRefused: if this process isn't as expected; nothing is changed then
    :raises OSError: with *perf*, if the map can't be written or the kernel forbids code in anonymous memory

    >>> import collfs
    >>> lib = collfs.export_c_api()                                        # doctest: +SKIP
    >>> lib.collfsfinalize()                                               # doctest: +SKIP
    """
    global _export
    if _export is None:
        session = serving()
        interposer = session.interposer if session is not None else None
        made = _Export(interposer or of_process())
        announce(made.interposer, made.slots)
        atexit.register(made.leave)
        _export = made
    _export.open()
    if perf:
        from .interpose.debug import write_perf_map

        write_perf_map(_export.interposer)
    return _export.library


def get_include() -> str:
    """The directory of ``collfs.h``, for a C compiler's ``-I``."""
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "include")


def write_stub(path: str | os.PathLike[str]) -> None:
    """Write the library to link C code with: ``-lcollfs`` with *path* named ``libcollfs.so``.

    :raises InterposeRefused: on another machine than x86-64, for which there is no such library
    :raises OSError: if *path* can't be written
    """
    machine = os.uname().machine
    if machine != "x86_64":
        raise InterposeRefused(f"the C interface is for x86-64, this is {machine}")
    with open(path, "wb") as file:
        file.write(library())
        os.fchmod(file.fileno(), 0o755)
