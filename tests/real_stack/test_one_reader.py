"""The promise itself, counted by strace: each original is opened by one process, and whoever comes later opens none.

Eight processes start at once and stay; then a ninth attaches. Each touches a path of its own right after `initialize`:
from there on its hooks are live. The native spelling ("//a/b") counts as the original that it is.

::

    8 processes  initialize | marker | import, compute | ...stay...........................| exit
    ninth                                                 initialize | marker | import, compute | exit
"""

from __future__ import annotations

import os
import textwrap

import pytest

from realstack import PROGRAM

RANKS = 8

DRIVER = """
import os, subprocess, sys
rank, ranks = sys.argv[1], int(sys.argv[2])
start = lambda name: subprocess.Popen([sys.argv[3], "-c", rank, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
eight = [start(f"rank{i}") for i in range(ranks)]
for child in eight:
    sys.stdout.write(child.stdout.readline().decode())
ninth = start("ninth")
sys.stdout.write(ninth.stdout.readline().decode())
ninth.stdin.close()
status = [ninth.wait()]
for child in eight:
    child.stdin.close()
    status.append(child.wait())
sys.exit(max(map(abs, status)))
"""

# (what, the only operations allowed, why no trigger can announce it). All of it is in the manifest of the next run.
REALPATH = (
    "sysconfig, when it is imported, calls os.path.realpath on the interpreter and its directory: one lstat for each"
    " component. Neither the finder nor an audit event sees that (there is none for stat)"
)
BUILD_TREE = "sysconfig.is_python_build looks whether the interpreter lies in its own build tree: two stats, no event"
UNANNOUNCED = (
    ("{venv}", "stat", REALPATH),
    ("{venv}/bin", "stat", REALPATH),
    ("{venv}/bin/python", "stat readlink", REALPATH),
    ("{base}", "stat", REALPATH),
    ("{base}/bin", "stat", REALPATH),
    ("{executable}", "stat", REALPATH),
    ("{base}/bin/Modules/Setup", "stat", BUILD_TREE),
    ("{base}/bin/Modules/Setup.local", "stat", BUILD_TREE),
)


def run(stack, job, manifest, strace_counts, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir(exist_ok=True)
    rank = stack.start(job, manifest=manifest) + textwrap.dedent(
        f"""
        import os, sys
        try:
            os.stat({str(marks)!r} + "/" + sys.argv[1])
        except OSError:
            pass
        {textwrap.indent(PROGRAM, " " * 8).strip()}
        os.stat({str(marks)!r})
        sys.stdin.read()
        """
    )
    command = [os.path.realpath(stack.python), "-I", "-S", "-c", DRIVER, rank, str(RANKS), stack.python]
    result, counts = strace_counts(command, env=stack.env(), timeout=110)
    assert result.stdout == stack.expected * (RANKS + 1), result.describe()
    assert "collfs" not in result.stderr, result.stderr
    return counts, str(marks)


def of_ranks(counts, marks):
    """The operations of each rank between its two marks."""
    found = {}
    for process in counts.processes:
        ops = [op for op in counts.ops if op.process == process]
        begin = [i for i, op in enumerate(ops) if op.path.startswith(marks + "/")]
        end = [i for i, op in enumerate(ops) if op.path == marks]
        if begin:
            found[os.path.basename(ops[begin[0]].path)] = ops[begin[0] + 1 : end[0]]
    return found


def originals(ops, prefixes):
    starts = tuple(p + "/" for p in prefixes)
    return [op for op in ops if op.path in prefixes or op.path.startswith(starts)]


def shown(ops):
    return "\n".join(f"{op.call} {op.path} {op.errno}" for op in ops)


@pytest.fixture(scope="module")
def runs(stack, strace_counts, tmp_path_factory):
    """Without a manifest, and with the one that this leaves."""
    folder = tmp_path_factory.mktemp("runs")
    manifest = str(folder / "manifest")
    name = f"test-{os.getpid()}-{os.urandom(4).hex()}"
    return [run(stack, f"{name}-{i}", manifest, strace_counts, folder) for i in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1], ids=["without a manifest", "with a manifest"])
def test_each_file_is_opened_by_one_process(runs, which, stack):
    counts, marks = runs[which]
    opened: dict[str, set[str]] = {}
    ranks = of_ranks(counts, marks)
    assert sorted(ranks) == ["ninth", *(f"rank{i}" for i in range(RANKS))]
    for name, ops in ranks.items():
        for op in originals(ops, stack.prefixes):
            if op.kind == "open" and not op.errno and not os.path.isdir(op.path):
                opened.setdefault(op.path, set()).add(name)
    several = {path: sorted(names) for path, names in opened.items() if len(names) > 1}
    assert several == {}
    assert len(opened) > 300 or which == 1  # with a manifest they are read before the marks


@pytest.mark.slow
def test_a_manifest_is_staged_by_one_process_before_the_marks(runs, stack):
    counts, _ = runs[1]
    # of site-packages, since the interpreter itself reads of the library before any hook is live
    start = f"{stack.packages}/"
    openers = {path: processes for path, processes in counts.openers().items() if path.startswith(start)}
    assert len(openers) > 300
    assert [path for path, processes in openers.items() if len(processes) > 1] == []


@pytest.mark.slow
def test_with_a_manifest_a_late_process_never_reaches_an_original(runs, stack):
    counts, marks = runs[1]
    reached = originals(of_ranks(counts, marks)["ninth"], stack.prefixes)
    assert reached == [], shown(reached)


@pytest.mark.slow
def test_without_a_manifest_it_reaches_only_what_no_trigger_can_announce(runs, stack):
    counts, marks = runs[0]
    names = {"venv": stack.venv, "base": stack.base, "executable": os.path.realpath(stack.python)}
    allowed = {(path.format(**names), kind) for path, kinds, _ in UNANNOUNCED for kind in kinds.split()}
    reached = originals(of_ranks(counts, marks)["ninth"], stack.prefixes)
    others = [op for op in reached if (op.path, op.kind) not in allowed]
    assert others == [], shown(others)
