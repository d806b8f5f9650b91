"""``libcollfs.so.1``: the shared object that has the names of the C interface, made here without a compiler.

::

    page 0  r--  headers, .note.gnu.property, .hash, .gnu.hash, .dynsym, .dynstr, .gnu.version[_d], .eh_frame[_hdr]
    page 1  r-x  .text   collfsinitialize   jumps to the first of the slots, if that isn't 0; else the result is -1
                         collfsfinalize     to the second one
                         __jit_debug_register_code   does nothing: GDB has a breakpoint there
    page 2  rw-  .dynamic, .data  _dl_collfs_api, _collfs_slots (struct Slots), in it __jit_debug_descriptor
            ---  .symtab, .strtab, .shstrtab, section headers

The file to link with and the object in the process are the same bytes. Nobody but :mod:`collfs.c_api` fills the slots,
in whichever of them the process has loaded. No relocations. The names for GDB are no dynamic symbols: a compiler that
is loaded later has its own and must not get ours.

Rules of the file: everything that is exported is in :func:`_symbols`.
"""

from __future__ import annotations

import struct
from ctypes import Structure, c_char, c_int64, c_uint32, c_uint64, sizeof

from . import elf
from .elf import SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, Section, Strings, Symbol

SONAME, VERSION, PRIVATE = "libcollfs.so.1", "COLLFS_1.0", "COLLFS_PRIVATE"
MAGIC = b"collfs01"
PAGE = 4096
API_SIZE = 64
# <elf.h>
DT_NULL, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_SONAME = 0, 4, 5, 6, 10, 11, 14
DT_GNU_HASH, DT_VERSYM, DT_FLAGS_1 = 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFB
DT_VERDEF, DT_VERDEFNUM, DF_1_NODELETE = 0x6FFFFFFC, 0x6FFFFFFD, 8
# NT_GNU_PROPERTY_TYPE_0 with GNU_PROPERTY_X86_FEATURE_1_AND = IBT, SHSTK: without, a process that has a shadow stack
# would refuse to load it (glibc 2.39, dl-cet.c)
PROPERTY = struct.pack("<III4sIIII", 4, 16, 5, b"GNU\0", 0xC0000002, 4, 3, 0)
ENDBR64 = b"\xf3\x0f\x1e\xfa"


class JitDescriptor(Structure):
    """``struct jit_descriptor``: GDB manual, "JIT Compilation Interface"."""

    _fields_ = [
        ("version", c_uint32),
        ("action_flag", c_uint32),
        ("relevant_entry", c_uint64),
        ("first_entry", c_uint64),
    ]


class Slots(Structure):
    """What :mod:`collfs.c_api` finds under the name ``_collfs_slots``."""

    _fields_ = [
        ("magic", c_char * 8),
        ("initialize", c_uint64),
        ("finalize", c_uint64),
        ("register_code", c_int64),  # from here to __jit_debug_register_code
        ("jit", JitDescriptor),
    ]


def _jump(at: int, slot: int, otherwise: bytes) -> bytes:
    """endbr64; mov slot(%rip),%rax; test %rax,%rax; je 1f; jmp *%rax; 1: *otherwise*"""
    code = ENDBR64 + b"\x48\x8b\x05" + struct.pack("<i", slot - (at + 11))
    return code + b"\x48\x85\xc0" + b"\x74\x02" + b"\xff\xe0" + otherwise


def _frames(functions: list[tuple[int, int]], at: int, header: int) -> tuple[bytes, bytes]:
    """``.eh_frame`` at *at* and ``.eh_frame_hdr`` at *header* for functions that never touch the stack."""
    out = elf.frame_info(0x1B, 8, b"\x90\x01")  # the return address lies at CFA - 8
    table = struct.pack("<BBBBiI", 1, 0x1B, 0x03, 0x3B, at - (header + 4), len(functions))
    for start, size in functions:
        where = len(out)
        table += struct.pack("<ii", start - header, at + where - header)
        out += elf.frame_entry(struct.pack("<IiIB", where + 4, start - (at + where + 8), size, 0))
    return out + bytes(4), table


def _align(value: int, to: int) -> int:
    return (value + to - 1) & -to


def library() -> bytes:
    """The file, with empty slots."""
    note = Section(".note.gnu.property", elf.SHT_NOTE, SHF_ALLOC, 8)
    hash_ = Section(".hash", elf.SHT_HASH, SHF_ALLOC, 8, 4)
    gnu_hash = Section(".gnu.hash", elf.SHT_GNU_HASH, SHF_ALLOC, 8)
    dynsym = Section(".dynsym", elf.SHT_DYNSYM, SHF_ALLOC, 8, elf.SYM)
    dynstr = Section(".dynstr", elf.SHT_STRTAB, SHF_ALLOC)
    versym = Section(".gnu.version", elf.SHT_GNU_VERSYM, SHF_ALLOC, 2, 2)
    verdef = Section(".gnu.version_d", elf.SHT_GNU_VERDEF, SHF_ALLOC, 8)
    eh_frame_hdr = Section(".eh_frame_hdr", elf.SHT_PROGBITS, SHF_ALLOC, 4)
    eh_frame = Section(".eh_frame", elf.SHT_PROGBITS, SHF_ALLOC, 8)
    text = Section(".text", elf.SHT_PROGBITS, SHF_ALLOC | SHF_EXECINSTR, 16)
    dynamic = Section(".dynamic", elf.SHT_DYNAMIC, SHF_ALLOC | SHF_WRITE, 8, 16)
    data = Section(".data", elf.SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, 64)
    symtab = Section(".symtab", elf.SHT_SYMTAB, 0, 8, elf.SYM)
    strtab = Section(".strtab", elf.SHT_STRTAB)
    read_only = [note, hash_, gnu_hash, dynsym, dynstr, versym, verdef, eh_frame_hdr, eh_frame]
    sections = [*read_only, text, dynamic, data, symtab, strtab]

    # addresses: those of text and data first, because the others speak of them
    text.address, dynamic.address, data.address = PAGE, 2 * PAGE, 2 * PAGE + 256
    slots = data.address + API_SIZE
    starts = [PAGE, PAGE + 32, PAGE + 64]
    bodies = [
        _jump(starts[0], slots + Slots.initialize.offset, b"\xb8\xff\xff\xff\xff\xc3"),  # mov $-1,%eax; ret
        _jump(starts[1], slots + Slots.finalize.offset, b"\xc3"),
        ENDBR64 + b"\xc3",
    ]
    assert all(len(body) <= 32 for body in bodies)
    text.content = b"".join(body.ljust(32, b"\xcc") for body in bodies)
    filled = Slots(magic=MAGIC, register_code=starts[2] - slots, jit=JitDescriptor(version=1))
    data.content = bytes(API_SIZE) + bytes(filled)
    functions = list(zip(starts, map(len, bodies)))
    exported, local = _symbols(functions, text, data)

    names = Strings()
    soname = names.add(SONAME)
    dynsym.content, dynsym.link, dynsym.info = (
        elf.symbol_table(exported, elf.STB_GLOBAL, sections, names),
        dynstr,
        1,
    )
    versym.content = struct.pack(f"<{1 + len(exported)}H", 0, *(one.version for one in exported))
    verdef.content, verdef.link, verdef.info = elf.version_definitions(SONAME, [VERSION, PRIVATE], names), dynstr, 3
    dynstr.content = names.content
    hash_.content = elf.sysv_hash_table(len(exported))
    gnu_hash.content = elf.gnu_hash_table([one.name for one in exported])
    versym.link = hash_.link = gnu_hash.link = dynsym
    note.content = PROPERTY
    eh_frame.content, eh_frame_hdr.content = _frames(functions, 0, 0)  # for their sizes
    at = elf.EHDR + 8 * elf.PHDR
    for one in read_only:
        at = one.address = _align(at, one.align)
        at += len(one.content)
    assert at <= PAGE, at
    eh_frame.content, eh_frame_hdr.content = _frames(functions, eh_frame.address, eh_frame_hdr.address)
    tags = [(DT_SONAME, soname), (DT_HASH, hash_.address), (DT_GNU_HASH, gnu_hash.address), (DT_STRTAB, dynstr.address)]
    tags += [(DT_SYMTAB, dynsym.address), (DT_STRSZ, len(dynstr.content)), (DT_SYMENT, elf.SYM)]
    tags += [(DT_VERSYM, versym.address), (DT_VERDEF, verdef.address), (DT_VERDEFNUM, 3)]
    tags += [(DT_FLAGS_1, DF_1_NODELETE), (DT_NULL, 0)]
    dynamic.content, dynamic.link = b"".join(struct.pack("<QQ", *tag) for tag in tags), dynstr
    assert len(dynamic.content) <= data.address - dynamic.address
    for one in sections:
        if one.flags & SHF_ALLOC:
            one.offset = one.address

    more = Strings()  # locals come first: sh_info is the number of the first one that isn't
    symtab.content = elf.symbol_table(local, elf.STB_LOCAL, sections, more)
    symtab.info = 1 + len(local)
    symtab.content += elf.symbol_table(exported, elf.STB_GLOBAL, sections, more)[elf.SYM :]
    symtab.link, strtab.content = strtab, more.content
    end = data.address + len(data.content)
    return elf.write(
        elf.ET_DYN,
        sections,
        [
            (elf.PT_LOAD, 4, 0, at, PAGE),
            (elf.PT_LOAD, 5, text.address, len(text.content), PAGE),
            (elf.PT_LOAD, 6, dynamic.address, end - dynamic.address, PAGE),
            (elf.PT_DYNAMIC, 6, dynamic.address, len(dynamic.content), 8),
            (elf.PT_NOTE, 4, note.address, len(note.content), 8),
            (elf.PT_GNU_PROPERTY, 4, note.address, len(note.content), 8),
            (elf.PT_GNU_EH_FRAME, 4, eh_frame_hdr.address, len(eh_frame_hdr.content), 4),
            (elf.PT_GNU_STACK, 6, 0, 0, 16),
        ],
    )


def _symbols(functions: list[tuple[int, int]], text: Section, data: Section) -> tuple[list[Symbol], list[Symbol]]:
    """What is exported; and what only debuggers see."""
    one, private = elf.FIRST_VERSION, elf.FIRST_VERSION + 1
    slots = data.address + API_SIZE
    exported = [
        Symbol("collfsinitialize", elf.STT_FUNC, text, *functions[0], one),
        Symbol("collfsfinalize", elf.STT_FUNC, text, *functions[1], one),
        Symbol("_dl_collfs_api", elf.STT_OBJECT, data, data.address, API_SIZE, one),
        Symbol("_collfs_slots", elf.STT_OBJECT, data, slots, sizeof(Slots), private),
    ]
    descriptor = slots + Slots.jit.offset
    local = [
        Symbol("__jit_debug_register_code", elf.STT_FUNC, text, *functions[2]),
        Symbol("__jit_debug_descriptor", elf.STT_OBJECT, data, descriptor, sizeof(JitDescriptor)),
    ]
    return exported, local
