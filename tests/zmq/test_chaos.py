"""A tree of seven servers that are killed, stalled and started again at random, while a process on each node imports
and reads: every byte is right, nothing hangs, nothing is left behind, and in the end all are served again.

``COLLFS_CHAOS_SEED`` repeats a run's dice (not the machine's timing).
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

import zmqnode
from collfs_zmq.keys import new_secret

PATIENCE = 1.5
FOLDERS, EACH = 60, 40
LARGE = 12  # files of 1.5 MiB
LIMIT = 60.0

#: What a node's process does until the file STOP is there: a line of JSON tells how it went.
READS = """
import hashlib, importlib, json, os, random, sys, time
folder, stop, seed = sys.argv[1:4]
import collfs
session = collfs.initialize("zmq", prefixes=[folder], manifest="none", patience=float(sys.argv[4]), quiet=True)
assert not session.idle, session.idle
sys.path.insert(0, folder)
dice, wrong, slowest, count = random.Random(seed), [], (0.0, ""), 0
folders = [name for name in sorted(os.listdir("/" + folder)) if name.startswith("p")]
everything = [(name, file) for name in folders for file in sorted(os.listdir(f"/{folder}/{name}"))]
print("ready", flush=True)
while not os.path.exists(stop):
    if not count % len(everything):
        dice.shuffle(everything)
    name, file = everything[count % len(everything)]
    count += 1
    path, before = f"{folder}/{name}/{file}", time.monotonic()
    try:
        if file.endswith(".py") and file != "__init__.py":
            sys.modules.pop(f"{name}.{file[:-3]}", None)
            if importlib.import_module(f"{name}.{file[:-3]}").VALUE != f"{name}/{file}":
                wrong.append(f"{path}: another module")
        elif file != "__init__.py":
            with open(path, "rb") as opened:
                content = opened.read()
            digest, whole = content[:32], content[32:]
            if hashlib.sha256(whole).digest() != digest or not whole.startswith(f"{name}/{file}|".encode()):
                wrong.append(f"{path}: {len(content)} bytes that are not its own")
        if os.path.exists(path + ".none"):
            wrong.append(f"{path}.none exists")
    except BaseException as exc:
        wrong.append(f"{path}: {exc!r}")
    slowest = max(slowest, (time.monotonic() - before, path))
    time.sleep(0.01)  # work: else all is known before the second server has died
at_last = 0  # of files that nobody has asked for before
for number in range(200):
    path = f"{folder}/last.{seed}/f{number}"
    with open(path, "rb") as opened:
        opened.read()
    if session.fetcher.copy_of(path):
        at_last = 1
        break
    time.sleep(0.1)
print(json.dumps({"wrong": wrong, "slowest": slowest, "count": count, "served": at_last,
                  "fetched": len(session.fetcher.log), "vain": session.fetcher.unanswered,
                  "transport": session.transport.counters()}), flush=True)
collfs.finalize()
"""


def make_tree(folder: Path, seeds: list[str]) -> None:
    """Packages of modules and data; each file says whose it is."""
    from hashlib import sha256

    def data(path: Path, size: int) -> None:
        name = f"{path.parent.name}/{path.name}"
        whole = (name + "|").encode() * (size // (len(name) + 1) + 1)
        path.write_bytes(sha256(whole).digest() + whole)

    for number in range(FOLDERS):
        package = folder / f"p{number}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        for index in range(EACH):
            if index % 2:
                (package / f"m{index}.py").write_text(f"VALUE = {f'p{number}/m{index}.py'!r}\n")
            else:
                data(package / f"d{index}", 100 + 500 * index)
        if number % (FOLDERS // LARGE) == 0:
            data(package / "large", 1_500_000)
    for seed in seeds:
        (folder / f"last.{seed}").mkdir()
        for index in range(200):
            data(folder / f"last.{seed}" / f"f{index}", 1000)


class Member:
    """One server of the tree, as often as it is started."""

    def __init__(self, chaos: Chaos, store: str) -> None:
        self.chaos, self.store = chaos, store
        self.address = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.said = chaos.folder / f"server.{os.path.basename(store)}"
        self.state = "down"

    def start(self) -> None:
        """Start it; :meth:`ready` says when it serves."""
        words = ["--host", "127.0.0.1", "--fanout", "2", "--linger", "60", "--patience", str(PATIENCE), "--quiet"]
        root = self.chaos.members[0] if self.chaos.members else self
        where = ["--bind", self.address or "tcp://127.0.0.1:0"] if root is self else ["--root", root.address]
        command = [sys.executable, "-m", "collfs", "serve", "--prefix", str(self.chaos.tree), *words, *where]
        with open(self.said, "wb") as said, open(f"{self.said}.log", "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=log, env=self.chaos.env(self.store)
            )
        self.state = "starting"

    def ready(self) -> bool:
        """Whether it serves."""
        if self.state == "starting":
            assert self.process is not None
            text = self.said.read_text()
            if text.endswith("\n"):
                self.address, self.state = text.strip(), "up"
            elif self.process.poll() is not None:  # its port was taken for a moment
                self.chaos.failed_starts += 1
                assert self.chaos.failed_starts < 20, Path(f"{self.said}.log").read_text()[-3000:]
                self.start()
        return self.state == "up"

    def end(self, how: int) -> None:
        """SIGKILL or SIGTERM, and wait."""
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(LIMIT)
        self.state = "down"


class Chaos:
    """The tree, its processes, and the dice."""

    def __init__(self, folder: Path, seed: str, count: int) -> None:
        self.folder, self.tree, self.dice = folder, folder / "tree", random.Random(seed)
        self.secret, self.stores = new_secret(), zmqnode.Stores()
        self.stop, self.failed_starts = folder / "stop", 0
        self.members: list[Member] = []
        self.programs: list[zmqnode.Child] = []
        seeds = [f"{number}" for number in range(count)]
        make_tree(self.tree, seeds)
        script = folder / "reads.py"
        script.write_text(READS)
        for number in seeds:
            member = Member(self, self.stores.new())
            member.start()
            self.members.append(member)
            self.until(member.ready)
            home = folder / f"program{number}"
            home.mkdir()
            words = [str(self.tree), str(self.stop), number, str(PATIENCE)]
            self.programs.append(zmqnode.Child(home, [sys.executable, str(script), *words], self.env(member.store)))
        for program in self.programs:
            assert program.line() == "ready", program.log()

    def env(self, store: str) -> dict[str, str]:
        return zmqnode.environment(self.tree, f"chaos-{self.secret[:9]}", store, {"COLLFS_SECRET": self.secret})

    @staticmethod
    def until(true, seconds: float = LIMIT) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end
            time.sleep(0.01)

    def run(self, events: int, pause: float) -> dict[str, int]:
        """So many events; how often each happened."""
        later: list[tuple[float, int, Member, str]] = []  # what has to be done, and when
        numbers, done = itertools.count(), {"kill": 0, "stall": 0, "restart": 0, "root": 0}
        following, end = time.monotonic(), time.monotonic() + LIMIT + events * 10 * pause
        while events or later:
            now = time.monotonic()
            assert now < end, "the dice take too long"
            while later and later[0][0] <= now:
                _, _, member, what = heapq.heappop(later)
                if what == "start":
                    member.start()
                else:
                    member.process.send_signal(signal.SIGCONT)  # type: ignore[union-attr]
                    member.state = "up"
            up = [member for member in self.members if member.ready()]
            if events and now >= following and up:
                events, following = events - 1, now + self.dice.expovariate(1 / pause)
                member, what = self.dice.choice(up), self.dice.choice(["kill", "stall", "stall", "restart"])
                done[what] += 1
                done["root"] += member is self.members[0]
                if what == "stall":
                    member.process.send_signal(signal.SIGSTOP)  # type: ignore[union-attr]
                    member.state = "stalled"
                    heapq.heappush(later, (now + self.dice.uniform(0, 2 * PATIENCE), next(numbers), member, "go on"))
                else:
                    member.end(signal.SIGKILL if what == "kill" else signal.SIGTERM)
                    heapq.heappush(later, (now + self.dice.uniform(0, PATIENCE), next(numbers), member, "start"))
            for program in self.programs:
                assert program.process.poll() is None, program.log()
            time.sleep(0.01)
        self.until(lambda: all(member.ready() for member in self.members))
        return done

    def results(self) -> list[dict]:
        """What each process has to tell."""
        self.stop.touch()
        return [json.loads(program.line(LIMIT)) for program in self.programs]

    def close(self) -> list[str]:
        """End all; what is left in the stores afterwards."""
        for program in self.programs:
            with suppress(AssertionError):
                program.wait(LIMIT if self.stop.exists() else 0.1)
            program.stop()
        for member in self.members:
            if member.process is not None and member.process.poll() is None:
                member.process.send_signal(signal.SIGCONT)
                member.process.send_signal(signal.SIGTERM)
        for member in self.members:
            if member.process is not None:
                try:
                    member.process.wait(10)
                except subprocess.TimeoutExpired:
                    member.process.kill()
                    member.process.wait(LIMIT)
                    raise
        left = [name for node in os.scandir(self.stores.folder) for name in os.listdir(node.path)]
        self.stores.close()
        return [name for name in left if not name.endswith(".lock") and not name.startswith(".")]


def play(folder: Path, count: int, events: int, pause: float) -> None:
    seed = os.environ.get("COLLFS_CHAOS_SEED") or f"{time.time_ns()}"
    print(f"COLLFS_CHAOS_SEED={seed}")
    chaos = Chaos(folder, seed, count)
    try:
        done = chaos.run(events, pause)
        print(done, "failed starts:", chaos.failed_starts)
        found = chaos.results()
    finally:
        left = chaos.close()
    for number, one in enumerate(found):
        print(number, one)
    assert [one["wrong"] for one in found] == [[]] * count
    slowest = max(one["slowest"][0] for one in found)
    assert slowest < 10 * PATIENCE, "no wait is longer, whatever grows meanwhile (collfs.awaiting.LONGEST)"
    assert all(one["served"] for one in found), "served again, when all servers are there again"
    assert all(one["fetched"] > one["vain"] for one in found)
    assert [program.process.returncode for program in chaos.programs] == [0] * count
    assert left == []
    assert [member.process.returncode for member in chaos.members] == [0] * count, "each ended as it should"  # type: ignore[union-attr]


def test_a_few_kills_and_stalls_in_a_tree_of_four_cost_no_byte(tmp_path):
    play(tmp_path, count=4, events=25, pause=0.15)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_three_hundred_kills_stalls_and_restarts_in_a_tree_of_seven_cost_no_byte(tmp_path):
    play(tmp_path, count=7, events=300, pause=0.15)
