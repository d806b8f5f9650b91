"""``collfs run`` under mpiexec: which transport ``auto`` takes, how the job ends, one report of all ranks."""

from __future__ import annotations

import json
import sys

import pytest

import mpitree

pytestmark = pytest.mark.mpi

SCRIPT = """
import os, sys
folder = sys.argv[1]
sys.path.insert(0, folder)
sys.path.insert(0, os.environ["HELPERS"])
import collfs
session = collfs.calls._current
import mpirank, mpitree
for index in range(4):
    mpitree.work(folder, 0, "module", index)
mpirank.emit(taken=session.choice.taken, reasons=session.choice.reasons, silences=session.fetcher.silences,
             root=session.transport.is_root)
"""


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    mpitree.make_tree(folder, 0)
    return str(folder)


@pytest.fixture
def run(mpirun, tmp_path, tree):
    import mpijob

    def start(ranks, text, *flags, **more):
        script = tmp_path / "script.py"
        script.write_text(text)
        env = {"HELPERS": mpijob.HELPERS, **more.pop("env", {})}
        words = ["-m", "collfs", "run", "--prefix", tree, "--patience", "10", "--manifest", "none", "--quiet", *flags]
        return mpirun(ranks, [*words, str(script), tree], env=env, **more)

    return start


@pytest.mark.parametrize("transport", ["mpi", "auto"])
def test_a_program_runs_by_mpi_and_one_report_has_all_ranks(run, tmp_path, transport):
    report = tmp_path / "report.json"
    ended = run(4, SCRIPT, "--transport", transport, "--report", str(report))
    assert [told["taken"] for told in ended.ranks] == ["mpi"] * 4
    assert [told["root"] for told in ended.ranks] == [True, False, False, False]
    assert [told["silences"] for told in ended.ranks] == [[]] * 4
    data = json.loads(report.read_text())
    assert [process["rank"] for process in data["processes"]] == [0, 1, 2, 3]
    assert {process["failure"] for process in data["processes"]} == {""}


def test_auto_takes_local_for_one_rank(run):
    assert run(1, SCRIPT).ranks[0]["taken"] == "local"


def test_auto_takes_local_in_a_program_that_a_rank_starts(run, tmp_path, tree):
    inner = tmp_path / "inner.py"
    inner.write_text(
        "import collfs, sys\nsys.stdout.write(collfs.calls._current.choice.taken)\nassert 'mpi4py' not in sys.modules\n"
    )
    words = [sys.executable, "-m", "collfs", "run", "--prefix", tree, "--manifest", "none", str(inner)]
    ended = run(2, SCRIPT + f"\nimport subprocess\nmpirank.emit(inner=subprocess.check_output({words!r}, text=True))\n")
    assert [(told["taken"], told["inner"]) for told in ended.ranks] == [("mpi", "local")] * 2


ALONE = """
import collfs, sys
from mpi4py import MPI
print("taken", collfs.calls._current.choice.taken, [why for name, why in collfs.calls._current.choice.reasons])
"""


def test_auto_passes_mpi_over_if_mpi_knows_one_rank_only(run_command, tmp_path, tree):
    # as under the launcher of another MPI: its signs are there, but MPI_COMM_WORLD has one rank
    import mpijob

    if mpijob.why_not():
        pytest.skip(mpijob.why_not())
    script = tmp_path / "script.py"
    script.write_text(ALONE)
    base = [sys.executable, "-m", "collfs", "run", "--prefix", tree, "--manifest", "none"]
    env = {"MV2_COMM_WORLD_SIZE": "4"}
    said = run_command([*base, str(script)], env=env).stdout
    assert said.startswith("taken local")
    assert "one rank in MPI_COMM_WORLD" in said
    refused = run_command([*base, "--transport", "mpi", str(script)], env=env, check=False)
    assert refused.rc == 2
    assert "another MPI" in refused.stderr or "install mpi4py for the other one" in refused.stderr


ENDS = {
    "raise RuntimeError('on purpose')": "on purpose",
    "sys.exit(3)": "",
    "sys.exit('on purpose')": "on purpose",
    "raise KeyboardInterrupt": "",
}


@pytest.mark.parametrize("how", list(ENDS))
@pytest.mark.parametrize("who", [0, 3])
def test_an_error_of_one_rank_ends_the_job_as_python_m_mpi4py_does(run, who, how):
    ended = run(4, SCRIPT + f"\nif mpirank.rank == {who}: {how}\nmpirank.comm.barrier()\n", check=False, timeout=30)
    assert ended.rc != 0
    assert ENDS[how] in ended.output
    assert ended.seconds < 15


def test_a_program_that_ends_well_with_sys_exit_0_is_no_error(run):
    assert run(4, SCRIPT + "\nsys.exit(0)\n").rc == 0
