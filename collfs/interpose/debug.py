"""Names and frames of the machine code, for debuggers and profilers.

GDB's JIT interface (GDB manual, "JIT Compilation Interface"): an ELF file in memory, with absolute addresses and
``.symtab`` (``collfs:NAME`` for a function, ``collfs:OBJECT:CALL`` for the trampoline of a site) and ``.eh_frame``.
perf(1): ``/tmp/perf-PID.map``, a line "start size name" for each (tools/perf/Documentation/jit-interface.txt of Linux).

A trampoline is entered by a jump, so to an unwinder it is the middle of the function that it came from: the caller's
registers are those at the site, and the address to go on at is the one behind the site's ``syscall``.

Rules of the file: what is made here is only read by others; memory that was announced is never freed.
"""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import CFUNCTYPE, Structure, addressof, c_uint64

from ..errors import InterposeRefused
from . import elf
from .elf import SHF_ALLOC, SHF_EXECINSTR, Section, Strings, Symbol, uleb128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .interposer import Interposer
    from .libcollfs import Slots

JIT_REGISTER_FN = 1

# DWARF 4, 7.23
ADVANCE, DEF_CFA, DEF_CFA_REGISTER, DEF_CFA_OFFSET, SAME_VALUE, VAL_EXPRESSION = 0x40, 0x0C, 0x0D, 0x0E, 0x08, 0x16
OFFSET, OP_ADDR, RBP, RSP, RIP = 0x80, 0x03, 6, 7, 16
PUSHED = 128 + 8 * 8  # from rbp to the stack pointer at the site: SAVE_AND_CALL of trampoline.S

# SAVE_AND_CALL, instruction by instruction: its size, and what is true behind it
_BEFORE = (
    (5, bytes((DEF_CFA_OFFSET,)) + uleb128(128)),  # lea -128(%rsp),%rsp
    *((size, bytes((DEF_CFA_OFFSET,)) + uleb128(128 + 8 * (i + 1))) for i, size in enumerate((2, 2, 2, 1, 1, 1, 1))),
    (1, bytes((DEF_CFA_OFFSET,)) + uleb128(PUSHED) + bytes((OFFSET | RBP,)) + uleb128(PUSHED // 8)),  # push %rbp
    (3, bytes((DEF_CFA_REGISTER, RBP))),  # mov %rsp,%rbp
    (4 + 2 + 4 + 1, b""),  # lea, mov, and, the opcode of call
)
_BEHIND = (
    (4 + 6 + 5, b""),  # the call's rel32, cmp, cmove
    (3, bytes((DEF_CFA_REGISTER, RSP))),  # mov %rbp,%rsp
    (1, bytes((SAME_VALUE, RBP, DEF_CFA_OFFSET)) + uleb128(PUSHED - 8)),  # pop %rbp
    *(
        (size, bytes((DEF_CFA_OFFSET,)) + uleb128(PUSHED - 16 - 8 * i))
        for i, size in enumerate((5, 1, 1, 1, 2, 2, 2))  # lea 8(%rsp),%rsp and six pops
    ),
    (8, bytes((DEF_CFA_OFFSET, 0))),  # lea 128(%rsp),%rsp
)


class Region:
    """A piece of the machine code that has a name."""

    __slots__ = ("name", "size", "start")

    def __init__(self, start: int, size: int, name: str) -> None:
        self.start, self.size, self.name = start, size, name


def _symbols_file() -> list[str]:
    """The lines of ``x86_64.sym``: ``machine/build.py`` says what they hold."""
    path = os.path.join(os.path.dirname(__file__), "machine", os.uname().machine + ".sym")
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split("\n")
    except OSError as exc:
        raise InterposeRefused(f"no names of the machine code: {exc}") from None


def regions(interposer: Interposer) -> list[Region]:
    """All functions and trampolines."""
    base = interposer.code.base
    out = []
    for line in _symbols_file():
        words = line.split()
        if len(words) == 3:
            out.append(Region(base + int(words[0]), int(words[1]), f"collfs:{words[2]}"))
    out += [Region(at, size, f"collfs:{site.object}:{site.name}") for site, at, size, _ in interposer.trampolines]
    return out


def _function_frames(base: int) -> bytes:
    """The compiler's FDEs, with absolute addresses. They all have its one CIE, which is that of x86-64."""
    offset, text = _symbols_file()[-2].split()
    frames, out, at = bytes.fromhex(text), elf.frame_info(0, 8, bytes((OFFSET | RIP, 1))), 0
    here = base + int(offset)
    while at + 4 <= len(frames):
        (size,) = struct.unpack_from("<I", frames, at)
        if not size:
            break
        kind, start, length, augmentation = struct.unpack_from("<IiIB", frames, at + 4)
        if kind:
            body = struct.pack("<IQQB", len(out) + 4, here + at + 8 + start, length, 0)
            out += elf.frame_entry(body + frames[at + 17 + augmentation : at + 4 + size])
        at += 4 + size
    return out


def _trampoline_frames(interposer: Interposer) -> bytes:
    """A CIE (CFA: the stack pointer at the site) and an FDE for each trampoline."""
    out = elf.frame_info(0, 0)
    for site, at, size, call in interposer.trampolines:
        behind = struct.pack("<BQ", OP_ADDR, site.syscall + 2)
        rules = bytes((VAL_EXPRESSION, RIP)) + uleb128(len(behind)) + behind
        before = call - sum(length for length, _ in _BEFORE)
        for length, rule in ((before, b""), *_BEFORE, *_BEHIND):
            rules += bytes((ADVANCE | length,)) + rule  # no piece is longer than 63 bytes
        body = struct.pack("<IQQB", len(out) + 4, at, size, 0)
        out += elf.frame_entry(body + rules)
    return out


def symbol_file(interposer: Interposer) -> bytes:
    """The ELF file for GDB."""
    code = interposer.code
    text = Section(".text", elf.SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, 16)
    text.address, text.size = code.base, len(code.bytes)
    tail = Section(".text.sites", elf.SHT_NOBITS, SHF_ALLOC | SHF_EXECINSTR, 16)
    tail.address, tail.size = code.base + code.tail_offset, code.page + code.size - code.base - code.tail_offset
    frames = Section(".eh_frame", elf.SHT_PROGBITS, SHF_ALLOC, 8)
    # nothing is there; the addresses inside are absolute, but it must not lie over the others
    frames.address = code.page + code.size
    frames.content = _function_frames(code.base) + _trampoline_frames(interposer) + bytes(4)
    symtab, strtab = Section(".symtab", elf.SHT_SYMTAB, 0, 8, elf.SYM), Section(".strtab", elf.SHT_STRTAB)
    sections, names = [text, tail, frames, symtab, strtab], Strings()
    symbols = [
        Symbol(one.name, elf.STT_FUNC, tail if one.start >= tail.address else text, one.start, one.size)
        for one in regions(interposer)
    ]
    symtab.content = elf.symbol_table(symbols, elf.STB_GLOBAL, sections, names)
    symtab.info, symtab.link, strtab.content = 1, strtab, names.content
    return elf.write(elf.ET_EXEC, sections)


class _Entry(Structure):
    """``struct jit_code_entry``."""

    _fields_ = [
        ("next_entry", c_uint64),
        ("prev_entry", c_uint64),
        ("symfile_addr", c_uint64),
        ("symfile_size", c_uint64),
    ]


_announced: list[object] = []
_mapped: list[str] = []


def announce(interposer: Interposer, slots: Slots) -> None:
    """Tell GDB, now or whenever it comes.

    :param slots: of the library that has the names GDB looks for
    """
    content = symbol_file(interposer)
    buffer = ctypes.create_string_buffer(content, len(content))
    entry = _Entry(symfile_addr=addressof(buffer), symfile_size=len(content))
    _announced[:] = [buffer, entry]
    slots.jit.first_entry = slots.jit.relevant_entry = addressof(entry)
    slots.jit.action_flag = JIT_REGISTER_FN
    CFUNCTYPE(None)(addressof(slots) + slots.register_code)()
    slots.jit.action_flag = 0


def write_perf_map(interposer: Interposer) -> None:
    """Write ``/tmp/perf-PID.map``, where perf looks for it. It stays: ``perf report`` comes after the end.

    :raises OSError: if it can't be written, or the code can't be where perf looks up names
    """
    pid = os.getpid()
    path = f"/tmp/perf-{pid}.map"
    if path in _mapped:
        return
    interposer.code.make_anonymous()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        # Python's own (PEP 669's perf trampolines) appends to the same file
        lines = "".join(f"{one.start:x} {one.size:x} {one.name}\n" for one in regions(interposer))
        os.write(fd, lines.encode())
    finally:
        os.close(fd)
    _mapped.append(path)
