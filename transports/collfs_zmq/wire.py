"""Messages between servers: two ZeroMQ frames, a head and a payload.

::

    head    = magic u32 | kind u8 | part u8 | pad u16 | request u64
    up      JOIN     own address, orphan u8        let me be your child; answered by ADOPT or REDIRECT
            WANTS    one frame of wants            answered by DATA ..., DONE
            CLAIM    program                       is this job's first process of that program here? answered by CLAIMED
            CREDIT   bytes u64                     so much of DATA has been taken
            PING     children u32                  every second
            REPORT   JSON                          of a process, for the file of the job; answered by REPORTED
            LEAVE                                  nothing follows
    down    ADOPT    addresses, root first         these are above you; the last one is me;
                     devices "ST_DEV PATH"         and so the file systems of the prefixes are called on my node
            REDIRECT addresses                     ask one of these instead
            DATA     part: kind of collfs.stream   the payload of a message of collfs.stream
            DONE                                   nothing more comes for this request
            CLAIMED  yes u8
            REPORTED yes u8                        it is in the file
            PONG
            LEAVE                                  the sender ends: find another one
    both    PLAN     program, number u32,          that piece of what earlier runs of the program wanted
                     one frame of wants

DATA, DONE and PLAN that go down count against the receiver's credit, each as :data:`LEAST` bytes or more. A text is
a length u16 and its bytes. CURVE gives each message authenticity, integrity and secrecy (RFC 26/CURVEZMQ), so there are
no checksums here.

Rules of the file: pure functions; whatever isn't exactly so is a RecordError.
"""

from __future__ import annotations

import os
import struct

from collfs.errors import RecordError
from collfs.record import Want
from collfs.record.wire import unpack_wants
from collfs.stream import MARK, RECORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from collfs.record import Buffer

MAGIC = 0x317A6663  # "cfz1": another number for another layout
HEAD = struct.Struct("<IBBHQ")
JOIN, WANTS, CLAIM, CREDIT, PING, LEAVE, ADOPT, REDIRECT, DATA, DONE, CLAIMED, PONG, PLAN = range(1, 14)
REPORT, REPORTED = 14, 15
UP = frozenset((JOIN, WANTS, CLAIM, CREDIT, PING, LEAVE, PLAN, REPORT))
DOWN = frozenset((ADOPT, REDIRECT, DATA, DONE, CLAIMED, PONG, LEAVE, PLAN, REPORTED))
U8, U16, U32, U64 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
TEXTS = 1000  # addresses in a message
LONGEST = 4096  # bytes of a text
PIECE = 4 << 20  # bytes of wants in a message
PLANNED = 1 << 20  # the same of a plan: others' messages go between two of them
LEAST = 512  # bytes that a message costs its sender's and receiver's memory in any case


def head(kind: int, request: int = 0, part: int = 0) -> bytes:
    """The first frame of a message."""
    return HEAD.pack(MAGIC, kind, part, 0, request)


def unpack_head(raw: bytes, allowed: frozenset[int]) -> tuple[int, int, int]:
    """(kind, request, part) of a head.

    :raises RecordError: if it isn't one, or of a kind that may not come from there
    """
    if len(raw) != HEAD.size:
        raise RecordError(f"a head has {HEAD.size} bytes, not {len(raw)}")
    magic, kind, part, pad, request = HEAD.unpack(raw)
    if magic != MAGIC or pad or kind not in allowed:
        raise RecordError(f"no head of a message that may come from there: {raw.hex()}")
    if kind == DATA and not RECORDS <= part < MARK:
        raise RecordError(f"DATA of unknown kind {part}")
    return kind, request, part


def texts(items: Sequence[str]) -> bytes:
    """Several texts."""
    if len(items) > TEXTS:
        raise RecordError(f"{len(items)} texts; at most {TEXTS} can be sent")
    out = [U16.pack(len(items))]
    for item in items:
        raw = item.encode("utf-8", "surrogateescape")
        if len(raw) > LONGEST:
            raise RecordError(f"a text of {len(raw)} bytes; at most {LONGEST} can be sent")
        out += (U16.pack(len(raw)), raw)
    return b"".join(out)


def unpack_texts(raw: bytes, at: int = 0) -> tuple[list[str], int]:
    """The texts that start at *at*, and the offset after them.

    :raises RecordError: if they aren't whole
    """
    (count,) = _take(U16, raw, at)
    at += U16.size
    if count > TEXTS:
        raise RecordError(f"{count} texts; at most {TEXTS} are allowed")
    found = []
    for _ in range(count):
        (length,) = _take(U16, raw, at)
        at += U16.size
        if length > LONGEST or at + length > len(raw):
            raise RecordError(f"a text of {length} bytes at {at} of {len(raw)}")
        found.append(raw[at : at + length].decode("utf-8", "surrogateescape"))
        at += length
    return found, at


def unpack_addresses(raw: bytes, at: int = 0) -> tuple[list[str], int]:
    """The same of addresses: what is no plain text would be an error of another kind when it is used."""
    found, at = unpack_texts(raw, at)
    for text in found:
        if not (text.isascii() and text.isprintable()):
            raise RecordError(f"no address: {text!r}")
    return found, at


def adopt(ancestors: Sequence[str], devices: dict[str, int]) -> bytes:
    """Payload of ADOPT."""
    return texts(ancestors) + texts([f"{device} {path}" for path, device in devices.items()])


def unpack_adopt(raw: bytes) -> tuple[list[str], dict[str, int]]:
    """(ancestors, ``st_dev`` by prefix)."""
    ancestors, at = unpack_addresses(raw)
    rows, end = unpack_texts(raw, at)
    devices = {}
    for row in rows:
        number, _, path = row.partition(" ")
        if not (number.isascii() and number.isdigit() and len(number) <= 20):
            raise RecordError(f"no device and path: {row!r}")
        devices[path] = int(number)
    if end != len(raw):
        raise RecordError(f"ADOPT has {len(raw) - end} bytes too many")
    return ancestors, devices


def join(address: str, orphan: bool) -> bytes:
    """Payload of JOIN."""
    return U8.pack(orphan) + texts([address])


def unpack_join(raw: bytes) -> tuple[str, bool]:
    """(address, orphan)."""
    (orphan,) = _take(U8, raw, 0)
    found, end = unpack_addresses(raw, U8.size)
    if len(found) != 1 or end != len(raw):
        raise RecordError("JOIN gives one address")
    return found[0], bool(orphan)


def cost(payload: Buffer) -> int:
    """What a message takes of the credit."""
    return max(len(payload), LEAST)


def pieces(wants: Sequence[Want], most: int = 0) -> Iterator[Sequence[Want]]:
    """*wants*, so many at a time as go into a message of *most* bytes; 0: :data:`PIECE`."""
    most = most or PIECE
    start = size = 0
    for index, want in enumerate(wants):
        length = 3 + len(os.fsencode(want.path))
        if size + length > most and index > start:
            yield wants[start:index]
            start, size = index, 0
        size += length
    yield wants[start:] if start else wants


def plan(program: str, index: int, piece: bytes) -> bytes:
    """Payload of PLAN: *piece*, one frame of wants, is number *index* of those of *program*."""
    return texts([program]) + U32.pack(index) + piece


def unpack_plan(raw: bytes) -> tuple[str, int, bytes]:
    """(program, number of the piece, the frame of wants; it is a good one)."""
    found, end = unpack_texts(raw)
    if len(found) != 1:
        raise RecordError("PLAN is for one program")
    (index,) = _take(U32, raw, end)
    piece = raw[end + U32.size :]
    unpack_wants(piece)
    return found[0], index, piece


def number(layout: struct.Struct, raw: bytes) -> int:
    """The one number that *raw* is."""
    if len(raw) != layout.size:
        raise RecordError(f"expected {layout.size} bytes, not {len(raw)}")
    return int(layout.unpack(raw)[0])


def _take(layout: struct.Struct, raw: bytes, at: int) -> tuple[int, ...]:
    if at + layout.size > len(raw):
        raise RecordError(f"{len(raw)} bytes are too short")
    return layout.unpack_from(raw, at)
