"""The root's upstream: the one process of the whole job that reads. Threads read, the server's loop takes.

Two threads, so that what somebody waits for doesn't stand behind what a manifest announced.

Rules of the file: threads hand over records and nothing else; the queue between is short, so that what is read and not
yet staged is bounded; nobody reads what really lies outside the prefixes.
"""

from __future__ import annotations

import os
from errno import EACCES
from queue import Empty, Full, Queue
from stat import S_ISLNK
from threading import Event, Thread

from collfs.reader import _OPS, Reader, native
from collfs.record import Name, Record, Stat, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Batch = list[Want]

AHEAD = 64  # records between the threads and the loop
BULK = 100  # wants from which on a request may wait for others
TAKEN = 64  # records that the loop takes at once
STOPS = 0.2  # seconds between two looks whether to stop


class BoundReader(Reader):
    """A reader for others: what a path leads to must lie below the prefixes, too, or it is refused (EACCES).

    Where an opened file really lies, the kernel says without asking its file system (man 5 proc, ``/proc/pid/fd``).
    """

    __slots__ = ("_real",)

    def __init__(self, prefixes: Sequence[str], max_file_bytes: int | None = None) -> None:
        super().__init__(max_file_bytes)
        self._real = tuple({os.path.realpath("/" + path).rstrip("/") + "/" for path in prefixes})

    def admit(self, fd: int) -> None:
        if not (os.readlink(f"/proc/self/fd/{fd}") + "/").startswith(self._real):
            raise OSError(EACCES, "leads out of the managed prefixes")

    def stat(self, path: str) -> Stat:
        return self._looked_at(path, os.O_PATH)

    def lstat(self, path: str) -> tuple[Stat, str | None]:
        st = self._looked_at(path, os.O_PATH | os.O_NOFOLLOW)
        if not S_ISLNK(st.st_mode):
            return st, None
        self._count(_OPS)
        return st, os.readlink(native(path))

    def _child(self, fd: int, name: str, kind: int) -> Name:
        found = super()._child(fd, name, kind)
        if found.st is not None:  # what a link leads to
            self._count(_OPS)
            try:
                led = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=fd)
                try:
                    self.admit(led)
                finally:
                    os.close(led)
            except OSError:
                found.st = None
        return found

    def _looked_at(self, path: str, flags: int) -> Stat:
        where = native(path)
        self._count(_OPS)
        try:
            fd = os.open(where, flags | os.O_CLOEXEC)
        except OSError as exc:
            exc.filename = path
            raise
        try:
            self.admit(fd)
            return Stat.from_stat_result(os.fstat(fd))
        finally:
            os.close(fd)


class Source:
    """Reads for the desk. ``wake`` is called in a thread when there is something to take."""

    def __init__(self, reader: Reader, wake: Callable[[], None]) -> None:
        self.reader, self.wake = reader, wake
        self._done: Queue[tuple[Record | None, Batch]] = Queue(AHEAD)
        self._todo: dict[str, Queue[Batch]] = {"at once": Queue(), "in bulk": Queue()}
        self._stopping = Event()
        self._threads = [
            Thread(target=self._run, args=(queue,), name=f"collfs reads {name}", daemon=True)
            for name, queue in self._todo.items()
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, wants: Sequence[Want], fresh: bool) -> None:
        """Have *wants* read. The original is read in any case, so it is always fresh."""
        self._todo["in bulk" if len(wants) >= BULK else "at once"].put(list(wants))

    def take(self) -> tuple[list[Record], Batch]:
        """What has been read, and the wants that nothing more comes for; never waits."""
        records: list[Record] = []
        finished: Batch = []
        while len(records) < TAKEN:
            try:
                record, batch = self._done.get_nowait()
            except Empty:
                break
            if record is not None:
                records.append(record)
            finished += batch
        if not self._done.empty():
            self.wake()
        return records, finished

    def _run(self, queue: Queue[Batch]) -> None:
        while not self._stopping.is_set():
            try:
                batch = queue.get(timeout=STOPS)
            except Empty:
                continue
            try:
                for record in self.reader.fetch(batch):
                    self._hand_over(record, [])
            except Exception:  # the desk settles what hasn't come
                pass
            self._hand_over(None, batch)

    def _hand_over(self, record: Record | None, batch: Batch) -> None:
        while not self._stopping.is_set():
            try:
                self._done.put((record, batch), timeout=STOPS)
            except Full:
                continue
            self.wake()
            return

    def close(self) -> None:
        """End the threads; one that hangs in the file system is left behind."""
        self._stopping.set()
