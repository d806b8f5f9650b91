"""What can go wrong with MPI that was started through the nodes' servers: the program goes on, or all ranks say why."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest

import zmqnode
from bootsite import TREE

pytestmark = [pytest.mark.mpi, pytest.mark.skipif(find_spec("zmq") is None, reason="pyzmq is not installed")]


KILLED = (
    TREE
    + """
import signal
options["patience"] = 2
session = bootrank.start(**options)
barrier()
if rank % bootrank.each == 0:
    os.kill(bootrank.server_pid(), signal.SIGKILL)
barrier()
import s0m0, s0m5
if rank == size - 1:
    import s0m3
    assert s0m3.VALUE == 3
told(session, values=[s0m0.VALUE, s0m5.VALUE], failure=session.transport.failure)
barrier()
__import__("collfs").finalize()
emit(ended=True)
"""
)


@pytest.mark.timeout(100)
def test_the_program_goes_on_when_the_servers_are_killed(site):
    ended = site.run(4, KILLED)
    for rank, told in enumerate(ended.ranks):
        assert told["values"] == [0, 5]
        assert told["ended"] is True
        if rank < 3:
            assert (told["silences"], told["warnings"]) == ([], [])
    alone = ended.ranks[3]
    assert "s0m3.py" in alone["silences"]
    assert alone["counters"]["server_lost"] > 0
    assert len([text for text in alone["warnings"] if "server" in text]) == 1


FORKED = (
    TREE
    + """
session = bootrank.start(**options)
import s0m0
pid = os.fork()
if not pid:
    import s0m1
    os._exit(0 if s0m1.VALUE == 1 else 1)
assert os.waitpid(pid, 0)[1] == 0
import s0m5
told(session, value=s0m5.VALUE)
barrier()
__import__("collfs").finalize()
emit(ended=True)
"""
)


@pytest.mark.timeout(100)
def test_a_forked_child_reads_for_itself_and_its_parent_goes_on(site):
    ended = site.run(4, FORKED)
    assert all(told["value"] == 5 and told["ended"] for told in ended.ranks)
    assert [told["silences"] for told in ended.ranks] == [[]] * 4


FINALIZED = (
    TREE
    + """
session = bootrank.start(**options)
import s0m0
from mpi4py import MPI
MPI.Finalize()
import s0m1, s0m3
told(session, values=[s0m1.VALUE, s0m3.VALUE], native=native())
__import__("collfs").finalize()
emit(ended=True)
"""
)


@pytest.mark.timeout(100)
def test_after_mpi_finalize_the_server_still_answers(site):
    ended = site.run(4, FINALIZED)
    for told in ended.ranks:
        assert told["values"] == [1, 3]
        assert (told["native"], told["silences"], told["ended"]) == ([], [], True)
    # on the node without the root; who of its two ranks asks first is the dice's business
    assert sum(told["counters"]["server_served"] for told in ended.ranks[2:]) > 0


THREADED = (
    TREE
    + """
import mpi4py
mpi4py.rc.thread_level = "funneled"
session = bootrank.start(**options)
import s0m0
barrier()
def work():
    import s0m3
    assert s0m3.VALUE == 3
if rank == size - 1:
    import threading
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(15)
    assert not thread.is_alive()
told(session, native=native())
barrier()
"""
)


@pytest.mark.timeout(100)
def test_a_thread_that_may_not_call_mpi_is_served_by_the_server(site):
    ended = site.run(4, THREADED)
    assert ended.ranks[3]["native"] == []
    assert any(path.endswith("s0m3.py") for path in ended.ranks[3]["by_server"])


REFUSED = (
    TREE
    + """
import collfs
from collfs.errors import TransportUnavailable
if rank == size - 1:  # its server can't import pyzmq
    os.environ["PYTHONPATH"] = os.environ["NO_ZMQ"] + os.pathsep + os.environ["PYTHONPATH"]
fallback = tuple(os.environ["FALLBACK"].split())
try:
    session = bootrank.start(**options, fallback=fallback)
except TransportUnavailable as exc:
    emit(error=str(exc))
else:
    import s0m0, s0m3
    emit(taken=session.choice.taken, reasons=session.choice.reasons, values=[s0m0.VALUE, s0m3.VALUE],
         silences=session.fetcher.silences, kind=type(session.transport).__name__)
barrier()
collfs.finalize()
"""
)


@pytest.mark.parametrize("fallback", ["", "local", "mpi"])
@pytest.mark.timeout(100)
def test_one_server_that_does_not_start_is_the_same_error_or_fallback_on_all_ranks(site, fallback, tmp_path):
    fake = tmp_path / "fake"
    fake.mkdir()
    (fake / "zmq.py").write_text("raise ImportError('no zmq here')\n")
    (fake / "sitecustomize.py").write_text(zmqnode.NO_LIBRARY)
    env = {"NO_ZMQ": str(fake), "FALLBACK": fallback}
    ended = site.run(4, REFUSED, each=1, env=env)
    for told in ended.ranks:
        text = told["error"] if not fallback else dict(told["reasons"])["mpi"]
        assert "rank 3: bootstrap='zmq'" in text
        assert "pyzmq" in text or "no zmq here" in text
        if fallback:
            assert (told["taken"], told["values"], told["silences"]) == (fallback, [0, 3], [])
            assert told["kind"] != "Handover"


WRONG = """
import collfs
from collfs.errors import OptionError
wrong = [("local", "zmq"), ("zmq", "zmq"), ("mpi", "mpi"), ("mpi", ""), ("mpi", True), ("collfs_mpi:transport", "zmq")]
for transport, bootstrap in wrong:
    try:
        collfs.initialize(transport, bootstrap=bootstrap)
    except OptionError as exc:
        print(exc)
    else:
        raise AssertionError((transport, bootstrap))
"""


def test_wrong_arguments_are_errors_at_once_that_say_what_is_allowed(run_python, run_command):
    lines = run_python(WRONG).stdout.splitlines()
    assert len(lines) == 6
    for line in lines[:2] + lines[5:]:
        assert 'Give transport="mpi" or "auto", or bootstrap="none"' in line
    for line in lines[2:5]:
        assert 'Give "none" or "zmq"' in line
    words = [sys.executable, "-m", "collfs", "run", "--transport", "local", "--bootstrap", "zmq", "-c", "print('run')"]
    said = run_command(words, check=False)
    assert (said.rc, said.stdout) == (2, "")
    assert 'transport="mpi" or "auto"' in said.stderr
    said = run_command([*words[:4], "-c", "print('run')"], env={"COLLFS_BOOTSTRAP": "yes"}, check=False)
    assert said.rc == 2
    assert "COLLFS_BOOTSTRAP='yes'" in said.stderr
