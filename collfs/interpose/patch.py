"""A transaction over the text of loaded objects: all patches are in, or none is.

The bytes that should be there are compared before the first write and after the last; undoing is the same function with
the bytes exchanged. The pages are writable only while it runs, and stay executable all the time, because other threads
may be running in them.

Where mprotect is refused (SELinux execmod, PR_SET_MDWE), ``/proc/self/mem`` writes all the same; that is not atomic, so
only a process with one thread may use it.

Rules of the file: the order given is the order of writing, its reverse the order of undoing; no Python between two
halves of one instruction (a thread that takes the GIL there would run into it: measured, it spins for ever); no signal
handler of this thread while it writes (the same, with a handler).
"""

from __future__ import annotations

import ctypes
import os

from .. import _libc
from ..errors import InterposeRefused

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Sequence

    from .machine.code import Code
else:
    import _signal  # signal itself would load enum

MEMBARRIER = 324  # arch/x86/entry/syscalls/syscall_64.tbl
REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 64  # linux/membarrier.h
PAGE = 4096


class Patch:
    """*old* bytes at *address* become *new*: 2 or 5 bytes, one instruction."""

    __slots__ = ("address", "new", "old")

    def __init__(self, address: int, old: bytes, new: bytes) -> None:
        assert len(old) == len(new), (old, new)
        self.address, self.old, self.new = address, old, new

    def reversed(self) -> Patch:
        """The patch that undoes this one."""
        return Patch(self.address, self.new, self.old)


def alone() -> bool:
    """Whether this process has one thread only (man proc(5), /proc/pid/task)."""
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:
        return False


def apply(patches: Sequence[Patch], code: Code) -> None:
    """Make all of *patches*.

    :raises InterposeRefused: if the bytes aren't the expected ones or can't be written; then none is changed
    """
    for patch in patches:
        _compare(patch.address, patch.old)
    single = alone()
    if not single and _libc.syscall_(MEMBARRIER, REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0) != 0:
        raise InterposeRefused("several threads run, and the kernel has no membarrier(2) to patch under them")
    done: list[Patch] = []
    try:
        with _Writable(patches, code, single) as write:
            for patch in patches:
                done.append(patch)  # before: writing the old bytes twice does no harm
                write(patch)
            for patch in patches:
                _compare(patch.address, patch.new)
    except BaseException:
        if done:
            with _Writable(done, code, single) as write:
                for patch in reversed(done):
                    write(patch.reversed())
        raise


def undo(patches: Sequence[Patch], code: Code) -> None:
    """Undo all of *patches*, last one first.

    :raises InterposeRefused: if the text isn't what :func:`apply` left; then nothing is changed
    """
    apply([patch.reversed() for patch in reversed(patches)], code)


def written(patches: Sequence[Patch]) -> bool:
    """Whether the text is what :func:`apply` leaves."""
    return all(ctypes.string_at(patch.address, len(patch.new)) == patch.new for patch in patches)


def _compare(address: int, expected: bytes) -> None:
    found = ctypes.string_at(address, len(expected))
    if found != expected:
        raise InterposeRefused(f"at {address:#x}: expected {expected.hex()}, found {found.hex()}")


class _Writable:
    """Context in which patches can be written; gives the function that writes one."""

    def __init__(self, patches: Sequence[Patch], code: Code, single: bool) -> None:
        self.code, self.single, self.mem = code, single, -1
        self.mask: set[int] = set()
        pages = sorted({page for p in patches for page in (p.address & -PAGE, (p.address + len(p.new) - 1) & -PAGE)})
        self.runs: list[tuple[int, int]] = []  # neighbouring pages are one call
        for page in pages:
            if self.runs and self.runs[-1][1] == page:
                self.runs[-1] = (self.runs[-1][0], page + PAGE)
            else:
                self.runs.append((page, page + PAGE))

    def __enter__(self) -> _Writable:
        self.mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
        try:
            self._unprotect()
        except BaseException:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self.mask)
            raise
        return self

    def _unprotect(self) -> None:
        for i, (start, end) in enumerate(self.runs):
            if _libc.mprotect_(start, end - start, _libc.PROT_READ | _libc.PROT_WRITE | _libc.PROT_EXEC) != 0:
                self._protect(self.runs[:i])
                code = ctypes.get_errno()
                if not self.single:
                    raise InterposeRefused(code, f"mprotect: {os.strerror(code)}, and there are several threads")
                try:
                    self.mem = os.open("/proc/self/mem", os.O_RDWR | os.O_CLOEXEC)
                except OSError as exc:
                    raise InterposeRefused(code, f"mprotect: {os.strerror(code)}; {exc}") from None
                break

    def __call__(self, patch: Patch) -> None:
        if self.mem >= 0:
            if os.pwrite(self.mem, patch.new, patch.address) != len(patch.new):
                raise InterposeRefused(f"/proc/self/mem took only a part at {patch.address:#x}")
            return
        result = self.code.poke(patch.address, patch.new, len(patch.new), self.single)
        if result:
            raise InterposeRefused(-result, f"writing code at {patch.address:#x}: {os.strerror(-result)}")

    def __exit__(self, *exc: object) -> None:
        if self.mem >= 0:
            os.close(self.mem)
        else:
            self._protect(self.runs)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self.mask)

    @staticmethod
    def _protect(runs: list[tuple[int, int]]) -> None:
        for start, end in runs:
            _libc.mprotect_(start, end - start, _libc.PROT_READ | _libc.PROT_EXEC)
