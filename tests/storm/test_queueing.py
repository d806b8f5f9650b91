"""The queue in front of the simulated file server: its virtual time against a simulation that moves a clock."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import queueing

LAB = Path(queueing.__file__).parent
TIMES = st.lists(st.integers(0, 50), max_size=30)


def simulated(arrivals, slots, service):
    """When each arrival is answered, by a clock that moves on step by step: nothing is known in advance."""
    waiting, busy, answered, clock = list(enumerate(arrivals)), [], {}, 0
    while waiting or busy:
        for name, end in [one for one in busy if one[1] == clock]:
            busy.remove((name, end))
            answered[name] = clock
        while waiting and waiting[0][1] <= clock and len(busy) < slots:
            busy.append((waiting.pop(0)[0], clock + service))
        clock += 1
    return [answered[name] for name in range(len(arrivals))]


@given(TIMES, st.integers(1, 4), st.integers(1, 9))
def test_answers_come_when_a_moving_clock_says(arrivals, slots, service):
    arrivals = sorted(arrivals)
    load = queueing.Load(slots=slots, service_s=service / queueing.SECOND)
    queue = queueing.Queue(load, [0] * (slots + 1))
    assert [queue.metadata(now) for now in arrivals] == simulated(arrivals, slots, service)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=30))
def test_bytes_go_through_the_link_one_after_the_other(reads):
    reads.sort(key=lambda one: one[0])
    queue = queueing.Queue(queueing.Load(bandwidth=queueing.SECOND), [0, 0])  # a byte a nanosecond
    free = 0
    for now, size in reads:
        free = max(free, now) + size
        assert queue.transfer(now, size) == free
    assert queue.free[0] == 0  # and no metadata waits for them


@given(TIMES)
def test_a_server_without_limits_answers_at_once(arrivals):
    queue = queueing.Queue(queueing.Load(service_s=0.0, bandwidth=0.0), [0, 0])
    for now in sorted(arrivals):
        assert queue.metadata(now) == queue.transfer(now, 1 << 40) == now


ASKS = """
import sys, time
sys.path.insert(0, sys.argv[1])
import queueing
queue = queueing.SharedQueue(sys.argv[2], queueing.Load(slots=2, service_s=0.001))
for _ in range(int(sys.argv[3])):
    queue.metadata()
"""


def test_processes_and_threads_share_the_slots(tmp_path):
    path, load = str(tmp_path / "queue"), queueing.Load(slots=2, service_s=0.001)
    queueing.create(path, load)
    begun = time.monotonic_ns()
    words = [sys.executable, "-c", ASKS, str(LAB), path, "20"]
    children = [subprocess.Popen(words) for _ in range(3)]
    queue = queueing.SharedQueue(path, load)

    def ask():
        for _ in range(20):
            queue.metadata()

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [child.wait(60) for child in children] == [0, 0, 0]
    # 120 operations of a millisecond on two slots take 60 at least, however busy the machine is
    assert time.monotonic_ns() - begun >= 60 * 1_000_000
    free = memoryview(bytearray((tmp_path / "queue").read_bytes())).cast("q")
    assert max(free[:2]) - begun >= 60 * 1_000_000
    assert free[2] == 0
