"""What `import collfs` costs. It comes before anything can help, so every rank of every job pays it."""

from __future__ import annotations

import os
import sys
import textwrap
from importlib.util import find_spec

# Beyond what every interpreter has loaded when its first line runs. Each module is one open, one stat and some probing
# on the shared file system, times the ranks.
MODULES = 3
START = "import os, io, stat, posixpath, errno, time, marshal, sys; "
# Each of these draws in many others; none is needed to start.
HEAVY = (
    *(
        "argparse",
        "asyncio",
        "collections",
        "contextlib",
        "ctypes",
        "dataclasses",
        "enum",
        "functools",
        "importlib.metadata",
    ),
    *(
        "inspect",
        "json",
        "logging",
        "mpi4py",
        "multiprocessing",
        "numpy",
        "pathlib",
        "pluggy",
        "random",
        "re",
        "shutil",
    ),
    *("signal", "socket", "subprocess", "tempfile", "threading", "traceback", "typing", "uuid", "zmq"),
)


def loaded(run_python, statement):
    """Names of the modules that *statement* loads into a bare interpreter, in their order."""
    spec = find_spec("collfs")
    assert spec is not None
    assert spec.origin is not None, "collfs has no __init__"
    folder = os.path.dirname(os.path.dirname(spec.origin))
    code = f"{START}sys.path.insert(0, {folder!r}); old = set(sys.modules)\n{statement}\n"
    result = run_python(["-I", "-S", "-c", code + "print(*[m for m in sys.modules if m not in old])"])
    return result.stdout.split()


def test_import_loads_few_modules_and_no_heavy_one(run_python):
    names = loaded(run_python, "import collfs")
    assert "collfs" in names
    assert [n for n in names if n in HEAVY] == []
    assert len(names) <= MODULES, names


def test_import_has_no_effect_but_modules(run_python):
    code = """
        import os, sys, threading
        state = lambda: (sys.meta_path[:], sys.path_hooks[:], sys.path[:], dict(os.environ), threading.active_count(),
                         sorted(os.listdir("/proc/self/fd")), os.umask(0o22))
        before = state()
        import collfs
        after = state()
        assert before == after, (before, after)
    """
    run_python(textwrap.dedent(code))


def test_import_reads_nothing_but_the_modules_themselves(strace_counts):
    spec = find_spec("collfs")
    assert spec is not None
    assert spec.origin is not None
    package = os.path.dirname(spec.origin)
    folder = os.path.dirname(package)
    base = [sys.executable, "-I", "-S", "-B", "-c"]
    start = f"{START}import __future__; sys.path.insert(0, {folder!r}); "
    _, without = strace_counts([*base, start])
    _, counts = strace_counts([*base, start + "import collfs"])
    before = {(o.call, o.path) for o in without.ops}
    others = [o for o in counts.below(folder).ops if (o.call, o.path) not in before and not o.path.startswith(package)]
    # Outside the package only its folder: zipimport's look (stat), the finder's (2 stats, 1 listing of three calls).
    assert {o.path for o in others} == {folder}
    assert len(others) <= 6, others
    assert counts.total - without.total <= len(others) + counts.below(package).total
