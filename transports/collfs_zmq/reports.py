"""The report of a whole job in one file: each process hands its own to its node's server, the root's server writes.

::

    process --REPORT--> its server --REPORT--> ... --> root: a thread writes FILE, and then all are told (REPORTED)

A process waits a few seconds for that and no longer; without an answer, or with a bad one, it writes FILE.HOST.PID.

Rules of the file: writing, which may hang, is done in a thread, for all that have come meanwhile at once; a file
appears whole; what isn't a report of collfs is never replaced; what is kept is bounded, what is too much is counted.
"""

from __future__ import annotations

import json
import os
import stat
import time
from queue import Empty, Queue
from threading import Thread

from collfs import __version__
from collfs.report import FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Answer = Callable[[bool], None]

KEPT = 256 << 20  # bytes of all reports of a job: those of some 20,000 processes
FILES = 100  # of one job
CLOSING = 5.0  # seconds for the last one
AT_ONCE = 10000  # reports that are written together
HEADS = 65536  # bytes in which an existing file has to say what it is


class _File:
    """One report file."""

    def __init__(self, head: dict[str, object]) -> None:
        self.head = head
        self.processes: list[bytes] = []
        self.ids: set[str] = set()
        self.left_out = 0


class Reports:
    """Of the root's server. ``wake`` is called in a thread when :meth:`answer` has something to do."""

    def __init__(self, job: str, wake: Callable[[], None]) -> None:
        self.job, self.wake = job, wake
        self._files: dict[str, _File] = {}
        self._size = 0
        self._came: Queue[tuple[str, Answer] | None] = Queue()
        self._written: Queue[tuple[Answer, bool]] = Queue()
        self._thread: Thread | None = None

    def take(self, payload: bytes, answer: Answer) -> None:
        """A report has come; *answer* is called by :meth:`answer` when it is written, or can't be."""
        try:
            path = self._add(payload)
        except (ValueError, KeyError, TypeError, RecursionError):
            answer(False)
            return
        if self._thread is None:
            self._thread = Thread(target=self._run, name="collfs writes reports", daemon=True)
            self._thread.start()
        self._came.put((path, answer))

    def _add(self, payload: bytes) -> str:
        told = json.loads(payload)
        path, name, document = told["path"], told["id"], told["document"]
        if not (isinstance(path, str) and path.startswith("/") and "\0" not in path and isinstance(name, str)):
            raise ValueError("no path")
        processes = document.pop("processes")
        lines = [json.dumps(process).encode() for process in processes if isinstance(process, dict)]
        file = self._files.get(path)
        if file is None:
            if len(self._files) >= FILES:
                raise ValueError("too many files")
            file = self._files[path] = _File({**document, "job": self.job})
        if name not in file.ids:  # else it was sent again, to another parent
            file.ids.add(name)
            size = sum(map(len, lines))
            if self._size + size > KEPT:
                file.left_out += len(lines)
            else:
                self._size += size
                file.processes += lines
        return path

    def answer(self) -> None:
        """Tell who waits for it what became of the reports."""
        while True:
            try:
                tell, good = self._written.get_nowait()
            except Empty:
                return
            tell(good)

    def close(self) -> None:
        """Write what is left, for a few seconds."""
        if self._thread is not None:
            self._came.put(None)
            self._thread.join(CLOSING)
        self.answer()

    # -- in the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        ends, pause = False, 0.0
        while not ends:
            batch = [self._came.get()]
            time.sleep(pause)  # a file that takes long to write is written less often
            while len(batch) < AT_ONCE:
                try:
                    batch.append(self._came.get_nowait())
                except Empty:
                    break
            ends = None in batch
            begun = time.monotonic()
            waiting: dict[str, list[Answer]] = {}
            for item in batch:
                if item is not None:
                    waiting.setdefault(item[0], []).append(item[1])
            for path, answers in waiting.items():
                try:
                    write(path, self._files[path])
                    good = True
                except (OSError, ValueError):
                    good = False
                for tell in answers:
                    self._written.put((tell, good))
            pause = min(time.monotonic() - begun, 1.0)
            self.wake()


def write(path: str, file: _File) -> None:
    """Write or replace the report file *path*.

    :raises OSError: if that isn't possible, or there is something else
    """
    path = os.path.realpath(path)
    if not _replaceable(path):
        raise FileExistsError(17, "there is something that is no report of collfs", path)
    processes: Sequence[bytes] = list(file.processes)
    head = {"format": FORMAT, **file.head, "collfs": __version__, "written": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    if file.left_out:
        head["left_out"] = file.left_out
    text = json.dumps(head, indent=1)[:-2].encode() + b',\n "processes": [\n  ' + b",\n  ".join(processes) + b"\n ]\n}"
    new = f"{path}.{os.uname().nodename}.{os.getpid()}.new"
    try:
        with open(new, "wb") as out:
            out.write(text)
        os.replace(new, path)
    except BaseException:
        try:
            os.unlink(new)
        except OSError:
            pass
        raise


def _replaceable(path: str) -> bool:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            st = os.fstat(file.fileno())
            begins = file.read(HEADS) if stat.S_ISREG(st.st_mode) else b"?"
    except FileNotFoundError:
        return True
    return not begins.strip() or (begins.lstrip().startswith(b'{\n "format"') and b'"collfs": "' in begins)
