"""Staging: records become copies, mirror directories and entries of the path table.

Order matters more than speed here: a copy is complete before its entry names it, a directory's children have entries
before it is marked complete, and nothing is published whose name was invalidated since it was read (``epoch``).

Rules of the file: the caller holds the store's write lock; an OSError of the store makes a path native, never the
program fail.
"""

from __future__ import annotations

import os
import stat

from ..errors import StoreError
from ..interpose.machine.layout import F_COMPLETE, F_LINK, F_MIRROR, K_ABSENT, K_DIR, K_FILE, K_NATIVE, K_REG, K_UNKNOWN
from .table import pack_stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Union

    from ..record import Name, Record, Stat
    from .node import NodeStore

    Outcome = Union[str, None]

ENOENT, ENOSPC, ENOTDIR = 2, 28, 20
DT_FIFO, DT_CHR, DT_DIR, DT_BLK, DT_REG, DT_LNK, DT_SOCK = 1, 2, 4, 6, 8, 10, 12  # <dirent.h>


def kind_of(st_mode: int) -> int:
    """The kind of an entry that has metadata only."""
    return K_DIR if stat.S_ISDIR(st_mode) else K_REG if stat.S_ISREG(st_mode) else K_NATIVE


class Stager:
    """Takes records for one store. Counters: ``files``, ``bytes``, ``listings``, ``overflow``, ``failed``."""

    def __init__(self, store: NodeStore, max_store_bytes: int) -> None:
        """
        :param max_store_bytes: of all copies on this node; more goes native
        """
        self.store, self.table, self.max_store_bytes = store, store.table, max_store_bytes
        self.files = self.bytes = self.listings = self.overflow = self.failed = 0
        self.trouble = ""  # the first reason why something could not be staged, for one warning

    def stage(self, record: Record, epoch: int) -> bool:
        """Publish one record; False if its path stays native.

        :param epoch: the table's before the original was read
        """
        try:
            return self._stage(record, epoch)
        except OSError as exc:
            self.failed += 1
            self.trouble = self.trouble or f"{record.path}: {exc.strerror or exc}"
            return False

    def _stage(self, record: Record, epoch: int) -> bool:
        put, path, seq = self.table.put, record.path, int(self.table.header.sequence) or 1
        if record.errno in (ENOENT, ENOTDIR):
            if self.table.probe(path) & 0xFF == K_DIR:  # nor is anything below it any more
                self._drop(path, lambda name: True)
            return put(path, K_ABSENT, seq=self.table.next_sequence(), epoch=epoch)
        st = record.st
        if record.errno or st is None:
            return put(path, K_NATIVE, seq=seq, epoch=epoch)
        packed, flags = pack_stat(st), 0
        lst = None
        if record.target is not None and record.lst is not None:
            flags, lst = F_LINK, pack_stat(record.lst)
        if record.names is not None:
            return self._listing(record, packed, flags, lst, epoch)
        copy = None
        if record.content is not None or record.node_path is not None:
            copy = self._copy(record, st) if record.node_path is None else self._adopt(record.node_path, st)
        kind = K_FILE if copy is not None else kind_of(st.st_mode)
        return put(path, kind | flags, st=packed, lst=lst, target=record.target, copy=copy, seq=seq, epoch=epoch)

    # -- content -------------------------------------------------------------------------------------------------

    def _copy(self, record: Record, st: Stat) -> str | None:
        """The copy of a file, made unless it is there.

        It is named after the original's inode, so that one file under two names is one file for ld.so as well
        (elf/dl-load.c compares st_dev and st_ino).
        """
        content = record.content
        assert content is not None
        path = self._place(st)
        if self._is_there(path, st):
            return path
        if not self._has_room(record.path, len(content)):
            return None
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, st.st_mode & 0o7777)  # stat is answered from the copy
            os.utime(fd, ns=(st.st_atim, st.st_mtim))
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        self._count(len(content))
        return path

    def _adopt(self, name: str, st: Stat) -> str | None:
        """The copy that *name* is: one that lies in this store already gets the name that :meth:`_copy` would give."""
        folder = self.store.path + "/f/"
        if not name.startswith(folder):
            return name
        path = self._place(st)
        if self._is_there(path, st):
            os.unlink(name)
            return path
        if not self._has_room(name, st.st_size):
            os.unlink(name)
            return None
        os.rename(name, path)
        self._count(st.st_size)
        return path

    def _place(self, st: Stat) -> str:
        return f"{self.store.path}/f/{st.st_ino:x}.{st.st_dev:x}.{st.st_ctim:x}"

    def _is_there(self, path: str, st: Stat) -> bool:
        try:
            have = os.stat(path)
            if have.st_size == st.st_size and have.st_mtime_ns == st.st_mtim:
                return True  # complete: the time is set last
            os.unlink(path)
        except FileNotFoundError:
            pass
        return False

    def _has_room(self, path: str, size: int) -> bool:
        header = self.table.header
        if header.staged_bytes + size <= self.max_store_bytes:
            return True
        self.overflow += 1
        header.overflow += 1
        self.trouble = self.trouble or f"{path}: over max_store_bytes ({self.max_store_bytes})"
        return False

    def _count(self, size: int) -> None:
        header = self.table.header
        header.staged_bytes += size
        header.staged_files += 1
        self.files += 1
        self.bytes += size

    # -- listings ------------------------------------------------------------------------------------------------

    def _listing(self, record: Record, packed: bytes, flags: int, lst: bytes | None, epoch: int) -> bool:
        names, path, table = record.names, record.path, self.table
        assert names is not None
        seq = table.next_sequence()
        known = table.entry(path)
        if known is not None and known.word & F_COMPLETE:
            now = {name.name for name in names}
            self._drop(path, lambda name: name not in now)
        for name in names:
            self._child(f"{path}/{name.name}", name, seq, epoch)
        if not table.put(path, K_DIR | flags, st=packed, lst=lst, target=record.target, seq=seq, epoch=epoch):
            return False
        mirror = self._mirror(path, names, seq)
        flags |= F_COMPLETE | (F_MIRROR if mirror else 0)
        self.listings += 1
        return table.put(
            path, K_DIR | flags, st=packed, lst=lst, target=record.target, copy=mirror, seq=seq, epoch=epoch
        )

    def _child(self, path: str, name: Name, seq: int, epoch: int) -> None:
        put = self.table.put
        if name.d_type == DT_LNK:
            if name.lst is None or name.target is None:
                self._native_unless_known(path, seq, epoch)
                return
            kind = K_NATIVE if name.st is None else kind_of(name.st.st_mode)
            packed = None if name.st is None else pack_stat(name.st)
            put(path, kind | F_LINK, st=packed, lst=pack_stat(name.lst), target=name.target, seq=seq, epoch=epoch)
        elif name.lst is not None:
            put(path, kind_of(name.lst.st_mode), st=pack_stat(name.lst), seq=seq, epoch=epoch)
        elif name.d_type in (DT_DIR, DT_REG):
            put(path, K_DIR if name.d_type == DT_DIR else K_REG, seq=seq, epoch=epoch)
        else:
            self._native_unless_known(path, seq, epoch)

    def _native_unless_known(self, path: str, seq: int, epoch: int) -> None:
        """A name whose kind says nothing about what it leads to: what is known stays, but not that it is absent."""
        known = self.table.entry(path)
        if known is None or known.word & 0xFF in (K_UNKNOWN, K_ABSENT):
            self.table.put(path, K_NATIVE, seq=seq, epoch=epoch)

    def _drop(self, path: str, vanished: Callable[[str], bool]) -> None:
        """Forget the names in *path* that have *vanished*, and what is below them."""
        start = path + "/"
        for key, entry in list(self.table):
            if entry.word and key.startswith(start) and vanished(key[len(start) :].partition("/")[0]):
                self.table.forget_entry(entry)

    def _mirror(self, path: str, names: Sequence[Name], seq: int) -> str | None:
        """A directory with the same names and kinds, for getdents64(2).

        Its files can't be opened (mode 0): whoever goes around the path table with a descriptor of it must fail, not
        read an empty file.
        """
        label = f"{self.table.offset(path):x}.{seq:x}"
        # made elsewhere: in this hooked process, a call relative to a descriptor below m/ means the original directory
        making, mirror = f"{self.store.path}/n/{label}", f"{self.store.path}/m/{label}"
        try:
            os.mkdir(making, 0o700)
            fd = os.open(making, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            self.trouble = self.trouble or f"listing of {path}: {exc.strerror}"
            return None
        mknod, formats = os.mknod, {DT_FIFO: stat.S_IFIFO, DT_SOCK: stat.S_IFSOCK}
        try:
            for name in names:
                if name.d_type == DT_DIR:
                    os.mkdir(name.name, 0, dir_fd=fd)
                elif name.d_type == DT_LNK:
                    os.symlink(name.target or "?", name.name, dir_fd=fd)
                else:  # a device needs privileges: listed as a file
                    mknod(name.name, formats.get(name.d_type, stat.S_IFREG), dir_fd=fd)
            os.rename(making, mirror)
        except OSError as exc:
            self.trouble = self.trouble or f"listing of {path}: {exc.strerror}"
            return None
        finally:
            os.close(fd)
        return mirror


def default_limit(path: str) -> int:
    """A quarter of what is free where the store is, and never more than a quarter of the memory; in bytes.

    :raises StoreError: if the store's file system can't be asked
    """
    try:
        fs = os.statvfs(path)
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError) as exc:
        raise StoreError(f"{path}: {exc}") from None
    return int(min(fs.f_bavail * fs.f_frsize, memory)) // 4
