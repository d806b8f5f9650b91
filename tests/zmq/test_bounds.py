"""What one peer may cost a server: descriptors that are all taken, answers that nobody reads, plans of any size."""

from __future__ import annotations

import errno
import os
import resource
import time
from contextlib import ExitStack
from itertools import count
from types import SimpleNamespace

import pytest

from collfs.record import CONTENT, META, Want
from collfs.record.wire import pack_wants, unpack_wants
from collfs_zmq import crowd as crowd_module
from collfs_zmq import downlink, local, plans, wire
from collfs_zmq.keys import Keys, new_secret
from zmqnode import inside, server_pid
from zmqservers import LIMIT, Node, Stranger, memory, until
from zmqtarget import Target


@pytest.fixture
def forest(tmp_path):
    """Start nodes of one job in this process."""
    tree, secret, nodes, numbers = tmp_path / "tree", new_secret(), [], count()
    tree.mkdir()

    def start(above=None):
        root = above.address if above is not None else ""
        node = Node(tmp_path / f"node{next(numbers)}", tree, secret, root=root, fanout=1)
        nodes.append(node)
        if root:
            until(lambda: node.above, "joined")
        return node

    start.secret, start.tree = secret, tree  # type: ignore[attr-defined]
    yield start
    for node in reversed(nodes):
        node.close()


def busy(pid):
    """Seconds of processor time of a process (man 5 proc, ``/proc/pid/stat``: utime, stime)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def hello(sock):
    """Say it."""
    sock.sendall(local.frame(local.HELLO, 0, local.HELLO_HEAD.pack(local.VERSION)))


@pytest.fixture
def closing():
    """Closes at the end what it is told to."""
    with ExitStack() as stack:
        yield stack


def test_without_descriptors_a_server_waits_for_one_and_serves_who_is_here(bench, closing):
    target = Target(bench)
    pid = server_pid(target.store)
    assert pid
    here = local.Link(target.socket, LIMIT)
    closing.callback(here.close)
    here.send(local.HELLO, 0, local.HELLO_HEAD.pack(local.VERSION))
    here.receive(wait=True)
    old = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    held = [closing.enter_context(target.knock()) for _ in range(20)]
    for sock in held:
        hello(sock)
        assert sock.recv(100)
    taken = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    free = [fd for fd in range(max(taken) + 10) if fd not in taken]
    spare = 3  # for the file that is read and staged meanwhile
    more = []
    try:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[spare], old[1]))
        more = [closing.enter_context(target.knock()) for _ in range(60)]
        until(lambda: "no descriptor is left" in target.server.log(), "it says so")
        for sock in more[:10]:
            sock.close()
        del more[:10]
        before, begun = busy(pid), time.monotonic()
        while time.monotonic() - begun < 1.5:
            here.pause(0.1)
        spent = (busy(pid) - before) / (time.monotonic() - begun)
        assert spent < 0.5, f"{spent:.0%} of a processor for those that it can't take"
        here.send(local.WANT, 7, pack_wants([Want("/etc/passwd", META)]))
        while (local.DONE, 7, b"") not in here.receive(wait=True):
            pass
        for sock in held:
            sock.close()
        hello(more[2])
        assert more[2].recv(100), "who waited is taken as soon as others have gone"
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, old)
        for sock in more:
            sock.close()
    assert target.serves()
    target.report()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("what", ["leaves", "nothing"])
def test_a_server_accepts_again_when_a_process_leaves_or_a_moment_has_passed(
    tmp_path, monkeypatch, closing, code, what
):
    desk = SimpleNamespace(gone=lambda who: None)
    crowd = crowd_module.Crowd(str(tmp_path / "socket"), desk, None, "")  # type: ignore[arg-type]
    closing.callback(crowd.close)
    watched = {crowd.listener.fileno()}
    crowd.watch, crowd.unwatch = watched.add, watched.discard
    first = local.Link(crowd.path, LIMIT)
    closing.callback(first.close)
    crowd.accept()
    (process,) = crowd.here.values()

    def accept():
        raise OSError(code, os.strerror(code))

    listener = crowd.listener
    monkeypatch.setattr(
        crowd, "listener", SimpleNamespace(_accept=accept, fileno=listener.fileno, close=listener.close)
    )
    crowd.accept()
    assert listener.fileno() not in watched
    if what == "leaves":
        crowd.leave(process)
    else:
        crowd.tick()
        assert listener.fileno() not in watched
        monkeypatch.setattr(crowd_module, "PAUSE", 0.0)
        crowd.tick()
    assert listener.fileno() in watched


def test_a_server_takes_as_many_descriptors_as_it_may(bench):
    node = bench.node()
    bench.serve(node, before=["sh", "-c", 'ulimit -S -n 200; exec "$@"', "sh"])
    soft, hard = resource.prlimit(server_pid(inside(node)[0]), resource.RLIMIT_NOFILE)
    assert soft == hard > 200


FLOODS = {
    "PING": lambda number: (wire.PING, 0, wire.U32.pack(0)),
    "JOIN": lambda number: (wire.JOIN, 0, wire.join("tcp://127.0.0.1:9", orphan=True)),
    "CLAIM": lambda number: (wire.CLAIM, number, wire.texts(["program"])),
    "WANTS": lambda number: (wire.WANTS, number, b"\0" + pack_wants([Want("/etc/passwd", META)])),
}


@pytest.mark.parametrize("what", FLOODS)
def test_a_server_below_that_asks_and_reads_nothing_costs_little_and_loses_its_place(forest, monkeypatch, what):
    monkeypatch.setattr("collfs_zmq.server.MESSAGES", 2000)
    monkeypatch.setattr(downlink, "REQUESTS", 2000)
    monkeypatch.setattr(downlink, "CREDIT", 1 << 20)
    root = forest()
    here = root.server.downlink
    with Stranger(root.address, Keys(forest.secret), RCVHWM=1, RCVBUF=4096, SNDHWM=100) as stranger:
        stranger.join()
        (victim,) = here.children.values()
        before = memory()
        for number in range(100_000):
            stranger.say(*FLOODS[what](number))
            if victim not in list(here.children.values()) and what != "JOIN":
                break
        else:
            assert what == "JOIN", "nobody noticed"  # each of them is a new beginning
        assert memory() - before < 24 << 20
    node = forest(root)
    assert node.above == [root.address], "there is room for another one"


def test_a_process_with_too_many_requests_is_shut_out(forest, monkeypatch):
    monkeypatch.setattr(crowd_module, "REQUESTS", 10)
    root = forest()
    monkeypatch.setattr(root.server.source, "ask", lambda wants, fresh: None)  # as if the file system stood still
    link = root.link()
    want = pack_wants([Want(f"{forest.tree}/file", CONTENT)])
    for number in range(11):
        link.send(local.WANT, number, want)
    found = []
    while not found:
        found = link.receive(wait=True)
    assert [kind for kind, _, _ in found] == [local.REFUSED]
    link.close()


PATHS = 200_000


def test_a_plan_of_200000_paths_reaches_a_server_two_levels_below(forest, monkeypatch):
    monkeypatch.setattr(downlink, "CREDIT", 8 << 20)  # less than the plan: it must be given back
    wants = [Want(f"{forest.tree}/lib/python3/site-packages/package/module{n:06}.py", CONTENT) for n in range(PATHS)]
    told = []
    chief = plans.Plans(None)  # type: ignore[arg-type]
    chief.relay = lambda source, *piece: told.append(piece)
    chief.offer("program", wants, None)
    assert sum(len(piece) for _, _, piece in told) > 12 << 20
    root = forest()
    child = forest(root)
    grandchild = forest(child)
    with Stranger(root.address, Keys(forest.secret)) as stranger:  # the server of the chief's node
        stranger.join()
        for piece in told:
            stranger.say(wire.PLAN, 0, wire.plan(*piece))
        until(lambda: grandchild.server.plans.size == chief.size, "all of it has come")
        late = forest(grandchild)
        until(lambda: late.server.plans.size == chief.size, "to who comes later, too")
        stranger.say(wire.LEAVE)
    for node in (grandchild, late):
        found = [want for _, _, piece in node.server.plans.all() for want in unpack_wants(piece)]
        assert found == wants


def test_plans_wait_for_credit(forest, monkeypatch):
    monkeypatch.setattr(wire, "PLANNED", 1 << 16)
    monkeypatch.setattr(downlink, "CREDIT", 1 << 18)
    root = forest()
    wants = [Want(f"{forest.tree}/{'x' * 200}{n:06}", CONTENT) for n in range(20_000)]
    told = []
    chief = plans.Plans(None)  # type: ignore[arg-type]
    chief.relay = lambda source, *piece: told.append(piece)
    chief.offer("program", wants, None)
    keys = Keys(forest.secret)
    with Stranger(root.address, keys) as teller, Stranger(root.address, keys) as stranger:
        stranger.join()
        teller.say(wire.JOIN, 0, wire.join("tcp://127.0.0.1:8", orphan=True))
        teller.heard(wire.ADOPT)
        for piece in told:
            teller.say(wire.PLAN, 0, wire.plan(*piece))
        until(lambda: root.server.plans.size == chief.size)
        total = got = 0
        while got < chief.size:
            if not stranger.socket.poll(300):
                assert total >= 1 << 18, "it stopped before its time"
                stranger.say(wire.CREDIT, 0, wire.U64.pack(total))
                total = 0
            else:
                payload = stranger.heard(wire.PLAN)
                total += wire.cost(payload)
                got += len(wire.unpack_plan(payload)[2])
                assert total <= (1 << 18) + (1 << 17), "more than the credit"


def test_small_messages_are_counted_for_what_they_cost():
    assert wire.cost(b"") == wire.cost(b"x" * 512) == wire.LEAST
    assert wire.cost(b"x" * 513) == 513
