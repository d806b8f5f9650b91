"""Which modules get their bytecode at the end. In a child: it has modules of its own."""

from __future__ import annotations

import pytest

HEAD = """
import importlib.util, os, sys
from collfs.triggers import bytecode
sys.path[:0] = sys.argv[1:]
sys.dont_write_bytecode = True
import one, two, other
sys.dont_write_bytecode = False
def written(module):
    return os.path.exists(importlib.util.cache_from_source(module.__file__))
def managed(path):
    return path.startswith(tuple(sys.argv[1:]))
"""


@pytest.fixture
def run(run_python, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((first, ("one", "two")), (second, ("other",))):
        folder.mkdir()
        for name in names:
            (folder / f"{name}.py").write_text(f"NAME = {name!r}\n")
    script = tmp_path / "script.py"

    def start(code):
        script.write_text(HEAD + code)
        run_python([script, first, second])

    return start


def test_what_has_none_gets_it_once(run):
    run("""
assert bytecode.write_missing(managed) == 3
assert written(one) and written(two) and written(other)
assert bytecode.write_missing(managed) == 0
""")


def test_what_is_not_managed_is_left_alone(run):
    run("""
assert bytecode.write_missing(lambda path: path.startswith(sys.argv[2])) == 1
assert not written(one) and written(other)
""")


def test_a_directory_that_may_not_be_written_to_is_asked_once(run):
    run("""
asked = []
def access(path, mode, original=os.access):
    asked.append(path)
    return path != sys.argv[1] and original(path, mode)
os.access = access
assert bytecode.write_missing(managed) == 1
assert not written(one) and not written(two) and written(other)
assert asked.count(sys.argv[1]) == 1
""")


def test_an_error_of_the_loader_costs_that_directory_only(run):
    run("""
def get_code(name, asked=[]):
    asked.append(name)
    assert len(asked) == 1
    raise OSError(28, "no space")
one.__spec__.loader.get_code = two.__spec__.loader.get_code = get_code
assert bytecode.write_missing(managed) == 1
assert written(other)
""")


def test_after_the_time_limit_the_rest_is_left_to_the_next_run(run):
    run("""
bytecode.SECONDS = -1
assert bytecode.write_missing(managed) == 0
bytecode.SECONDS = 10
assert bytecode.write_missing(managed) == 3
""")
