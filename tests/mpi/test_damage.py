"""Damaged messages, made by the root on purpose: refused and counted, the path goes native, the program is right."""

from __future__ import annotations

import pytest

import mpitree

pytestmark = pytest.mark.mpi

PROGRAM = """
import os, sys
import mpitree
folder, what, kind, nth = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
sys.path.insert(0, folder)
from collfs_mpi import stream
real = stream.Sender.send
count = 0
def send(self, a_kind, payload):
    global count
    payload = bytearray(payload)
    if a_kind == kind and (a_kind != 1 or b"VALUE" in payload):
        count += 1
        if count == nth:
            mpirank.emit(damaged=len(payload))
            if what == "flip in the content": payload[payload.find(b"VALUE") + 3] ^= 0x10
            elif what == "flip in the middle": payload[len(payload) // 2] ^= 0x10
            elif what == "flip at the start": payload[0] ^= 1
            elif what == "flip at the end": payload[-1] ^= 0x80
            elif what == "cut": del payload[len(payload) // 2:]
            elif what == "grown": payload += b"more"
            elif what == "lost":
                self.sequence += 1
                return
            elif what == "out of turn": self.sequence += 7
            elif what == "unknown kind": a_kind = 77
    real(self, a_kind, payload)
stream.Sender.send = send
session = mpirank.start(prefixes=[folder], patience=2)
for index in range(8):
    mpitree.work(folder, 0, "module", index)
for index in range(4):
    mpitree.work(folder, 0, "file", index)
for name, size in (("large", 2 << 20), ("huge", 12 << 20)):
    with open(f"{folder}/{name}", "rb") as file:
        assert file.read() == bytes(range(256)) * (size >> 8)
counters = session.transport.counters()
mpirank.emit(refused=counters["refused"], failure=session.transport.failure, native=mpirank.native(),
             role=session.transport.role, silences=session.fetcher.silences)
mpirank.comm.barrier()
"""

RECORDS, PIECE, WHOLE = 1, 4, 7
BAD = [
    "flip in the content",
    "flip in the middle",
    "flip at the start",
    "flip at the end",
    "cut",
    "grown",
    "lost",
    "out of turn",
    "unknown kind",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", [RECORDS, PIECE, WHOLE], ids=["records", "piece", "whole"])
@pytest.mark.parametrize("what", BAD)
def test_a_damaged_message_is_refused_and_the_program_is_right(mpirun, tmp_path, what, kind):
    folder = tmp_path / "tree"
    mpitree.make_tree(folder, 0)
    (folder / "large").write_bytes(bytes(range(256)) * (2 << 12))
    (folder / "huge").write_bytes(bytes(range(256)) * (12 << 12))
    ended = mpirun(4, PROGRAM, str(folder), what, str(kind), "2" if kind == RECORDS else "1", timeout=40)
    root, own, leader, _ = ended.ranks
    assert root["damaged"]
    assert leader["role"] == "leader"
    assert leader["refused"] >= 1
    assert root["silences"] == own["silences"] == [], "the root's node needs no message"
    assert leader["native"], "what was damaged is read from the original"
    if what == "unknown kind":
        assert "message" in leader["failure"]
    else:
        assert leader["failure"] == ""
        assert sum(leader["native"].values()) < 40, "the rest came"
