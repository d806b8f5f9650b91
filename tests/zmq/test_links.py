"""Servers find their places, and others when those above them go: several of them in this process."""

from __future__ import annotations

import time
from collections import Counter
from itertools import count

import pytest

import zmqservers
from collfs.record import Want
from collfs.record.wire import pack_wants
from collfs_zmq import downlink, local, uplink, wire
from collfs_zmq.keys import Keys, new_secret
from zmqservers import Node, Stranger, memory, until


class Forest:
    """Nodes of one job."""

    def __init__(self, folder):
        self.folder, self.tree, self.secret = folder, folder / "tree", new_secret()
        self.tree.mkdir()
        for number in range(40):
            (self.tree / f"f{number}").write_bytes(b"%d." % number * 5000)
        self.nodes: list[Node] = []
        self._numbers = count()

    def start(self, **options):
        """One more node."""
        made = Node(self.folder / f"node{next(self._numbers)}", self.tree, self.secret, **options)
        self.nodes.append(made)
        return made

    def joined(self, root, **options):
        """One more below *root*, when it has its place."""
        node = self.start(root=root.address, **options)
        until(lambda: node.above, "joined")
        return node

    def end(self, node):
        """End one as it should."""
        self.nodes.remove(node)
        node.close()

    def right(self, node, number):
        """Whether *node* gets file *number*."""
        return node.ask(f"{self.tree}/f{number}") == b"%d." % number * 5000


@pytest.fixture
def forest(tmp_path):
    made = Forest(tmp_path)
    yield made
    for node in reversed(made.nodes):
        node.close()


@pytest.fixture
def quick(monkeypatch):
    """A parent that is silent for a second is dead."""
    monkeypatch.setattr(uplink, "LEAST_PAUSE", 0.1)


def deaf(node):
    """Have the loop of *node* stand still, as SIGSTOP would, until the function that is given is called."""
    from threading import Event

    go, stands = Event(), Event()
    turn = node.server._turn

    def wait(events):
        stands.set()
        assert go.wait(zmqservers.LIMIT)
        node.server._turn = turn
        return turn(events)

    node.server._turn = wait
    node.server.wake()
    assert stands.wait(zmqservers.LIMIT)
    return go.set


@pytest.mark.parametrize(("fanout", "depth"), [(1, 5), (2, 3)])
def test_each_takes_so_many_and_sends_the_others_on(forest, fanout, depth):
    root = forest.start(fanout=fanout)
    for _ in range(5):
        forest.joined(root, fanout=fanout)
    found = zmqservers.parents(forest.nodes)
    assert len(found) == 5
    assert max(Counter(found.values()).values()) <= fanout
    assert max(len(node.above) for node in forest.nodes) <= depth
    deepest = max(forest.nodes, key=lambda node: len(node.above))
    assert deepest.above[0] == root.address
    assert forest.right(deepest, 1)
    assert forest.right(forest.nodes[1], 1)
    assert root.server.source.reader.ops == 1, "read once for all"


def test_a_server_whose_parent_ends_goes_to_the_one_above(forest):
    root = forest.start(fanout=1)
    middle = forest.joined(root, fanout=1)
    low = forest.joined(root)
    assert low.above == [root.address, middle.address]
    before = time.monotonic()
    forest.end(middle)
    until(lambda: low.above == [root.address], "it has the grandparent")
    assert time.monotonic() - before < low.server.uplink.dead, "LEAVE says it at once"
    until(lambda: root.children == [low.address])
    assert forest.right(low, 1)


def test_a_server_whose_parent_stands_still_goes_to_the_one_above(forest, quick):
    root = forest.start(fanout=1)
    middle = forest.joined(root, fanout=1)
    low = forest.joined(root)
    go = deaf(middle)
    try:
        until(lambda: low.above == [root.address], "it has the grandparent")
        assert forest.right(low, 1)
    finally:
        go()
    until(lambda: low.address not in middle.children, "it is known to have gone")
    until(lambda: middle.above and low.above, "both have a place")
    assert forest.right(middle, 2)
    assert forest.right(low, 3)


def test_those_below_hear_who_is_above_them_when_that_changes(forest):
    root = forest.start(fanout=1)
    chain = [forest.joined(root, fanout=1) for _ in range(3)]
    assert chain[2].above == [root.address, chain[0].address, chain[1].address]
    forest.end(chain[0])
    until(lambda: chain[2].above == [root.address, chain[1].address], "the grandchild knows")


def test_requests_under_way_are_asked_for_again_at_the_new_parent(forest):
    root = forest.start(fanout=1)
    middle = forest.joined(root, fanout=1)
    low = forest.joined(root)
    go = deaf(middle)
    try:
        assert forest.right(low, 1), "within patience, though the first one asked stands still"
    finally:
        go()


@pytest.mark.parametrize("patience", [1.0, 4.0, 30.0])
def test_a_parent_that_has_nothing_to_say_is_not_believed_dead(forest, patience):
    root = forest.start()
    low = forest.joined(root, patience=patience)
    uplink_of = low.server.uplink
    said = []
    handle = uplink_of._handle

    def counted(kind, *more, **named):
        said.append(kind)
        handle(kind, *more, **named)

    uplink_of._handle = counted
    until(lambda: said.count(wire.PONG) >= 3, "signs of life")
    assert uplink_of.joins == 1


@pytest.mark.parametrize("stands_still", [False, True])
def test_without_a_root_wants_go_native_before_anybody_loses_patience(forest, stands_still):
    root = forest.start()
    low = forest.joined(root, patience=8.0)
    go = deaf(root) if stands_still else lambda: None
    if not stands_still:
        forest.end(root)
    before = time.monotonic()
    assert low.ask(f"{forest.tree}/f1") == b"", "native"
    assert time.monotonic() - before < 8.0
    until(lambda: low.server.uplink.state == "alone")
    before = time.monotonic()
    assert low.ask(f"{forest.tree}/f2") == b"", "native"
    assert time.monotonic() - before < 1.0, "nobody waits for it again"
    if stands_still:
        go()
        until(lambda: low.above, "it finds its place again")
        assert forest.right(low, 3)


def test_a_root_that_comes_again_at_its_address_is_found(forest):
    root = forest.start()
    nodes = [forest.joined(root, patience=4.0) for _ in range(3)]
    address = root.address
    forest.end(root)
    until(lambda: all(node.server.uplink.state == "alone" for node in nodes if len(node.above) < 2))
    assert nodes[2].ask(f"{forest.tree}/f1") == b"", "its parent is alone and says so"
    again = forest.start(bind=address)
    until(lambda: all(node.above and node.above[0] == again.address for node in nodes), "all have a place")
    assert all(forest.right(node, 5) for node in nodes)


def test_a_server_that_asks_its_own_descendant_for_a_place_gets_none(forest):
    root = forest.start(fanout=1)
    upper = forest.joined(root, fanout=1)
    lower = forest.joined(root, fanout=1)
    with Stranger(lower.address, Keys(forest.secret)) as stranger:
        stranger.say(wire.JOIN, 0, wire.join(upper.address, orphan=True))
        assert wire.unpack_texts(stranger.heard(wire.REDIRECT))[0] == []
    assert lower.children == []
    assert lower.above == [root.address, upper.address]


def test_a_ring_is_noticed_by_who_finds_itself_above(forest):
    root = forest.start(fanout=1)
    upper = forest.joined(root, fanout=1)
    lower = forest.joined(root, fanout=1)
    joins = lower.server.uplink.joins

    def ring():
        upper.server.downlink.moved([root.address, lower.address, upper.address])

    upper.server._tick, tick = lambda: (setattr(upper.server, "_tick", tick), ring()), upper.server._tick  # type: ignore[func-returns-value, has-type]
    until(lambda: lower.server.uplink.joins > joins, "it has searched again")
    until(lambda: lower.above, "and found a place")
    assert lower.address not in lower.above
    assert forest.right(lower, 1)


def test_a_server_that_comes_back_takes_one_place_only(forest):
    root = forest.start(fanout=2)
    with Stranger(root.address, Keys(forest.secret)) as one, Stranger(root.address, Keys(forest.secret)) as two:
        one.join("tcp://127.0.0.1:9")
        two.join("tcp://127.0.0.1:9")
        until(lambda: root.children == ["tcp://127.0.0.1:9"])
        assert forest.joined(root).above == [root.address], "there is room"


def test_redirects_that_never_end_are_given_up_and_tried_again(forest, monkeypatch):
    monkeypatch.setattr(uplink, "HOPS", 5)
    root = forest.start(fanout=1)
    with Stranger(root.address, Keys(forest.secret)) as stranger:
        stranger.join(root.address.replace("127.0.0.1", "localhost"))  # who is sent there comes to the root again
        stuck = forest.start(root=root.address)
        until(lambda: stuck.server.uplink._hops >= 5 or stuck.above)
        stranger.say(wire.LEAVE)
        until(lambda: stuck.above == [root.address], "it finds its place")


def test_addresses_that_cannot_be_used_are_passed_over(forest):
    root = forest.start(fanout=1)
    with Stranger(root.address, Keys(forest.secret)) as stranger:
        stranger.join("nonsense:://")
        node = forest.start(root=root.address)
        until(lambda: node.above == [root.address], "an orphan is taken beyond the fanout")
        assert forest.right(node, 1)


def test_a_child_that_reads_nothing_costs_its_parent_no_memory(forest, monkeypatch):
    size, files = 1 << 20, 100
    for number in range(files):
        (forest.tree / f"large{number}").write_bytes(bytes(size))
    root = forest.start()
    wants = [Want(f"{forest.tree}/large{number}", "content") for number in range(files)]
    with Stranger(root.address, Keys(forest.secret), RCVHWM=1, RCVBUF=65536) as stranger:
        stranger.join()
        before = memory()
        stranger.say(wire.WANTS, 1, b"\0" + pack_wants(wants))
        until(lambda: all(root.shelf.copy_of(want.path) for want in wants), "all is read")
        until(lambda: [child.credit <= 0 for child in root.server.downlink.children.values()] == [True])
        grown = memory() - before
        assert grown < 2 * downlink.CREDIT + (16 << 20), f"{grown >> 20} MiB for {files} MiB that nobody reads"
        other = forest.joined(root)
        assert forest.right(other, 1), "the others are served meanwhile"
        total = done = 0
        while not done:
            kind, _, _, payload = stranger.hear()
            done = kind == wire.DONE
            total += len(payload)
            if kind == wire.DATA:
                stranger.say(wire.CREDIT, 0, wire.U64.pack(len(payload)))
        assert total > size * files


def test_credit_has_a_limit_whatever_the_child_says(forest):
    root = forest.start()
    with Stranger(root.address, Keys(forest.secret)) as stranger:
        stranger.join()
        stranger.say(wire.CREDIT, 0, wire.U64.pack(2**64 - 1))
        stranger.say(wire.PING, 0, wire.U32.pack(0))
        stranger.heard(wire.PONG)
        assert [child.credit for child in root.server.downlink.children.values()] == [downlink.CREDIT]


def test_more_wants_than_a_message_holds_travel_in_several(forest, monkeypatch):
    monkeypatch.setattr(wire, "PIECE", 400)
    root = forest.start()
    low = forest.joined(root)
    link = low.link()
    paths = [f"{forest.tree}/f{number}" for number in range(40)]
    link.send(local.WANT, 9, pack_wants([Want(path, "content") for path in paths]))
    while (local.DONE, 9, b"") not in link.receive(wait=True):
        pass
    link.close()
    assert all(low.shelf.copy_of(path) for path in paths)
    assert low.server.uplink.joins == 1
    assert low.server.uplink._number > 3, "requests"


def test_a_plan_larger_than_a_message_doesnt_cut_the_tree(forest):
    root = forest.start()
    low = forest.joined(root)
    link = low.link()
    link.send(local.HELLO, 0, local.HELLO_HEAD.pack(1) + b"program")
    while not any(kind == local.WELCOME for kind, _, _ in link.receive(wait=True)):
        pass
    wants = [Want(f"{forest.tree}/{number:0200}", "meta") for number in range(45000)]
    payload = pack_wants(wants)
    assert len(payload) > 8 << 20
    link.send(local.PLAN, 3, payload)
    while (local.DONE, 3, b"") not in link.receive(wait=True):
        pass
    link.close()
    assert low.server.uplink.joins == 1
    until(lambda: "program" in root.server.plans.known)
    assert forest.right(low, 1)


def test_a_program_with_a_long_name_keeps_its_server_in_the_tree(forest):
    root = forest.start()
    low = forest.joined(root)
    link = low.link()
    link.send(local.HELLO, 0, local.HELLO_HEAD.pack(1) + "é".encode() * 4096)
    while not any(kind == local.WELCOME for kind, _, _ in link.receive(wait=True)):
        pass
    link.close()
    low.server.uplink._told = 0.0  # as if its parent had died
    until(lambda: low.server.uplink.joins == 2)
    assert forest.right(low, 1)
