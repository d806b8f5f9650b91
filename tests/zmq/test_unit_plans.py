"""Plans of earlier runs: learned once, told to all others once, staged where such a program runs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collfs.record import CONTENT, Want
from collfs.record.wire import pack_wants, unpack_wants
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
    made.relay = lambda *plan: made.told.append(plan)  # type: ignore[attr-defined]
    return made


def test_a_plan_goes_on_to_the_others_once(plans):
    plans.offer("prog", WANTS, source="child")
    plans.offer("prog", WANTS[:1], source="parent")
    plans.learn("prog", 0, pack_wants(WANTS[:1]), source="parent")
    assert plans.told == [("child", "prog", 0, pack_wants(WANTS))]
    assert plans.desk.requests == [], "nobody here runs it"


@pytest.mark.parametrize("first", ["plan", "program"])
def test_it_is_staged_once_when_both_plan_and_program_are_here(plans, first):
    if first == "program":
        plans.arrived("prog")
    plans.offer("prog", WANTS, source=None)
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
        plans.offer(f"p{number}", WANTS, source=None)
    assert len(plans.known) == len(plans.here) == 3
    assert [plans.claim(f"p{number}") for number in range(5)] == [True] * 3 + [False] * 2


def pieces(plans):
    return [wants for program, index, piece in plans.all() for wants in unpack_wants(piece)]


def test_a_plan_of_any_size_travels_in_pieces_in_their_turn_and_is_staged_piece_by_piece(plans, monkeypatch):
    monkeypatch.setattr(wire, "PLANNED", 1000)
    wants = [Want(f"/p/{number:05}", CONTENT) for number in range(1000)]
    plans.offer("prog", wants, source="chief")
    assert len(plans.told) > 10
    assert max(len(piece) for _, _, _, piece in plans.told) < 1500
    desk = Desk()
    other = Plans(desk)  # type: ignore[arg-type]
    half = len(plans.told) // 2
    for _, program, index, piece in plans.told[:half]:
        other.learn(program, index, piece, "parent")
    other.arrived("prog")
    _, program, index, piece = plans.told[half + 1]
    other.learn(program, index, piece, "parent")  # not its turn
    for _, program, index, piece in plans.told:  # another parent tells it all again
        other.learn(program, index, piece, "grandparent")
    assert pieces(other) == pieces(plans) == wants
    assert [want for request in desk.requests for want in request] == wants
    assert len(desk.requests) == len(plans.told)


def test_what_is_kept_is_bounded(plans, monkeypatch):
    monkeypatch.setattr(plans_module, "MOST", 2 * len(pack_wants(WANTS)) + 5)
    for program in "abc":
        plans.offer(program, WANTS, source=None)
    plans.learn("a", 1, pack_wants(WANTS), source=None)
    assert list(plans.known) == ["a", "b"]
    assert plans.size == sum(len(piece) for _, _, piece in plans.all()) <= plans_module.MOST


@given(st.lists(st.tuples(st.sampled_from(["learn", "arrive"]), st.sampled_from("abc")), max_size=12))
def test_in_whatever_order_each_plan_is_told_and_staged_at_most_once(steps):
    plans, told = Plans(Desk()), []  # type: ignore[arg-type]
    plans.relay = lambda source, program, index, piece: told.append(program)
    for what, program in steps:
        if what == "learn":
            plans.offer(program, [Want("/p/" + program, CONTENT)], source=None)
        else:
            plans.arrived(program)
    learned = {program for what, program in steps if what == "learn"}
    here = {program for what, program in steps if what == "arrive"}
    assert sorted(told) == sorted(learned)
    assert sorted(wants[0].path[-1] for wants in plans.desk.requests) == sorted(learned & here)  # type: ignore[attr-defined]
