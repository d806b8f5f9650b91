"""Which calls are intercepted, and where their system-call instructions are.

A site is recognised by its complete context, never by ``0f 05`` alone (which also occurs inside other instructions)::

    b8 NR NR NR NR        mov  $NR,%eax
    [mid]                 one of a few known instruction sequences, position independent
    0f 05                 syscall
    [48 89 c2]            mov  %rax,%rdx                     (some cancellable calls)
    [48] 3d 00|01 f0 ff ff  cmp  $-4096 or -4095,%[re]ax     the test for an error code
    76|77|73|0f 83|86|87  jbe, ja, jae

The survey over 18 builds of ld.so and 12 of libc.so.6 (glibc 2.27 to 2.44) found no false match. Two other shapes:
``xor %eax,%eax`` before the syscall for read (only 4 bytes: ``cave`` style), and, from glibc 2.41 on, openat and creat
behind ``__syscall_cancel``, where the number comes in a register; there the syscall itself must stay in place, because
pthread_cancel compares the program counter with it. From 2.41 on faccessat has its prologue between the mov and the
syscall: ``cave`` style, too, whose trampoline looks at the number itself.

Rules of the file: :data:`CALLS` is the one list of intercepted calls; what is patched, reported and tested follows
from it.
"""

from __future__ import annotations

import struct

from ..errors import InterposeRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .image import Image

LIBC, LDSO = "libc", "ld.so"

# name, number (arch/x86/entry/syscalls/syscall_64.tbl), for libc: template of trampoline.S, for ld.so: rows of the
# function-pointer table
# fmt: off
CALLS: tuple[tuple[str, int, str, str], ...] = (
    ("open",         2,   "plain",    "open"),  # a relative name may be opened for writing
    ("openat",       257, "plain",    "open"),
    ("stat",         4,   "path_rdi", "xstat64"),
    ("lstat",        6,   "path_rdi", ""),
    ("newfstatat",   262, "path_rsi", "xstat64 fxstat64"),  # glibc 2.33 to 2.38 make fstat of it, too
    ("statx",        332, "path_rsi", ""),
    ("access",       21,  "path_rdi", ""),
    ("faccessat",    269, "path_rsi", ""),
    ("faccessat2",   439, "path_rsi", ""),
    ("readlink",     89,  "path_rdi", ""),
    ("readlinkat",   267, "path_rsi", ""),
    # ld.so only
    ("fstat",        5,   "", "fxstat64"),
    ("close",        3,   "", "close"),
    ("read",         0,   "", "read"),
    ("pread64",      17,  "", "read"),
    ("lseek",        8,   "", "lseek"),
    ("mmap",         9,   "", "mmap"),
    ("munmap",       11,  "", "munmap"),
    # libc only: what changes the file system, or the meaning of names
    ("creat",        85,  "plain", ""), ("mkdir",        83,  "plain", ""), ("mknod",       133, "plain", ""),
    ("unlink",       87,  "plain", ""), ("rmdir",        84,  "plain", ""), ("truncate",    76,  "plain", ""),
    ("chmod",        90,  "plain", ""), ("chown",        92,  "plain", ""), ("lchown",      94,  "plain", ""),
    ("utime",        132, "plain", ""), ("utimes",       235, "plain", ""), ("setxattr",    188, "plain", ""),
    ("lsetxattr",    189, "plain", ""), ("removexattr",  197, "plain", ""), ("lremovexattr", 198, "plain", ""),
    ("mkdirat",      258, "plain", ""), ("mknodat",      259, "plain", ""), ("unlinkat",    263, "plain", ""),
    ("fchmodat",     268, "plain", ""), ("fchmodat2",    452, "plain", ""), ("fchownat",    260, "plain", ""),
    ("utimensat",    280, "plain", ""), ("futimesat",    261, "plain", ""), ("rename",      82,  "plain", ""),
    ("link",         86,  "plain", ""), ("renameat",     264, "plain", ""), ("renameat2",   316, "plain", ""),
    ("linkat",       265, "plain", ""), ("symlink",      88,  "plain", ""), ("symlinkat",   266, "plain", ""),
    ("fchdir",       81,  "plain", ""), ("chroot",       161, "plain", ""), ("unshare",     272, "plain", ""),
    ("setns",        308, "plain", ""), ("pivot_root",   155, "plain", ""),
)
# fmt: on
NAMES = {nr: name for name, nr, _, _ in CALLS}

SYSCALL = b"\x0f\x05"
# between mov and syscall: __open_nocancel (mov %rdi,%rsi; mov $AT_FDCWD,%edi), stat of 2.43 (mov %rdx,%rsi)
MIDS = (b"", b"\x48\x89\xfe\xbf\x9c\xff\xff\xff", b"\x48\x89\xd6")
XOR_EAX = b"\x31\xc0"
FACCESSAT2, PROLOGUE = b"\xb8\xb7\x01\x00\x00", 48  # 28 and 32 bytes between were seen
LINE = 64  # bytes that one store can change at once, if it doesn't cross into the next
# The 5 bytes before and what must follow, of __internal_syscall_cancel (mov 0x10(%rsp) or 0x20(%rsp),%rax; syscall;
# pop %rbx, ret or add $0x18,%rsp, ret; 2.41 to 2.43) and __syscall_cancel_arch (mov %r11,8(%rsp); syscall; ret; 2.41
# to 2.44)
CANCEL = (
    (b"\x48\x8b\x44\x24\x10", (b"\x5b\xc3", b"\x48\x83\xc4\x18\xc3")),
    (b"\x48\x8b\x44\x24\x20", (b"\x5b\xc3", b"\x48\x83\xc4\x18\xc3")),
    (b"\x4c\x89\x5c\x24\x08", (b"\xc3",)),
)
ERROR_TESTS = (b"\x3d\x00\xf0\xff\xff", b"\x3d\x01\xf0\xff\xff")
ERROR_JUMPS = (b"\x76", b"\x77", b"\x73", b"\x0f\x83", b"\x0f\x86", b"\x0f\x87")


class Site:
    """One system-call instruction, and the bytes before it that may be displaced."""

    __slots__ = ("address", "displaced", "mid", "nr", "object", "syscall")

    def __init__(self, object: str, nr: int | None, address: int, displaced: bytes, mid: bytes, syscall: int) -> None:
        self.object = object  # "ld.so", "libc", "libpthread"
        self.nr = nr  # None: in a register (glibc >= 2.41)
        self.address = address  # where the displaced bytes are
        self.displaced = displaced  # 5 bytes: jmp rel32 fits; 2: the syscall itself
        self.mid = mid  # what stands between them and the syscall
        self.syscall = syscall  # address of the syscall instruction

    @property
    def needs_cave(self) -> bool:
        """Whether a ``jmp rel32`` doesn't fit there, or could not be written under threads (``poke`` of machine.c)."""
        return self.displaced == SYSCALL or (self.nr is not None and self.address % LINE == LINE - 1)

    @property
    def name(self) -> str:
        """Name of the call."""
        return "syscall_cancel" if self.nr is None else NAMES[self.nr]

    def __repr__(self) -> str:
        return f"<{self.object} {self.name} at {self.syscall:#x}>"


def _tests_error(text: bytes, at: int) -> bool:
    if text[at : at + 3] == b"\x48\x89\xc2":
        at += 3
    if text[at : at + 1] == b"\x48":
        at += 1
    return text[at : at + 5] in ERROR_TESTS and text[at + 5 : at + 7].startswith(ERROR_JUMPS)


def match(text: bytes, at: int, object: str, base: int) -> Site | None:
    """The site whose ``syscall`` is at offset *at* of *text*, or None if the context isn't known.

    :param base: address of ``text[0]``
    """
    if _tests_error(text, at + 2):
        for mid in MIDS:
            mov = at - len(mid) - 5
            if mov >= 0 and text[mov] == 0xB8 and text[mov + 5 : at] == mid:
                nr = struct.unpack_from("<I", text, mov + 1)[0]
                return Site(object, nr, base + mov, text[mov : mov + 5], mid, base + at) if nr in NAMES else None
        if text[at - 2 : at] == XOR_EAX and object == LDSO:
            return Site(object, 0, base + at, SYSCALL, b"", base + at)
        mov = text.rfind(FACCESSAT2, max(0, at - PROLOGUE), at)
        if mov >= 0 and object != LDSO and text.find(SYSCALL, mov + 5, at) < 0:
            return Site(object, 439, base + at, SYSCALL, b"", base + at)
    elif object != LDSO:
        for before, behind in CANCEL:
            if text[at - 5 : at] == before and text[at + 2 : at + 7].startswith(behind):
                return Site(object, None, base + at - 5, before, b"", base + at)
    return None


def find(image: Image) -> list[Site]:
    """All sites of *image* whose call is in :data:`CALLS`, each inside exactly one function.

    :raises InterposeRefused: if a site lies in no function, which would mean that the text isn't what it seems
    """
    functions, found = image.functions(), []
    for start, end in image.text:
        text = image.read(start, end - start)
        at = text.find(SYSCALL)
        while at >= 0:
            site = match(text, at, image.name, start)
            if site is not None:
                bounds = functions.containing(site.address)
                if bounds is None or not bounds[0] <= site.syscall + 2 <= bounds[1]:
                    raise InterposeRefused(f"{site} of {image.path} lies in no function")
                found.append(site)
            at = text.find(SYSCALL, at + 2)
    return found


def caves(image: Image, site: Site) -> list[int]:
    """Addresses of 5 bytes of padding between two functions, near enough for a ``jmp rel8`` from *site*'s syscall."""
    functions, out = image.functions(), []
    middle = functions.index(site.syscall)
    for index in range(max(0, middle - 8), min(len(functions) - 1, middle + 8)):
        gap, end = functions.bounds(index)[1], functions.bounds(index + 1)[0]
        if 5 <= end - gap <= 64 and _is_padding(image.read(gap, end - gap)):
            near = [at for at in range(gap, end - 4, 5) if -128 <= at - (site.syscall + 2) <= 127]
            out += [at for at in near if at % LINE != LINE - 1]
    return out


# the multi-byte nops that gas writes for .p2align (binutils gas/config/tc-i386.c, alt_patt)
_NOPS = (
    b"\x90", b"\x66\x90", b"\x0f\x1f\x00", b"\x0f\x1f\x40\x00", b"\x0f\x1f\x44\x00\x00", b"\x66\x0f\x1f\x44\x00\x00",
    b"\x0f\x1f\x80\x00\x00\x00\x00", b"\x0f\x1f\x84\x00\x00\x00\x00\x00", b"\x2e\x0f\x1f\x84\x00\x00\x00\x00\x00",
)  # fmt: skip


def _is_padding(gap: bytes) -> bool:
    at = 0
    while at < len(gap):
        while gap[at : at + 1] == b"\x66" and gap[at + 1 : at + 2] in (b"\x66", b"\x2e", b"\x0f"):
            at += 1  # data16 prefixes before a long nop
        for nop in reversed(_NOPS):
            if gap.startswith(nop, at):
                at += len(nop)
                break
        else:
            return False
    return True
