"""What earlier runs of each program wanted, known to every server of the tree, and who keeps that list.

::

    chief (a process) --PLAN--> its server --> up to the root and down to all: each stages it if it has such a program
    program --CLAIM--> up to the root: the first one of the job is chief, all others aren't

Rules of the file: no sockets; a program's plan is learned once; what comes twice is ignored.
"""

from __future__ import annotations

from . import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from collfs.record import Want

    from .desk import Desk

PROGRAMS = 1000  # of one job; beyond, a program has no plan


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
        self.known: dict[str, Sequence[Want]] = {}
        self.here: set[str] = set()  # programs of this node
        self.relay: Callable[[object, str, Sequence[Want]], None] = lambda source, program, wants: None
        self._claimed: set[str] = set()
        self._staged: set[str] = set()

    def learn(self, program: str, wants: Sequence[Want], source: object) -> None:
        """A plan has come from *source*: it goes on to all others."""
        if program in self.known or len(self.known) >= PROGRAMS:
            return
        self.known[program] = next(wire.pieces(wants))  # a message; what is more is asked for when it is needed
        self.relay(source, program, self.known[program])
        if program in self.here:
            self._stage(program)

    def arrived(self, program: str) -> None:
        """A process of *program* runs on this node."""
        if program not in self.here and len(self.here) < PROGRAMS:
            self.here.add(program)
        if program in self.known:
            self._stage(program)

    def _stage(self, program: str) -> None:
        if program not in self._staged:
            self._staged.add(program)
            self.desk.request(_Nobody(), 0, self.known[program])

    def claim(self, program: str) -> bool:
        """On the root: whether this is the first claim of *program*."""
        if program in self._claimed or len(self._claimed) >= PROGRAMS:
            return False
        self._claimed.add(program)
        return True
