"""The laboratory's command line, reasons and rows: what needs no mount."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

import commandline
import countingfs
import environment
import methods
import nodes
import reasons
import storm

HERE = Path(storm.__file__)
PLACES = ["/shared/env", "/shared/python"]


@pytest.mark.parametrize(
    ("text", "value"), [("1ms", 0.001), ("200us", 0.0002), ("1G", 1e9), ("3", 3.0), ("2.5k", 2500)]
)
def test_quantities_have_units(text, value):
    assert commandline.quantity(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "ms", "1x", "-1", "1mm"])
def test_what_is_no_quantity_is_refused_with_examples(text):
    with pytest.raises(argparse.ArgumentTypeError, match="such are"):
        commandline.quantity(text)


def test_numbers_of_nodes_are_sorted_and_bounded():
    assert commandline.numbers("4,1,2,2") == [1, 2, 4]
    for text in ("0,1", "", "a", "255"):
        with pytest.raises(argparse.ArgumentTypeError):
            commandline.numbers(text)


def test_all_default_methods_exist():
    assert set(commandline.DEFAULT.split(",")) <= set(methods.METHODS)


@pytest.mark.skipif(bool(nodes.why_not()), reason="no nodes here")
def test_an_unknown_method_ends_the_command_before_anything_is_built(run_python, tmp_path):
    words = [str(HERE), "--methods", "plain,fast", "--out", str(tmp_path)]
    if countingfs.why_not():
        pytest.skip(countingfs.why_not())
    for name in environment.TOOLS:
        pytest.importorskip(name)
    ended = run_python(words, check=False)
    assert ended.rc == 2
    assert "no such methods: fast" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/shared/python/lib/python3.11/encodings/__pycache__/utf_8.cpython-311.pyc", reasons.START),
        ("/shared/env/pyvenv.cfg", reasons.START),
        ("/shared/env/lib/python3.9/site-packages", reasons.START),
        ("/shared/env/lib/python3.9/site-packages/collfs/_libc.py", reasons.COLLFS),
        ("/shared/env/lib/python3.13/site-packages/mpi4py", reasons.MPI),
        ("/shared/env/lib/mpich/ucx/libuct_ib.so.0", reasons.MPI),
        ("/shared/env/lib/python3.11/site-packages/distutils-precedence.pth", reasons.PTH),
        ("/shared/python/lib/python3.11/lib-dynload/_socket.cpython-311-x86_64-linux-gnu.so", reasons.LIBRARY),
        ("/shared/env", reasons.FOLDERS),
        ("/shared/env/lib/python3.11/site-packages/numpy/__init__.py", ""),
        ("/shared/python/lib/python3.11/turtle.py", ""),
        ("/shared/env/lib/libother.so", ""),
        ("/elsewhere/pyvenv.cfg", ""),
    ],
)
def test_known_paths_have_a_reason_and_others_none(path, reason):
    assert reasons.reason(path, PLACES) == reason


@pytest.mark.parametrize(
    "path",
    [
        "json/__init__.py",
        "json/__init__.abi3.so",
        "json/__pycache__/__init__.cpython-313.opt-1.pyc",
        "json/__init__.cpython-39-x86_64-linux-gnu.so",
        "json/__pycache__",
        "json",
    ],
)
def test_a_module_has_one_name_wherever_it_is_looked_for(path):
    assert reasons.module(path) == "json"


def test_a_row_counts_operations_with_a_path_and_takes_the_slowest():
    op = countingfs.Op("open", 1, "/shared/env/x")
    read = op._replace(kind="read")
    ranks = [
        methods.Rank(1, 10.0, 10.1, 11.0, 12.0, 0.5, 1.0, 3, 30),
        methods.Rank(2, 10.0, 10.5, 11.5, 14.0, 0.5, 1.5),
    ]
    run = methods.Run(methods.METHODS["mpi+manifest"], 2, (), ranks, [[op, read], [op]], [[op], []], [5, 6], [0, 1])
    row = run.row(3)
    assert (row["method"], row["manifest"], row["nodes"], row["round"]) == ("mpi", True, 2, 3)
    assert (row["slowest_s"], row["import_s"], row["each_s"]) == (4.0, 2.5, [2.0, 4.0])
    assert (row["operations"], row["by_node"], row["before"], row["after"]) == (3, [2, 1], [1, 1], [1, 0])
    assert row["beside_cpu_s"] == [0, 1]
    assert (row["bytes"], row["staged_files"], row["staged_bytes"]) == (11, 3, 30)


def test_the_import_costs_what_the_least_node_of_the_smallest_run_needs():
    rows = [
        {"method": "floor", "nodes": 2, "import_cpu_s": [0.1, 0.2]},
        {"method": "floor", "nodes": 1, "import_cpu_s": [0.5]},
        {"method": "plain", "nodes": 1, "import_cpu_s": [0.6]},
        {"method": "zmq", "nodes": 1, "import_cpu_s": [0.0]},
    ]
    assert storm.import_cpu(rows) == 0.5


def test_ranks_know_their_number_from_any_launcher(run_python):
    code = f"import sys; sys.path.insert(0, {str(HERE.parent)!r}); import rank; print(rank.number())"
    for name in ("SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK"):
        assert run_python(code, env={name: "7"}).stdout == "7\n"
    nobody = run_python(code, env=dict.fromkeys(("SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK")), check=False)
    assert "nobody has numbered" in nobody.stderr


def test_python_of_the_system_is_no_shared_environment(tmp_path):
    found = environment.places(sys.executable)
    assert found
    assert not {"/", "/usr"} & set(found)
