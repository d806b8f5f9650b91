"""Waiting for what others stage: as long as the table grows, through one silence, and never for ever."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from collfs import awaiting
from collfs.awaiting import Awaiting
from collfs.record import CONTENT, Want
from collfs.transport import Transport

A, B = Want("/p/a", CONTENT), Want("/p/b", CONTENT)


class Node:
    """A table and a transport in one: *script* is called at each step with their number."""

    def __init__(self, script, patience=0.2):
        self.header = SimpleNamespace(entries=0, staged_files=0, sequence=0)
        self.known: set[Want] = set()
        self.changed: set[str] = set()
        self.steps = 0
        self.script = script
        transport = Transport()
        transport.step = self.step  # type: ignore[method-assign]
        self.awaiting = Awaiting(transport, self, patience, lambda want: want not in self.known)  # type: ignore[arg-type]

    def step(self):
        self.steps += 1
        return self.script(self, self.steps) is not False

    def written(self, path):
        return path in self.changed

    def wait(self, *wants):
        begun = time.monotonic()
        return self.awaiting.wait(wants), time.monotonic() - begun


def test_what_comes_ends_the_wait():
    node = Node(lambda node, step: node.known.add((A, B)[step % 2]))
    assert node.wait(A, B)[0] == []


def test_silence_ends_it_after_patience_and_the_next_one_sooner():
    node = Node(lambda node, step: None)
    silent, took = node.wait(A, B)
    assert silent == [A, B]
    assert 0.2 <= took < 2
    assert node.awaiting.quiet == pytest.approx(0.2 / 8)
    for _ in range(40):
        assert node.wait(A)[0] == [A]
    assert node.awaiting.quiet == 0.2 * awaiting.LEAST


def test_what_comes_in_time_gives_patience_back():
    node = Node(lambda node, step: None)
    node.wait(A)
    node.script = lambda node, step: node.known.add(A)
    for number in range(1, 6):
        node.known.clear()
        assert node.wait(A)[0] == []
        assert node.awaiting.quiet == pytest.approx(min(0.2, 0.2 / 8 * 2**number))


def test_as_long_as_the_table_grows_it_waits_on():
    def grow(node, step):
        node.header.entries += 1
        if time.monotonic() > end:
            node.known.add(A)

    node, end = Node(grow), time.monotonic() + 0.6
    assert node.wait(A)[0] == []


def test_a_table_that_grows_for_ever_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(awaiting, "LONGEST", 3)

    def grow(node, step):
        node.header.entries += 1

    silent, took = Node(grow, 0.1).wait(A)
    assert silent == [A]
    assert took < 3


def test_the_end_of_the_stream_ends_the_wait_and_is_no_silence():
    node = Node(lambda node, step: step < 3)
    silent, took = node.wait(A)
    assert (silent, node.steps) == ([], 3)
    assert took < 0.2


def test_what_came_with_the_end_has_come():
    def end(node, step):
        node.known.add(A)
        return False

    node = Node(end)
    node.awaiting.quiet = 0.1
    assert node.wait(A)[0] == []
    assert node.awaiting.quiet == 0.2


def test_what_the_job_itself_has_changed_is_not_awaited():
    node = Node(lambda node, step: node.changed.add("/p/a"))
    assert node.wait(A) == ([], pytest.approx(0, abs=0.15))
