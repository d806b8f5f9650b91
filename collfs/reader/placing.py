"""The content of a file, copied straight into a file of the node store: the kernel moves the bytes, nobody's memory.

Measured for 64 MiB, warm, into tmpfs: sendfile(2) 25 to 37 ms, read and write through a warm buffer 45, through fresh
memory as for a content 130.

Rules of the file: what can't be whole isn't there; the time is set last, as the store has it.
"""

from __future__ import annotations

import os
from errno import EDQUOT, ENOSPC
from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._pool import Hold

PIECE = 8 << 20  # bytes for one call: Ctrl-C is heard between two of them
BUFFER = 1 << 20

_numbers = count()  # next() of it is one step of the interpreter: two threads never get the same number


def place(fd: int, st: os.stat_result, scratch: str, hold: Hold | None) -> str | None:
    """Copy the open file *fd*, whose metadata is *st*, into a new file in *scratch*.

    :returns: its name; None if the file proved shorter
    :raises OSError: what reading or writing gave; ENOSPC, if there is no room
    """
    name = f"{scratch}/in.{os.getpid()}.r{next(_numbers)}"
    copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    whole = False
    try:
        whole = _copy(copy, fd, st.st_size, hold)
        if not whole:
            return None
        os.fchmod(copy, st.st_mode & 0o7777)
        os.utime(copy, ns=(st.st_atime_ns, st.st_mtime_ns))
        return name
    except BaseException:
        whole = False
        raise
    finally:
        os.close(copy)
        if not whole:
            os.unlink(name)


def _copy(copy: int, fd: int, size: int, hold: Hold | None) -> bool:
    done, buffer = 0, None
    while done < size:
        if hold is not None:
            hold.check()
        if buffer is None:
            try:
                moved = os.sendfile(copy, fd, None, min(PIECE, size - done))
            except OSError as exc:
                if exc.errno in (ENOSPC, EDQUOT):
                    raise
                buffer = memoryview(bytearray(BUFFER))  # a file system that can't be spliced from (man 2 sendfile)
                continue
        else:
            moved = os.readv(fd, [buffer[: size - done]])
            left = buffer[:moved]
            while left:
                left = left[os.write(copy, left) :]
        if moved == 0:
            return False
        done += moved
    return True
