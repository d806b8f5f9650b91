"""What ``"auto"`` stands for, by what a launcher and the user say."""

from __future__ import annotations

import os

import pytest

from collfs.errors import OptionError
from collfs.testing import options
from collfs.transport import registry
from collfs.transport.registry import auto, choose, launched


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ""),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, ""),
        ({"OMPI_COMM_WORLD_SIZE": "4", "PMIX_RANK": "0"}, "OMPI_COMM_WORLD_SIZE=4"),
        ({"PMI_SIZE": "2", "PMI_RANK": "1"}, "PMI_SIZE=2"),
        ({"PMI_SIZE": "1", "MPI_LOCALNRANKS": "1"}, ""),
        ({"MPI_LOCALNRANKS": "1"}, "MPI_LOCALNRANKS is set"),  # another node may have two
        ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "1"}, ""),
        ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "64"}, "PMIX_RANK is set"),
        ({"SLURM_STEP_NUM_TASKS": "64"}, ""),  # srun of something that isn't MPI
        ({"PMI_SIZE": "many"}, ""),
    ],
)
def test_a_launcher_is_recognised_by_what_is_the_same_on_all_ranks(environ, expected):
    assert launched(environ) == expected


def test_a_program_that_a_rank_starts_is_no_rank(monkeypatch):
    signs = {"PMI_SIZE": "4", registry.RANK_PID: str(os.getpid())}
    assert registry.launched(signs) == "PMI_SIZE=4"
    assert registry.launched({**signs, registry.RANK_PID: str(os.getppid())}) == ""


def test_auto_tries_mpi_then_zmq_then_local_once_they_exist(monkeypatch):
    monkeypatch.setattr(registry, "OWN", {"local": "a:b", "mpi": "c:d", "zmq": "e:f"})
    everything = {"PMI_SIZE": "2", "COLLFS_ROOT": "host:1"}
    assert [name for name, _ in auto(everything)] == ["mpi", "zmq", "local"]
    assert [name for name, _ in auto({"PMI_SIZE": "2"})] == ["mpi", "local"]
    assert [name for name, _ in auto({"COLLFS_ROOT": "host:1"})] == ["zmq", "local"]


NAMED = {
    "COLLFS_SECRET": "0" * 64,
    "COLLFS_JOB": "7",
    "COLLFS_NODES": "cn[1-2]",
    "COLLFS_NODE": "1",
}


def test_auto_takes_zmq_if_nodes_are_named_and_there_is_a_secret():
    assert [name for name, _ in auto(NAMED)] == ["zmq", "local"]
    assert auto(NAMED)[0][1] == "the launcher names 2 nodes, and there is a secret"
    assert [name for name, _ in auto({**NAMED, "PMI_SIZE": "2"})] == ["mpi", "zmq", "local"]


@pytest.mark.parametrize(
    "less",
    [
        *({key: ""} for key in NAMED),
        {"COLLFS_NODES": "cn1", "COLLFS_NODE": "0"},
    ],
)
def test_auto_does_without_zmq_if_a_tree_of_servers_could_not_find_itself(less):
    assert [name for name, _ in auto({**NAMED, **less})] == ["local"]


def test_auto_takes_zmq_if_a_server_runs_on_this_node(tmp_path):
    assert [name for name, _ in auto({}, str(tmp_path))] == ["local"]
    (tmp_path / "server").touch()
    assert [name for name, _ in auto({}, str(tmp_path))] == ["zmq", "local"]


def test_auto_ends_with_a_bad_variable_about_nodes():
    with pytest.raises(OptionError, match="COLLFS_NODE='two'"):
        auto({**NAMED, "COLLFS_NODE": "two"})


def test_without_a_secret_auto_imports_no_plugin_of_a_launcher(run_python):
    said = run_python(
        "import sys; from collfs.transport.registry import auto; auto({'SLURM_STEP_NUM_TASKS': '4'});"
        "print(sorted({'collfs.launch', 'collfs_slurm'} & set(sys.modules)))"
    )
    assert said.stdout.strip() == "[]"


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """These tests may themselves run under a launcher."""
    for name in (*registry._SIZES, *registry._SIGNS, registry._STEP_SIZE, "COLLFS_ROOT", "COLLFS_SECRET"):
        monkeypatch.delenv(name, raising=False)


def test_auto_goes_on_if_the_library_of_a_better_one_is_missing(tmp_path, monkeypatch):
    (tmp_path / "own_mod.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    rows = (("mpi", "own_mod:transport", "pip install x"), *[r for r in registry.ROWS if r[0] == "local"])
    monkeypatch.setattr(registry, "ROWS", rows)
    monkeypatch.setattr(registry, "OWN", {name: where for name, where, _ in rows})
    monkeypatch.setenv("PMI_SIZE", "2")
    choice = choose("auto", options())
    assert choice.taken == "local"
    assert choice.reasons[0][0] == "mpi"
    assert "a_library_that_is_not_there" in choice.reasons[0][1]
