"""The desk against a simple model: each request is done exactly once, when all of it is answered, and not before."""

from __future__ import annotations

from errno import EACCES, EAGAIN, ENOENT

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collfs.record import ASPECTS, CONTENT, LIST, META, NAMES, Name, Record, Stat, Want
from collfs_zmq.desk import Desk, aspects_of

PATHS = ("/p/a", "/p/b", "/p/c")
FILE = Stat(0o100644, 7, 1, 1, 0, 0, 0, 3, 4096, 8, 1, 2, 3)
FOLDER = Stat(0o40755, 2, 1, 2, 0, 0, 0, 4096, 4096, 8, 1, 2, 3)
SHAPES = {
    "metadata": lambda path: Record(path, FILE),
    "content": lambda path: Record(path, FILE, content=b"abc"),
    "listing": lambda path: Record(path, FOLDER, names=[Name("x", 8, FILE)]),
    "names": lambda path: Record(path, FOLDER, names=[Name("x", 8)]),
    "absent": lambda path: Record(path, errno=ENOENT),
    "error": lambda path: Record(path, errno=EACCES),
}


class Asker:
    """Remembers what it is told."""

    def __init__(self, local=False):
        self.local, self.gone = local, False
        self.given: list[tuple[int, Record]] = []
        self.finished: list[int] = []

    def give(self, number, record):
        assert not self.local, "a process of this node finds it in the table"
        assert not self.gone
        assert number not in self.finished, "a record after DONE"
        self.given.append((number, record))

    def done(self, number):
        assert not self.gone, "nothing is done for those that went"
        assert number not in self.finished, "done twice"
        self.finished.append(number)


class Shelf:
    """Knows what has been staged and held."""

    def __init__(self):
        self.staged: set[Want] = set()
        self.settled: list[str] = []
        self.kept: dict[Want, Record] = {}

    def managed(self, path):
        return path.startswith("/p/")

    def lacks(self, want):
        return want not in self.staged

    def stage(self, records):
        for record in records:
            self.staged |= {Want(record.path, aspect) for aspect in aspects_of(record)}

    def settle(self, paths):
        self.settled += paths
        self.staged |= {Want(path, aspect) for path in paths for aspect in ASPECTS}

    def hold(self, want, record):
        self.kept[want] = record

    def held(self, want):
        return self.kept.get(want)

    def drop(self, want):
        return self.kept.pop(want, None) is not None


class Upstream:
    """Remembers what is asked."""

    def __init__(self):
        self.asked: list[tuple[list[Want], bool]] = []

    def ask(self, wants, fresh):
        assert wants
        assert len(wants) == len(set(wants))
        self.asked.append((list(wants), fresh))


@pytest.fixture
def desk():
    made = Desk(Shelf())
    made.source = Upstream()
    return made


wants = st.lists(st.builds(Want, st.sampled_from((*PATHS, "/other")), st.sampled_from(ASPECTS)), max_size=6)
landings = st.tuples(st.sampled_from(PATHS), st.sampled_from(sorted(SHAPES)))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 3), wants, st.booleans()),
        st.tuples(st.just("land"), st.lists(landings, max_size=4)),
        st.tuples(st.just("finish"), st.integers(0, 10)),
        st.tuples(st.just("go"), st.integers(0, 3)),
    ),
    max_size=30,
)


@settings(max_examples=400)
@given(steps)
def test_each_request_is_done_once_and_not_before_all_of_it_is_answered(steps):
    shelf, source = Shelf(), Upstream()
    desk = Desk(shelf)
    desk.source = source
    askers = [Asker(local=True), Asker(local=True), Asker(), Asker()]
    asked: list[tuple[Asker, int, list[Want]]] = []
    open_batches: list[list[Want]] = []

    def check():
        flights = set(desk.under_way)
        for who, number, wanted in asked:
            waits = any(want in pending[who, number] for want in wanted)
            if who.gone:
                continue
            assert (number in who.finished) == (not waits), (number, wanted, flights)
            if number in who.finished and not who.local:
                paths = [record.path for of, record in who.given if of == number]
                assert sorted(paths) == sorted([want.path for want in dict.fromkeys(wanted)]), "a record for each want"

    pending: dict[tuple[Asker, int], set[Want]] = {}
    for number, step in enumerate(steps):
        before = set(desk.under_way)
        if step[0] == "ask":
            who = askers[step[1]]
            if not who.gone:
                asked.append((who, number, step[2]))
                known = len(source.asked)
                desk.request(who, number, step[2], fresh=step[3])
                new = {want for batch, _ in source.asked[known:] for want in batch}
                open_batches += [batch for batch, _ in source.asked[known:]]
                assert new == set(desk.under_way) - before, "each want goes upstream once while it is under way"
                pending[who, number] = {want for want in step[2] if want in desk.under_way}
                assert new <= pending[who, number]
        elif step[0] == "land":
            desk.landed([SHAPES[shape](path) for path, shape in step[1]])
        elif step[0] == "finish" and open_batches:
            desk.finished(open_batches.pop(step[1] % len(open_batches)))
        elif step[0] == "go" and not askers[step[1]].gone:
            desk.gone(askers[step[1]])
            askers[step[1]].gone = True
        flying = set(desk.under_way) if step[0] == "ask" else set(desk.under_way) & before
        for left in pending.values():
            left.intersection_update(flying)
        check()
    for batch in open_batches:
        desk.finished(batch)
    for left in pending.values():
        left.clear()
    check()
    assert not desk.under_way
    assert not desk._other, "kept for nobody"
    assert not desk._asked


def test_a_want_that_is_there_twice_in_a_request_is_answered_once(desk):
    who = Asker()
    desk.request(who, 1, [Want("/p/a", META)] * 2)
    desk.landed([Record("/p/a", FILE)])
    assert who.finished == [1]
    assert len(who.given) == 1


@pytest.mark.parametrize("aspect", [CONTENT, LIST, NAMES])
def test_metadata_is_the_answer_to_what_can_have_no_other(desk, aspect):
    who = Asker()
    desk.request(who, 1, [Want("/p/a", aspect)])
    desk.landed([Record("/p/a", FILE)])
    assert who.finished == [], "the content may still come"
    desk.finished([Want("/p/a", aspect)])
    assert who.finished == [1]
    assert who.given == [(1, Record("/p/a", FILE))]
    assert desk.shelf.settled == []


def test_metadata_that_answers_one_want_answers_at_the_end_the_other_too(desk):
    # asked for by two: the metadata, and the content of what is no regular file
    one, two = Asker(), Asker()
    desk.request(one, 1, [Want("/p/a", CONTENT)])
    desk.request(two, 2, [Want("/p/a", META)])
    desk.landed([Record("/p/a", FOLDER)])
    assert two.finished == [2]
    desk.finished([Want("/p/a", CONTENT)])
    assert one.given == [(1, Record("/p/a", FOLDER))]
    assert desk.shelf.settled == [], "nothing to read natively: it is known what it is"


def test_what_never_came_is_settled_and_said_to_be_native(desk):
    here, below = Asker(local=True), Asker()
    for who in (here, below):
        desk.request(who, 5, [Want("/p/a", CONTENT), Want("/p/b", META)])
    desk.landed([Record("/p/b", FILE)])
    desk.finished([Want("/p/a", CONTENT), Want("/p/b", META)])
    assert here.finished == below.finished == [5]
    assert (5, Record("/p/a", errno=EAGAIN)) in below.given
    assert desk.shelf.settled == ["/p/a"]
    assert desk.shelf.held(Want("/p/a", CONTENT)) is None, "not handed on to who asks later"


@pytest.mark.parametrize("errno", [ENOENT, EACCES])
def test_an_absence_or_an_error_answers_all_wants_of_its_path(desk, errno):
    who = Asker()
    desk.request(who, 1, [Want("/p/a", aspect) for aspect in ASPECTS])
    desk.landed([Record("/p/a", errno=errno)])
    assert who.finished == [1]
    assert len(who.given) == len(ASPECTS)


def test_what_is_not_managed_is_refused_and_never_asked_for(desk):
    here, below = Asker(local=True), Asker()
    desk.request(here, 1, [Want("/etc/passwd", CONTENT)])
    desk.request(below, 1, [Want("/etc/passwd", CONTENT)])
    assert here.finished == below.finished == [1]
    assert below.given == [(1, Record("/etc/passwd", errno=EAGAIN))]
    assert desk.source.asked == []
    assert desk.refused == 2


def test_what_is_under_way_for_one_that_went_still_comes_for_the_others(desk):
    went, stays = Asker(), Asker()
    want = Want("/p/a", CONTENT)
    desk.request(went, 1, [want])
    desk.gone(went)
    went.gone = True
    desk.request(stays, 1, [want])
    assert len(desk.source.asked) == 1
    desk.landed([Record("/p/a", FILE, content=b"abc")])
    assert stays.finished == [1]


def test_who_asks_for_it_anew_does_not_get_what_is_held(desk):
    who, want = Asker(), Want("/p/a", CONTENT)
    desk.request(who, 1, [want])
    desk.landed([Record("/p/a", FILE, content=b"abc")])
    desk.request(who, 2, [want])
    assert who.finished == [1, 2]
    assert len(desk.source.asked) == 1
    desk.request(who, 3, [want], fresh=True)
    assert who.finished == [1, 2]
    assert desk.source.asked[1] == ([want], True)


def test_the_end_of_an_older_question_is_not_the_end_of_a_newer_one(desk):
    who, want = Asker(), Want("/p/a", CONTENT)
    desk.request(who, 1, [want, Want("/p/b", CONTENT)])
    desk.landed([Record("/p/a", FILE, content=b"abc")])
    desk.request(who, 2, [want], fresh=True)
    desk.finished([want, Want("/p/b", CONTENT)])
    assert who.finished == [1]
    assert desk.shelf.settled == ["/p/b"]
    desk.landed([Record("/p/a", FILE, content=b"new")])
    assert who.given[-1] == (2, Record("/p/a", FILE, content=b"new"))
    desk.finished([want])
    assert who.finished == [1, 2]


def test_a_server_without_anybody_above_answers_at_once():
    desk, who = Desk(Shelf()), Asker()
    desk.request(who, 1, [Want("/p/a", META)])
    assert who.given == [(1, Record("/p/a", errno=EAGAIN))]
    assert who.finished == [1]


def test_an_upstream_that_answers_at_once_is_no_trouble():
    class AtOnce:
        def ask(self, wants, fresh):
            desk.landed([Record(want.path, FILE) for want in wants])  # type: ignore[attr-defined]
            desk.finished(wants)  # type: ignore[attr-defined]

    desk, who = Desk(Shelf()), Asker()
    desk.source = AtOnce()
    desk.request(who, 1, [Want("/p/a", META), Want("/p/b", CONTENT)])
    assert who.finished == [1]
    assert [record.path for _, record in who.given] == ["/p/a", "/p/b"]
