"""The path table as the writer and the reporter see it. The readers are machine code (``interpose/machine/layout.h``).

The file is sparse: its size is fixed when it is made, memory is allocated in steps as the heap grows. A store that is
full gives an error here, at ``posix_fallocate``, never SIGBUS in a program that touches the page.

Rules of the file: the caller of :meth:`Table.put` and of everything else that writes holds the store's write lock.
"""

from __future__ import annotations

import ctypes
import os
import struct
from ctypes import c_uint32, c_uint64, sizeof

from .. import _libc
from ..errors import StoreError
from ..interpose.machine.layout import (
    F_LINK,
    K_DIR,
    K_NATIVE,
    K_UNKNOWN,
    K_WRITTEN,
    MAX_PREFIX,
    OPERATIONS,
    PUT_DONE,
    PUT_FULL,
    STAT_FORMAT,
    TABLE_MAGIC,
    TABLE_VERSION,
    WRITTEN,
    Entry,
    News,
    Search,
    TableHeader,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..interpose.machine.code import Code
    from ..record import Stat

SIZE = 1 << 28  # address space only: about 700,000 names
STEP = 1 << 20
SLOT_BITS = 13
G = 10**9


def pack_stat(st: Stat) -> bytes:
    """``struct stat`` of the machine."""
    return struct.pack(
        STAT_FORMAT,
        st.st_dev,
        st.st_ino,
        st.st_nlink,
        st.st_mode,
        st.st_uid,
        st.st_gid,
        st.st_rdev,
        st.st_size,
        st.st_blksize,
        st.st_blocks,
        st.st_atim // G,
        st.st_atim % G,
        st.st_mtim // G,
        st.st_mtim % G,
        st.st_ctim // G,
        st.st_ctim % G,
    )


class Table:
    """A mapped path table."""

    def __init__(self, path: str, code: Code, *, create: bool = False, size: int = SIZE) -> None:
        """
        :param path: of the file; made anew if *create*
        :param size: of the address space in bytes, when it is made
        :raises StoreError: if it can't be made, mapped or isn't a table of this version
        """
        self.code, self.path = code, path
        try:
            flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
            self._file = _libc.Handle(os.open(path, flags, 0o600))
            fd = self._file.number()
            if create:
                os.ftruncate(fd, size)
                os.posix_fallocate(fd, 0, _first_free() + (8 << SLOT_BITS))
            self.size = os.fstat(fd).st_size
            if self.size < sizeof(TableHeader):
                raise StoreError(f"{path}: {self.size} bytes are no path table")
            self.address = _libc.mmap(0, self.size, _libc.PROT_READ | _libc.PROT_WRITE, _libc.MAP_SHARED, fd)
        except OSError as exc:
            raise exc if isinstance(exc, StoreError) else StoreError(exc.errno, f"{path}: {exc.strerror}") from exc
        self.header = TableHeader.from_address(self.address)
        if create:
            self._format()
        if (self.header.magic, self.header.version, self.header.size) != (TABLE_MAGIC, TABLE_VERSION, self.size):
            raise StoreError(
                f"{path}: magic {self.header.magic:#x}, version {self.header.version}, size {self.header.size};"
                f" expected {TABLE_MAGIC:#x}, {TABLE_VERSION}, {self.size}"
            )
        self._news = News()
        self._searches: list[Search] = []
        #: (path: str) -> int: what is known of *path*, spelled anyhow: ``entry.word``, and ``F_STAT`` if its metadata
        #: is recorded; absence by an ancestor's listing is ``K_ABSENT``. Machine code (``machine/python.h``)
        self.probe = code.prober(self.address)

    def _format(self) -> None:
        header, start = self.header, _first_free()
        header.size = self.size
        header.allocated = start + (8 << SLOT_BITS)
        header.heap = header.allocated
        header.slots = start | SLOT_BITS
        header.version = TABLE_VERSION
        header.magic = TABLE_MAGIC

    # -- reading -------------------------------------------------------------------------------------------------

    def searcher(self, suffixes: Sequence[str], bytecode: str) -> Callable[[str, str], int]:
        """A function (directory, name): what is known of a module that importlib is going to look for there.

        ``SEEK_HERE``: all that importlib will look at is on the node; ``SEEK_ELSEWHERE``: it will find nothing there;
        ``SEEK_ASK``: something is missing, or unclear.

        :param suffixes: of modules, in importlib's order
        :param bytecode: how the names in ``__pycache__`` end
        """
        text = "".join([suffix + "\0" for suffix in suffixes])
        search = Search(self.address, text.encode(), bytecode.encode())  # ctypes adds the last NUL
        self._searches.append(search)
        return self.code.seeker(ctypes.addressof(search))

    def entry(self, path: str) -> Entry | None:
        """The entry of *path*, or None."""
        where = c_uint32()
        self.code.probe(self.address, os.fsencode(path), where)
        return Entry.from_address(self.address + 8 * where.value) if where.value else None

    def offset(self, path: str) -> int:
        """The place of *path*'s entry, in units of 8 bytes; 0 if it has none."""
        where = c_uint32()
        self.code.probe(self.address, os.fsencode(path), where)
        return where.value

    def stat_of(self, entry: Entry) -> tuple[int, ...] | None:
        """The recorded ``struct stat`` as the values of ``STAT_FORMAT``."""
        if not entry.st:
            return None
        return struct.unpack(STAT_FORMAT, ctypes.string_at(self.address + 8 * entry.st, 144))

    def copy_of(self, word: int) -> str:
        """The name of the copy or of the mirror directory, or an empty string."""
        return os.fsdecode(ctypes.string_at(self.address + 8 * (word >> 32))) if word >> 32 else ""

    def written(self, path: str) -> bool:
        """Whether the job has changed *path* on this node, as far as can be told: a few others say so, too."""
        value = name_hash(os.fsencode(path))
        return bool(self.header.written[value >> 5 & (WRITTEN - 1)] >> (value & 31) & 1)

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        """All names with their entries, in no order."""
        slots = self.header.slots
        for value in (c_uint64 * (1 << (slots & 63))).from_address(self.address + (slots & ~63)):
            if value:
                at = self.address + 8 * (value & 0xFFFFFFFF)
                entry = Entry.from_address(at)
                yield os.fsdecode(ctypes.string_at(at + sizeof(Entry), entry.key_len)), entry

    def misses(self) -> list[tuple[str, str]]:
        """The names that went native under a prefix, with the operation (one of ``OPERATIONS``), oldest first."""
        log = bytes(self.header.miss[: self.header.miss_pos])
        out, at = [], 0
        while at + 4 <= len(log):
            size, operation = struct.unpack_from("<HB", log, at)
            if not size or operation >= len(OPERATIONS):
                break  # somebody is just writing it
            out.append((os.fsdecode(log[at + 4 : at + 4 + size]), OPERATIONS[operation]))
            at += (size + 4 + 7) & ~7
        return out

    def prefixes(self) -> list[str]:
        """The managed prefixes."""
        return [
            os.fsdecode(ctypes.string_at(self.address + p.off, p.len))
            for p in self.header.prefix[: self.header.nprefix]
        ]

    # -- writing -------------------------------------------------------------------------------------------------

    def put(
        self,
        path: str,
        word: int,
        *,
        st: bytes | None = None,
        lst: bytes | None = None,
        target: str | None = None,
        copy: str | None = None,
        seq: int,
        epoch: int,
    ) -> bool:
        """Publish what is known of *path*. False: it was changed meanwhile, so nothing was published.

        :param word: kind and flags
        :param st: :func:`pack_stat` of the metadata, links followed
        :param lst: the same of the link itself, with its *target*
        :param epoch: ``header.epoch`` before the file was read
        :raises StoreError: if the table is full
        """
        news, key = self._news, os.fsencode(path)
        news.key, news.key_len, news.word, news.seq, news.epoch = key, len(key), word, seq, epoch
        news.st, news.lst = st, lst
        text = os.fsencode(target) if target is not None else None
        news.target, news.target_len = text, len(text or b"")
        place = os.fsencode(copy) if copy is not None else None
        news.copy, news.copy_len = place, len(place or b"")
        while True:
            result = self.code.put(self.address, news)
            if result != PUT_FULL:
                return bool(result == PUT_DONE)
            self._allocate()

    def _allocate(self) -> None:
        header = self.header
        step = max(STEP, 32 << (header.slots & 63))  # the next slot array and as much again
        if header.allocated + step > self.size:
            step = self.size - header.allocated
        if step < 4096:
            raise StoreError(28, f"the path table is full: {header.entries} names")
        try:
            os.posix_fallocate(self._file.number(), header.allocated, step)
        except OSError as exc:
            raise StoreError(exc.errno, f"{self.path}: {exc.strerror}") from None
        header.allocated += step

    def _keep(self, text: bytes) -> int:
        """A string at the end of the heap; its offset in bytes."""
        header = self.header
        at = (header.heap + 7) & ~7
        if at + len(text) + 1 > header.allocated:
            self._allocate()
        header.heap = at + len(text) + 1
        ctypes.memmove(self.address + at, text + b"\0", len(text) + 1)
        return int(at)

    def add_prefix(self, path: str) -> bool:
        """Manage everything below *path*; False if there is no room for another prefix."""
        header, name = self.header, os.fsencode(path)
        if path in self.prefixes():
            return True
        if header.nprefix >= MAX_PREFIX:
            return False
        slot = header.prefix[header.nprefix]
        slot.off, slot.len = self._keep(name), len(name)
        header.nprefix += 1
        return True

    def set_mirror_root(self, path: str) -> None:
        """Where the mirror directories lie: *path* ends with a slash, links resolved.

        :raises OSError: if it isn't there
        """
        name = os.fsencode(path)
        self.header.mirror_dev = os.stat(path).st_dev
        self.header.mirror_off, self.header.mirror_len = self._keep(name), len(name)

    def next_sequence(self) -> int:
        """The number of the next listing or absence; :attr:`Cell.floor` is compared with it."""
        self.header.sequence += 1
        return int(self.header.sequence)

    def forget_entry(self, entry: Entry) -> None:
        """Drop what is known of one name: native until it is staged again, also if the job had changed it."""
        self.code.store_word(ctypes.addressof(entry) + Entry.word.offset, K_UNKNOWN)

    def forget(self, path: str) -> None:
        """Drop what is known of *path* and of everything below it, and what says that it is absent: the listing of the
        nearest known directory above it, of which only that it exists is kept.
        """
        above = os.path.dirname(path)
        while above.count("/") > 0 and above != "/":
            entry = self.entry(above)
            kind = K_UNKNOWN if entry is None else entry.word & 0xFF
            if entry is not None and kind == K_DIR:
                entry.st = 0  # its mtime would vouch for listings that others keep
                self.code.store_word(ctypes.addressof(entry) + Entry.word.offset, K_DIR | entry.word & F_LINK)
                break
            if kind in (K_NATIVE, K_WRITTEN):
                break
            if entry is not None:
                self.forget_entry(entry)
            above = os.path.dirname(above)
        for key, entry in list(self):
            if key == path or key.startswith(path + "/"):
                self.forget_entry(entry)

    def close(self) -> None:
        """Close the descriptor. The mapping stays: a thread may be reading it."""
        self._file.close()


def name_hash(key: bytes) -> int:
    """``hash()`` of ``path.h``."""
    value, words = len(key), len(key) // 8
    for (word,) in struct.iter_unpack("<Q", key[: 8 * words]):
        value = (value ^ word) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        value ^= value >> 29
    return ((value ^ int.from_bytes(key[8 * words :], "little")) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF) >> 32


def _first_free() -> int:
    return (sizeof(TableHeader) + 63) & ~63
