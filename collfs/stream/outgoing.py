"""Records become messages, as late as possible.

A large file is never held in memory for sending: its pieces are read from the copy in the node store, one after the
other, when their turn comes. One that fits into a message is one; a small one travels inside its frame, with others in
one message.

Rules of the file: a message is made when it is asked for.
"""

from __future__ import annotations

import os
from errno import EAGAIN

from collfs.errors import RecordError
from collfs.record import Record
from collfs.record.wire import pack, pack_wants

from . import BEGIN, CHUNK, END, MOST, PART, PIECE, RECORDS, SUM, TAIL, VAIN, WHOLE
from .buffers import Buffers
from .sums import checksum

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from collfs.record import Want

    from . import Message

    Parcel = tuple[Record, str]  # a record, and the file that holds its content (empty: the record does)

LARGE = 1 << 20  # content from here on isn't part of a frame
SMALL = 4 << 10  # the same if much waits to be sent
BATCH = CHUNK  # frames are collected up to this size: a message costs some looks of each receiver, whatever its size
WANTS = 1000  # in one message


def parcels(records: Iterable[Record], copy_of: Callable[[str], str], crowded: bool) -> list[Parcel]:
    """*records*, of which the larger ones lose their content, since their copies have it.

    :param crowded: whether much waits already
    """
    found: list[Parcel] = []
    for record in records:
        size = 0 if record.st is None else record.st.st_size
        name = ""
        if record.node_path is not None or (record.content is not None and size >= (SMALL if crowded else LARGE)):
            name = copy_of(record.path)
        if name:
            found.append((_beginning(record), name))
        elif record.node_path is not None:  # no copy: said to go native, or the leaders would wait for it
            found.append((Record(record.path, errno=EAGAIN), ""))
        else:
            found.append((record, ""))
    return found


def _beginning(record: Record) -> Record:
    """*record* without its content, which comes otherwise."""
    return Record(record.path, record.st, node_path="/", lst=record.lst, target=record.target)


def held(found: Sequence[Parcel]) -> int:
    """Bytes of content that *found* keeps in memory."""
    return sum([len(record.content) for record, _ in found if record.content is not None])


def messages(found: Sequence[Parcel]) -> Iterator[Message]:
    """The messages for *found*."""
    batch = bytearray()
    for record, name in found:
        try:
            frame, content = _frame(record, name)
        except RecordError:
            frame, content = b"".join(pack(Record(record.path, errno=EAGAIN))), None
        whole = not name and content is None
        if batch and (not whole or len(batch) + len(frame) > BATCH):
            yield RECORDS, batch
            batch = bytearray()
        if not whole:
            yield from _large(frame, content, name, 0 if record.st is None else record.st.st_size)
        elif len(frame) > CHUNK:
            yield from _parts(frame)
        else:
            batch += frame
    if batch:
        yield RECORDS, batch


def _frame(record: Record, name: str) -> tuple[bytes, memoryview | None]:
    """The frame, and the content if it isn't part of it and not in the file *name*."""
    content = record.content
    if content is not None and len(content) >= LARGE:
        return b"".join(pack(_beginning(record))), memoryview(content)
    frame = b"".join(pack(record, checksum=content is not None))
    if len(frame) > MOST:
        raise RecordError(f"{record.path!r}: a frame of {len(frame)} bytes")
    return frame, None


def _parts(frame: bytes) -> Iterator[Message]:
    view = memoryview(frame)
    last = (len(view) - 1) // CHUNK * CHUNK
    for at in range(0, last, CHUNK):
        yield PART, view[at : at + CHUNK]
    yield RECORDS, view[last:]


def _large(frame: bytes, content: memoryview | None, name: str, size: int) -> Iterator[Message]:
    start = SUM.size + len(frame)
    if start + size <= CHUNK:
        whole = _buffers.take()[: start + size]
        whole[SUM.size : start] = frame
        if content is None:
            _fill(whole[start:], name)
        else:
            whole[start:] = content
        SUM.pack_into(whole, 0, checksum(whole[start:]))
        yield WHOLE, whole
        return
    yield BEGIN, frame
    length = total = 0
    for piece in _read(name) if content is None else _views(content):
        total = checksum(piece, total)
        length += len(piece)
        yield PIECE, piece
    yield END, TAIL.pack(length, total)


def _views(content: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(content), CHUNK):
        yield content[at : at + CHUNK]


_buffers = Buffers(CHUNK)


def _read(name: str) -> Iterator[memoryview]:
    """The content of a file, piece by piece.

    :raises OSError: if it has gone
    """
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            piece = _buffers.take()
            count = os.readv(fd, [piece])
            if not count:
                return
            yield piece[:count]
            del piece
    finally:
        os.close(fd)


def _fill(view: memoryview, name: str) -> None:
    """The content of a file, as much as fits into *view*.

    :raises OSError: if it has gone, or is shorter
    """
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while view:
            count = os.readv(fd, [view])
            if not count:
                raise OSError(EAGAIN, "shorter than it was", name)
            view = view[count:]
    finally:
        os.close(fd)


def vain(wants: Sequence[Want]) -> Iterator[Message]:
    """The messages that nothing will come for *wants*."""
    for at in range(0, len(wants), WANTS):
        yield VAIN, pack_wants(wants[at : at + WANTS])
