"""For children that patch themselves: what their text is, and a session over a small tree of modules.

A child starts with :data:`PRELUDE`. Rules of the file: nothing here changes the process.
"""

from __future__ import annotations

import ctypes
import os

PRELUDE = f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); from patchstate import *\n"

# Children of tests of the interposer: the state before, and what must hold after a refusal
INSTALL = """
import errno, os
from collfs.errors import InterposeRefused
from collfs.interpose.api import PROTOTYPES, ROWS, LibcCollfsApi
from collfs.interpose.interposer import Interposer
before, maps = texts(), protections()
def untouched():
    assert changed(before) == set(), sorted(map(hex, changed(before)))
    assert protections() == maps, (maps, protections())
def refusal(function, *words):
    try:
        function()
    except InterposeRefused as exc:
        for word in words:
            assert word in str(exc), str(exc)
    else:
        raise SystemExit("not refused")
    untouched()
"""
# The same in a session: it goes on natively, says so once, and imports still work
SESSION = """
import logging
said = []
handler = logging.Handler()
handler.emit = lambda record: said.append(record.getMessage())
logging.getLogger("collfs").addHandler(handler)
logging.getLogger("collfs").propagate = False
import collfs
def native_session(word, tree):
    session = collfs.initialize("local", prefixes=[tree], manifest="none")
    assert session.idle, "not idle"
    assert word in session.idle, session.idle
    assert len(said) == 1, said
    assert "without collfs" in said[0] and word in said[0], said
    sys.path.insert(0, tree)
    import some_module
    assert some_module.VALUE == 42
    untouched()
    assert collfs.stats()["warnings"]
    collfs.finalize()
    assert len(said) == 1, said
    untouched()
"""


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
