"""Bytecode of a collective session: written by the root when it ends, by nobody while the program runs.

A ``__pycache__`` that appears in between changes a directory that has been listed, and the ranks would part ways.
"""

from __future__ import annotations

import importlib.util
import marshal
import os

import pytest

import mpitree

pytestmark = pytest.mark.mpi


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    mpitree.make_tree(folder, 0)
    return folder


PROGRAM = """
import os, sys
import collfs, mpitree
folder = sys.argv[1]
sys.path.insert(0, folder)
if sys.argv[2:] == ["no"]:
    sys.dont_write_bytecode = True
session = mpirank.start(prefixes=[folder], patience=10, each=1)
for index in (0, 2, 3):
    mpitree.work(folder, 0, "module", index)
import s0lib
mpirank.comm.barrier()
mpirank.emit(found=[name for name in ("/", "/s0lib") if os.path.exists(f"/{folder}{name}/__pycache__")],
             role=session.transport.role, written=sys.dont_write_bytecode)
mpirank.comm.barrier()
collfs.finalize()
mpirank.emit(afterwards=sys.dont_write_bytecode)
"""
IMPORTED = ["s0m0", "s0m1", "s0m2", "s0m3", "s0lib/__init__"]  # by the root; 2 brings 1


def cached(tree):
    """What there is of bytecode, by module."""
    tag = "." + importlib.util.cache_from_source("x.py").split(".", 1)[1]
    return {str(p.parent.parent.relative_to(tree) / p.name[: -len(tag)]): p for p in tree.rglob("*.pyc")}


def test_it_is_there_and_valid_after_the_end_and_not_before(mpirun, tree):
    ended = mpirun(2, PROGRAM, str(tree))
    assert [told["role"] for told in ended.ranks] == ["root", "leader"]
    for told in ended.ranks:
        assert told["found"] == [], "written while the program ran"
        assert (told["written"], told["afterwards"]) == (True, False)
    found = cached(tree)
    assert sorted(found) == sorted(IMPORTED)
    for name, file in found.items():
        source, data = tree / f"{name}.py", file.read_bytes()
        st = source.stat()
        # magic, flags, time and size of the source (PEP 552)
        head = [importlib.util.MAGIC_NUMBER, *(n.to_bytes(4, "little") for n in (0, int(st.st_mtime), st.st_size))]
        assert data[:16] == b"".join(head), name
        assert marshal.loads(data[16:]).co_filename == str(source)


@pytest.mark.parametrize("how", ["variable", "attribute"])
def test_a_program_that_wants_none_gets_none(mpirun, tree, how):
    env = {"PYTHONDONTWRITEBYTECODE": "1"} if how == "variable" else {}
    ended = mpirun(2, PROGRAM, str(tree), *(["no"] if how == "attribute" else []), env=env)
    assert [told["afterwards"] for told in ended.ranks] == [True, True]
    assert cached(tree) == {}


@pytest.mark.parametrize("how", ["closed", "taken"])
def test_a_directory_that_takes_none_is_no_failure(mpirun, tree, how):
    if how == "taken":  # not even root may make a directory of that name
        (tree / "__pycache__").write_text("")
    else:
        tree.chmod(0o555)
    try:
        ended = mpirun(2, PROGRAM, str(tree))
    finally:
        tree.chmod(0o755)
    assert "Error" not in ended.output
    if how == "taken" or os.geteuid():
        assert sorted(cached(tree)) == ["s0lib/__init__"], "the others get theirs"
