"""The machine code in memory: near the objects that jump to it, read-execute, never unmapped.

::

    within 2 GiB of ld.so and libc.so.6
    +------------------+----------------------------+--------------+
    | cell (rw-, anon) | blob (r-x, memfd, private) | trampolines  |
    +------------------+----------------------------+--------------+
     <- CELL_SIZE ----> machine.ld fixes this distance, so that the code finds the cell without an argument

A memfd mapped read-execute is allowed where making anonymous memory executable isn't (PR_SET_MDWE, measured).

Rules of the file: nothing that may be in use is unmapped or written again; addresses are checked, not hoped for.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import CFUNCTYPE, POINTER, PYFUNCTYPE, c_char_p, c_int64, c_uint32, c_uint64, c_void_p, py_object, pythonapi

from ... import _libc
from ...errors import InterposeRefused
from .layout import CELL_SIZE, PYTHON_FUNCTIONS, TEMPLATE_ROW, TEMPLATES, BlobHeader, Cell, Events, News, Waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC = int.from_bytes(b"collfs03", "little")
REACH = (1 << 31) - (1 << 24)  # a rel32 jump, with room to spare
PAGE = 4096
CODE_NAME = b"collfs-code"  # what /proc/self/maps calls it


METH_O, METH_FASTCALL = 0x8, 0x80  # Include/methodobject.h


class _MethodDef(ctypes.Structure):
    """``PyMethodDef`` (Doc/c-api/structures.rst)."""

    _fields_ = [("ml_name", c_char_p), ("ml_meth", c_void_p), ("ml_flags", ctypes.c_int), ("ml_doc", c_char_p)]


hooked: list[Events] = []  # what the audit hook knows, if there is one
latest: list[Code] = []  # the one that was mapped last in this process; none is ever unmapped


def blob() -> bytes:
    """The shipped bytes for this machine.

    :raises InterposeRefused: if there are none for it
    """
    path = os.path.join(os.path.dirname(__file__), os.uname().machine + ".bin")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise InterposeRefused(f"no machine code for {os.uname().machine}: {exc}") from None
    try:
        content = os.read(fd, 1 << 20)
    finally:
        os.close(fd)
    header = BlobHeader.from_buffer_copy(content.ljust(ctypes.sizeof(BlobHeader), b"\0"))
    if header.magic != MAGIC or header.size != len(content):
        raise InterposeRefused(f"{path} is damaged: {len(content)} bytes, {header.size} expected")
    return content


class Code:
    """The mapped machine code of this process, with its functions for Python.

    All but ``sum64`` and ``wait_for`` keep the GIL.
    """

    def __init__(self, near: list[tuple[int, int]], tail: int) -> None:
        """
        :param near: (start, end) of the texts that must reach the code, and be reached from it
        :param tail: bytes to reserve for trampolines behind the blob
        :raises InterposeRefused: if no memory near enough can be had
        """
        self.bytes = blob()
        self.header = BlobHeader.from_buffer_copy(self.bytes)
        self.templates: dict[str, tuple[int, int, int, int, int]] = {}
        for i, name in enumerate(TEMPLATES):
            row = TEMPLATE_ROW.from_buffer_copy(self.bytes, ctypes.sizeof(BlobHeader) + i * ctypes.sizeof(TEMPLATE_ROW))
            self.templates[name] = (row[0], row[1], row[2], row[3], row[4])
        self.tail_offset = (len(self.bytes) + 63) & -64
        self.size = CELL_SIZE + ((self.tail_offset + tail + PAGE - 1) & -PAGE)
        self.page = _reserve(near, self.size)
        self.base = self.page + CELL_SIZE
        _libc.mmap(
            self.page,
            CELL_SIZE,
            _libc.PROT_READ | _libc.PROT_WRITE,
            _libc.MAP_PRIVATE | _libc.MAP_ANONYMOUS | _libc.MAP_FIXED,
        )
        self.cell = Cell.from_address(self.page)
        self.cell.errno_location = _libc.errno_location
        self.cell.rows = self.cell.under = self.page + Cell.api.offset
        self.map(b"")
        at = self.base
        h = self.header
        self.probe = PYFUNCTYPE(c_uint64, c_void_p, c_char_p, POINTER(c_uint32))(at + h.probe)
        self.swap_word = PYFUNCTYPE(c_uint64, c_void_p, c_uint64, c_uint64)(at + h.swap_word)
        self.store_word = PYFUNCTYPE(None, c_void_p, c_uint64)(at + h.store_word)
        self.forget = PYFUNCTYPE(None, c_void_p, c_char_p, c_uint64, c_uint64)(at + h.forget)
        self.poke = PYFUNCTYPE(c_int64, c_void_p, c_char_p, c_uint64, c_uint64)(at + h.poke)
        self.put = PYFUNCTYPE(c_int64, c_void_p, POINTER(News))(at + h.put)
        self.sum64 = CFUNCTYPE(c_uint64, c_void_p, c_uint64, c_uint64)(at + h.sum64)
        self.wait_for = CFUNCTYPE(c_int64, POINTER(Waiting))(at + h.wait_for)
        self.ring = PYFUNCTYPE(None, POINTER(Waiting))(at + h.ring)
        for i, name in enumerate(PYTHON_FUNCTIONS):
            self.cell.python[i] = ctypes.cast(getattr(pythonapi, name), c_void_p).value or 0
        self._definitions: list[_MethodDef] = []  # CPython keeps pointers to them
        latest[:] = [self]

    def prober(self, table: int) -> Callable[[str], int]:
        """``Table.probe`` of the table at this address."""
        return self._function(b"probe", self.header.py_probe, METH_O, table)

    def seeker(self, search: int) -> Callable[[str, str], int]:
        """``Table.seek`` for the :class:`~.layout.Search` at this address."""
        return self._function(b"seek", self.header.py_seek, METH_FASTCALL, search)

    def _function(self, name: bytes, offset: int, flags: int, own: int) -> Callable[..., int]:
        """A built-in function that runs the code at *offset*, with the integer *own* for its ``self``."""
        definition = _MethodDef(name, self.base + offset, flags, None)
        self._definitions.append(definition)
        new = pythonapi.PyCFunction_NewEx  # not of the stable ABI, but a function in all versions from 3.9 to 3.14
        new.restype, new.argtypes = py_object, (POINTER(_MethodDef), py_object, c_void_p)
        return new(definition, own, None)  # type: ignore[no-any-return]

    def hook_events(self, table: int) -> Events:
        """Have CPython tell the machine code of what it does: what the hook knows, with no handlers yet.

        Added once for the rest of this interpreter's life: such a hook can't be removed.

        :param table: address of the path table

        :raises RuntimeError: if another audit hook doesn't allow it
        """
        if not hooked:
            hooked.append(Events())
            add = PYFUNCTYPE(ctypes.c_int, c_void_p, c_void_p)(("PySys_AddAuditHook", pythonapi))
            if add(self.base + self.header.py_audit, ctypes.addressof(hooked[0])):
                raise RuntimeError("the audit hook was refused")
        events = hooked[0]
        current = pythonapi.PyInterpreterState_Get
        current.restype = c_void_p
        events.table, events.probe = table, self.base + self.header.probe
        events.interpreter, events.none = current(), id(None)
        return events

    def map(self, trampolines: bytes) -> None:
        """Map the blob with *trampolines* behind it. Only before the first site jumps there."""
        image = self.bytes.ljust(self.tail_offset, b"\xcc") + trampolines
        size = self.size - CELL_SIZE
        if len(image) > size:
            raise InterposeRefused(f"{len(trampolines)} bytes of trampolines don't fit into {size}")
        fd = _libc.memfd(CODE_NAME, image.ljust(size, b"\xcc"))
        try:
            _libc.mmap(self.base, size, _libc.PROT_READ | _libc.PROT_EXEC, _libc.MAP_PRIVATE | _libc.MAP_FIXED, fd)
        finally:
            os.close(fd)

    def make_anonymous(self) -> None:
        """Put a copy without a file in the place of the code, under threads that run it.

        perf(1) 6.1 looks up names of anonymous memory only, and hears of new code by mmap and mprotect, not by mremap.

        :raises OSError: if anonymous memory can't be made executable here
        """
        size = self.size - CELL_SIZE
        every = _libc.PROT_READ | _libc.PROT_WRITE | _libc.PROT_EXEC
        copy = _libc.mmap(0, size, every, _libc.MAP_PRIVATE | _libc.MAP_ANONYMOUS)
        ctypes.memmove(copy, self.base, size)
        if _libc.mremap_(copy, size, size, _libc.MREMAP_MAYMOVE | _libc.MREMAP_FIXED, self.base) != self.base:
            code = ctypes.get_errno()
            _libc.munmap_(copy, size)
            raise OSError(code, f"mremap: {os.strerror(code)}")
        _libc.check(_libc.mprotect_(self.base, size, _libc.PROT_READ | _libc.PROT_EXEC), "mprotect")


def _reaches(page: int, size: int, near: list[tuple[int, int]]) -> bool:
    return all(abs(page - end) < REACH and abs(page + size - start) < REACH for start, end in near)


def _reserve(near: list[tuple[int, int]], size: int) -> int:
    """Reserve *size* bytes of address space within reach of all of *near*."""
    flags = _libc.MAP_PRIVATE | _libc.MAP_ANONYMOUS
    page = _libc.mmap(0, size, _libc.PROT_NONE, flags)
    if _reaches(page, size, near):
        return page
    _libc.munmap_(page, size)
    last = 0
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            start, end = (int(x, 16) for x in line.split(None, 1)[0].split(b"-"))
            for page in (start - size, last):
                if last <= page and page + size <= start and page >= 1 << 16 and _reaches(page, size, near):
                    try:
                        got = _libc.mmap(page, size, _libc.PROT_NONE, flags | _libc.MAP_FIXED_NOREPLACE)
                    except OSError:
                        continue
                    if got == page:
                        return page
                    _libc.munmap_(got, size)  # a kernel before 4.17 takes the flag for a hint
            last = end
    raise InterposeRefused("no free memory within 2 GiB of the dynamic linker and the C library")
