"""The three roles of a process: root, leader, plain rank.

Rules of the file: after :meth:`MpiTransport.open` nothing is collective but :meth:`MpiTransport.gather` and
:meth:`MpiTransport.close`, and those wait for ``patience`` at most where it is silent; MPI is called by the thread that
the thread level allows and by no other, and in a forked child by none. A failure of MPI ends the stream only.
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock, get_ident, start_new_thread

from mpi4py import MPI

from collfs.errors import TransportUnavailable
from collfs.reader import Reader
from collfs.stream.devices import devices, renamed
from collfs.transport.reading import ReadingTransport
from collfs.transport.registry import RANK_PID

from .groups import Groups, wait
from .leader import Leader
from .root import Publisher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from collfs.record import Record, Want
    from collfs.transport.registry import TransportOptions

LOOK = 0.05  # seconds between two looks at whether the node's stream has ended
TAG = 7

_kept: list[MPI.Request] = []  # of messages that nobody took: MPI may still read their buffers
_left: list[Publisher | Leader] = []  # streams that didn't end well: MPI may still read or write their buffers


class MpiTransport(ReadingTransport):
    """One session's transport."""

    name = "mpi"
    bounded = True
    collective = True

    def __init__(self, comm: MPI.Intracomm, options: TransportOptions) -> None:
        super().__init__(Reader(options.max_file_bytes))
        self.comm, self.patience = comm, float(options.patience)
        self.root = int(getattr(options, "root", 0) or 0)
        self.main, self.pid = get_ident(), os.getpid()
        self.publisher: Publisher | None = None  # of the root
        self.leader: Leader | None = None  # of a leader
        self.groups: Groups | None = None
        self.ended = False  # the stream is closed, has failed, or MPI_Finalize was called
        self.failure = ""  # why, if it has failed
        self._looked = 0.0
        self._calls = 0  # of importlib.invalidate_caches
        self._copy_of: Callable[[str], str] = lambda path: ""
        self._scratch = ""
        self._running = allocate_lock()  # held while our thread runs
        self._any_thread = True  # whether MPI may be called by any thread
        self._closing = self._threaded = self._owing = False  # owing: a report has not been taken
        self._keyval = MPI.KEYVAL_INVALID

    @property
    def _end_of_stream(self) -> Publisher | Leader | None:
        return self.publisher or self.leader

    # -- life cycle ----------------------------------------------------------------------------------------------

    def open(self, prefixes: Sequence[str]) -> None:
        """Make the communicators and start the stream. Collective.

        :raises TransportUnavailable: on all ranks, if one of them is in :attr:`trouble`
        """
        groups = self.groups = Groups(self.comm, self.root, self.node_store)
        trouble = groups.trouble(self.trouble)
        if trouble:
            groups.retire()
            self.groups = None
            raise TransportUnavailable(f"transport 'mpi': {trouble}")
        self.token = groups.token
        self.shares_store = groups.size < MPI.COMM_WORLD.Get_size()
        mine = devices(prefixes)
        names = renamed(groups.all.bcast(mine, self.root), mine)
        self.is_root, self.follows = groups.is_root, not groups.is_root
        self._threaded = groups.threads and groups.is_leader and groups.leaders.Get_size() > 1
        if self.is_root:
            self.publisher = Publisher(groups.leaders, self._threaded)
        elif groups.is_leader:
            self.leader = Leader(groups.leaders, self._threaded, names)
        self._any_thread = groups.threads
        self.ended = not groups.served  # a root that redirects nothing stages nothing
        self._end_with_mpi()
        os.environ[RANK_PID] = str(self.pid)

    def _end_with_mpi(self) -> None:
        """MPI_Finalize deletes the attributes of MPI_COMM_SELF before anything else, and MPI can still be used then
        (MPI 4.1, section 11.4.1): that is our cue.
        """

        def delete(comm: MPI.Comm, keyval: int, value: object) -> None:
            self._hang_up()

        self._keyval = MPI.Comm.Create_keyval(delete_fn=delete)
        MPI.COMM_SELF.Set_attr(self._keyval, True)

    def listen(self, deliver: Callable[[Iterable[Record]], int], scratch: str, copy_of: Callable[[str], str]) -> None:
        """The store is ready: records that arrive go to *deliver*; large ones are written below *scratch* first."""
        self._copy_of, self._scratch = copy_of, scratch
        self.reader.scratch = scratch
        if self.leader is not None:
            self.leader.listen(deliver, scratch, self._end, self._mark)
        if self._threaded and not self._running.locked():
            self._running.acquire()
            start_new_thread(self._run, ())

    def _run(self) -> None:
        """Our thread."""
        self.rest(True)
        try:
            end = self._end_of_stream
            if end is not None:
                end.run()
        except Exception as exc:
            self._end(exc)
        finally:
            self.rest(False)
            self._running.release()

    def close(self) -> None:
        """The root says that nothing follows; leaders take the rest. Waits for ``patience`` at most in silence."""
        if self.groups is None or os.getpid() != self.pid or self._keyval == MPI.KEYVAL_INVALID:
            return
        self._hang_up()
        if not MPI.Is_finalized():
            keyval, self._keyval = self._keyval, MPI.KEYVAL_INVALID
            if MPI.COMM_SELF.Get_attr(keyval) is not None:
                MPI.COMM_SELF.Delete_attr(keyval)
            MPI.Comm.Free_keyval(keyval)
            end = self._end_of_stream
            if end is not None and (self._running.locked() or not end.orderly):
                _left.append(end)
                end.keep()
            elif not self._owing:
                self.groups.retire()
        if self.leader is not None and self.leader.intake is not None:
            self.leader.intake.close()

    def _hang_up(self) -> None:
        """The end of the stream. From now on MPI isn't called for it any more."""
        if self._closing or os.getpid() != self.pid:
            return
        self._closing = True
        end = self._end_of_stream
        if end is not None:
            try:
                end.finish(self.patience)
            except MPI.Exception as exc:
                self._end(exc)
            self._end(None)
            end.stop()
        if self._threaded and self.main == get_ident() and self._running.acquire(timeout=max(self.patience, 0.1)):
            self._running.release()

    def abandon(self, exc: BaseException | None = None) -> None:
        """This rank leaves by an error. Given *exc*, MPI ends the job at exit, as ``python -m mpi4py`` has it.

        Not collective.
        """
        self.patience = 0.0
        if exc is not None:
            from mpi4py.run import set_abort_status

            set_abort_status(exc)

    def _end(self, exc: Exception | None) -> None:
        """Nothing comes any more: said to the other processes of the node, so that they don't wait for it."""
        self.ended = True
        end = self._end_of_stream
        if exc is not None:
            self.failure = self.failure or f"{type(exc).__name__}: {exc}"
            if end is not None:
                end.fail()
        if self._scratch and end is not None:
            try:
                os.close(os.open(self._ended_file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
            except OSError:
                pass  # they wait for `patience`

    @property
    def _ended_file(self) -> str:
        return f"{self._scratch}/ended.{self.token}"

    # -- the root ------------------------------------------------------------------------------------------------

    def fetch(self, wants: Sequence[Want]) -> Iterator[Record]:
        """The root reads; nobody else is asked."""
        return super().fetch(wants) if self.is_root else iter(())

    def publish(self, records: Iterable[Record]) -> None:
        """Start sending *records*; wait for nobody."""
        self._tell(lambda publisher: publisher.publish(records, self._copy_of))

    def give_up(self, wants: Sequence[Want]) -> None:
        """Say that nothing will come for *wants*."""
        self._tell(lambda publisher: publisher.give_up(wants))

    def _tell(self, what: Callable[[Publisher], None]) -> None:
        publisher = self.publisher
        if publisher is None or self.ended or publisher.alone:
            return
        try:
            what(publisher)
        except MPI.Exception as exc:
            self._end(exc)

    # -- importlib.invalidate_caches -----------------------------------------------------------------------------

    def disbelieve(self, number: int) -> int:
        """The n-th call here means what the root's n-th call means, wherever the root is now: what it has listed before
        that is old, what it lists afterwards is new, though it may have come here already.
        """
        self._calls += 1
        if self.is_root:
            self._tell(lambda publisher: publisher.mark())
            self._mark(number)
            return number
        try:
            fd = os.open(self._marks_file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return number  # the root hasn't called it: all that has come is from before
        try:
            found = os.pread(fd, 8, 8 * (self._calls - 1))
        finally:
            os.close(fd)
        return int.from_bytes(found, "little") if len(found) == 8 else number

    def _mark(self, number: int) -> None:
        """For all processes of the node: *number* is that of the last listing before the root's next call."""
        if not self._scratch:
            return
        try:
            fd = os.open(self._marks_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, number.to_bytes(8, "little"))
            finally:
                os.close(fd)
        except OSError:
            pass  # then a call elsewhere means all that has come

    @property
    def _marks_file(self) -> str:
        return f"{self._scratch}/marks.{self.token}"

    # -- who follows ---------------------------------------------------------------------------------------------

    def step(self) -> bool:
        """While a path is awaited: take what has arrived, if no thread does. False: nothing comes to this thread."""
        now, leader = time.monotonic(), self.leader
        if not self._any_thread and get_ident() != self.main:
            return False
        if leader is not None:
            leader.hurry()
            while not self.ended and leader.pump():
                pass
        elif now - self._looked > LOOK:
            self._looked = now
            self.ended = self.ended or os.path.exists(self._ended_file)
        return not self.ended

    # -- the report ----------------------------------------------------------------------------------------------

    def gather(self, report: dict[str, object]) -> list[dict[str, object]] | None:
        """The reports of all ranks, on the root; point to point, so that a rank that never comes costs ``patience``.

        Collective in the sense that every rank should call it. After MPI_Finalize each rank writes its own.
        """
        groups = self.groups
        if groups is None:
            return [report]
        report = {"rank": groups.rank, "role": self.role, "failure": self.failure, **report}
        if MPI.Is_finalized():
            return [report]
        if self.is_root:
            self._tell(lambda publisher: publisher.say_goodbye())  # before the wait for those who come later
            self._end(None)
            return self._gathered(groups, report)
        try:
            request = groups.all.isend((self.token, report), self.root, TAG)
            _kept[:] = [old for old in _kept if not old.Test()]
            if not wait(lambda: bool(request.Test()), self.patience):
                self._owing = True
                _kept.append(request)
        except MPI.Exception as exc:
            self._end(exc)
        return None

    def _gathered(self, groups: Groups, report: dict[str, object]) -> list[dict[str, object]]:
        comm, reports = groups.all, {groups.rank: report}
        try:
            while len(reports) < groups.size:
                if not wait(lambda: bool(comm.Iprobe(MPI.ANY_SOURCE, TAG)), self.patience):
                    break
                token, one = comm.recv(source=MPI.ANY_SOURCE, tag=TAG)
                if token == self.token:  # else one of an earlier session, that came too late
                    reports[one["rank"]] = one
        except MPI.Exception as exc:
            self._end(exc)
        report["missing_ranks"] = [rank for rank in range(groups.size) if rank not in reports]
        self._owing = bool(report["missing_ranks"])
        return [reports[rank] for rank in sorted(reports)]

    @property
    def role(self) -> str:
        """What this process is: root, leader or rank."""
        return "root" if self.is_root else "leader" if self.leader is not None else "rank"

    def counters(self) -> dict[str, int]:
        """For the report: what was read from the original file system, sent and received."""
        return {
            "ops": self.reader.ops,
            "bytes_read": self.reader.bytes_read,
            "files_read": self.reader.files_read,
            "skipped": self.reader.skipped,
            "bytes_sent": self.publisher.sender.bytes if self.publisher is not None else 0,
            "lost": self.publisher.sender.lost if self.publisher is not None else 0,
            "bytes_received": self.leader.receiver.bytes if self.leader is not None else 0,
            "refused": self.leader.intake.refused if self.leader is not None and self.leader.intake is not None else 0,
        }
