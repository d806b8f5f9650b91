"""Large files on the root: copied into its store piece by piece, so that its memory holds one piece only.

Rules of the file: what changes while it is copied is not copied.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collfs.record import Stat

PIECE = 8 << 20


def copy_large(path: str, st: Stat, copy: str) -> str | None:
    """Copy the original of *path*, whose metadata is *st*, to *copy*; its name, or None if that failed."""
    try:
        source = os.open("/" + path, os.O_RDONLY | os.O_CLOEXEC)  # the native spelling
    except OSError:
        return None
    try:
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            done = _copy(source, target) == st.st_size and _same(os.fstat(source), st)
            if done:
                os.fchmod(target, st.st_mode & 0o777)
                os.utime(target, ns=(st.st_atim, st.st_mtim))
        finally:
            os.close(target)
    except OSError:
        done = False
    finally:
        os.close(source)
    if done:
        return copy
    try:
        os.unlink(copy)
    except OSError:
        pass
    return None


def _copy(source: int, target: int) -> int:
    total = 0
    while True:
        piece = memoryview(os.read(source, PIECE))
        if not piece:
            return total
        total += len(piece)
        while piece:
            piece = piece[os.write(target, piece) :]


def _same(now: os.stat_result, st: Stat) -> bool:
    return (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino) == (
        st.st_size,
        st.st_mtim,
        st.st_ctim,
        st.st_ino,
    )
