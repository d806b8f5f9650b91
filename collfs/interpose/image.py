"""What is loaded: objects of the link map, read from memory alone.

::

    _r_debug (ld.so) --r_map--> link_map --l_next--> link_map ...      glibc elf/link.h
         |                        | l_addr, l_name
         r_ldbase                 v
         |                       ELF header -> program headers -> PT_LOAD (text), PT_GNU_EH_FRAME (functions)
         v
        ELF header of ld.so

Rules of the file: never read the object's file (it may have been replaced on disk since); refuse what isn't exactly as
expected; no address is guessed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import c_uint64, c_void_p

from .._libc import libc
from ..errors import InterposeRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# <elf.h>
ELFCLASS64, ELFDATA2LSB, EM_X86_64, EM_AARCH64 = 2, 1, 62, 183
PT_LOAD, PT_GNU_EH_FRAME, PF_X, PF_W = 1, 0x6474E550, 1, 2
# DW_EH_PE_...: LSB core specification, "DWARF Exception Header Encoding"
PCREL_SDATA4, UDATA4, DATAREL_SDATA4 = 0x1B, 0x03, 0x3B

# struct r_debug, struct link_map of <link.h>: offsets on 64-bit machines, the same since glibc 2.1
R_MAP, R_LDBASE = 8, 32
L_ADDR, L_NAME, L_LD, L_NEXT = 0, 8, 16, 24
DT_NULL, DT_STRTAB, DT_RPATH, DT_RUNPATH = 0, 5, 15, 29  # <elf.h>

_r_debug = ctypes.addressof(c_void_p.in_dll(libc, "_r_debug")) if hasattr(libc, "_r_debug") else 0


def _word(address: int) -> int:
    return c_uint64.from_address(address).value


class Image:
    """One loaded object: its base address, its executable segments and its functions."""

    __slots__ = ("base", "eh_frame_hdr", "name", "path", "read", "text")

    def __init__(self, name: str, path: str, base: int, read: Callable[[int, int], bytes] = ctypes.string_at) -> None:
        """
        :param name: our short name for it: ``ld.so``, ``libc`` or ``libpthread``
        :param path: ``l_name``, for messages
        :param read: gives (address, size) of its memory; surveys of files that aren't loaded have their own
        :raises InterposeRefused: if no complete 64-bit ELF header lies at *base*
        """
        self.name, self.path, self.base, self.read = name, path, base, read
        header = read(base, 64)
        machine, phoff, phentsize, phnum = struct.unpack_from("<H12xQ14xHH", header, 18)
        if header[:6] != b"\x7fELF" + bytes((ELFCLASS64, ELFDATA2LSB)) or phentsize != 56 or not 0 < phnum < 64:
            raise InterposeRefused(f"no ELF header as expected at {base:#x} ({path}): {header[:24].hex()}")
        if machine != EM_X86_64:
            raise InterposeRefused(f"{path} is for machine {machine}; the interposer knows x86-64 ({EM_X86_64}) only")
        #: (first address, end) of each executable segment
        self.text: list[tuple[int, int]] = []
        self.eh_frame_hdr = 0
        for i in range(phnum):
            p_type, p_flags, _, p_vaddr, _, _, p_memsz, _ = struct.unpack("<IIQQQQQQ", read(base + phoff + 56 * i, 56))
            if p_type == PT_LOAD and p_flags & PF_X:
                if p_flags & PF_W:
                    raise InterposeRefused(f"the text of {path} is writable")
                self.text.append((base + p_vaddr, base + p_vaddr + p_memsz))
            elif p_type == PT_GNU_EH_FRAME:
                self.eh_frame_hdr = base + p_vaddr
        if not self.text or not self.eh_frame_hdr:
            raise InterposeRefused(f"{path} has no executable segment or no PT_GNU_EH_FRAME")

    def functions(self) -> Functions:
        """The table of functions in ``.eh_frame_hdr``.

        :raises InterposeRefused: if it has other encodings than the linker writes
        """
        return Functions(self)


class Functions:
    """Start and end of the functions of an image, by search in its ``.eh_frame_hdr`` (LSB core, section 10.6.2)."""

    __slots__ = ("_fde", "_hdr", "_read", "_start")

    def __init__(self, image: Image) -> None:
        hdr, self._read = image.eh_frame_hdr, image.read
        version, ptr_enc, count_enc, table_enc = image.read(hdr, 4)
        if (version, ptr_enc, count_enc, table_enc) != (1, PCREL_SDATA4, UDATA4, DATAREL_SDATA4):
            raise InterposeRefused(f"{image.path}: .eh_frame_hdr is encoded as {image.read(hdr, 4).hex()}")
        count = struct.unpack("<I", image.read(hdr + 8, 4))[0]
        if not 0 < count < 1 << 20:
            raise InterposeRefused(f"{image.path}: .eh_frame_hdr has {count} functions")
        table = memoryview(image.read(hdr + 12, 8 * count)).cast("i")
        self._hdr, self._start, self._fde = hdr, table[::2], table[1::2]

    def __len__(self) -> int:
        return len(self._start)

    def index(self, address: int) -> int:
        """Index of the last function that starts at or before *address*, -1 if there is none."""
        low, high, wanted = 0, len(self._start), address - self._hdr
        while low < high:
            middle = (low + high) // 2
            if self._start[middle] <= wanted:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def bounds(self, index: int) -> tuple[int, int]:
        """(start, end) of function number *index*; the end comes from its FDE, whose pointers are pcrel sdata4."""
        start = self._hdr + self._start[index]
        fde = self._hdr + self._fde[index]
        _, _, begin, size = struct.unpack("<IIiI", self._read(fde, 16))
        if fde + 8 + begin != start:
            raise InterposeRefused(f"the FDE at {fde:#x} is for {fde + 8 + begin:#x}, the table says {start:#x}")
        return start, start + size

    def containing(self, address: int) -> tuple[int, int] | None:
        """(start, end) of the function that *address* lies in, or None."""
        index = self.index(address)
        if index < 0:
            return None
        start, end = self.bounds(index)
        return (start, end) if start <= address < end else None


def link_map() -> list[tuple[int, str]]:
    """(address of the link_map, l_name) of each loaded object, the program first, which has no name."""
    out: list[tuple[int, str]] = []
    entry = _word(_r_debug + R_MAP) if _r_debug else 0
    while entry and len(out) < 10000:
        out.append((entry, os.fsdecode(ctypes.string_at(_word(entry + L_NAME)))))
        entry = _word(entry + L_NEXT)
    return out


def program_rpath() -> str:
    """DT_RPATH of the program, which counts for every library that has no DT_RUNPATH (man ld.so(8)); else empty."""
    programs = link_map()[:1]
    if not programs:
        return ""
    at, tags = _word(programs[0][0] + L_LD), {}
    for _ in range(256):
        tag = _word(at)
        if tag == DT_NULL:
            break
        tags[tag], at = _word(at + 8), at + 16
    if DT_RPATH not in tags or DT_RUNPATH in tags or DT_STRTAB not in tags:
        return ""
    # ld.so has put addresses into the table by now, unless it is read-only (elf/get-dynamic-info.h)
    strings = tags[DT_STRTAB]
    base = _word(programs[0][0] + L_ADDR)
    return os.fsdecode(ctypes.string_at((strings if strings > base else base + strings) + tags[DT_RPATH]))


def objects() -> dict[str, Image]:
    """The objects with the calls: ``ld.so``, ``libc``, and ``libpthread`` where glibc <= 2.33 still has its own.

    :raises InterposeRefused: if this isn't a glibc process, or one of them is missing or odd
    """
    if os.uname().machine != "x86_64":
        raise InterposeRefused(f"machine {os.uname().machine}: the interposer knows x86_64 only so far")
    if not hasattr(libc, "gnu_get_libc_version") or not _r_debug or not _word(_r_debug + R_LDBASE):
        raise InterposeRefused("not a dynamically linked glibc process")
    found = {"ld.so": Image("ld.so", "ld.so", _word(_r_debug + R_LDBASE))}
    for entry, path in link_map():
        for name, file in (("libc", "libc.so.6"), ("libpthread", "libpthread.so.0")):
            if path.rpartition("/")[2] == file and name not in found:
                found[name] = Image(name, path, _word(entry + L_ADDR))
    if "libc" not in found:
        raise InterposeRefused("no libc.so.6 in the link map")
    return found


def glibc_version() -> str:
    """What gnu_get_libc_version(3) says, or an empty string."""
    if not hasattr(libc, "gnu_get_libc_version"):
        return ""
    function = libc.gnu_get_libc_version
    function.restype = ctypes.c_char_p
    value = function()
    return value.decode() if isinstance(value, bytes) else ""
