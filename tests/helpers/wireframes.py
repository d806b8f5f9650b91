"""Frames of the wire format, written down byte by byte, and a maker of hostile ones."""

from __future__ import annotations

import struct
import zlib

from collfs.record import CONTENT, LIST, META, NAMES, Name, Record, Stat, Want, wire

FILE = Stat(
    *(0o100644, 7, 2049, 1, 1000, 1000, 0, 5, 4096, 8), *(1700000000_000000001, 1600000000_999999999, -1)
)  # the last is just before 1970
DIR = Stat(0o40755, 2, 2049, 3, 0, -1, 0, 60, 4096, 0, 1, 2, 10**19)  # the last is in 2286: more than 63 bits of ns
LNK = Stat(0o120777, 9, 2049, 1, 0, 0, 0, 3, 4096, 0, 0, 0, 0)

FILE_HEX = (
    "a4810000 0700000000000000 0108000000000000 0100000000000000 e803000000000000 e803000000000000 0000000000000000"
    "0500000000000000 0010000000000000 0800000000000000"
    "00f1536500000000 01000000 00105e5f00000000 ffc99a3b ffffffffffffffff ffc99a3b"
)
DIR_HEX = (
    "ed410000 0200000000000000 0108000000000000 0300000000000000 0000000000000000 ffffffffffffffff 0000000000000000"
    "3c00000000000000 0010000000000000 0000000000000000"
    "0000000000000000 01000000 0000000000000000 02000000 00e40b5402000000 00000000"
)
LNK_HEX = (
    "ffa10000 0900000000000000 0108000000000000 0100000000000000 0000000000000000 0000000000000000 0000000000000000"
    "0300000000000000 0010000000000000 0000000000000000"
    "0000000000000000 00000000 0000000000000000 00000000 0000000000000000 00000000"
)
A_PY = "0800 2f73772f612e7079"  # /sw/a.py

# One of each shape: (record, checksum, its frame). The frames change only together with wire.VERSION.
GOLDEN = {
    "known absent": (
        *(Record("/sw/none", errno=2), False),
        "93636673 0100 01 00 0c000000 0000000000000000 00000000 799cb2e3" + "0800 2f73772f6e6f6e65 0200",
    ),
    "error": (
        *(Record("/sw/secret", errno=13), False),
        "93636673 0100 02 00 0e000000 0000000000000000 00000000 1cb41a7b" + "0a00 2f73772f736563726574 0d00",
    ),
    "metadata": (
        *(Record("/sw/a.py", FILE), False),
        "93636673 0100 03 00 7a000000 0000000000000000 00000000 cced634f" + A_PY + FILE_HEX,
    ),
    "metadata of a link": (
        *(Record("/sw/l", FILE, lst=LNK, target="../a"), False),
        "93636673 0100 03 01 ed000000 0000000000000000 00000000 39f3e279"
        + ("0500 2f73772f6c" + FILE_HEX + LNK_HEX + "0400 2e2e2f61"),
    ),
    "listing": (
        Record(
            *("/sw", DIR),
            names=[
                Name("a.py", 8),
                Name("b", 8, FILE),
                Name("caf\udce9", 10, LNK, FILE, "a.py"),  # a byte that is not UTF-8
                Name("é", 0),
            ],
        ),
        False,
        "93636673 0100 04 00 e6010000 0000000000000000 00000000 76d199e1"
        + ("0300 2f7377" + DIR_HEX + "04000000" + "08 00 04 612e7079" + "08 01 01 62" + FILE_HEX)
        + ("0a 07 04 636166e9" + LNK_HEX + FILE_HEX + "0400 612e7079" + "00 00 02 c3a9"),
    ),
    "content": (
        *(Record("/sw/a.py", FILE, content=b"pass\n"), False),
        "93636673 0100 05 00 7a000000 0500000000000000 00000000 97d6795c" + A_PY + FILE_HEX + "706173730a",
    ),
    "content with a crc": (
        *(Record("/sw/a.py", FILE, content=b"pass\n"), True),
        "93636673 0100 05 02 7a000000 0500000000000000 96921a0e fe3dbfdd" + A_PY + FILE_HEX + "706173730a",
    ),
    "content that is here": (
        *(Record("/sw/a.py", FILE, node_path="/dev/shm/x//1"), False),
        "93636673 0100 06 00 89000000 0000000000000000 00000000 f6c9a20b"
        + (A_PY + FILE_HEX + "0d00 2f6465762f73686d2f782f2f31"),
    ),
}
WANTS = [Want("/sw", LIST), Want("/sw", NAMES), Want("/sw/a.py", CONTENT), Want("/", META)]
WANTS_HEX = (
    "93636673 0100 07 00 1f000000 0000000000000000 00000000 093698a5"
    "04000000 02 0300 2f7377 03 0300 2f7377 04 0800 2f73772f612e7079 01 0100 2f"
)
FRAMES = {name: bytes.fromhex(frame) for name, (_, _, frame) in GOLDEN.items()}


def joined(record: Record, *, checksum: bool = False) -> bytes:
    """What goes over the wire for *record*."""
    return b"".join(wire.pack(record, checksum=checksum))


def framed(
    kind: int,
    meta: bytes,
    *,
    content: bytes = b"",
    flags: int = 0,
    content_crc: int = 0,
    version: int = 1,
    meta_size: int | None = None,
    size: int | None = None,
) -> bytes:
    """A frame whose crc is right, whatever else is wrong with it: what an attacker would send."""
    sizes = (len(meta) if meta_size is None else meta_size, len(content) if size is None else size)
    head = struct.pack("<4sHBBIQI", b"\x93cfs", version, kind, flags, *sizes, content_crc)
    return head + struct.pack("<I", zlib.crc32(head + meta)) + meta + content
