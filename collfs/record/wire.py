"""The wire format: records and wants as bytes and back. Pure functions; they know no socket, no MPI and no file.

::

    frame    = head | meta | content
    head     = magic 4s | version u16 | kind u8 | flags u8 | meta length u32 | content length u64
               | content crc u32 | crc u32
    meta     = text path, then by kind
      ABSENT, ERROR   errno u16
      METADATA        st [lst, text target]                         the part in [] if LINK is set in flags
      LISTING         st [lst, text target] | count u32 | name ...
      CONTENT         st [lst, text target]                         the bytes follow as the content of the frame
      PLACED          st [lst, text target] | text node_path
      WANTS           (no path) count u32 | (aspect u8, text path) ...
    text     = length u16 | bytes as of os.fsencode
    name     = d_type u8 | flags u8 | length u8 | bytes [st lst] [st st] [text target]
    st       = the fields of struct stat in the order of Stat.FIELDS, times as seconds i64 and nanoseconds u32

Rules of the file:

* All numbers are little endian, without padding. A frame stands for itself; frames may follow each other at once.
* A length is compared with what is there before it is used, so a hostile length costs nothing. What unpacks packs to
  the same bytes again.
* The same checks (checks.py) run on both sides: what pack would refuse, unpack refuses, with RecordError.
* The crc covers head and meta, because a wrong size or name would be believed by every rank. Content is checked by its
  length, and by a crc of its own where the sender asks for it. A crc finds accidents; it keeps nobody out.
* Only transports import this module: a process without one doesn't pay for it.
"""

from __future__ import annotations

import os
import struct

from collfs.errors import RecordError

from . import CONTENT, LIST, META, NAMES, Name, Record, Stat, Want
from .checks import (
    KIND_ABSENT,
    KIND_CONTENT,
    KIND_ERROR,
    KIND_LISTING,
    KIND_METADATA,
    KIND_PLACED,
    check_absolute,
    check_name,
    check_name_bytes,
    check_path,
    check_target,
    encoded,
    kind_of,
    view_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from . import Buffer

__all__ = ["pack", "pack_wants", "unpack", "unpack_all", "unpack_wants"]

MAGIC = b"\x93cfs"  # the first byte starts neither ASCII nor UTF-8: no text is ever taken for a frame

# Any change of the bytes gets a new number, a line here, and new golden frames in tests/helpers/wireframes.py.
#   1  the first layout
VERSION = 1

HEAD = struct.Struct("<4sHBBIQII")
CRC_AT = HEAD.size - 4  #: the crc is the last field of the head and covers what comes before it
# uid and gid are signed: os.stat gives -1 for (uid_t)-1. Times are split, because 64 bits of nanoseconds end in 2262
# and file systems can hold later ones (ext4: 2446, xfs: 2486).
STAT = struct.Struct("<IQQQqqQqqqqIqIqI")
NAME = struct.Struct("<BBB")
U16 = struct.Struct("<H")
U32 = struct.Struct("<I")

KIND_WANTS = 7  #: the one kind of frame that is no record
# flags of frames, and which kind may have which
LINK, CHECKSUM = 1, 2
FLAGS = {
    KIND_ABSENT: 0,
    KIND_ERROR: 0,
    KIND_METADATA: LINK,
    KIND_LISTING: LINK,
    KIND_CONTENT: LINK | CHECKSUM,
    KIND_PLACED: LINK,
    KIND_WANTS: 0,
}
# flags of names
HAS_LST, HAS_ST, HAS_TARGET = 1, 2, 4

ASPECT_CODES = {META: 1, LIST: 2, NAMES: 3, CONTENT: 4}
ASPECT_OF = {code: aspect for aspect, code in ASPECT_CODES.items()}

NSEC = 10**9


# -- the functions that transports call --------------------------------------------------------------------------


def pack(record: Record, *, checksum: bool = False) -> list[Buffer]:
    """The frame of *record*, as buffers to send one after the other.

    The first is head and metadata; a record with content gives a second, a view of the content that is not copied.

    :param checksum: add a crc of the content; worth it where the way has none of its own
    :raises RecordError: if the record has none of the shapes that :class:`~collfs.record.Record` lists, or holds a
        path, name or number that no file can have
    """
    kind = kind_of(record)
    meta = [_text(_path_bytes(record.path))]
    if record.st is None:
        meta.append(U16.pack(record.errno))
    else:
        meta.append(_stat_bytes(record.st, record.path))
    flags = 0
    if record.lst is not None and record.target is not None:
        flags = LINK
        meta.append(_stat_bytes(record.lst, record.path))
        meta.append(_text(_target_bytes(record.target)))
    if record.names is not None:
        meta.append(U32.pack(len(record.names)))
        for name in record.names:
            _pack_name(meta, name)
    if record.node_path is not None:
        meta.append(_text(encoded(record.node_path, check_absolute, "node_path")))
    if record.content is None:
        return [_frame(kind, flags, meta)]
    content = view_of(record.content, "content")
    return [_frame(kind, flags | CHECKSUM if checksum else flags, meta, content), content]


def unpack(buffer: Buffer, offset: int = 0) -> tuple[Record, int]:
    """The record whose frame starts at *offset*, and the offset after that frame.

    Content is a slice of *buffer*, not a copy: it keeps *buffer* alive, and changes if *buffer* is overwritten.

    :raises RecordError: if the bytes are not exactly one that :func:`pack` makes
    """
    kind, flags, meta, content, end = _open(view_of(buffer, "buffer"), offset)
    if kind == KIND_WANTS:
        raise RecordError("expected a record, found a frame of wants")
    path = meta.text(check_path, "path")
    if kind in (KIND_ABSENT, KIND_ERROR):
        record = Record(path, errno=meta.number(U16, "errno"))
    else:
        record = Record(path, meta.stat(), content=content if kind == KIND_CONTENT else None)
        if flags & LINK:
            record.lst = meta.stat()
            record.target = meta.text(check_target, "target")
        if kind == KIND_LISTING:
            record.names = _unpack_names(meta)
        elif kind == KIND_PLACED:
            record.node_path = meta.text(check_absolute, "node_path")
    meta.finish()
    if kind_of(record) != kind:
        raise RecordError(f"{path!r}: the frame says kind {kind}, what is in it makes kind {kind_of(record)}")
    return record, end


def unpack_all(buffer: Buffer) -> Iterator[Record]:
    """The records of frames that fill *buffer* to its end, one after the other.

    :raises RecordError: at the first that is wrong; those before it have been given
    """
    view = view_of(buffer, "buffer")
    offset = 0
    while offset < len(view):
        record, offset = unpack(view, offset)
        yield record


def pack_wants(wants: Iterable[Want]) -> bytes:
    """One frame with all of *wants*, in their order.

    :raises RecordError: if a path can't be that of a file, or an aspect is unknown
    """
    meta = [b""]
    for want in wants:
        code = ASPECT_CODES.get(want.aspect)
        if code is None:
            raise RecordError(f"{want.path!r}: aspect must be one of {', '.join(ASPECT_CODES)}, not {want.aspect!r}")
        meta.append(bytes((code,)) + _text(_path_bytes(want.path)))
    meta[0] = U32.pack(len(meta) - 1)
    return _frame(KIND_WANTS, 0, meta)


def unpack_wants(buffer: Buffer) -> list[Want]:
    """The wants of the one frame that *buffer* is.

    :raises RecordError: if the bytes are not exactly what :func:`pack_wants` makes
    """
    view = view_of(buffer, "buffer")
    kind, _, meta, _, end = _open(view, 0)
    if kind != KIND_WANTS:
        raise RecordError(f"expected a frame of wants (kind {KIND_WANTS}), found kind {kind}")
    if end != len(view):
        raise RecordError(f"a frame of wants ends at byte {end}, but {len(view)} bytes came")
    wants = []
    for _ in range(meta.count(1 + U16.size + 1, "wants")):
        (code,) = meta.take(1, "aspect")
        aspect = ASPECT_OF.get(code)
        if aspect is None:
            raise RecordError(f"aspect must be one of {sorted(ASPECT_OF)}, found {code}")
        wants.append(Want(meta.text(check_path, "path"), aspect))
    meta.finish()
    return wants


# -- to bytes ----------------------------------------------------------------------------------------------------


def _crc32(data: Buffer, start: int = 0) -> int:
    # Imported when first used: a rank that loads a transport but is neither root nor leader never needs it. binascii
    # has the crc32 of zlib (4 GB/s measured) and is there in every Python, also in one that was built without zlib.
    from binascii import crc32

    return crc32(data, start)


def _frame(kind: int, flags: int, parts: Sequence[bytes], content: memoryview | None = None) -> bytes:
    meta = b"".join(parts)
    if len(meta) >= 1 << 32:
        raise RecordError(f"the metadata of one frame must be below 4 GiB, found {len(meta)} bytes: send it in parts")
    size = 0 if content is None else content.nbytes
    content_crc = _crc32(content) if content is not None and flags & CHECKSUM else 0
    head = HEAD.pack(MAGIC, VERSION, kind, flags, len(meta), size, content_crc, 0)[:CRC_AT]
    return b"".join((head, U32.pack(_crc32(meta, _crc32(head))), meta))


def _text(raw: bytes) -> bytes:
    return U16.pack(len(raw)) + raw


def _path_bytes(path: str) -> bytes:
    return encoded(path, check_path, "path")


def _target_bytes(target: str) -> bytes:
    return encoded(target, check_target, "target")


def _stat_bytes(st: Stat, of: str) -> bytes:
    *fields, atim, mtim, ctim = st.values()
    try:
        return STAT.pack(*fields, *divmod(atim, NSEC), *divmod(mtim, NSEC), *divmod(ctim, NSEC))
    except (struct.error, TypeError) as exc:
        raise RecordError(f"{of!r}: expected the numbers of a struct stat, found {st!r}: {exc}") from exc


def _pack_name(meta: list[bytes], name: Name) -> None:
    """Append *name* to *meta*."""
    check_name(name)
    raw = encoded(name.name, check_name_bytes, "name")
    flags = (name.lst is not None) * HAS_LST | (name.st is not None) * HAS_ST | (name.target is not None) * HAS_TARGET
    meta.append(NAME.pack(name.d_type, flags, len(raw)) + raw)
    if name.lst is not None:
        meta.append(_stat_bytes(name.lst, name.name))
    if name.st is not None:
        meta.append(_stat_bytes(name.st, name.name))
    if name.target is not None:
        meta.append(_text(_target_bytes(name.target)))


# -- from bytes --------------------------------------------------------------------------------------------------


def _open(view: memoryview, offset: int) -> tuple[int, int, _Meta, memoryview, int]:
    """Kind, flags, metadata and content of the frame at *offset*, and the offset after it; the head is checked."""
    left = len(view) - offset - HEAD.size
    if offset < 0 or left < 0:
        raise RecordError(f"expected a head of {HEAD.size} bytes at {offset}, but {len(view)} bytes came in all")
    head = bytes(view[offset : offset + HEAD.size])
    magic, version, kind, flags, meta_size, size, content_crc, crc = HEAD.unpack(head)
    if magic != MAGIC:
        raise RecordError(f"expected a frame ({MAGIC!r}) at {offset}, found {magic!r}")
    if version != VERSION:
        raise RecordError(f"expected version {VERSION}, found {version}: all ranks must run the same version of collfs")
    if kind not in FLAGS:
        raise RecordError(f"kind must be one of {sorted(FLAGS)}, found {kind}")
    if flags & ~FLAGS[kind]:
        raise RecordError(f"a frame of kind {kind} may have the flags {FLAGS[kind]:#b}, found {flags:#b}")
    if meta_size > left or size > left - meta_size:
        raise RecordError(f"expected {meta_size} + {size} bytes of metadata and content, found {left}")
    if size and kind != KIND_CONTENT:
        raise RecordError(f"a frame of kind {kind} has no content, found {size} bytes")
    start = offset + HEAD.size + meta_size
    meta = bytes(view[offset + HEAD.size : start])
    found = _crc32(meta, _crc32(head[:CRC_AT]))
    if found != crc:
        raise RecordError(f"head and metadata were damaged: expected crc {crc:#010x}, found {found:#010x}")
    content = view[start : start + size]
    found = _crc32(content) if flags & CHECKSUM else 0
    if found != content_crc:
        raise RecordError(f"the content was damaged: expected crc {content_crc:#010x}, found {found:#010x}")
    return kind, flags, _Meta(meta), content, start + size


class _Meta:
    """Walks over the metadata of a frame. Every step asks first whether the bytes are there."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int, what: str) -> bytes:
        start = self.at
        self.at = start + size
        if self.at > len(self.data):
            raise RecordError(f"{what} takes {size} bytes, but {len(self.data) - start} are left of the metadata")
        return self.data[start : self.at]

    def number(self, form: struct.Struct, what: str) -> int:
        value: int = form.unpack(self.take(form.size, what))[0]
        return value

    def count(self, least: int, what: str) -> int:
        """How many *what* follow, of at least *least* bytes each."""
        count = self.number(U32, f"the number of {what}")
        if count * least > len(self.data) - self.at:
            raise RecordError(f"{count} {what} don't fit into the {len(self.data) - self.at} bytes that are left")
        return count

    def text(self, check: Callable[[bytes, str], None], what: str) -> str:
        raw = self.take(self.number(U16, what), what)
        check(raw, what)
        return os.fsdecode(raw)

    def stat(self) -> Stat:
        *fields, a, a_ns, m, m_ns, c, c_ns = STAT.unpack(self.take(STAT.size, "a stat"))
        if a_ns >= NSEC or m_ns >= NSEC or c_ns >= NSEC:
            raise RecordError(f"nanoseconds must be below {NSEC}, found {a_ns}, {m_ns}, {c_ns}")
        return Stat(*fields, a * NSEC + a_ns, m * NSEC + m_ns, c * NSEC + c_ns)

    def finish(self) -> None:
        if self.at != len(self.data):
            raise RecordError(f"expected the metadata to end at {self.at}, found {len(self.data)} bytes")


def _unpack_names(meta: _Meta) -> list[Name]:
    names = []
    for _ in range(meta.count(NAME.size + 1, "names")):
        d_type, flags, length = NAME.unpack(meta.take(NAME.size, "a name"))
        raw = meta.take(length, "a name")
        check_name_bytes(raw, "name")
        if flags & ~(HAS_LST | HAS_ST | HAS_TARGET):
            raise RecordError(f"name {raw!r}: unknown flags {flags:#b}")
        name = Name(os.fsdecode(raw), d_type)
        if flags & HAS_LST:
            name.lst = meta.stat()
        if flags & HAS_ST:
            name.st = meta.stat()
        if flags & HAS_TARGET:
            name.target = meta.text(check_target, "target")
        check_name(name)
        names.append(name)
    return names
