"""Under a real mpiexec: what place() tells is what MPI says of itself."""

from __future__ import annotations

import pytest

import mpijob

pytestmark = pytest.mark.mpi

PROGRAM = """
import os
import sys

import mpirank
from collfs.launch import place
from mpi4py import MPI

found = place()
near = mpirank.comm.Split_type(MPI.COMM_TYPE_SHARED)
mpirank.emit(
    said=[found.rank, found.size, found.local_rank, found.local_size],
    mpi=[mpirank.rank, mpirank.size, near.Get_rank(), near.Get_size()],
    node=found.node,
    named=len(found.nodes),
    job=found.job,
    source=found.source,
)
"""


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_place_is_what_mpi_says(tmp_path, ranks):
    reason = mpijob.why_not()
    if reason:
        pytest.skip(reason)
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    # a batch script of Slurm around it, whose variables speak of somebody else
    outer = {"SLURM_PROCID": "0", "SLURM_NTASKS": "9", "SLURM_JOB_ID": "1", "SLURM_STEP_NUM_TASKS": "9"}
    job = mpijob.Job(tmp_path, ranks, ["-m", "mpi4py", str(script)], env=outer)
    ended = job.end(60)
    assert ended.rc == 0, ended.output
    for rank, told in enumerate(ended.ranks):
        assert told["mpi"] == [rank, ranks, rank, ranks]
        assert told["said"] == told["mpi"]
        assert told["source"] == ("pmix" if mpijob.is_open_mpi() else "hydra")
        assert told["node"] == 0
        assert told["named"] == 1
    assert len({told["job"] for told in ended.ranks}) == 1
