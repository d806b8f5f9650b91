"""The transport interface: how file questions of this node are answered.

Write three methods and you have a transport; override more to make it fast::

    from collfs.record import Name, Stat
    from collfs.transport import Transport

    class MyTransport(Transport):
        name = "mine"

        def stat(self, path): ...
        def listdir(self, path): ...
        def read(self, path): ...

    def transport(options):          # the object that the entry point names
        return MyTransport()

A transport never sees machine code, tables or hooks. The core wraps every call: one that raises anything but OSError,
or is silent for longer than the ``patience`` of the session, is logged once and marked dead, and the job goes on
natively. A record that can't be right is refused and counted.

Threads: the methods are called from whichever thread of the program wanted a file, or from one made for the call, one
call at a time unless ``concurrent`` is true. After a fork the child never calls its transport.
"""

from __future__ import annotations

import time

from ..record import CONTENT, LIST, NAMES, Name, Record, Stat, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..record import Buffer


class Transport:
    """Base class of all transports. Paths are absolute and normalised, errors the OSErrors that the original gives."""

    #: short name, as users write it in ``transport="..."``
    name: str = ""
    #: whether several threads may call at once
    concurrent: bool = False
    #: whether this process is the one that reads for the job (keeps the manifest, may write bytecode)
    is_root: bool = True
    #: whether every call ends by itself in a bounded time and every record is sound: then the core calls it directly,
    #: else in a thread of its own, with a limit of ``patience`` on its silence (:mod:`collfs.transport.guard`)
    bounded: bool = False
    #: whether others fill this node's store: then :meth:`fetch` isn't called, and a wanted path is awaited in the table
    follows: bool = False
    #: whether :meth:`open`, :meth:`gather` and :meth:`close` are collective over the processes of a job
    collective: bool = False
    #: whether other sessions of the job may fill this node's store, too
    shares_store: bool = False
    #: what all processes of this session have in common, and no other session; empty: nothing
    token: str = ""
    #: directory of this node's store, set before :meth:`open`; empty: this process has none
    node_store: str = ""
    #: why this process can't take part after all, set before :meth:`open`; empty: it can. A collective transport's
    #: :meth:`open` then fails on all processes, for else the others would wait for this one
    trouble: str = ""

    def rest(self, on: bool) -> None:
        """A thread of the transport calls this first with True and last with False: what it imports and opens is never
        waited for in the table that it fills itself. Replaced by the session before :meth:`listen`.
        """

    # -- the three that an author must write ---------------------------------------------------------------------

    def stat(self, path: str) -> Stat:
        """Metadata of what *path* leads to (links followed).

        :raises OSError: as os.stat would on the original
        """
        raise NotImplementedError(f"transport {self.name!r} has no stat()")

    def listdir(self, path: str) -> Sequence[Name]:
        """All names in the directory *path* with their kinds (``d_type``): complete, or an error.

        A :class:`~collfs.record.Name` may also carry its metadata; what it doesn't carry is asked later or goes native.

        :raises OSError: as os.listdir would on the original
        """
        raise NotImplementedError(f"transport {self.name!r} has no listdir()")

    def read(self, path: str) -> Buffer:
        """The whole content of the regular file *path*. A memoryview is welcome: no copy of it is made.

        :raises OSError: as open and read would on the original
        """
        raise NotImplementedError(f"transport {self.name!r} has no read()")

    # -- optional ------------------------------------------------------------------------------------------------

    def lstat(self, path: str) -> tuple[Stat, str | None]:
        """Metadata of *path* itself, and the text of the link if it is one. Default: never a link.

        :raises OSError: as os.lstat would on the original
        """
        return self.stat(path), None

    def mmap(self, path: str) -> str | None:
        """The name of a file on this node that holds exactly the bytes of *path*, or None (default).

        The store then links to it instead of copying; it must stay unchanged until :meth:`close`.
        """
        return None

    def fetch(self, wants: Sequence[Want]) -> Iterator[Record]:
        """Answer many wants. Default: :meth:`stat`, :meth:`listdir` and :meth:`read`, one by one.

        Yields at least one record for each want, in any order; a failed want gives a record with ``errno``. Records
        that nobody asked for are welcome: the store takes them too.
        """
        for want in wants:
            try:
                yield self.answer(want)
            except OSError as exc:
                yield Record(want.path, errno=exc.errno or 5)

    def answer(self, want: Want) -> Record:
        """One want, by the methods above.

        :raises OSError: as the original would
        """
        lst, target = self.lstat(want.path)
        try:
            st = lst if target is None else self.stat(want.path)
        except OSError:
            return Record(want.path, errno=40)  # ELOOP: a link that leads nowhere exists, so it must not become absent
        link = {} if target is None else {"lst": lst, "target": target}
        kind = st.st_mode & 0o170000  # S_IFMT; another kind than the aspect means gives a metadata record
        if want.aspect in (LIST, NAMES) and kind == 0o040000:
            return Record(want.path, st, names=self.listdir(want.path), **link)  # type: ignore[arg-type]
        if want.aspect == CONTENT and kind == 0o100000:
            node_path = self.mmap(want.path)
            if node_path is not None:
                return Record(want.path, st, node_path=node_path, **link)  # type: ignore[arg-type]
            return Record(want.path, st, content=self.read(want.path), **link)  # type: ignore[arg-type]
        return Record(want.path, st, **link)  # type: ignore[arg-type]

    # -- life cycle ----------------------------------------------------------------------------------------------

    def open(self, prefixes: Sequence[str]) -> None:
        """Called once, before anything else, with the managed prefixes. Collective for transports that are.

        :raises TransportUnavailable: if this transport can't work here; the message says what to do
        """

    def listen(self, deliver: Callable[[Iterable[Record]], int], scratch: str, copy_of: Callable[[str], str]) -> None:
        """Called once, when the store can take records. Default: nothing.

        :param deliver: stages records that come by themselves, in any thread, and gives the number of the last listing
        :param scratch: a directory in the store, for files that become a record's ``node_path``
        :param copy_of: the name of the copy of a path in the store, or an empty string
        """

    def gather(self, report: dict[str, object]) -> list[dict[str, object]] | None:
        """The reports of all processes on the one that writes them, else None. Default: each writes its own."""
        return [report]

    def hand_over(self, path: str, report: dict[str, object]) -> str:
        """The content of the report file *path*: give it to who writes it for the job. Must not wait for long.

        :returns: the name of the file to write here instead (default: *path*); empty: it is done
        """
        return path

    def publish(self, records: Iterable[Record]) -> None:
        """The store has just taken these records: tell others, if that is what this transport does. Must not wait."""

    def give_up(self, wants: Sequence[Want]) -> None:
        """:meth:`fetch` couldn't answer these: tell others that nothing will come. Must not wait."""

    def disbelieve(self, number: int) -> int:
        """The program has called ``importlib.invalidate_caches()``: listings up to *number* aren't believed any more.

        :returns: the number to use instead, if others make the listings. Default: the same
        """
        return number

    def ask(self, wants: Sequence[Want]) -> None:
        """These are about to be awaited (:attr:`follows`): tell who fills the table. Must not wait."""

    def plan(self, wants: Sequence[Want]) -> None:
        """What earlier runs of this program wanted (:attr:`follows`, on the process that :attr:`is_root`): to be staged
        everywhere. Must not wait.
        """

    def step(self) -> bool:
        """Called again and again while a path is awaited (:attr:`follows`). Must not wait.

        :returns: False if nothing will come to this thread
        """
        return True

    def pause(self, seconds: float) -> None:
        """While a path is awaited: wait for *seconds*, or less if something has come."""
        time.sleep(seconds)

    def abandon(self, exc: BaseException | None = None) -> None:
        """This process is ending by an error: :meth:`gather` and :meth:`close`, which follow, must wait for nobody.

        :param exc: given by ``collfs run``: what the program raised; a collective transport ends the whole job with it
        """

    def close(self) -> None:
        """Called once, from ``finalize`` or at exit. Releases everything; must not raise and must not hang."""
