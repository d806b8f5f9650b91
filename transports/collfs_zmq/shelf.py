"""The node's own side of a server: its store and path table, and what it can hand on to the servers below.

What is staged for this node is what is given to others: metadata and listings are kept as records, contents lie in the
store once.

Rules of the file: nothing here talks to anybody; a copy that has gone is not held any more.
"""

from __future__ import annotations

from errno import EAGAIN

from collfs.fetcher import Fetcher
from collfs.reader import Reader
from collfs.record import CONTENT, META, Record, Want
from collfs.stream.outgoing import LARGE
from collfs.transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collfs.messages import Messages
    from collfs.store.node import NodeStore
    from collfs.store.stager import Stager


class _Passive(Transport):
    """The fetcher of a server is only given records."""

    name = "zmq"
    bounded = True
    is_root = False


class NodeShelf:
    """See :class:`collfs_zmq.desk.Shelf`."""

    def __init__(
        self,
        store: NodeStore,
        stager: Stager,
        *,
        prefixes: Sequence[str],
        exclude: Callable[[str], bool] | None,
        patience: float,
        messages: Messages,
    ) -> None:
        self.store, self.stager = store, stager
        self.fetcher = Fetcher(
            _Passive(), store, stager, prefixes=prefixes, exclude=exclude, patience=patience, messages=messages
        )
        self._held: dict[Want, Record] = {}

    @property
    def scratch(self) -> str:
        """Where large contents are written before they are staged."""
        return self.store.path + "/f"

    def managed(self, path: str) -> bool:
        """Whether *path* may be served: below a prefix, as it is spelled, and not excluded."""
        return "/../" not in path + "/" and self.fetcher.managed(path)

    def lacks(self, want: Want) -> bool:
        """Whether the node's table can't answer *want* yet, and may be made to."""
        return self.fetcher.lacks(want) and not self.fetcher.table.written(want.path)

    def stage(self, records: Sequence[Record]) -> None:
        """Stage what is managed."""
        self.fetcher.deliver([record for record in records if self.managed(record.path)])

    def settle(self, paths: Sequence[str]) -> None:
        """Nothing will come for these: native."""
        self.fetcher.deliver([Record(path, errno=EAGAIN) for path in paths])

    def copy_of(self, path: str) -> str:
        """The name of the copy of *path* in the store, or an empty string."""
        return self.fetcher.copy_of(path)

    # -- what is held for others ---------------------------------------------------------------------------------

    def hold(self, want: Want, record: Record) -> None:
        """Keep *record*, the answer to *want*, without its content."""
        if record.content is not None or record.node_path is not None:
            if not self.copy_of(record.path):
                return  # no room here: whoever asks later gets it from upstream again
            record = Record(record.path, record.st, node_path="/", lst=record.lst, target=record.target)
        self._held[want] = record

    def held(self, want: Want) -> Record | None:
        """The answer to *want*, if it is here."""
        record = self._held.get(want)
        if record is None or record.node_path is None:
            return record
        copy = self.copy_of(record.path)
        st = record.st
        if not copy or st is None:
            del self._held[want]
            return None
        if st.st_size >= LARGE:
            return Record(record.path, st, node_path=copy, lst=record.lst, target=record.target)
        try:
            content = Reader().read(copy)[1]
        except OSError:
            content = b""
        if len(content) != st.st_size:
            del self._held[want]
            return None
        return Record(record.path, st, content=content, lst=record.lst, target=record.target)

    def drop(self, want: Want) -> bool:
        """What is held for *want* is no answer any more; whether there was something."""
        if want.aspect == CONTENT:
            self._held.pop(Want(want.path, META), None)
        return self._held.pop(want, None) is not None
