"""What ``initialize`` adds to an interpreter, counted on the file system that its own files lie on.

Only for an installation: a checkout has no bundle of the core path, because its sources change.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import collfs
from collfs import bundle, launch
from collfs.transport import registry

BUNDLE = f"core.{sys.implementation.cache_tag}.bundle"
LIMIT = 60  # path operations, as promised
INSTALLED = "-packages" in collfs.__file__
START = """
import os, sys
import collfs
session = collfs.initialize("local", prefixes=[sys.prefix, sys.base_prefix], manifest="none")
assert not session.idle, session.idle
"""
BARE = "import os, sys\n"
LEAVE = "sys.stdout.flush()\nos._exit(0)\n"

pytestmark = pytest.mark.skipif(not INSTALLED, reason="not an installation")


def operations(strace_counts, code, env):
    command = [sys.executable, "-c", code + LEAVE]
    _, counts = strace_counts(command, prefixes=(sys.prefix, sys.base_prefix), env=env)
    return counts.below(sys.prefix, sys.base_prefix).total


def test_initialize_makes_at_most_sixty_path_operations(strace_counts, run_python, tmp_path):
    env = {"COLLFS_JOB": f"start-{tmp_path.name}", "PYTHONDONTWRITEBYTECODE": None}
    run_python(START + "collfs.finalize()", env=env)  # leaves the bundle
    bare = operations(strace_counts, BARE, env)
    first = operations(strace_counts, START, env)
    assert bare < first <= bare + LIMIT


def test_the_bundle_is_used_and_a_damaged_or_foreign_one_is_not(run_python, tmp_path):
    env = {"COLLFS_JOB": f"bundle-{tmp_path.name}", "PYTHONDONTWRITEBYTECODE": None}
    file = Path(collfs.__file__).parent / "__pycache__" / BUNDLE
    show = START + "print(collfs.use_bundle(), type(sys.modules['collfs.calls'].__spec__.loader).__name__)\n"
    file.unlink(missing_ok=True)
    seen = [run_python(show, env=env).stdout for _ in range(2)]
    assert seen == ["False SourceFileLoader\n", "True type\n"]
    good = file.read_bytes()
    for bad in (b"", good[: len(good) // 2], good.replace(collfs.__version__.encode(), b"9.9.9", 1)):
        file.write_bytes(bad)
        assert run_python(show, env=env).stdout == seen[0]
        assert file.read_bytes() != bad  # written anew
        assert run_python(show, env=env).stdout == seen[1]


def test_each_package_of_ours_can_be_in_the_bundle():
    assert {where.partition(":")[0] for where in registry.OWN.values()} == set(bundle.TRANSPORTS)
    assert set(launch.OWN.values()) == set(bundle.PLUGINS)


def test_what_a_later_session_loads_joins_the_bundle_once(run_python, tmp_path):
    env = {"COLLFS_JOB": f"joins-{tmp_path.name}", "PYTHONDONTWRITEBYTECODE": None}
    file = Path(collfs.__file__).parent / "__pycache__" / BUNDLE
    file.unlink(missing_ok=True)
    report = START.replace('manifest="none"', f'manifest="none", report={str(tmp_path / "report.json")!r}')
    show = "import collfs\ncollfs.use_bundle()\n"
    show += "print(*('collfs.' + name in collfs._bundled for name in ('report', 'calls')))\n"
    run_python(START, env=env)
    assert run_python(show).stdout == "False True\n"
    run_python(report, env=env)
    assert run_python(show).stdout == "True True\n"
    before = file.stat()
    run_python(report, env=env)
    run_python(START, env=env)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.skipif(find_spec("zmq") is None, reason="pyzmq is not installed")
def test_a_server_leaves_its_modules_in_the_bundle_too(run_command, run_python, tmp_path):
    words = [
        sys.executable,
        "-m",
        "collfs",
        "serve",
        "--prefix",
        sys.prefix,
        "--first",
        "0.1",
        "--store",
        str(tmp_path),
    ]
    code = "import collfs\ncollfs.use_bundle()\nprint('collfs_zmq.server' in collfs._bundled)\n"
    Path(collfs.__file__).parent.joinpath("__pycache__", BUNDLE).unlink(missing_ok=True)
    run_command(words, env={"PYTHONDONTWRITEBYTECODE": None, "COLLFS_JOB": f"bundle-{os.getpid()}"})
    assert run_python(code).stdout == "True\n"


def test_what_another_process_has_added_meanwhile_stays(run_python, tmp_path):
    report = START.replace('manifest="none"', f'manifest="none", report={str(tmp_path / "report.json")!r}')
    other = f"import subprocess\nsubprocess.run([sys.executable, '-c', {report!r}], check=True, timeout=60)\n"
    Path(collfs.__file__).parent.joinpath("__pycache__", BUNDLE).unlink(missing_ok=True)
    # the first in another store, or the second would not be the one who writes
    first = START.replace('"local", ', f'"local", job="meanwhile-{os.getpid()}", ')
    run_python(first + other, env={"COLLFS_JOB": f"other-{tmp_path.name}", "PYTHONDONTWRITEBYTECODE": None})
    show = "import collfs\ncollfs.use_bundle()\nprint('collfs.report' in collfs._bundled)\n"
    assert run_python(show).stdout == "True\n"
