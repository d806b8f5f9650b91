"""A stranger's transport: its silence has a limit, and what it says is looked at before it is believed."""

from __future__ import annotations

import os
import stat
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collfs.record import CONTENT, META, Name, Record, Stat, Want
from collfs.transport import Transport
from collfs.transport.guard import Guard, flaw

LONG = 30.0  # never reached: a limit for what must come
SHORT = 0.2


class Scripted(Transport):
    """Does what the test says."""

    name = "scripted"

    def __init__(self, **script):
        self.script = script
        self.calls: list[str] = []

    def _do(self, what, argument):
        self.calls.append(what)
        return self.script[what](argument)

    def fetch(self, wants):
        return self._do("fetch", wants)

    def publish(self, records):
        return self._do("publish", records)

    def close(self):
        return self._do("close", None)


WANTS = [Want("/a", META), Want("/b", META)]


@pytest.fixture
def event():
    """What a hanging transport waits for; set at the end, so that its thread goes away."""
    made = threading.Event()
    yield made
    made.set()


def guarded(patience=LONG, busy=None, **script):
    return Guard(Scripted(**script), patience, set() if busy is None else busy)


def test_what_it_yields_comes_in_order_and_one_at_a_time():
    made = []

    def fetch(wants):
        for want in wants:
            made.append(want)
            yield want.path

    found = guarded(fetch=fetch).fetch(WANTS)
    assert next(found) == "/a"
    assert made == WANTS[:1]  # it doesn't run ahead: contents are large
    assert list(found) == ["/b"]


def test_what_it_raises_is_raised_after_what_came_before():
    def fetch(wants):
        yield "first"
        raise ValueError("broken")

    guard = guarded(fetch=fetch)
    found = guard.fetch(WANTS)
    assert next(found) == "first"
    with pytest.raises(ValueError, match="broken"):
        next(found)
    assert not guard.hung


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_is_no_exception_becomes_one(kind):
    def fetch(wants):
        raise kind("bye")

    with pytest.raises(RuntimeError, match=f"{kind.__name__}: bye"):
        list(guarded(fetch=fetch).fetch(WANTS))


def test_its_own_time_out_is_an_error_like_others():
    def fetch(wants):
        raise TimeoutError("upstream")

    guard = guarded(fetch=fetch)
    with pytest.raises(TimeoutError, match="upstream"):
        list(guard.fetch(WANTS))
    assert not guard.hung


def test_silence_ends_it_and_it_is_never_called_again(event):
    guard = guarded(SHORT, fetch=lambda wants: event.wait(LONG), close=lambda _: None)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer for 0\.2 s"):
        list(guard.fetch(WANTS))
    assert time.monotonic() - began < LONG / 2
    assert guard.hung
    assert list(guard.fetch(WANTS)) == []
    guard.close()
    assert guard.transport.calls == ["fetch"]


def test_the_limit_is_for_each_silence_and_not_for_the_sum():
    def fetch(wants):
        for number in range(4):
            time.sleep(0.15)
            yield number

    assert list(guarded(0.5, fetch=fetch).fetch(WANTS)) == [0, 1, 2, 3]


@pytest.mark.parametrize("what", ["publish", "close"])
def test_other_calls_have_the_limit_too(event, what):
    guard = guarded(SHORT, **{what: lambda _: event.wait(LONG)})
    with pytest.raises(TimeoutError):
        getattr(guard, what)(*[[]] * (what == "publish"))
    assert guard.hung


def test_what_nobody_takes_any_more_is_closed_in_its_thread():
    ended = threading.Event()

    def fetch(wants):
        try:
            yield 1
            yield 2
        finally:
            ended.set()

    found = guarded(fetch=fetch).fetch(WANTS)
    assert next(found) == 1
    found.close()
    assert ended.wait(LONG)


def test_a_call_waits_for_the_one_before_it(event):
    guard = guarded(SHORT, fetch=lambda wants: event.wait(LONG) and (), close=lambda _: None)
    guard._idle.acquire()  # as after Ctrl-C in the middle of a call
    with pytest.raises(TimeoutError, match="an earlier call"):
        list(guard.fetch(WANTS))
    assert guard.hung
    assert guard.transport.calls == []


def test_triggers_rest_in_its_thread():
    busy: set[int] = set()
    seen = []

    def fetch(wants):
        seen.append(threading.get_ident() in busy)
        return ()

    list(guarded(busy=busy, fetch=fetch).fetch(WANTS))
    assert seen == [True]
    deadline = time.monotonic() + LONG
    while busy and time.monotonic() < deadline:
        time.sleep(0.001)
    assert busy == set()


FILE = Stat(stat.S_IFREG | 0o644, 1, 2, 1, 0, 0, 0, 3, 4096, 8, 10**18, 10**18, 10**18)
DIRECTORY = Stat(stat.S_IFDIR | 0o755, 1, 2, 1, 0, 0, 0, 3, 4096, 8, 10**18, 10**18, 10**18)
LINK = Stat(stat.S_IFLNK | 0o777, 1, 2, 1, 0, 0, 0, 3, 4096, 8, 10**18, 10**18, 10**18)


def test_sound_records_have_no_flaw(tmp_path):
    (tmp_path / "copy").write_bytes(b"abc")
    for record in (
        Record("/a", errno=2),
        Record("/a", errno=5),
        Record("/a", FILE),
        Record("/a", FILE, content=b"abc"),
        Record("/a", FILE, content=memoryview(b"abc")),
        Record("/a", FILE, node_path=str(tmp_path / "copy")),
        Record("/a", FILE, lst=LINK, target="b"),
        Record("/a", DIRECTORY, names=[Name("x", 8), Name("y", 8, FILE), Name("z", 10, LINK, FILE, "x")]),
    ):
        assert flaw(record) == "", record


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (None, "a NoneType instead of a Record"),
        (("/a", FILE), "a tuple instead of a Record"),
        (Record("a", FILE), "absolute"),
        (Record("/a/../b", FILE), "normalised"),
        (Record(b"/a", FILE), "must be str"),  # type: ignore[arg-type]
        (Record("/a"), "found neither"),
        (Record("/a", FILE, content=b"ab"), "3 bytes of content, found 2"),
        (Record("/a", DIRECTORY, content=b"abc"), "file type"),
        (Record("/a", FILE, names=[]), "file type"),
        (Record("/a", FILE, content="abc"), "buffer"),  # type: ignore[arg-type]
        (Record("/a", FILE, target="b"), "lst and target"),
        (Record("/a", DIRECTORY, names=[Name("../b", 8)]), "without '/'"),
        (Record("/a", DIRECTORY, names=[Name("..", 4)]), "not '.' or '..'"),
        (Record("/a", DIRECTORY, names=[Name("b", 99)]), "d_type"),
        (Record("/a", DIRECTORY, names=[Name("b", 8), Name("b", 8)]), "listed twice"),
        (Record("/a", DIRECTORY, names=["b"]), "AttributeError"),  # type: ignore[list-item]
        (Record("/a", Stat(*[-1] * 13)), ""),
        (Record("/a", Stat(*FILE.values()[:-1], 2**100)), "error"),
        (Record("/a", FILE, node_path="/no/such/file"), "FileNotFoundError"),
        (Record("/a", FILE, node_path="relative"), "absolute"),
        (Record("/a", FILE, node_path=os.path.realpath("/dev/null")), "is no file of 3 bytes"),
        (Record("/a", FILE, errno=2), "nothing else"),
        (Record("/a", errno=10**6), "errno must be"),
    ],
)
def test_flaws_are_named(record, said):
    why = flaw(record)
    assert why
    assert said in why


ANYTHING = st.none() | st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.lists(st.integers(), max_size=2)


@given(
    st.builds(
        Record,
        ANYTHING | st.just("/a"),
        ANYTHING | st.just(FILE) | st.just(DIRECTORY) | st.builds(Stat, *[st.integers()] * 13),
        names=ANYTHING | st.lists(st.builds(Name, ANYTHING, ANYTHING, ANYTHING), max_size=2),
        content=ANYTHING,
        node_path=ANYTHING,
        lst=ANYTHING,
        target=ANYTHING,
        errno=ANYTHING | st.just(0),
    )
)
def test_no_record_makes_it_raise(record):
    assert isinstance(flaw(record), str)


def test_a_want_is_passed_on_as_it_is():
    wants = [Want("/a", CONTENT)]
    assert list(guarded(fetch=lambda received: [received]).fetch(wants)) == [wants]
