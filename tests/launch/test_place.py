"""place(): explicit variables win, bad ones are errors, what nobody has told is unknown, and it costs one module."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

import collfs.launch
from collfs.errors import OptionError
from collfs.launch import INTEGERS, LAUNCHERS, Place, number, place, whole
from collfs.transport import registry

SRUN = {
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "5",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_NODELIST": "cn[001-003]",
    "SLURM_STEP_TASKS_PER_NODE": "3,1(x2)",
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
}
GIVEN = {
    "COLLFS_RANK": "30",
    "COLLFS_SIZE": "40",
    "COLLFS_LOCAL_RANK": "2",
    "COLLFS_LOCAL_SIZE": "4",
    "COLLFS_NODE": "0",
    "COLLFS_NODES": "a,b",
    "COLLFS_JOB": "mine",
    "COLLFS_ROOT": "tcp://head:5555",
}
MEANT = {
    "rank": 30,
    "size": 40,
    "local_rank": 2,
    "local_size": 4,
    "node": 0,
    "nodes": ("a", "b"),
    "job": "mine",
    "root_host": "head",
}


def known(found):
    values = {name: getattr(found, name) for name in Place.__slots__}
    return {name: value for name, value in values.items() if value not in (-1, "", ())}


def test_without_any_launcher_everything_is_unknown():
    assert known(place({})) == {}
    assert repr(place({})) == "Place()"
    assert known(place({"PATH": "/bin", "COLLFS_RANK": "", "COLLFS_NODES": ""})) == {}


def test_the_environment_of_this_process_is_the_default(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("COLLFS_", "SLURM_", "PMI", "OMPI_", "PRTE_", "MPI_", "FLUX_", "TORCHELASTIC_", "PALS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLLFS_RANK", "3")
    assert known(place()) == {"rank": 3, "source": "environment"}


def test_all_explicit_variables_are_understood_without_a_launcher():
    assert known(place(GIVEN)) == {**MEANT, "source": "environment"}


def test_an_explicit_variable_wins_and_the_launcher_tells_the_rest():
    told = known(place(SRUN))
    assert told["source"] == "slurm"
    assert known(place({**SRUN, **GIVEN})) == {**MEANT, "source": "slurm"}
    for (variable, text), name in zip(GIVEN.items(), MEANT):
        found = known(place({**SRUN, "SLURM_STEP_NUM_TASKS": "100", variable: text}))
        assert found[name] == MEANT[name]
        unclear = {"root_host", "size", "nodes", "node", "local_size", "local_rank", name}
        assert {k: v for k, v in found.items() if k not in unclear} == {k: told[k] for k in told if k not in unclear}


def test_what_the_launcher_says_gives_way_to_what_it_contradicts():
    assert known(place({**SRUN, "COLLFS_RANK": "9"}))["rank"] == 9
    assert place({**SRUN, "COLLFS_RANK": "9"}).size == -1
    assert place({**SRUN, "COLLFS_SIZE": "2"}).rank == -1
    assert place({**SRUN, "COLLFS_NODES": "a"}).node == -1
    found = place({**SRUN, "COLLFS_NODE": "5"})
    assert (found.node, found.nodes, found.root_host) == (5, (), "")


def test_the_root_is_on_node_0_unless_it_is_told():
    assert place({**SRUN, "COLLFS_NODES": "x,y"}).root_host == "x"
    assert place({**SRUN, "COLLFS_ROOT": "tcp://[fe80::1]:77"}).root_host == "fe80::1"


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        *((variable, text) for _, variable, _ in INTEGERS for text in ("-1", "one", "1.0", " 1", "9" * 10, "\u0663")),
        ("COLLFS_SIZE", "0"),
        ("COLLFS_LOCAL_SIZE", "0"),
        ("COLLFS_NODES", " , "),
        ("COLLFS_NODES", "cn[1-"),
        ("COLLFS_NODES", "cn]"),
        ("COLLFS_NODES", "cn[1-9999999]"),
        ("COLLFS_JOB", "a/b"),
        ("COLLFS_JOB", "x" * 129),
        *(
            ("COLLFS_ROOT", text)
            for text in (
                "head",
                "head:5555",
                "tcp://head",
                "tcp://head:",
                "tcp://:5555",
                "tcp://head:0",
                "tcp://head:65536",
                "tcp://*:5555",
                "tcp://a b:5555",
                "tcp://fe80::1:5555",
                "ipc:///head:5",
            )
        ),
    ],
)
def test_a_bad_value_is_an_error_that_says_what_is_allowed(variable, text):
    with pytest.raises(OptionError) as caught:
        place({**SRUN, variable: text})
    assert f"variable {variable}={text!r}: give " in str(caught.value)
    assert "or unset it" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"COLLFS_RANK": "4", "COLLFS_SIZE": "4"}, ("COLLFS_RANK='4'", "at most 3", "COLLFS_SIZE is 4")),
        ({"COLLFS_LOCAL_RANK": "2", "COLLFS_LOCAL_SIZE": "2"}, ("COLLFS_LOCAL_RANK='2'", "at most 1")),
        ({"COLLFS_LOCAL_SIZE": "5", "COLLFS_SIZE": "4"}, ("COLLFS_LOCAL_SIZE='5'", "at most 4")),
        ({"COLLFS_NODE": "2", "COLLFS_NODES": "a,b"}, ("COLLFS_NODE='2'", "at most 1")),
    ],
)
def test_explicit_values_that_contradict_each_other_are_an_error(values, named):
    with pytest.raises(OptionError) as caught:
        place(values)
    for text in named:
        assert text in str(caught.value)


@pytest.mark.parametrize("text", ["a,b,c", "a b c", " a, b ,c,", "a,b\tc"])
def test_nodes_may_be_given_with_commas_or_blanks(text):
    assert place({"COLLFS_NODES": text}).nodes == ("a", "b", "c")


def test_nodes_may_be_given_in_brackets():
    assert place({"COLLFS_NODES": "x,cn[08-10]-ib"}).nodes == ("x", "cn08-ib", "cn09-ib", "cn10-ib")


def test_a_program_that_a_rank_starts_is_no_rank_but_in_the_same_job_on_the_same_node():
    mine = {**SRUN, collfs.launch.RANK_PID: str(os.getpid())}
    assert known(place(mine)) == known(place(SRUN))
    child = known(place({**SRUN, collfs.launch.RANK_PID: str(os.getppid())}))
    assert child == {k: v for k, v in known(place(SRUN)).items() if k not in ("rank", "local_rank")}
    assert place({**SRUN, collfs.launch.RANK_PID: str(os.getppid()), "COLLFS_RANK": "1"}).rank == 1


def test_the_mark_of_a_rank_is_that_of_the_transport():
    assert collfs.launch.RANK_PID == registry.RANK_PID


def test_a_sign_of_mpi_that_the_registry_knows_is_one_of_a_launcher_here():
    signs = {sign for _, _, some in LAUNCHERS for sign in some}
    environments = ({name: "2", "PMI_RANK": "1"} for name in registry._SIZES)
    assert "PMIX_RANK" in signs
    assert [place(env).source for env in environments][:2] == ["hydra", "hydra"]


@given(st.dictionaries(st.sampled_from([*SRUN, *GIVEN, "PMI_RANK", "RANK", "WORLD_SIZE"]), st.text(max_size=8)))
def test_any_environment_gives_a_place_that_is_possible_or_an_option_error(env):
    try:
        found = place(env)
    except OptionError:
        return
    assert found.size == -1 or found.rank < found.size
    assert found.local_size == -1 or found.local_rank < found.local_size
    assert not found.nodes or found.node < len(found.nodes)


@given(st.text(max_size=12))
def test_a_number_is_plain_decimal_digits_or_none(text):
    value = whole(text)
    assert value == (int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1)
    assert number({"A": "x", "B": text}, "A", "B", "C") == value


# -- what it costs


def folders():
    """Where collfs and the plugins lie."""
    found = []
    for name in ("collfs", "collfs_slurm"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        folder = os.path.dirname(os.path.dirname(spec.origin))
        if folder not in found:
            found.append(folder)
    return found


START = "import os, sys; import __future__; sys.path[:0] = {folders!r}; import collfs.errors, collfs.launch; "


def test_the_core_part_loads_no_other_module(run_python):
    code = START.format(folders=folders()).replace("import collfs.errors,", "old = set(sys.modules); import")
    said = run_python(["-I", "-S", "-c", code + "print(*sorted(set(sys.modules) - old))"])
    assert said.stdout.split() == ["collfs", "collfs.errors", "collfs.launch"]


@pytest.mark.parametrize(
    ("env", "loaded"),
    [
        ({}, []),
        (SRUN, ["collfs_slurm"]),
        ({**SRUN, "PMIX_RANK": "3", "PMI_RANK": "3", "PMI_SIZE": "5"}, ["collfs_slurm"]),
        ({**SRUN, "MPI_LOCALRANKID": "0", "PMI_RANK": "1", "PMI_SIZE": "2"}, ["collfs_hydra"]),
        ({"COLLFS_RANK": "1", "COLLFS_NODES": "a,b", "COLLFS_ROOT": "tcp://a:1"}, []),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "5", "SLURM_JOB_ID": "7"}, []),  # a batch script
        ({"RANK": "0", "WORLD_SIZE": "5", "LOCAL_RANK": "0"}, []),
        ({**SRUN, "COLLFS_PLUGINS": "slurm"}, ["collfs_slurm"]),
    ],
)
def test_exactly_one_plugin_is_imported_and_nothing_else(run_python, env, loaded):
    code = f"old = set(sys.modules); collfs.launch.place({env!r}); print(*sorted(set(sys.modules) - old))"
    said = run_python(["-I", "-S", "-c", START.format(folders=folders()) + code])
    assert said.stdout.split() == loaded


def test_it_makes_no_path_operation_but_the_import_of_one_plugin(strace_counts):
    base = [sys.executable, "-I", "-S", "-B", "-c"]
    start = START.format(folders=folders())
    _, bare = strace_counts([*base, start + "import collfs_slurm"])
    _, asked = strace_counts([*base, start + f"collfs.launch.place({SRUN!r})"])
    assert asked.total == bare.total
    _, nothing = strace_counts([*base, start])
    _, unknown = strace_counts([*base, start + "collfs.launch.place({})"])
    assert unknown.total == nothing.total < bare.total
