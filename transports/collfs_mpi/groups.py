"""Who talks to whom: communicators of our own, and polite waiting.

::

    comm (the user's)  --Dup-->  all ranks       (one rank order; the user's messages and ours never meet)
        --Split_type(SHARED)-->  node            (MPI 4.1, section 7.4.2: ranks that can share memory)
            --Split(store)-->    store           (ranks that use one store: usually all of the node)
        --Split(store rank 0)--> leaders         (rank 0 is the root; a rank without a store leads nobody)

Rules of the file: collective calls happen in :class:`Groups` only; a wait spins briefly, then sleeps, because a rank
that waits inside a blocking call makes the working one 3 to 9 times slower on an oversubscribed machine (measured:
MPICH, Intel MPI, 16 ranks on 2 cores). An error of MPI is an exception of mpi4py, whatever the user's communicator does
with it.
"""

from __future__ import annotations

import os
import time

from mpi4py import MPI

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SPIN = 20e-6
SHORT, LONG = 50e-6, 2e-3


class Groups:
    """The communicators of one session. Made collectively by all ranks of *comm*."""

    def __init__(self, comm: MPI.Intracomm, root: int, store: str) -> None:
        """
        :param root: rank in *comm* of the rank that reads
        :param store: directory of this process's node store; empty: it has none
        """
        # the last one may come seconds later, from a cold start: politely, so that it isn't slowed down by those here
        arrived = comm.Ibarrier()
        wait(lambda: bool(arrived.Test()), float("inf"))
        _free_old(comm)
        self.all = comm.Dup()
        self.all.Set_errhandler(MPI.ERRORS_RETURN)
        self.rank, self.size = self.all.Get_rank(), self.all.Get_size()
        self.is_root = self.rank == root
        # the root leads its node and is the first of the leaders: both by the key
        key = 0 if self.is_root else self.rank + 1
        node = self.all.Split_type(MPI.COMM_TYPE_SHARED, key)
        stores = sorted(set(node.allgather(store)))
        same = node.Split(stores.index(store), key)
        self.is_leader = self.is_root or (same.Get_rank() == 0 and store != "")
        same.Free()
        node.Free()
        self.leaders = self.all.Split(0 if self.is_leader else MPI.UNDEFINED, key)
        if self.is_leader:
            self.leaders.Set_errhandler(MPI.ERRORS_RETURN)
        self.threads = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        #: the same on all ranks and in no other session; and whether the root stages anything
        self.token, self.served = self.all.bcast((os.urandom(6).hex(), store != "") if self.is_root else None, root)

    def trouble(self, mine: str) -> str:
        """The trouble of the first rank that has one, on all ranks; empty: none has. Collective.

        :param mine: this rank's; empty: it has none
        """
        first: int = self.all.allreduce(self.rank if mine else self.size, MPI.MIN)
        if first == self.size:
            return ""
        return f"rank {first}: {self.all.bcast(mine, first)}"

    def retire(self) -> None:
        """Give the communicators back when that is safe. Nothing of this rank may be under way in them any more."""
        _old.append(self)


_old: list[Groups] = []  # of sessions that have ended


def _free_old(comm: MPI.Intracomm) -> None:
    """Free the communicators of earlier sessions of the same ranks (MPICH has some 2,000 in all).

    Not before: a late message to a number that is free again goes to the next communicator with that number, and Open
    MPI 5 then ends the job (in mca_pml_ob1_add_comm). Now all ranks have come from there. The call is collective by the
    standard, but no MPI that we know waits in it; a rank that can't free keeps the number taken.
    """
    mine = comm.Get_group()
    for groups in list(_old):
        theirs = groups.all.Get_group()
        same = MPI.Group.Compare(theirs, mine) == MPI.IDENT
        theirs.Free()
        if same:
            _old.remove(groups)
            for old in (groups.leaders, groups.all):
                if old != MPI.COMM_NULL:
                    old.Free()
    mine.Free()


def wait(done: Callable[[], bool], seconds: float) -> bool:
    """Wait politely until *done*; False after *seconds*."""
    start = time.perf_counter()
    pause = SHORT
    while not done():
        passed = time.perf_counter() - start
        if passed > seconds:
            return False
        if passed > SPIN:
            time.sleep(min(pause, seconds))
            pause = min(pause * 1.3, LONG)
    return True


def wait_while_moving(done: Callable[[], bool], sign: Callable[[], object], seconds: float) -> bool:
    """As :func:`wait`, but the limit is on silence: on the time for which *sign* stays the same."""
    while not done():
        before = sign()
        if not wait(lambda before=before: done() or sign() != before, seconds):  # type: ignore[misc]
            return False
    return True
