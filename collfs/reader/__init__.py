"""The reader: the only code that touches the shared file system.

What hurts a file server is the number of path operations (stat, lstat, open, readlink), so the common cases need one:

=======  ==============================================================================================
META     lstat; for a symbolic link also readlink and stat
NAMES    open of the directory; the names with their kinds come from the descriptor
LIST     NAMES, and one lstat per name (relative to the descriptor); for a link also readlink and stat
CONTENT  open; a link is noticed by O_NOFOLLOW and then costs lstat, readlink and a second open
=======  ==============================================================================================

Rules of the file: every path goes out in its native spelling ("/" + path), so the interposer never sees it; files are
read whole and in order; what may be half old and half new is read again or refused, never returned (within the
resolution of the times that the file system keeps). Opening never waits: a fifo or a device gives metadata only.
"""

from __future__ import annotations

import os
from _thread import get_ident
from errno import EAGAIN, EFBIG, EILSEQ, EINVAL, EIO, EISDIR, ELOOP, ENOENT, ENOMEM, ENOTDIR, ENXIO, ESTALE
from stat import S_IFMT, S_ISDIR, S_ISLNK, S_ISREG

from collfs.errors import OptionError
from collfs.record import ASPECTS, CONTENT, LIST, META, Name, Record, Stat

from .listing import entries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import NoReturn

    from collfs.record import Buffer, Want

    from ._pool import Hold

PIECE = 8 << 20  #: bytes per read(2): large for the server, yet Ctrl-C is heard between two of them
PLACED = 256 << 10  #: from here on, content goes straight into the store, if there is a place for it
TRIES = 3  #: how often a file that changes under the reader is read
INLINE = 4  #: up to so many wants are answered without starting threads

_OPS, _BYTES, _FILES, _SKIPPED = range(4)  # what is counted

_OPEN_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_OPEN_DIRECTORY = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY


class Reader:
    """Answers from the original files. All methods may be called from several threads at once.

    :param max_file_bytes: larger files give metadata only and are counted in :attr:`skipped`; None: no limit
    :raises OptionError: for a limit below 0

    ``scratch`` may name a directory on this node. Then the content of larger files is a file in there (a record's
    ``node_path``), copied by the kernel: half the time of bytes that pass through memory of this process.
    """

    __slots__ = ("_counts", "max_file_bytes", "scratch")

    def __init__(self, max_file_bytes: int | None = None) -> None:
        if max_file_bytes is not None and max_file_bytes < 0:
            raise OptionError(f"max_file_bytes={max_file_bytes}: give a size in bytes from 0 up, or None for no limit")
        self.max_file_bytes = max_file_bytes
        self.scratch = ""
        # One list per thread instead of a lock: Ctrl-C can strike between the end of a `with` block and the release
        # (https://github.com/python/cpython/issues/74174), and the next call would wait for ever.
        self._counts: dict[int, list[int]] = {}

    @property
    def ops(self) -> int:
        """Path operations made, failed ones too."""
        return self._total(_OPS)

    @property
    def bytes_read(self) -> int:
        """Bytes of content read, those of repeated tries too."""
        return self._total(_BYTES)

    @property
    def files_read(self) -> int:
        """Files whose whole content was returned."""
        return self._total(_FILES)

    @property
    def skipped(self) -> int:
        """Files left out because of ``max_file_bytes``."""
        return self._total(_SKIPPED)

    def _total(self, which: int) -> int:
        return sum([counts[which] for counts in list(self._counts.values())])

    def _count(self, which: int, number: int = 1) -> None:
        self._counts.setdefault(get_ident(), [0, 0, 0, 0])[which] += number

    def admit(self, fd: int) -> None:
        """Called with everything that has been opened, before it is looked at. Default: all is welcome.

        :raises OSError: to refuse it
        """

    # -- single questions ----------------------------------------------------------------------------------------

    def stat(self, path: str) -> Stat:
        """Metadata of what *path* leads to.

        :raises OSError: as os.stat, with the plain path as filename
        """
        where = native(path)
        self._count(_OPS)
        try:
            return Stat.from_stat_result(os.stat(where))
        except OSError as exc:
            _raise(exc, path)

    def lstat(self, path: str) -> tuple[Stat, str | None]:
        """Metadata of *path* itself, and the text of the link if it is one.

        :raises OSError: as os.lstat and os.readlink
        """
        where = native(path)
        try:
            self._count(_OPS)
            st = os.lstat(where)
            if not S_ISLNK(st.st_mode):
                return Stat.from_stat_result(st), None
            self._count(_OPS)
            return Stat.from_stat_result(st), os.readlink(where)
        except OSError as exc:
            _raise(exc, path)

    def listdir(self, path: str, metadata: bool) -> list[Name]:
        """All names in the directory *path*, with the metadata of each if asked for (LIST), else only kinds (NAMES).

        :raises OSError: as os.listdir
        """
        where = native(path)
        try:
            return self._directory(where, metadata)[1]
        except OSError as exc:
            _raise(exc, path)

    def read(self, path: str) -> tuple[Stat, Buffer]:
        """The whole content of the regular file that *path* leads to.

        :raises OSError: as open and read; EISDIR or EINVAL for what is no regular file, EFBIG for one above
            ``max_file_bytes``, EAGAIN for one that doesn't stop changing
        """
        where = native(path)
        try:
            st, content = self._content(where, 0, None)
        except OSError as exc:
            _raise(exc, path)
        if content is not None and not isinstance(content, str):
            return st, content
        if S_ISREG(st.st_mode):
            raise OSError(EFBIG, f"{st.st_size} bytes are more than max_file_bytes={self.max_file_bytes}", path)
        code = EISDIR if S_ISDIR(st.st_mode) else EINVAL
        raise OSError(code, os.strerror(code), path)

    def changed(self, path: str, st: Stat) -> bool:
        """Whether *path* is no longer the file that gave *st* (size, mtime, ctime, inode); gone too. One stat."""
        try:
            now = self.stat(path)
        except OSError:
            return True
        return (now.st_size, now.st_mtim, now.st_ctim, now.st_ino) != (st.st_size, st.st_mtim, st.st_ctim, st.st_ino)

    # -- wants ---------------------------------------------------------------------------------------------------

    def answer(self, want: Want) -> Record:
        """One want. An OSError of the original becomes the record's errno.

        What is no directory (LIST, NAMES) or no regular file within the limit (CONTENT) gives a metadata record. A link
        that leads nowhere gives ELOOP, hence goes native: it is not absent, lstat and readlink know it.

        :raises ValueError: if the aspect is none of :data:`~collfs.record.ASPECTS`
        """
        return self._answer(want, None)

    def fetch(self, wants: Iterable[Want], max_workers: int = 8) -> Iterator[Record]:
        """Answer many wants, several at once, each as soon as it is ready: one record per want, in any order.

        At most 2 * *max_workers* answers, and 64 MiB of content or one file, are held while nobody takes them. Closing
        the iterator, or an exception in it, ends the threads at their next step without waiting for them.

        :raises OptionError: if *max_workers* is below 1
        """
        if max_workers < 1:
            raise OptionError(f"max_workers={max_workers}: give a number of threads from 1 up")
        listed = list(wants)
        if max_workers == 1 or len(listed) <= INLINE:
            return (self.answer(want) for want in listed)
        from ._pool import Pool  # late: most ranks never read in bulk

        if self.scratch:
            from . import placing  # noqa: F401  in one of the threads the import would be a want, which waits for us

        return Pool(self._answer, listed, max_workers).records()

    def _answer(self, want: Want, hold: Hold | None) -> Record:
        path, aspect = want.path, want.aspect
        if aspect not in ASPECTS:
            raise ValueError(f"want of {path!r} has aspect {aspect!r}: use one of {', '.join(ASPECTS)}")
        try:
            where = native(path)
            if aspect == META:
                return self._metadata(path)
            try:
                if aspect == CONTENT:
                    return self._whole_record(path, where, os.O_NOFOLLOW, hold)
                st, names = self._directory(where, aspect == LIST, os.O_NOFOLLOW)
                return Record(path, st, names=names)
            except OSError as exc:
                # ELOOP, and ENOTDIR with O_DIRECTORY, is how open(2) says "a link" to O_NOFOLLOW; ENXIO is a socket.
                # None may become a record's errno unseen: ENOTDIR for a file that exists would make it known absent.
                if exc.errno not in ((ELOOP, ENXIO) if aspect == CONTENT else (ELOOP, ENOTDIR)):
                    raise
            return self._otherwise(want, where, hold)
        except OSError as exc:
            return Record(path, errno=exc.errno or EIO)

    def _otherwise(self, want: Want, where: str, hold: Hold | None) -> Record:
        """The answer for a path that is a link, or not of the kind that was wanted."""
        path = want.path
        lst, target = self.lstat(path)
        if target is None:
            return Record(path, lst)
        try:
            if want.aspect == CONTENT:
                record = self._whole_record(path, where, 0, hold)
                record.lst, record.target = lst, target
                return record
            st, names = self._directory(where, want.aspect == LIST)
            return Record(path, st, names=names, lst=lst, target=target)
        except OSError as exc:
            if exc.errno not in (ENOENT, ENOTDIR, ENXIO):
                raise
        return self._metadata(path)  # leads to nothing, or to another kind

    def _metadata(self, path: str) -> Record:
        lst, target = self.lstat(path)
        if target is None:
            return Record(path, lst)
        try:
            st = self.stat(path)
        except OSError as exc:
            if exc.errno not in (ENOENT, ENOTDIR):
                raise
            return Record(path, errno=ELOOP)
        return Record(path, st, lst=lst, target=target)

    # -- directories ---------------------------------------------------------------------------------------------

    def _directory(self, where: str, metadata: bool, flags: int = 0) -> tuple[Stat, list[Name]]:
        self._count(_OPS)
        fd = os.open(where, _OPEN_DIRECTORY | flags)
        try:
            self.admit(fd)
            # Before the names: if the directory changes meanwhile, its recorded mtime is too old, and that is noticed.
            st = Stat.from_stat_result(os.fstat(fd))
            if metadata:
                return st, [self._child(fd, name, kind) for name, kind in entries(fd)]
            return st, [Name(name, kind) for name, kind in entries(fd)]
        finally:
            os.close(fd)

    def _child(self, fd: int, name: str, kind: int) -> Name:
        self._count(_OPS)
        try:
            lst = Stat.from_stat_result(os.stat(name, dir_fd=fd, follow_symlinks=False))
        except OSError:
            return Name(name, kind)
        if not S_ISLNK(lst.st_mode):
            return Name(name, S_IFMT(lst.st_mode) >> 12, lst)  # IFTODT of <dirent.h>
        self._count(_OPS, 2)
        try:
            target = os.readlink(name, dir_fd=fd)
        except OSError:
            target = None
        try:
            st = Stat.from_stat_result(os.stat(name, dir_fd=fd))
        except OSError:
            st = None
        return Name(name, S_IFMT(lst.st_mode) >> 12, lst, st, target)

    # -- content -------------------------------------------------------------------------------------------------

    def _whole_record(self, path: str, where: str, flags: int, hold: Hold | None) -> Record:
        st, content = self._content(where, flags, hold, self.scratch)
        if isinstance(content, str):
            return Record(path, st, node_path=content)
        return Record(path, st, content=content)

    def _content(
        self, where: str, flags: int, hold: Hold | None, scratch: str = ""
    ) -> tuple[Stat, Buffer | str | None]:
        """
        :returns: metadata, and the content, or the name of a file in *scratch* that holds it
        :raises OSError: EAGAIN after :data:`TRIES` reads during which the file changed
        """
        for _ in range(TRIES):
            content: Buffer | str | None = None
            # Opened anew each time: a network file system asks the server for fresh attributes only then (man 5 nfs).
            self._count(_OPS)
            fd = os.open(where, _OPEN_FILE | flags)
            try:
                self.admit(fd)
                before = os.fstat(fd)
                if not S_ISREG(before.st_mode):
                    return Stat.from_stat_result(before), None
                if self.max_file_bytes is not None and before.st_size > self.max_file_bytes:
                    self._count(_SKIPPED)
                    return Stat.from_stat_result(before), None
                if scratch and before.st_size >= PLACED:
                    content = self._placed(fd, before, scratch, hold)
                else:
                    if hold is not None:
                        hold.reserve(before.st_size)
                    content = self._whole(fd, before.st_size, hold)
                after = os.fstat(fd)
            except OSError as exc:
                if exc.errno != ESTALE:  # removed on the server while open (man 5 nfs)
                    raise
                continue
            finally:
                os.close(fd)
            if (
                content is not None
                and before.st_size == after.st_size
                and before.st_mtime_ns == after.st_mtime_ns
                and before.st_ctime_ns == after.st_ctime_ns
            ):
                self._count(_FILES)
                return Stat.from_stat_result(before), content
            if isinstance(content, str):
                os.unlink(content)
        raise OSError(EAGAIN, f"changed during each of {TRIES} reads", where)

    def _placed(self, fd: int, st: os.stat_result, scratch: str, hold: Hold | None) -> str | None:
        from .placing import place  # late: a small program has no such file

        placed = place(fd, st, scratch, hold)
        if placed:
            self._count(_BYTES, st.st_size)
        return placed

    def _whole(self, fd: int, size: int, hold: Hold | None) -> Buffer | None:
        """All *size* bytes, or None if the file proves shorter or longer.

        One read(2) returns at most 0x7ffff000 bytes (man 2 read), and less than asked at any time.
        """
        first = os.read(fd, min(size + 1, PIECE))
        self._count(_BYTES, len(first))
        if len(first) >= size:
            return first if len(first) == size else None
        try:
            content = bytearray(size)
        except MemoryError:
            raise OSError(ENOMEM, os.strerror(ENOMEM)) from None
        done = len(first)
        content[:done] = first
        with memoryview(content) as view:
            while done < size:
                if hold is not None:
                    hold.check()
                count = os.readv(fd, [view[done : done + PIECE]])
                self._count(_BYTES, count)
                if count == 0:
                    return None
                done += count
        return content


def native(path: str) -> str:
    """The spelling of *path* that the interposer leaves alone.

    :raises OSError: EINVAL or EILSEQ if no file can have this path: wants come from other processes
    """
    if not path.startswith("/") or "\0" in path:
        raise OSError(EINVAL, "not an absolute path without NUL", path)
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise OSError(EILSEQ, os.strerror(EILSEQ), path) from None
    return "/" + path


def _raise(exc: OSError, path: str) -> NoReturn:
    """Raise *exc* again with the plain path in place of the native spelling."""
    exc.filename = path
    raise exc
