"""Copies of files on a node-local disk that outlive the job, each served only while its original is unchanged.

A warm node then reads nothing from the shared file system but one lstat per file, and the store links to the copy
instead of making its own.

Rules of the file:

* A copy is named by a digest of its bytes and of the original's (mtime, ctime, size, inode, mode), so the name never
  gets another content: a running store can rely on it. All names of one file share one copy.
* For each path a sidecar says which copy it is, and repeats the path and these five; whatever doesn't match in every
  field is a miss (sidecar.py). It is written after the copy, and both by rename.
* Nothing is synced to disk. Instead the sidecar names the boot in which it was written; after another boot, which may
  have lost data behind a rename, the first use compares the digest.
* Every user of the directory holds a shared flock(2) as long as it lives. Files go only under an exclusive one.
* No error of the cache reaches the caller: it is counted, and the original is read.
* Paths of the cache get a second slash in front, so that the interposer never takes them for managed ones.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import stat
import time

from collfs.errors import OptionError

from . import sidecar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from collfs.record import Buffer, Stat

FOLDER = "collfs-cache-1"  #: below the user's directory; the number changes with the format
DEFAULT_MAX_BYTES = 10 << 30  #: or a quarter of what is free, if that is less
LOCK_PATIENCE = 5.0  #: seconds to wait while another process trims the cache
TOUCH_EVERY_NS = 3600 * 10**9  #: how exactly "least recently used" is known
# A file that changed a moment ago may change again without a new ctime: time stamps are as coarse as a timer tick (up
# to 10 ms at CONFIG_HZ=100), or as the server's clock. 2 s is the coarsest that a file system in use has (FAT).
SETTLE_NS = 2 * 10**9
_CHUNK = 1 << 20


class Cache:
    """A private directory of copies.

    ``hits``, ``misses``, ``stored``, ``refused`` (no room, or not keepable) and ``failed`` (errors) count. ``reason``
    is empty, or says why nothing more is kept.
    """

    def __init__(self, directory: str, max_bytes: int | None = None, *, settle_ns: int = SETTLE_NS) -> None:
        """Make or join the cache in *directory*, and trim it if that is due and nobody else uses it.

        :param directory: absolute, on a node-local disk; made with mode 0700 if it isn't there
        :param max_bytes: upper bound; None: 10 GiB or a quarter of the free space, whichever is less
        :param settle_ns: a file whose ctime is younger than this is not kept
        :raises OptionError: *directory* isn't a private directory of this user, or can't be made
        """
        if not os.path.isabs(directory) or "\0" in directory:
            raise OptionError(f"cache={directory!r}: give the absolute name of a directory on a node-local disk")
        if max_bytes is not None and max_bytes < 0:
            raise OptionError(f"cache_max_bytes={max_bytes}: give a number of bytes from 0 up, or None for the default")
        self.hits = self.misses = self.stored = self.refused = self.failed = 0
        self.reason = ""
        self._max_bytes = max_bytes
        # Fixed for this process: two names of one file must not fare differently because time went on in between.
        self._settled_ns = time.time_ns() - settle_ns
        self._boot = sidecar.boot_id()
        self._mutex = _thread.allocate_lock()
        self._limit = 0  # bytes; set with _total
        self._total = -1  # bytes in the folder when it was last looked through, plus our own since; -1: not yet
        self._unseen = 0  # our own since then
        self._lock = -1
        top = "/" + os.path.normpath(directory).lstrip("/")
        self.folder = top + "/" + FOLDER  #: where the copies lie
        self._native = "/" + self.folder + "/"
        try:
            _private(top)
            if os.statvfs("/" + top).f_flag & os.ST_NOEXEC:
                raise OptionError(f"cache={directory!r} is mounted noexec, so no library could be loaded from there")
            _private(self.folder)
            self._join()
        except OSError as exc:
            self._fail(exc)

    # -- use -----------------------------------------------------------------------------------------------------

    def get(self, path: str, st: Stat) -> str | None:
        """The name of a file with the content that *path* has while its metadata is *st*, or None."""
        if self._lock < 0:
            return None
        broken = False
        name = None
        try:
            name = self._valid(path, st)
        except OSError as exc:
            broken = exc.errno != errno.ENOENT
        with self._mutex:
            self.hits += name is not None
            self.misses += name is None
            self.failed += broken
        return None if name is None else f"{self.folder}/{name}"

    def put(self, path: str, st: Stat, data: Buffer) -> str | None:
        """Keep *data*, the content of *path* while its metadata is *st*.

        :returns: the name of the copy, or None if it isn't kept
        """
        if self._lock < 0 or self.reason:
            return None
        view = memoryview(data).cast("B")
        digest = sidecar.digest_of(st, (view,))
        name = digest.hex()
        try:
            with self._mutex:
                keepable = sidecar.keepable(st, len(view), self._settled_ns)
                there = keepable and self._intact(name, st)
                if not keepable or not (there or self._room(len(view))):
                    self.refused += 1
                    return None
            if not there:  # else it has come under another name of the same file
                self._write(name, view, st)
            key = sidecar.key_of(path, st)
            self._write(sidecar.name_of(key), sidecar.pack(key, digest, self._boot))
        except OSError as exc:
            self._fail(exc)
            return None
        with self._mutex:
            self.stored += 1
        return f"{self.folder}/{name}"

    def close(self) -> None:
        """Leave the cache. Copies may be removed from now on, unless a forked child lives: it has the same lock."""
        fd, self._lock = self._lock, -1
        if fd >= 0:
            os.close(fd)

    # -- one entry -----------------------------------------------------------------------------------------------

    def _valid(self, path: str, st: Stat) -> str | None:
        key = sidecar.key_of(path, st)
        meta = sidecar.name_of(key)
        found = self._sidecar(meta)
        if found is None or found[0] != key:
            return None
        _, digest, boot = found
        name = digest.hex()
        if not self._intact(name, st):
            return None
        if boot != self._boot or boot == sidecar.NO_BOOT:
            with open(self._native + name, "rb", buffering=0) as file:
                if sidecar.digest_of(st, iter(lambda: file.read(_CHUNK), b"")) != digest:
                    return None
            self._write(meta, sidecar.pack(key, digest, self._boot))
        return name

    def _sidecar(self, name: str) -> tuple[bytes, bytes, bytes] | None:
        fd = os.open(self._native + name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return sidecar.unpack(os.read(fd, sidecar.MAX_BYTES))
        finally:
            os.close(fd)

    def _intact(self, name: str, st: Stat) -> bool:
        """Whether the copy is there and looks like its original. Notes the use, as its access time."""
        try:
            copy = os.lstat(self._native + name)
        except FileNotFoundError:
            return False
        if (copy.st_mode, copy.st_size, copy.st_mtime_ns) != (st.st_mode, st.st_size, st.st_mtim):
            return False
        now = time.time_ns()
        if abs(now - copy.st_atime_ns) > TOUCH_EVERY_NS:
            os.utime(self._native + name, ns=(now, st.st_mtim))
        return True

    def _write(self, name: str, data: Buffer, st: Stat | None = None) -> None:
        """Write a file under another name and move it to its own."""
        temporary = f"{self._native}{os.urandom(12).hex()}.tmp"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(fd, left) :]
                if st is not None:
                    os.fchmod(fd, stat.S_IMODE(st.st_mode))
                    os.utime(fd, ns=(time.time_ns(), st.st_mtim))
            finally:
                os.close(fd)
            if st is None or not self._place(temporary, name, st):
                os.replace(temporary, self._native + name)
        except OSError:
            _unlink(temporary)
            raise

    def _place(self, temporary: str, name: str, st: Stat) -> bool:
        """Give a new copy its name, unless another process was faster: the first one may be in use already."""
        try:
            os.link(temporary, self._native + name)
        except FileExistsError:
            if not self._intact(name, st):
                return False
        except OSError:  # a file system without hard links
            return False
        _unlink(temporary)
        return True

    # -- room ----------------------------------------------------------------------------------------------------

    def _room(self, size: int) -> bool:
        """Whether *size* more bytes fit; if not, the next job's start trims."""
        if self._total < 0 or self._unseen > self._limit // 16:
            # others write too: look again now and then
            self._total = sum(st.st_size for _, st in self._entries())
            self._unseen = 0
            self._limit = self._bound(self._total)
        if self._total + size > self._limit:
            if size <= self._limit:
                _unlink(self._native + "bound")
            return False
        self._total += size
        self._unseen += size
        return True

    def _bound(self, total: int) -> int:
        if self._max_bytes is not None:
            return self._max_bytes
        space = os.statvfs(self._native)
        return min(DEFAULT_MAX_BYTES, (space.f_bavail * space.f_frsize + total) // 4)

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        with os.scandir(self._native) as entries:
            for entry in entries:
                try:
                    yield entry.name, entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # another process's temporary file
                    continue

    def _join(self) -> None:
        """Trim if that is due and nobody else is here, then hold the shared lock.

        The file ``bound`` says under which bound the cache was last trimmed; it is gone if something had no room since.
        """
        lock = os.open(self._native + "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            bound = b"default" if self._max_bytes is None else b"%d" % self._max_bytes
            if _small(self._native + "bound") != bound and _flock(lock, fcntl.LOCK_EX):
                try:
                    self._trim()
                    self._write("bound", bound)
                except OSError as exc:
                    self._fail(exc)
            # From exclusive to shared another may come in between (man 2 flock): nothing of ours is in use yet.
            give_up = time.monotonic() + LOCK_PATIENCE
            while not _flock(lock, fcntl.LOCK_SH):
                if time.monotonic() > give_up:
                    raise OSError(errno.EAGAIN, "another process keeps it locked", self.folder)
                time.sleep(0.005)
        except BaseException:
            os.close(lock)
            raise
        self._lock = lock

    def _trim(self) -> None:
        """Under the exclusive lock: remove what is half there, and the least recently used down to 3/4 of the bound."""
        found = dict(self._entries())
        sidecars: dict[str, list[str]] = {}  # of each copy
        for name, st in found.items():
            entry = self._sidecar(name) if name.endswith(".meta") and stat.S_ISREG(st.st_mode) else None
            if entry is not None:
                sidecars.setdefault(entry[1].hex(), []).append(name)
        used = {name: metas for name, metas in sidecars.items() if name in found}
        keep = {"lock", "bound", *used, *[meta for metas in used.values() for meta in metas]}
        for name in found.keys() - keep:
            _unlink(self._native + name)
        total = sum(found[name].st_size for name in keep if name in found)
        target = self._bound(total) * 3 // 4
        for name, metas in sorted(used.items(), key=lambda item: found[item[0]].st_atime_ns):
            if total <= target:
                break
            for gone in (*metas, name):  # a copy without a sidecar is never served
                _unlink(self._native + gone)
                total -= found[gone].st_size

    def _fail(self, exc: OSError) -> None:
        """Count it and keep nothing more. What is there already is still served, if the lock is held."""
        self.failed += 1
        self.reason = f"cache {self.folder}: {exc.strerror or exc}"
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            _unlink(self._native + "bound")


def _private(directory: str) -> None:
    """Make *directory*, or make sure that only this user can look into it.

    :raises OptionError: if it isn't so
    :raises OSError: no space, read-only file system, ...
    """
    todo = "give a directory of your own, or one that isn't there yet and whose parent is"
    try:
        os.mkdir("/" + directory, 0o700)
    except FileExistsError:
        pass
    except (FileNotFoundError, NotADirectoryError, PermissionError) as exc:
        raise OptionError(f"cache={directory!r} can't be made ({exc.strerror}): {todo}") from exc
    st = os.lstat("/" + directory)
    mode = stat.S_IMODE(st.st_mode)
    if not stat.S_ISDIR(st.st_mode):
        raise OptionError(f"cache={directory!r} is not a directory (a symbolic link is not followed): {todo}")
    if st.st_uid != os.geteuid():
        raise OptionError(f"cache={directory!r} belongs to user {st.st_uid}, you are user {os.geteuid()}: {todo}")
    if mode & 0o077 or mode & 0o700 != 0o700:
        raise OptionError(
            f"cache={directory!r} has mode {mode:04o} and must have 0700, because whoever can write there decides what "
            f"your programs run: chmod 700 it, or {todo}"
        )


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _small(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            return file.read(64)
    except OSError:
        return b""


def _unlink(name: str) -> None:
    try:
        os.unlink(name)
    except OSError:
        pass
