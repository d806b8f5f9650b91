"""ELF files, written: sections, symbols, versions, hash tables, and frames for unwinders. Nothing is read here.

Sources: <elf.h>; System V ABI, generic and x86-64; LSB core, "Symbol Versioning" and "Exception Frames"; DWARF 4, 6.4.

Rules of the file: it knows formats, not what goes into them; 64-bit little-endian only; callers have the addresses.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

ET_EXEC, ET_DYN, EM_X86_64 = 2, 3, 62
PT_LOAD, PT_DYNAMIC, PT_NOTE = 1, 2, 4
PT_GNU_EH_FRAME, PT_GNU_STACK, PT_GNU_PROPERTY = 0x6474E550, 0x6474E551, 0x6474E553
SHT_PROGBITS, SHT_SYMTAB, SHT_STRTAB, SHT_HASH, SHT_DYNAMIC, SHT_NOTE, SHT_NOBITS, SHT_DYNSYM = 1, 2, 3, 5, 6, 7, 8, 11
SHT_GNU_HASH, SHT_GNU_VERDEF, SHT_GNU_VERSYM = 0x6FFFFFF6, 0x6FFFFFFD, 0x6FFFFFFF
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
STB_LOCAL, STB_GLOBAL, STT_OBJECT, STT_FUNC = 0, 1, 1, 2
VER_FLG_BASE, FIRST_VERSION = 1, 2
EHDR, PHDR, SHDR, SYM = 64, 56, 64, 24  # sizes


class Strings:
    """A string table; each name once."""

    def __init__(self) -> None:
        self.content = bytearray(b"\0")
        self._known = {"": 0}

    def add(self, name: str) -> int:
        """Offset of *name*."""
        if name not in self._known:
            self._known[name] = len(self.content)
            self.content += name.encode() + b"\0"
        return self._known[name]


class Section:
    """One section. ``offset`` in the file is its address if it has a segment, else it is chosen by :func:`write`."""

    __slots__ = ("address", "align", "content", "entsize", "flags", "info", "kind", "link", "name", "offset", "size")

    def __init__(self, name: str, kind: int, flags: int = 0, align: int = 1, entsize: int = 0) -> None:
        self.name, self.kind, self.flags, self.align, self.entsize = name, kind, flags, align, entsize
        self.content: bytes | bytearray = b""
        self.link: Section | None = None
        self.size = self.info = self.address = 0
        self.offset = -1


class Symbol:
    """One symbol of a section. ``version`` counts from 2, in the order of :func:`version_definitions`."""

    __slots__ = ("kind", "name", "section", "size", "value", "version")

    def __init__(self, name: str, kind: int, section: Section, value: int, size: int, version: int = 0) -> None:
        """
        :param value: the address, or the offset in *section* while that has none
        """
        self.name, self.kind, self.section, self.value, self.size = name, kind, section, value, size
        self.version = version


def symbol_table(symbols: Sequence[Symbol], binding: int, sections: Sequence[Section], strings: Strings) -> bytes:
    """Content of a ``SHT_SYMTAB`` or ``SHT_DYNSYM``. *sections* are numbered from 1."""
    out = bytes(SYM)
    for one in symbols:
        index = sections.index(one.section) + 1
        out += struct.pack("<IBBHQQ", strings.add(one.name), binding << 4 | one.kind, 0, index, one.value, one.size)
    return out


def sysv_hash(name: str) -> int:
    """The hash of ``.hash`` and of version definitions (System V ABI, figure 5-13)."""
    h = 0
    for byte in name.encode():
        h = (h << 4) + byte
        high = h & 0xF0000000
        h = (h ^ high >> 24) & ~high & 0xFFFFFFFF
    return h


def gnu_hash(name: str) -> int:
    """The hash of ``.gnu.hash``: Bernstein's, times 33."""
    h = 5381
    for byte in name.encode():
        h = (h * 33 + byte) & 0xFFFFFFFF
    return h


def sysv_hash_table(count: int) -> bytes:
    """``.hash`` with one bucket: symbols 1 to *count*, each chained to the next."""
    chain = [0, *range(2, count + 1), 0]
    return struct.pack(f"<{3 + len(chain)}I", 1, len(chain), 1, *chain)


def gnu_hash_table(names: Sequence[str]) -> bytes:
    """``.gnu.hash`` with one bucket and one word of its Bloom filter, for all symbols but the first, which is none."""
    shift, bloom, hashes = 6, 0, [gnu_hash(name) for name in names]
    for h in hashes:
        bloom |= 1 << (h & 63) | 1 << (h >> shift & 63)
    chain = [h & ~1 for h in hashes[:-1]] + [hashes[-1] | 1]
    return struct.pack(f"<IIIIQI{len(chain)}I", 1, 1, 1, shift, bloom, 1, *chain)


def version_definitions(soname: str, versions: Sequence[str], strings: Strings) -> bytes:
    """``.gnu.version_d``: the file itself, then *versions*, numbered from 2."""
    out, names = b"", [soname, *versions]
    for i, name in enumerate(names):
        last = i == len(names) - 1
        flags = 0 if i else VER_FLG_BASE
        out += struct.pack("<HHHHIII", 1, flags, i + 1, 1, sysv_hash(name), 20, 0 if last else 28)
        out += struct.pack("<II", strings.add(name), 0)
    return out


def uleb128(value: int) -> bytes:
    """DWARF 4, figure 46."""
    out = b""
    while value >= 0x80:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))


def frame_entry(body: bytes) -> bytes:
    """A CIE or FDE of ``.eh_frame``: its length before it, padded with DW_CFA_nop to 8 bytes."""
    body += bytes(-(len(body) + 4) % 8)
    return struct.pack("<I", len(body)) + body


def frame_info(pointers: int, cfa_offset: int, rules: bytes = b"") -> bytes:
    """A CIE for x86-64: factors 1 and -8, return address in column 16, CFA = rsp + *cfa_offset*, then *rules*.

    :param pointers: DW_EH_PE_... of the addresses in its FDEs: 0 absolute, 0x1b pcrel sdata4
    """
    head = struct.pack("<IB3sBBBBB", 0, 1, b"zR\0", 1, 0x78, 16, 1, pointers)
    return frame_entry(head + b"\x0c\x07" + uleb128(cfa_offset) + rules)


def write(kind: int, sections: Sequence[Section], segments: Sequence[tuple[int, ...]] = ()) -> bytes:
    """A whole file.

    :param kind: ``ET_DYN`` or ``ET_EXEC``
    :param sections: those with an offset lie there; the others follow behind. The table of section names is added
    :param segments: p_type, p_flags, p_offset (which is p_vaddr too), size, p_align
    """
    names = Strings()
    all_ = [*sections, Section(".shstrtab", SHT_STRTAB)]
    numbers = [names.add(one.name) for one in all_]
    all_[-1].content = names.content
    ends = [one.offset + len(one.content) for one in sections if one.offset >= 0]
    out = bytearray(max([EHDR + PHDR * len(segments), *ends]))
    headers = bytes(SHDR)
    for one, number in zip(all_, numbers):
        if one.offset < 0:
            out += bytes(-len(out) % one.align)
            one.offset = len(out)
            out += one.content
        else:
            out[one.offset : one.offset + len(one.content)] = one.content
        headers += struct.pack(
            "<IIQQQQIIQQ",
            *(number, one.kind, one.flags, one.address, one.offset, one.size or len(one.content)),
            *(all_.index(one.link) + 1 if one.link else 0, one.info, one.align, one.entsize),
        )
    out += bytes(-len(out) % 8)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)
    table = len(out)
    out[:EHDR] = ident + struct.pack(
        "<HHIQQQIHHHHHH",
        *(kind, EM_X86_64, 1, 0, EHDR if segments else 0, table, 0, EHDR),
        *(PHDR if segments else 0, len(segments), SHDR, len(all_) + 1, len(all_)),
    )
    for i, (p_type, flags, at, size, align) in enumerate(segments):
        struct.pack_into("<IIQQQQQQ", out, EHDR + PHDR * i, p_type, flags, at, at, at, size, size, align)
    return bytes(out + headers)
