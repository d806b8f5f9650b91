"""Environments of real launchers, recorded, and what they mean. The first line of each file says where it is from."""

from __future__ import annotations

from pathlib import Path

import pytest

from collfs.launch import LAUNCHERS, Place, place

FOLDER = Path(__file__).parent / "recorded"
THREE = ("cn001", "cn002", "cn003")


def recorded(name):
    """The variables of one process."""
    lines = (FOLDER / f"{name}.env").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith(("# recorded: ", "# documented: ", "# documented and recorded: "))
    return dict(line.split("=", 1) for line in lines[1:])


def known(found):
    """All that a place knows."""
    values = {name: getattr(found, name) for name in Place.__slots__}
    return {name: value for name, value in values.items() if value not in (-1, "", ())}


def expected(source, rank, size, local_rank, local_size, **more):
    numbers = {"rank": rank, "size": size, "local_rank": local_rank, "local_size": local_size}
    return {"source": source, **{name: value for name, value in numbers.items() if value >= 0}, **more}


MEANING = {
    "srun": expected("slurm", 3, 5, 0, 1, node=1, nodes=THREE, job="7.0", root_host="cn001"),
    "srun-pmi2-cyclic": expected("slurm", 3, 5, 1, 3, node=0, nodes=THREE, job="10.0", root_host="cn001"),
    "srun-pmix": expected("slurm", 3, 5, 0, 1, node=1, nodes=THREE, job="7.0", root_host="cn001"),
    "srun-arbitrary": expected("slurm", 0, 4, 0, 2, node=2, nodes=THREE, job="11.0", root_host="cn001"),
    "srun-part-of-job": expected("slurm", 0, 1, 0, 1, node=0, nodes=("cn002",), job="14.0", root_host="cn002"),
    "srun-heterogeneous": expected("slurm", 2, 4, 1, 2, node=1, nodes=THREE, job="18.0", root_host="cn001"),
    "sbatch": {},
    "mpich-one-node": expected("hydra", 1, 2, 1, 2, node=0, nodes=("cn001",), root_host="cn001"),
    "mpich-two-nodes": expected("hydra", 2, 4, 0, 2),
    "mpich-pmi-port": expected("hydra", 1, -1, 1, 2),
    "mpich-in-slurm": expected("hydra", 3, 5, 0, 1),
    "intelmpi-three-nodes": expected("hydra", 3, 6, 1, 2, node=1, job="c20a0000-0b85-2e92-0661-0600783ef717"),
    "pals": expected("hydra", 5, 8, 1, 4, node=1, job="5d1c1f4e-0d1e-4f0e-a1c5-2a1b5c6d7e8f"),
    "openmpi5": expected("pmix", 1, 2, 1, 2, node=0, nodes=("cn001",), job="prterun-cn001-31153@1", root_host="cn001"),
    "openmpi4-two-nodes": expected("pmix", 3, 4, 1, 2, job="2404974593"),
    "openmpi-in-slurm": expected(
        "pmix", 3, 5, 1, 5, node=0, nodes=("cn001",), job="prterun-cn001-5753@1", root_host="cn001"
    ),
    "prterun": expected("pmix", 1, -1, -1, -1, job="prterun-cn001-8105@1"),
    "flux": expected("flux", 5, 8, 1, -1, job="f58abcDEF"),
    "torchrun": expected("torchrun", 2, 4, 0, 2, node=1, job="run-42", root_host="cn001"),
    "torchrun-in-srun": expected("torchrun", 2, 4, 0, 2, node=1, job="run-42", root_host="cn001"),
}


def test_every_recording_has_a_meaning_here():
    assert {path.stem for path in FOLDER.iterdir()} == set(MEANING)


def test_every_launcher_has_a_recording():
    assert {name for name, _, _ in LAUNCHERS} == {m["source"] for m in MEANING.values() if m}


@pytest.mark.parametrize("name", sorted(MEANING))
def test_what_a_launcher_set_is_understood(name):
    assert known(place(recorded(name))) == MEANING[name]


@pytest.mark.parametrize("inner", ["openmpi5", "mpich-one-node", "intelmpi-three-nodes", "torchrun"])
@pytest.mark.parametrize("outer", ["srun", "srun-pmi2-cyclic", "sbatch"])
def test_what_mpiexec_or_torchrun_starts_in_a_slurm_job_isnt_the_task_of_slurm(inner, outer):
    assert known(place({**recorded(outer), **recorded(inner)})) == MEANING[inner]


@pytest.mark.parametrize("outer", ["openmpi5", "mpich-two-nodes", "intelmpi-three-nodes", "pals", "flux"])
def test_a_worker_of_torchrun_isnt_the_rank_that_its_agent_is(outer):
    assert known(place({**recorded(outer), **recorded("torchrun")})) == MEANING["torchrun"]


def test_mpiexec_as_the_only_task_of_flux_tells_the_ranks():
    alone = {**recorded("flux"), "FLUX_TASK_RANK": "0", "FLUX_JOB_SIZE": "1"}
    assert known(place({**alone, **recorded("mpich-two-nodes")})) == MEANING["mpich-two-nodes"]
    assert known(place({**alone, **recorded("openmpi5")})) == MEANING["openmpi5"]


def test_pmi_alone_is_understood_where_no_other_sign_is():
    assert known(place({"PMI_RANK": "1", "PMI_SIZE": "3"})) == expected("hydra", 1, 3, -1, -1)
    assert known(place({"PMI_RANK": "1", "PMI_SIZE": "3", "PMI_JOBID": "9.0"}))["job"] == "9.0"
    assert known(place({"PMIX_RANK": "1", "PMIX_NAMESPACE": "x"})) == expected("pmix", 1, -1, -1, -1, job="x")


def test_torchrun_without_an_id_of_the_job_is_told_by_its_address():
    found = place({**recorded("torchrun"), "TORCHELASTIC_RUN_ID": "none"})
    assert found.job == "cn001:29500"


def test_variables_that_scripts_set_for_themselves_are_no_torchrun():
    assert known(place({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "cn001"})) == {}


def test_a_job_of_flux_on_one_node_has_all_ranks_there():
    found = place({**recorded("flux"), "FLUX_JOB_NNODES": "1"})
    assert (found.node, found.local_size) == (0, 8)
    assert place({**recorded("flux"), "PALS_NODEID": "1"}).node == 1


@pytest.mark.parametrize(
    "damage",
    [
        {"SLURM_PROCID": "three"},
        {"SLURM_PROCID": "-1"},
        {"SLURM_PROCID": ""},
        {"SLURM_PROCID": "\u0663"},  # a digit for str.isdigit
        {"SLURM_PROCID": "9" * 5000},
        {"SLURM_STEP_NUM_TASKS": "0x5"},
    ],
)
def test_a_number_that_is_none_makes_the_launcher_unknown(damage):
    assert known(place({**recorded("srun"), **damage})) == {}


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        ({"SLURM_STEP_NODELIST": "cn[1-"}, {"nodes", "root_host"}),
        ({"SLURM_STEP_NODELIST": "cn[1-999999999]"}, {"nodes", "root_host"}),
        ({"SLURM_STEP_NODELIST": ""}, {"nodes", "root_host"}),
        ({"SLURM_NODEID": "x"}, {"node", "local_size"}),
        ({"SLURM_NODEID": "7"}, {"node", "nodes", "local_size", "root_host"}),
        ({"SLURM_STEP_TASKS_PER_NODE": "3,1(x"}, {"local_size"}),
        ({"SLURM_STEP_NUM_TASKS": "2"}, {"rank", "size"}),  # rank 3 of 2
        ({"SLURM_LOCALID": "1"}, {"local_rank", "local_size"}),  # the second of one
    ],
)
def test_what_cant_be_is_unknown_and_the_rest_is_kept(damage, lost):
    assert known(place({**recorded("srun"), **damage})) == {k: v for k, v in MEANING["srun"].items() if k not in lost}
