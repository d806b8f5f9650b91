"""Waiting for a request in machine code, with a function of our own in the place of MPI_Test."""

from __future__ import annotations

import ctypes
import threading
import time

import pytest

from collfs.interpose.machine.code import Code
from collfs.interpose.machine.layout import WAIT_DONE, WAIT_FAILED, WAIT_OVER, WAIT_RUNG, Waiting

MS = 1_000_000
MpiTest = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int), ctypes.c_void_p)


@pytest.fixture(scope="module")
def code():
    return Code([], 0)


class Requests:
    """Counts what is asked of it; the request is complete, or fails, at the look that is told."""

    def __init__(self, done=0, fails=0):
        self.looks, self.done, self.fails, self.seen = 0, done, fails, []
        self.first = threading.Event()
        self.function = MpiTest(self._test)

    def _test(self, request, flag, status):
        self.looks += 1
        self.first.set()
        self.seen.append((request, bool(status)))
        flag[0] = self.looks == self.done
        return 17 if self.looks == self.fails else 0

    def waiting(self, **more):
        given = {"since": time.monotonic_ns(), "least": MS, "most": 20 * MS, "limit": 10_000 * MS, "request": 0x1234}
        return Waiting(test=ctypes.cast(self.function, ctypes.c_void_p).value, **{**given, **more})


@pytest.mark.parametrize("looks", [1, 2, 7])
def test_it_looks_until_the_request_is_complete(code, looks):
    requests = Requests(done=looks)
    assert code.wait_for(requests.waiting()) == WAIT_DONE
    assert requests.seen == [(0x1234, True)] * looks


def test_an_error_ends_it(code):
    requests = Requests(fails=3)
    assert code.wait_for(requests.waiting()) == WAIT_FAILED
    assert requests.looks == 3


def test_pauses_grow_with_the_silence_and_end_with_the_limit(code):
    # 1 ms eight times, then an eighth more each time: 30 looks, where pauses of 1 ms would need 150
    requests = Requests()
    begun = time.monotonic_ns()
    assert code.wait_for(requests.waiting(limit=150 * MS)) == WAIT_OVER
    assert time.monotonic_ns() - begun >= 150 * MS
    assert 3 <= requests.looks <= 45


def test_no_pause_is_longer_than_the_longest(code):
    requests = Requests(done=4)
    begun = time.monotonic_ns()
    assert code.wait_for(requests.waiting(since=begun - 3600 * 1000 * MS, most=5 * MS)) == WAIT_DONE
    assert 15 * MS <= time.monotonic_ns() - begun < 8_000 * MS, "an eighth of an hour would be 7.5 minutes"


def test_a_ring_ends_a_wait_at_once_and_the_interpreter_is_free_meanwhile(code):
    requests = Requests()
    waiting = requests.waiting(since=0, most=60_000 * MS, limit=60_000 * MS)  # the first pause would be a minute
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(code.wait_for(waiting)), daemon=True)
    thread.start()
    assert requests.first.wait(20)
    code.ring(waiting)
    thread.join(20)
    assert outcome == [WAIT_RUNG]
    assert requests.looks == 1


def test_a_ring_before_the_wait_is_not_lost_but_counts_once(code):
    requests = Requests(done=3)
    waiting = requests.waiting()
    code.ring(waiting)
    code.ring(waiting)
    assert code.wait_for(waiting) == WAIT_RUNG
    waiting.heard = waiting.bell
    assert code.wait_for(waiting) == WAIT_DONE
