"""Kill -9 of a rank while the job stages: the launcher ends the job, and the next start leaves no dead store behind."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

import mpitree

pytestmark = pytest.mark.mpi

PROGRAM = """
import os, sys, time
folder, store = sys.argv[1:]
sys.path.insert(0, folder)
import mpitree
session = mpirank.start(prefixes=[folder], store=store, patience=5)
mpitree.work(folder, 0, "module", 0)
mpirank.emit(ready=1, role=session.transport.role)
for index in range(1, 10000):  # staging all the time
    with open(f"{folder}/big", "rb") as file:
        assert len(file.read()) == 4 << 20
    if mpirank.rank == 0:
        session.invalidate(f"{folder}/big")
    time.sleep(0.001)
"""

NEXT = """
import os, sys
folder, store = sys.argv[1:]
before = mpirank.comm.bcast(os.listdir(store))
mpirank.comm.barrier()
session = mpirank.start(prefixes=[folder], store=store, patience=5)
mpirank.comm.barrier()
mpirank.emit(before=before, during=sorted(name for name in os.listdir(store) if not name.endswith(".lock")))
mpirank.comm.barrier()
import collfs
collfs.finalize()
mpirank.comm.barrier()
mpirank.emit(after=[name for name in os.listdir(store) if not name.endswith(".lock")])
"""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("victim", [0, 2, 3], ids=["root", "leader", "rank"])
def test_the_launcher_ends_the_job_and_the_next_start_cleans_up(mpistart, mpirun, tmp_path, victim):
    folder, store = tmp_path / "tree", Path("/dev/shm", f"collfs-test-{os.getpid()}-{victim}")
    mpitree.make_tree(folder, 0)
    (folder / "big").write_bytes(os.urandom(4 << 20))
    store.mkdir()
    try:
        job = mpistart(4, PROGRAM, str(folder), str(store))
        told = job.wait_for("ready")
        assert told[victim]["role"] == {0: "root", 2: "leader", 3: "rank"}[victim]
        os.kill(told[victim]["pid"], signal.SIGKILL)
        ended = job.end(30)
        assert ended.rc != 0
        assert [rank for rank in range(4) if job.is_ours(told[rank]["pid"])] == []
        ended = mpirun(4, NEXT, str(folder), str(store))
        assert {name for name in ended.ranks[0]["before"] if not name.endswith(".lock")}, "it was killed too late"
        assert len(ended.ranks[0]["during"]) == 2, "two nodes"
        assert not set(ended.ranks[0]["during"]) & set(ended.ranks[0]["before"])
        assert ended.ranks[0]["after"] == []
    finally:
        for path in sorted(store.rglob("*"), reverse=True):
            path.chmod(0o700) if path.is_dir() else None
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        store.rmdir()
