"""A stream with a server behind it: who is asked when, and what the report says of it."""

from __future__ import annotations

import pytest

from collfs.interpose.machine.layout import K_FILE, K_NATIVE, K_UNKNOWN
from collfs.messages import Messages
from collfs.record import CONTENT, META, Record, Want
from collfs.transport import Transport
from collfs.transport.handover import GRACE, LEAST, Handover


class Stream(Transport):
    """What is told and asked here is kept; ``flows`` and ``reports`` are for the test to set."""

    name = "stream"
    is_root = False
    follows = True
    flows = True

    def __init__(self):
        self.diary = []
        self.reports = None

    def step(self):
        return self.flows

    def publish(self, records):
        self.diary.append(("publish", [record.path for record in records]))

    def give_up(self, wants):
        self.diary.append(("give_up", [want.path for want in wants]))

    def gather(self, report):
        self.diary.append(("gather", report))
        return self.reports

    def close(self):
        self.diary.append(("close", self.name))


class Server(Stream):
    name = "server"
    failure = ""
    lost = 0

    def ask(self, wants):
        self.diary.append(("ask", [want.path for want in wants]))


class Table(dict):
    """Kinds by path."""

    def probe(self, path):
        return self.get(path, K_UNKNOWN)


@pytest.fixture
def clock(monkeypatch):
    """The time that the handover sees."""
    now = [0.0]
    monkeypatch.setattr("collfs.transport.handover.time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def both(clock):
    made = Handover(Stream(), Server(), Table(), Messages(True))  # type: ignore[arg-type]
    made.server.flows = False  # type: ignore[attr-defined]
    return made


def asked(both):
    return [paths for what, paths in both.server.diary if what == "ask"]


def test_the_server_is_asked_once_when_the_stream_is_late(both, clock):
    both.ask([Want("/a", CONTENT), Want("/b", CONTENT)])
    clock[0] = GRACE - 0.01
    assert both.step()
    assert asked(both) == []
    both.table["/a"] = K_FILE
    clock[0] = GRACE
    assert both.step()
    assert both.step()
    assert asked(both) == [["/b"]]


@pytest.mark.parametrize("server_answers", [True, False])
def test_the_server_is_asked_at_once_when_nothing_comes_from_the_stream(both, server_answers):
    both.stream.flows, both.server.flows = False, server_answers
    both.ask([Want("/a", CONTENT)])
    assert both.step() is server_answers
    assert asked(both) == [["/a"]]
    assert both.grace == GRACE  # that the stream has ended says nothing about how ranks go


def test_a_rank_that_goes_its_own_way_waits_less_each_time_and_again_longer_with_the_others(both, clock):
    seen = []
    for number in range(5):
        both.ask([Want(f"/{number}", CONTENT)])
        clock[0] += GRACE
        both.step()
        seen.append(both.grace)
    assert seen == [max(GRACE / 8**n, LEAST) for n in range(1, 6)]
    for number in range(20):
        both.ask([Want(f"/with{number}", CONTENT)])
        both.step()
    assert both.grace == GRACE
    assert len(asked(both)) == 5


def test_served_are_those_that_the_node_has_then(both, clock):
    both.ask([Want("/a", CONTENT), Want("/b", CONTENT), Want("/c", META)])
    clock[0] = GRACE
    both.server.flows = True
    both.step()
    both.table.update({"/a": K_FILE, "/b": K_NATIVE})
    counters = both.counters()
    assert (counters["server_asked"], counters["server_served"], counters["server_lost"]) == (3, 1, 0)
    assert both.counters()["server_served"] == 1, "counted once"


def test_a_server_that_has_gone_is_said_once_and_the_stream_goes_on(both, clock):
    both.server.failure = "the server of this node has gone"
    for number in range(2):
        both.ask([Want(f"/{number}", CONTENT)])
        clock[0] += GRACE
        assert both.step()
    assert len(both.messages.warnings) == 1
    assert both.failure == "the server of this node has gone"


def test_on_the_root_what_it_never_sent_becomes_a_silence_of_who_asked_the_server():
    stream = Stream()
    stream.is_root, stream.follows = True, False
    both = Handover(stream, Server(), Table(), Messages(True))  # type: ignore[arg-type]
    both.publish([Record("/d"), Record("/late")])
    both.give_up([Want("/vain", CONTENT)])
    asked = [["/late", CONTENT], ["/d/x", META], ["/d/y", CONTENT], ["/vain", CONTENT], ["/alone", META], ["/z", META]]
    stream.reports = [{"silences": [], "by_server": []}, {"silences": ["/z"], "by_server": asked}, {"odd": 1}]
    reports = both.gather({"silences": []})
    assert reports is not None
    assert [one.get("silences") for one in reports] == [[], ["/z", "/d/y", "/alone"], None]


def test_a_rank_that_is_not_the_root_sends_what_it_asked_the_server_for(both, clock):
    both.ask([Want("/a", CONTENT)])
    clock[0] = GRACE
    both.step()
    assert both.gather({}) is None
    assert both.stream.diary == [("gather", {"by_server": [["/a", CONTENT]]})]


def test_the_stream_is_closed_first_and_the_server_in_any_case(both, monkeypatch):
    both.server.diary = both.stream.diary
    both.close()
    assert both.stream.diary == [("close", "stream"), ("close", "server")]
    both.stream.diary.clear()

    def close():
        raise OSError("no")

    monkeypatch.setattr(both.stream, "close", close)
    with pytest.raises(OSError, match="no"):
        both.close()
    assert both.stream.diary == [("close", "server")]
