"""Plans of earlier runs: learned once, told to all others once, staged where such a program runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collfs.record import CONTENT, Want
from collfs_zmq import plans as plans_module
from collfs_zmq import wire
from collfs_zmq.plans import Plans

WANTS = [Want("/p/a", CONTENT), Want("/p/b", CONTENT)]


class Desk:
    def __init__(self):
        self.requests: list[list[Want]] = []

    def request(self, who, number, wants):
        assert who.local
        self.requests.append(list(wants))


@pytest.fixture
def plans():
    made = Plans(Desk())  # type: ignore[arg-type]
    made.told = []  # type: ignore[attr-defined]
    made.relay = lambda source, program, wants: made.told.append((source, program, list(wants)))  # type: ignore[attr-defined]
    return made


def test_a_plan_goes_on_to_the_others_once(plans):
    plans.learn("prog", WANTS, source="child")
    plans.learn("prog", WANTS[:1], source="parent")
    assert plans.told == [("child", "prog", WANTS)]
    assert plans.desk.requests == [], "nobody here runs it"


@pytest.mark.parametrize("first", ["plan", "program"])
def test_it_is_staged_once_when_both_plan_and_program_are_here(plans, first):
    if first == "program":
        plans.arrived("prog")
    plans.learn("prog", WANTS, source=None)
    plans.arrived("prog")
    plans.arrived("prog")
    plans.arrived("other")
    assert plans.desk.requests == [WANTS]


def test_the_first_claim_of_each_program_wins(plans):
    assert [plans.claim(program) for program in ("a", "a", "b", "a", "b")] == [True, False, True, False, False]


def test_there_is_room_for_so_many_programs(plans, monkeypatch):
    monkeypatch.setattr(plans_module, "PROGRAMS", 3)
    for number in range(10):
        plans.arrived(f"p{number}")
        plans.learn(f"p{number}", WANTS, source=None)
    assert len(plans.known) == len(plans.here) == 3
    assert [plans.claim(f"p{number}") for number in range(5)] == [True] * 3 + [False] * 2


def test_a_plan_is_cut_to_what_is_allowed(plans, monkeypatch):
    monkeypatch.setattr(wire, "PIECE", 10)
    plans.learn("prog", WANTS, source=None)
    assert plans.told == [(None, "prog", WANTS[:1])]


@given(st.lists(st.tuples(st.sampled_from(["learn", "arrive"]), st.sampled_from("abc")), max_size=12))
def test_in_whatever_order_each_plan_is_told_and_staged_at_most_once(steps):
    plans, told = Plans(Desk()), []  # type: ignore[arg-type]
    plans.relay = lambda source, program, wants: told.append(program)
    for what, program in steps:
        if what == "learn":
            plans.learn(program, [Want("/p/" + program, CONTENT)], source=None)
        else:
            plans.arrived(program)
    learned = {program for what, program in steps if what == "learn"}
    here = {program for what, program in steps if what == "arrive"}
    assert sorted(told) == sorted(learned)
    assert sorted(wants[0].path[-1] for wants in plans.desk.requests) == sorted(learned & here)  # type: ignore[attr-defined]
