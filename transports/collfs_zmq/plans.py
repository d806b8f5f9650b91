"""What earlier runs of each program wanted, known to every server of the tree, and who keeps that list.

::

    chief (a process) --PLAN--> its server --> up to the root and down to all: each stages it if it has such a program
    program --CLAIM--> up to the root: the first one of the job is chief, all others aren't

A plan travels in pieces, each sent on before the next has come. Who changes its parent in the middle is given all of
them again and goes on where it was.

Rules of the file: no sockets; a piece is learned once and in its turn; what comes twice is ignored; what a server
keeps is bounded, and what is more than that is asked for when it is needed.
"""

from __future__ import annotations

from collfs.record.wire import pack_wants, unpack_wants

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from collfs.record import Want

    from .desk import Desk

PROGRAMS = 1000  # of one job; beyond, a program has no plan
MOST = 64 << 20  # bytes of all plans of a job: what one process may send, some 500,000 paths


class _Nobody:
    """Asks for a plan on behalf of the node."""

    local = True

    def give(self, number: int, record: object) -> None:
        """Never called: what is staged is found in the table."""

    def done(self, number: int) -> None:
        """The plan is staged."""


class Plans:
    """The plans of one server."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.known: dict[str, list[bytes]] = {}  # frames of wants
        self.size = 0  # bytes of them
        self.here: set[str] = set()  # programs of this node
        self.relay: Callable[[object, str, int, bytes], None] = lambda source, program, index, piece: None
        self._claimed: set[str] = set()
        self._staged: dict[str, int] = {}  # pieces

    def offer(self, program: str, wants: Sequence[Want], source: object) -> None:
        """A process knows the plan of its program."""
        if program not in self.known:
            for index, piece in enumerate(wire.pieces(wants, wire.PLANNED)):
                self.learn(program, index, pack_wants(piece), source)

    def learn(self, program: str, index: int, piece: bytes, source: object) -> None:
        """A piece of a plan has come from *source*: it goes on to all others."""
        if index != len(self.known.get(program, ())) or self.size + len(piece) > MOST:
            return
        if program not in self.known and len(self.known) >= PROGRAMS:
            return
        self.known.setdefault(program, []).append(piece)
        self.size += len(piece)
        self.relay(source, program, index, piece)
        if program in self.here:
            self._stage(program)

    def all(self) -> Iterator[tuple[str, int, bytes]]:
        """All that is known, for a server that has just come."""
        for program, known in list(self.known.items()):
            for index, piece in enumerate(known):
                yield program, index, piece

    def arrived(self, program: str) -> None:
        """A process of *program* runs on this node."""
        if program not in self.here and len(self.here) < PROGRAMS:
            self.here.add(program)
        if program in self.known:
            self._stage(program)

    def _stage(self, program: str) -> None:
        known = self.known[program]
        while self._staged.get(program, 0) < len(known):
            index = self._staged.get(program, 0)
            self._staged[program] = index + 1
            self.desk.request(_Nobody(), 0, unpack_wants(known[index]))

    def claim(self, program: str) -> bool:
        """On the root: whether this is the first claim of *program*."""
        if program in self._claimed or len(self._claimed) >= PROGRAMS:
            return False
        self._claimed.add(program)
        return True
