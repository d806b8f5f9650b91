"""Stores for the tests of them; whoever uses one as another process is a child."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

import childproc
from collfs.interpose.machine.code import Code
from collfs.reader import Reader
from collfs.record import Want
from collfs.store import node
from collfs.store.stager import Stager


@pytest.fixture(scope="session")
def code():
    """The machine code of this process, mapped and not installed."""
    return Code([], 0)


@pytest.fixture
def base(tmp_path):
    """A directory for stores."""
    path = tmp_path / "base"
    path.mkdir()
    return str(path)


@pytest.fixture
def start(base, code):
    """Start on a node: join or make the store of a job. What is still open is closed at the end."""
    made = []

    def run(job="j", **options):
        made.append(node.open_store(job, [base], code, chosen=True, **options))
        return made[-1]

    yield run
    for store in made:
        store.close()


CHILD = """
import os, signal, sys
from collfs.interpose.machine.code import Code
from collfs.store import node
base, job = sys.argv[1], sys.argv[2] or None
sys.stdin.readline()
store = node.open_store(job, [base], Code([], 0), chosen=True)
print(store.path, int(store.created), flush=True)
sys.stdin.readline()
store.close()
"""


@pytest.fixture
def process(base):
    """A process that opens the store of a job at a line, says ``path created``, and closes at the next line."""
    running = []

    def run(job="j", code=CHILD):
        child = subprocess.Popen(
            [sys.executable, "-c", code, base, job],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=childproc.clean_env(),
        )
        running.append(child)
        return child

    yield run
    for child in running:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=20)


@pytest.fixture
def go():
    """Give a line to a process; the words that it says then, unless it is to end."""

    def run(child, *, end=False):
        child.stdin.write("go\n")
        child.stdin.flush()
        if not end:
            words = child.stdout.readline().split()
            assert words, child.communicate(timeout=20)[1]
            return words
        out, err = child.communicate(timeout=20)
        assert child.returncode == 0, err
        return out.split()

    return run


@pytest.fixture
def tree(tmp_path):
    """A directory with something of everything."""
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    for name in ("f", "g", "sub/x"):
        (top / name).write_text("content of " + name)
    os.chmod(top / "g", 0o4755)
    os.utime(top / "f", ns=(10**18 + 1, 10**18 + 987654321))
    os.link(top / "f", top / "hard")
    os.symlink("f", top / "link")
    os.symlink("sub", top / "to-sub")
    os.symlink("nowhere", top / "broken")
    os.mkfifo(top / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        directory = os.open(top, os.O_RDONLY)
        sock.bind(f"/proc/self/fd/{directory}/socket")
        os.close(directory)
    return str(top)


@pytest.fixture
def stager(start, tree):
    store = start()
    store.table.add_prefix(tree)
    return Stager(store, 1 << 30)


@pytest.fixture
def stage(stager):
    """Read the originals and publish: whether each was."""
    reader = Reader()

    def run(aspect, *paths):
        epoch = int(stager.table.header.epoch)
        return [stager.stage(reader.answer(Want(path, aspect)), epoch) for path in paths]

    return run
