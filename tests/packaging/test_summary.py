"""CI's last lines: no cell may fail, and none may be missing without being noticed."""

from __future__ import annotations

import sys

import pytest

SUITE = '<testsuites><testsuite tests="{}" failures="{}" errors="0" skipped="{}" time="1"/></testsuites>'


@pytest.fixture
def summary(root, run_python, tmp_path):
    script = root / ".ci" / "summary.py"
    if not script.exists():
        pytest.skip("no .ci here")

    def run(cells, *wanted):
        for name, numbers in cells.items():
            (tmp_path / f"{name}.xml").write_text(SUITE.format(*numbers))
        return run_python([script, tmp_path, *wanted], check=False, python=sys.executable)

    return run


def test_cells_are_added_up(summary):
    ended = summary({"py39-local": (5, 0, 2), "py311-mpi-mpich": (4, 0, 0)}, "py39-local", "py311-mpi-mpich")
    assert (ended.rc, ended.stdout.splitlines()[-1]) == (0, "7 passed, 0 failed, 2 skipped")


def test_a_failure_is_one(summary):
    ended = summary({"py39-local": (5, 1, 2)})
    assert (ended.rc, ended.stdout.splitlines()[-1]) == (1, "2 passed, 1 failed, 2 skipped")


@pytest.mark.parametrize("cells", [{}, {"py311-mpi-mpich": (3, 0, 3)}], ids=["missing", "skipped"])
def test_a_cell_in_which_nothing_passed_is_named(summary, cells):
    ended = summary({"py39-local": (5, 0, 0), **cells}, "py39-local", "py311-mpi-mpich")
    assert ended.rc == 1
    assert "py311-mpi-mpich    no test passed" in ended.stdout
    assert "py39-local         no test" not in ended.stdout
