"""The stream itself, without a session: messages along the tree, whatever their size, however slow somebody is."""

from __future__ import annotations

import pytest

import mpitree

pytestmark = pytest.mark.mpi

STREAM = """
import random, sys, time
from mpi4py import MPI
from collfs_mpi import stream
from collfs_mpi.stream import CHUNK, CLOSE, INLINE, Receiver, Sender, below
comm, rank, size = mpirank.comm.Dup(), mpirank.rank, mpirank.size
chosen = random.Random(sys.argv[1])
sizes = [0, 1, INLINE - 1, INLINE, INLINE + 1, CHUNK, CHUNK - 1, *(chosen.choice((10, 10_000, 100_000, 3_000_000))
         for _ in range(30))]
chosen.shuffle(sizes)
def payload(number):
    return bytes([number]) * (sizes[number] - 1) + b"!" if sizes[number] else b""
def wait(done):
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end, "the stream stands"
        time.sleep(0.0002)
"""

SENDER = (
    STREAM
    + """
if rank == 0:
    sender = Sender(comm, 2 * CHUNK if sys.argv[2] == "window" else None)
    sender.submit((1 + number % 5, payload(number)) for number in range(len(sizes)))
    most = 0
    def sent():
        global most
        done = sender.progress()
        most = max(most, sender._way.bytes)
        return done
    wait(sent)
    sender.submit(iter([(CLOSE, b"")]))
    wait(sender.progress)
    if sys.argv[2] == "window":
        assert most <= (2 * CHUNK + CHUNK) * len(below(0, size)), most
    mpirank.emit(bytes=sender.bytes, sequence=sender.sequence)
else:
    receiver, got = Receiver(comm), []
    def received():
        message = receiver.take()
        if message is not None:
            kind, view = message
            assert kind == 1 + len(got) % 5 and bytes(view) == payload(len(got)), (rank, len(got), kind, len(view))
            got.append(len(view))
        return receiver.finished
    if rank == 1:  # the others must wait for it, or be served without it; nothing may be lost
        for _ in range(20):
            received()
            time.sleep(0.005)
    wait(received)
    assert got == sizes and receiver.missed == 0 and receiver.orderly, (rank, got)
    buffers = len(receiver._heads._all), len(receiver._payloads._all)
    mpirank.emit(bytes=receiver.bytes, heads=buffers[0], payloads=buffers[1], expecting=receiver.expecting)
"""
)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("window", ["window", "all at once"])
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_all_messages_arrive_everywhere_in_order(mpirun, ranks, window):
    root, *leaders = mpirun(ranks, SENDER, "seed", window, timeout=60).ranks
    assert [leader["bytes"] for leader in leaders] == [root["bytes"]] * (ranks - 1)
    assert all(leader["payloads"] <= 7 for leader in leaders), "memory is bounded by what is passed on"
    assert [leader["payloads"] for leader in leaders[(ranks - 2) // 2 :]] == [1] * len(leaders[(ranks - 2) // 2 :])
    assert not any(leader["expecting"] for leader in leaders)


def test_a_message_that_can_be_none_ends_the_stream_for_all_below(mpirun):
    ended = mpirun(
        5,
        STREAM
        + """
from collfs.errors import RecordError
if rank == 0:
    sender = Sender(comm, None)
    sender.submit(iter([(1, b"good"), (77, b"bad")]))
    wait(sender.progress)
else:
    receiver, said = Receiver(comm), []
    def ended():
        try:
            message = receiver.take()
        except RecordError as exc:
            said.append(str(exc))
        else:
            if message is not None:
                said.append(bytes(message[1]).decode())
        return receiver.finished
    wait(ended)
    mpirank.emit(said=said, orderly=receiver.orderly)
""",
        "seed",
    )
    for leader in ended.ranks[1:]:
        assert leader["said"][0] == "good"
        assert "found" in leader["said"][1]
        assert "77" in leader["said"][1]
        assert not leader["orderly"]


def test_every_leader_has_one_above_and_the_way_is_short(mpirun):
    (told,) = mpirun(
        1,
        """
from collfs_mpi.stream import below
depths = {}
for size in (1, 2, 3, 4, 7, 8, 9, 1000, 4097):
    depth, seen = {0: 0}, [0]
    for rank in range(size):
        for child in below(rank, size):
            assert (child - 1) // 2 == rank and child not in depth
            depth[child] = depth[rank] + 1
    assert sorted(depth) == list(range(size))
    depths[size] = max(depth.values())
mpirank.emit(depths=depths)
""",
    ).ranks
    assert told["depths"] == {
        "1": 0, "2": 1, "3": 1, "4": 2, "7": 2, "8": 3, "9": 3, "1000": 9, "4097": 12
    }  # fmt: skip


@pytest.mark.parametrize("found", ["found", "not found"])
def test_a_leader_waits_without_the_interpreter_where_it_can(mpirun, tmp_path, found):
    folder = tmp_path / "tree"
    mpitree.make_tree(folder, 0)
    ended = mpirun(
        4,
        """
import sys
import mpitree
from collfs_mpi import waiting
if sys.argv[2] == "not found":
    waiting._address_of_test = lambda: 0
    assert waiting.Waiter()._code is None
folder = sys.argv[1]
sys.path.insert(0, folder)
session = mpirank.start(prefixes=[folder])
for index in range(8):
    mpitree.work(folder, 0, "module", index)
leader = session.transport.leader
mpirank.emit(silences=session.fetcher.silences, native=mpirank.native().get("open", 0),
             machine=None if leader is None else leader._waiter._code is not None)
mpirank.comm.barrier()
""",
        str(folder),
        found,
    )
    assert [told["silences"] for told in ended.ranks] == [[]] * 4
    assert [told["native"] for told in ended.ranks] == [0] * 4
    assert [told["machine"] for told in ended.ranks] == [None, None, found == "found", None]
