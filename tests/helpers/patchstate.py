"""For children that patch themselves: what their text is, and a session over a small tree of modules.

A child starts with :data:`PRELUDE`. Rules of the file: nothing here changes the process.
"""

from __future__ import annotations

import ctypes
import os

PRELUDE = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); from patchstate import *\n"


def texts() -> list[tuple[int, bytes]]:
    """(address, content) of every executable segment of ld.so, libc.so.6 and libpthread.so.0."""
    from collfs.interpose.image import objects

    return [(start, ctypes.string_at(start, end - start)) for im in objects().values() for start, end in im.text]


def protections() -> list[tuple[int, int, str, str]]:
    """(start, end, protection, file) of the mappings of ld.so and the C library; neighbours that are alike are one."""
    out: list[tuple[int, int, str, str]] = []
    with open("/proc/self/maps", encoding="utf-8") as maps:
        for line in maps:
            span, protection, _, _, _, *path = line.split(None, 5)
            start, end = (int(x, 16) for x in span.split("-"))
            file = "".join(path).strip()
            if file.rpartition("/")[2].startswith(("ld-", "libc.so", "libc-", "libpthread")):
                if out and out[-1][1:] == (start, protection, file):
                    start = out.pop()[0]
                out.append((start, end, protection, file))
    return out


def changed(before: list[tuple[int, bytes]]) -> set[int]:
    """Addresses of the bytes that are no longer what they were in *before*, which :func:`texts` gave."""
    out: set[int] = set()
    for start, old in before:
        new = ctypes.string_at(start, len(old))
        for page in range(0, len(old), 256):
            a, b = old[page : page + 256], new[page : page + 256]
            if a != b:
                out |= {start + page + i for i in range(len(a)) if a[i] != b[i]}
    return out
