"""The three roles of a process: root, leader, plain rank.

Rules of the file: after :meth:`MpiTransport.open` nothing is collective but :meth:`MpiTransport.gather` and
:meth:`MpiTransport.close`, and those wait for ``patience`` at most; MPI is called by the thread that the thread level
allows and by no other.
"""

from __future__ import annotations

import mmap
import os
import time
from _thread import allocate_lock, get_ident, start_new_thread
from binascii import crc32

from mpi4py import MPI

from collfs.reader import Reader
from collfs.record import Record
from collfs.record.wire import pack
from collfs.transport import Transport

from .groups import LONG, SHORT, Groups, wait
from .intake import TAIL, Intake
from .large import copy_large
from .stream import BEGIN, CHUNK, CLOSE, END, PIECE, RECORDS, Receiver, Sender, pieces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from collfs.record import Buffer, Name, Stat, Want
    from collfs.transport.registry import TransportOptions

WHOLE = 64 << 20  # larger files don't pass through the root's memory as a whole
LARGE = 1 << 20  # content from here on is sent from the mapped copy, in pieces
IDLE = 0.02  # seconds between two looks of a leader's thread at a silent stream
HURRY = 1.0  # so long after a want of this process the thread looks more often
TAG = 7


class MpiTransport(Transport):
    """One session's transport."""

    name = "mpi"
    bounded = True
    collective = True

    def __init__(self, comm: MPI.Intracomm, options: TransportOptions) -> None:
        self.comm, self.patience = comm, float(options.patience)
        self.root = int(getattr(options, "root", 0) or 0)
        self.reader = Reader(WHOLE if options.max_file_bytes is None else min(WHOLE, options.max_file_bytes))
        self.max_file_bytes = options.max_file_bytes
        self.main = get_ident()
        self.sender: Sender | None = None
        self.receiver: Receiver | None = None
        self.intake: Intake | None = None
        self.ended = False  # MPI_Finalize was called, or the stream is closed
        self.hurry = 0.0
        self._copies = 0
        self._devices: dict[int, int] = {}
        self._deliver: Callable[[Iterable[Record]], None] = lambda records: None
        self._copy_of: Callable[[str], str] = lambda path: ""
        self._lock = allocate_lock()
        self._thread = allocate_lock()  # held while the thread runs
        self._stop = False

    # -- life cycle ----------------------------------------------------------------------------------------------

    def open(self, prefixes: Sequence[str]) -> None:
        """Make the communicators and start the stream. Collective."""
        self.groups = Groups(self.comm, self.root, self.node_store)
        self._learn_devices(prefixes)
        self.is_root = self.groups.is_root
        if self.is_root:
            self.sender = Sender(self.groups.leaders)
        elif self.groups.is_leader:
            self.receiver = Receiver(self.groups.leaders)
        self.follows = not self.is_root and (self.groups.threads or not self.groups.is_leader)
        self._end_with_mpi()

    def _learn_devices(self, prefixes: Sequence[str]) -> None:
        """``st_dev`` is a number of each node's kernel: what the root's are called here, by the prefixes."""
        mine = {path: _device(path) for path in prefixes}
        roots = self.groups.all.bcast(mine, self.root)
        self._devices = {roots[path]: device for path, device in mine.items() if device and roots.get(path)}

    def _mend(self, record: Record) -> Record:
        """*record* with the devices of this node."""
        devices = self._devices
        stats = [record.st, record.lst]
        for name in record.names or ():
            stats += (name.lst, name.st)
        for st in stats:
            if st is not None:
                st.st_dev = devices.get(st.st_dev, st.st_dev)
        return record

    def _end_with_mpi(self) -> None:
        """MPI_Finalize deletes the attributes of MPI_COMM_SELF first (MPI 4.1, section 11.4.1): that is our cue."""

        def delete(comm: MPI.Comm, keyval: int, value: object) -> None:
            self._end()

        self._keyval = MPI.Comm.Create_keyval(delete_fn=delete)
        MPI.COMM_SELF.Set_attr(self._keyval, True)

    def listen(
        self, deliver: Callable[[Iterable[Record]], None], scratch: str, copy_of: Callable[[str], str]
    ) -> None:
        """The store is ready: records that arrive go to *deliver*; large ones are written below *scratch* first."""
        self._deliver, self._copy_of = deliver, copy_of
        self.intake = Intake(scratch)
        if self.groups.threads and (self.sender is not None or self.receiver is not None):
            self._thread.acquire()
            start_new_thread(self._run, ())

    def close(self) -> None:
        """The root says that nothing follows; leaders take the rest. Waits for ``patience`` at most where it is silent."""
        if not self.ended:
            if self.sender is not None:
                self._locked(lambda: self.sender.send(CLOSE, b""))
                wait(lambda: self._locked(self.sender.progress), self.patience)
            elif self.receiver is not None:
                self._drain()
        self._end()
        if not MPI.Is_finalized():
            MPI.COMM_SELF.Delete_attr(self._keyval)
            MPI.Comm.Free_keyval(self._keyval)

    def abandon(self, exc: BaseException | None = None) -> None:
        """This rank leaves by an error. Given *exc*, MPI ends the job at exit, as ``python -m mpi4py`` has it.

        Not collective.
        """
        self.patience = 0.0
        if exc is not None:
            from mpi4py.run import set_abort_status

            set_abort_status(exc)

    def _drain(self) -> None:
        """Take what comes until the stream is closed; give up when it has been silent for ``patience``."""
        receiver = self.receiver
        while not receiver.closed:
            before = receiver.sequence
            done = wait(lambda: receiver.closed or receiver.sequence != before or self._pump_here(), self.patience)
            if not done:
                return

    def _end(self) -> None:
        """Stop the thread; from now on MPI isn't called any more. Not collective."""
        self.ended = self._stop = True
        if self.groups.threads and self.main == get_ident():
            if self._thread.acquire(timeout=self.patience):
                self._thread.release()

    # -- the root ------------------------------------------------------------------------------------------------

    def fetch(self, wants: Sequence[Want]) -> Iterator[Record]:
        """The root reads; a leader below MPI_THREAD_MULTIPLE takes from the stream until it is silent or has them."""
        if self.is_root:
            for record in self.reader.fetch(wants):
                yield self._copied(record)
        elif self.receiver is not None and get_ident() == self.main:
            yield from self._take({want.path for want in wants})

    def _copied(self, record: Record) -> Record:
        """A file that was too large for the reader's memory, copied into the store piece by piece."""
        st = record.st
        if st is None or st.st_size <= WHOLE or st.st_mode & 0o170000 != 0o100000 or record.content is not None:
            return record
        if self.max_file_bytes is not None and st.st_size > self.max_file_bytes:
            return record
        self._copies += 1
        record.node_path = copy_large(record.path, st, f"{self.node_store}/f/in.{os.getpid()}.r{self._copies}")
        return record

    def publish(self, records: Iterable[Record]) -> None:
        """Start the broadcasts of *records*; wait for nobody."""
        if self.sender is None or self.ended or self.sender.comm.Get_size() == 1:
            return
        if not self.groups.threads and get_ident() != self.main:
            return
        self._locked(lambda: self._send(records))

    def _send(self, records: Iterable[Record]) -> None:
        batch, size = bytearray(), 0
        for record in records:
            large = self._large(record)
            frame = b"".join(pack(record if large is None else _beginning(record)))
            if large is None and size + len(frame) <= CHUNK:
                batch += frame
                size += len(frame)
                continue
            if size:
                self.sender.send(RECORDS, bytes(batch))
                batch, size = bytearray(), 0
            if large is None:
                batch, size = bytearray(frame), len(frame)
            else:
                self._send_large(frame, large)
        if size:
            self.sender.send(RECORDS, bytes(batch))

    def _large(self, record: Record) -> memoryview | None:
        """The content of a large record, mapped from its copy in the store so that it costs no memory."""
        size = record.st.st_size if record.st is not None else 0
        if (record.content is None and record.node_path is None) or size < LARGE:
            return None
        try:
            fd = os.open(self._copy_of(record.path) or record.node_path or "", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_READ))
            finally:
                os.close(fd)
        except (OSError, ValueError):
            return None if record.content is None else memoryview(record.content)

    def _send_large(self, frame: bytes, content: memoryview) -> None:
        self.sender.send(BEGIN, frame)
        crc = 0
        for piece in pieces(content):
            crc = crc32(piece, crc)
            self.sender.send(PIECE, piece)
        self.sender.send(END, TAIL.pack(len(content), crc))

    # -- a leader ------------------------------------------------------------------------------------------------

    def _take(self, missing: set[str]) -> Iterator[Record]:
        deadline = time.perf_counter() + self.patience
        pause = SHORT
        while missing and not self.receiver.closed:
            records = self._arrived()
            if records is None:
                if time.perf_counter() > deadline:
                    return
                time.sleep(pause)
                pause = min(pause * 1.3, LONG)
                continue
            deadline, pause = time.perf_counter() + self.patience, SHORT
            for record in records:
                missing.discard(record.path)
                yield record

    def _arrived(self) -> list[Record] | None:
        """Records of the next message; None: nothing has arrived."""
        message = self.receiver.take()
        return None if message is None else [self._mend(record) for record in self.intake.add(*message)]

    def _pump_here(self) -> bool:
        """One step of the main thread, where no thread of ours does it."""
        if self.groups.threads or self.intake is None:
            return False
        records = self._arrived()
        if records:
            self._deliver(records)
        return records is not None

    # -- the thread ----------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            if self.sender is not None:
                self._move()
            else:
                self._receive()
        finally:
            self._thread.release()

    def _move(self) -> None:
        """The root's thread: broadcasts under way go on while the program computes."""
        while not self._stop:
            idle = self._locked(self.sender.progress)
            time.sleep(IDLE if idle else SHORT)

    def _receive(self) -> None:
        """A leader's thread: what arrives is staged at once."""
        pause = SHORT
        while not self._stop and not self.receiver.closed:
            records = self._arrived()
            if records is None:
                time.sleep(pause)
                pause = min(pause * 1.3, LONG if time.perf_counter() - self.hurry < HURRY else IDLE)
            else:
                pause = SHORT
                if records:
                    self._deliver(records)

    def _locked(self, call: Callable[[], object]) -> object:
        while not self._lock.acquire(timeout=0.1):  # an unlimited acquire may miss a signal for good (bpo-30808)
            pass
        try:
            return call()
        finally:
            self._lock.release()

    # -- the report ----------------------------------------------------------------------------------------------

    def gather(self, report: dict[str, object]) -> list[dict[str, object]] | None:
        """The reports of all ranks, on the root; point to point, so that a rank that never comes costs ``patience``.

        Collective in the sense that every rank should call it.
        """
        report = {"rank": self.groups.rank, "role": self.role, **report}
        if self.ended and MPI.Is_finalized():
            return [report]
        comm = self.groups.all
        if not self.is_root:
            request = comm.isend(report, self.root, TAG)
            wait(request.Test, self.patience)
            return None
        reports = [report]
        while len(reports) < self.groups.size:
            if not wait(lambda: comm.Iprobe(MPI.ANY_SOURCE, TAG), self.patience):
                break
            reports.append(comm.recv(source=MPI.ANY_SOURCE, tag=TAG))
        return sorted(reports, key=lambda r: int(str(r["rank"])))

    @property
    def role(self) -> str:
        """What this process is: root, leader or rank."""
        return "root" if self.is_root else "leader" if self.groups.is_leader else "rank"

    def counters(self) -> dict[str, int]:
        """For the report: what was read from the original file system, sent and received."""
        return {
            "ops": self.reader.ops,
            "bytes_read": self.reader.bytes_read,
            "files_read": self.reader.files_read,
            "skipped": self.reader.skipped,
            "bytes_sent": self.sender.bytes if self.sender is not None else 0,
            "bytes_received": self.receiver.bytes if self.receiver is not None else 0,
            "refused": self.intake.refused if self.intake is not None else 0,
        }

    # -- the base class's three ----------------------------------------------------------------------------------

    def stat(self, path: str) -> Stat:
        return self.reader.stat(path)

    def listdir(self, path: str) -> Sequence[Name]:
        return self.reader.listdir(path, metadata=False)

    def read(self, path: str) -> Buffer:
        return self.reader.read(path)[1]


def _device(path: str) -> int:
    try:
        return os.stat("/" + path).st_dev
    except OSError:
        return 0


def _beginning(record: Record) -> Record:
    """*record* without its content."""
    return Record(record.path, record.st, node_path="/", lst=record.lst, target=record.target)
