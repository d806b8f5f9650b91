"""What collfs costs, as ratios of alternated runs, with the promise beside each.

::

    python tests/bench/bench.py [--rounds N] [--json FILE]

Needs a C compiler, strace, numpy, scipy and pandas; run it in an environment in which collfs is installed as a wheel,
as ``tox -e bench`` does: a checkout has no bundle of the core path and starts slower. Seconds on a busy machine are
weather; look at the ratios and at the spread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
STACK = "import numpy, scipy.linalg, pandas"


class Line:
    """One figure: what, the values, the promise."""

    def __init__(self, what: str, values: list[float], unit: str, limit: float | None) -> None:
        self.what, self.values, self.unit, self.limit = what, values, unit, limit
        self.median = statistics.median(values)

    def __str__(self) -> str:
        verdict = "" if self.limit is None else f"promised <= {self.limit:g}: {'kept' if self.kept else 'BROKEN'}"
        spread = f"{min(self.values):.3g} to {max(self.values):.3g}"
        return f"{self.what:64} {self.median:9.3g} {self.unit:6} ({spread:18}) {verdict}"

    @property
    def kept(self) -> bool:
        """Whether the promise is kept."""
        return self.limit is None or self.median <= self.limit


def child(code: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    """Standard output of a Python child."""
    base = {k: v for k, v in os.environ.items() if not k.startswith("COLLFS_") and k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**base, **(env or {})},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"a child failed:\n{code}\n{done.stderr}")
    return done.stdout


CALLS = """
import ctypes, json, os, sys
import collfs
library, tree, plain, rounds = sys.argv[1:4] + [int(sys.argv[4])]
c = ctypes.CDLL(library)
for f in (c.loop_stat, c.loop_read):
    f.restype, f.argtypes = ctypes.c_double, (ctypes.c_char_p, ctypes.c_long)
managed, unmanaged = os.fsencode(tree + "/data"), os.fsencode(plain)
N = 20000
out = {"stat": [], "read": [], "managed_stat": [], "managed_read": [], "absent": []}
for _ in range(rounds):
    stat, read = c.loop_stat(unmanaged, N), c.loop_read(unmanaged, N)
    missing = c.loop_stat(managed + b"x", N)
    with collfs.session("local", prefixes=[tree], job=f"bench{os.getpid()}", manifest="none"):
        collfs.prefetch([tree])
        out["stat"].append(c.loop_stat(unmanaged, N) / stat)
        out["read"].append(c.loop_read(unmanaged, N) / read)
        out["managed_stat"].append(c.loop_stat(managed, N) / stat)
        out["managed_read"].append(c.loop_read(managed, N) / read)
        out["absent"].append(c.loop_stat(managed + b"x", N) / missing)
print(json.dumps(out))
"""


def calls(rounds: int, tmp: Path) -> list[Line]:
    """Single calls of the C library."""
    library = tmp / "loops.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "loops.c"], check=True)
    tree, plain = tmp / "a" / "shared" / "tree", tmp / "a" / "other" / "plain"
    for path in (tree, plain.parent):
        path.mkdir(parents=True)
    for path in (tree / "data", plain):
        path.write_bytes(os.urandom(10_000))
    out = json.loads(child(CALLS, str(library), str(tree), str(plain), str(rounds)))
    return [
        Line("unmanaged stat, hooked / unhooked", out["stat"], "", 1.05),
        Line("unmanaged open+fstat+read+close of 10 kB, hooked / unhooked", out["read"], "", 1.05),
        Line("managed open+fstat+read+close of 10 kB / warm local", out["managed_read"], "", 1.3),
        Line("managed stat / warm local", out["managed_stat"], "", 1.3),
        Line("managed ENOENT / native ENOENT", out["absent"], "", 1.0),
    ]


START = """
import time
a = time.perf_counter()
import collfs
s = collfs.initialize("local", prefixes=eval(__import__("sys").argv[1]), manifest="none")
b = time.perf_counter()
assert not s.idle, s.idle
print((b - a) * 1e3, flush=True)
"""
PREFIXES = "[__import__('sys').prefix, __import__('sys').base_prefix]"


def start(rounds: int, tmp: Path) -> list[Line]:
    """What initialize adds to an interpreter: milliseconds, and path operations under the prefixes."""
    jobs = [{"COLLFS_JOB": f"bench-start-{os.getpid()}-{i}"} for i in range(rounds)]
    first = [float(child(START, PREFIXES, env=env)) for env in jobs]
    job = {"COLLFS_JOB": f"bench-attached-{os.getpid()}"}
    with Holder(job):
        attached = [float(child(START, PREFIXES, env=job)) for _ in range(rounds)]
        operations = path_operations(job, tmp)
    alone = path_operations({"COLLFS_JOB": f"bench-alone-{os.getpid()}"}, tmp)
    return [
        Line("initialize('local'), first process of a node", first, "ms", 50),
        Line("initialize('local'), a later process", attached, "ms", 50),
        Line("path operations of initialize, first process", [float(alone)], "", 60),
        Line("path operations of initialize, a later process", [float(operations)], "", 60),
    ]


class Holder:
    """A process that keeps the store of a job alive."""

    def __init__(self, env: dict[str, str]) -> None:
        code = START + "\nimport sys\nsys.stdin.read()\n"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, PREFIXES],
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def path_operations(env: dict[str, str], tmp: Path) -> int:
    """Path operations under the prefixes between the first statement and the end of initialize, by strace."""
    log = tmp / "strace"
    code = "import os\nos.access('/MARK', 0)\n" + START + "os.access('/MARK', 0)\n"
    base = {k: v for k, v in os.environ.items() if not k.startswith("COLLFS_")}
    subprocess.run(
        ["strace", "-f", "-o", log, "-e", "trace=%file", sys.executable, "-c", code, PREFIXES],
        env={**base, **env},
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=120,
    )
    lines = log.read_text().split('access("/MARK"')[1].splitlines()  # execve shows the code, too
    under = tuple({sys.prefix, sys.base_prefix})
    paths = [m.group(1) for m in (re.search(r'"/*(/[^"]*)"', line) for line in lines) if m]
    return sum(path == p or path.startswith(p + "/") for path in paths for p in under)


IMPORT = "import time\na = time.perf_counter()\n" + STACK + "\nprint(time.perf_counter() - a)\n"


def imports(rounds: int) -> list[Line]:
    """Warm imports of a real stack, of a late process and of the node's first one, against plain ones."""
    job = {"COLLFS_JOB": f"bench-import-{os.getpid()}"}
    begin = "import collfs\ncollfs.initialize('local', prefixes=eval(__import__('sys').argv[1]), manifest='none')\n"
    keeper = begin + STACK + "\nprint(1, flush=True)\nimport sys\nsys.stdin.read()\n"
    ratios, root = [], []
    process = subprocess.Popen(
        [sys.executable, "-c", keeper, PREFIXES],
        env={**os.environ, **job},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    try:
        child(IMPORT)
        for i in range(rounds):
            plain = float(child(IMPORT))
            ratios.append(float(child(begin + IMPORT, PREFIXES, env=job)) / plain)
            alone = {"COLLFS_JOB": f"bench-root-{os.getpid()}-{i}"}
            root.append(float(child(begin + IMPORT, PREFIXES, env=alone)) / plain)
    finally:
        process.stdin.close()
        process.wait(timeout=60)
    return [
        Line(f"warm {STACK[7:]}, collfs / plain", ratios, "", 1.1),
        Line("the same in the process that reads and stages", root, "", None),
    ]


def run(about: str, measure: Callable[[int, Path], list[Line]], rounds: int) -> int:
    """A benchmark's command line: measure, print and keep; exit code 1 if a promise is broken.

    :param about: the head of its file
    :param measure: given the number of rounds and an empty directory
    :param rounds: unless the command line says otherwise
    """
    parser = argparse.ArgumentParser(description=about.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="collfs-bench-") as name:
        lines = measure(arguments.rounds, Path(name))
    for line in lines:
        print(line)
    if arguments.json:
        data = [{"what": x.what, "unit": x.unit, "values": x.values, "limit": x.limit} for x in lines]
        arguments.json.write_text(json.dumps(data, indent=1))
    return 0 if all(line.kept for line in lines) else 1


def everything(rounds: int, tmp: Path) -> list[Line]:
    """All of this file."""
    return calls(rounds, tmp) + start(rounds, tmp) + imports(rounds)


if __name__ == "__main__":
    raise SystemExit(run(__doc__, everything, 9))
