"""The report: eight processes in one file, and numbers that agree with one another."""

from __future__ import annotations

import json
import os
import subprocess
import textwrap
from types import SimpleNamespace

import pytest

import childproc
from realstack import PROGRAM

RANKS = 8
FIELDS = {
    "host",
    "pid",
    "argv",
    "state",
    "idle",
    "warnings",
    "silences",
    "sites",
    "calls",
    "row_calls",
    "switched_off",
    "transport",
    "read",
    "wants",
    "staged",
    "store",
}
OUTCOMES = {"redirected", "absent", "native", "fallback"}


@pytest.fixture
def report(tmp_path):
    """Where the report goes, and how to read it."""
    path = tmp_path / "report.json"
    return SimpleNamespace(path=str(path), read=lambda: json.loads(path.read_text()))


@pytest.mark.slow
def test_eight_processes_write_one_report_whose_numbers_agree(stack, job, report):
    code = stack.start(job, report=report.path) + PROGRAM + "\nimport sys; sys.stdin.read()"
    env = childproc.clean_env(stack.env())
    pipe, words = subprocess.PIPE, [stack.python, "-c", code]
    children = [subprocess.Popen([*words, str(i)], stdin=pipe, stdout=pipe, env=env) for i in range(RANKS)]
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline().decode() == stack.expected
        for child in children:
            child.communicate(timeout=60)
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.communicate()
    assert [child.returncode for child in children] == [0] * RANKS

    data = report.read()
    assert data["format"] == 1
    assert data["prefixes"] == stack.prefixes
    assert data["options"]["transport"] == "local"
    assert os.uname().nodename in data["job"]
    processes = data["processes"]
    assert {p["pid"] for p in processes} == {child.pid for child in children}
    assert sorted(p["argv"][1] for p in processes) == [str(i) for i in range(RANKS)]
    for process in processes:
        assert set(process) == FIELDS
        assert process["idle"] == ""
        assert process["warnings"] == []
        assert process["switched_off"] is False
        assert process["transport"]["taken"] == "local"
        assert {outcome for calls in process["calls"].values() for outcome in calls} == OUTCOMES
        assert {"ld.so", "libc"} <= set(process["sites"])
        assert process["row_calls"]["open"] > 50  # the libraries
        assert process["calls"]["open"]["redirected"] > 500
        assert process["calls"]["stat"]["redirected"] > 1000
        assert process["calls"]["open"]["fallback"] == 0
        wants = process["wants"]
        assert wants["wanted"] >= wants["staged"]
        assert wants["failed"] == wants["refused"] == wants["timeouts"] == 0
        assert process["staged"]["bytes"] == process["read"]["bytes_read"]
        assert process["staged"]["files"] <= process["read"]["files_read"]
    assert sum(p["store"]["created"] for p in processes) == 1
    # every file was read and staged by one process of them
    store = processes[-1]["store"]
    assert sum(p["staged"]["files"] for p in processes) == store["files"] > 500
    assert sum(p["staged"]["bytes"] for p in processes) == store["bytes"] > 50e6


def test_bytes_are_the_sum_of_the_sizes_of_what_was_staged(stack, job):
    code = stack.start(job) + textwrap.dedent(
        """
        import numpy
        import os
        from collfs.interpose.machine.layout import K_FILE
        table = session.store.table
        stats = collfs.stats()  # first: it imports modules, too
        copies = {table.copy_of(e.word): p for p, e in table if e.word & 255 == K_FILE and p != session.store.canary}
        sizes = [os.path.getsize(p) for p in copies.values()]
        assert sum(sizes) == stats["staged"]["bytes"], (sum(sizes), len(sizes), stats["staged"])
        assert len(copies) == stats["staged"]["files"] > 100
        assert all(os.path.getsize(c) == os.path.getsize("/" + p) for c, p in copies.items())
        print(stats["store"]["bytes"] == stats["staged"]["bytes"])
        """
    )
    assert stack.run(code).stdout == "True\n"


def test_the_manifest_is_in_the_report(stack, job, report, tmp_path):
    manifest = str(tmp_path / "manifest")
    processes = []
    for run in range(2):
        stack.run(stack.start(f"{job}-{run}", manifest=manifest, report=report.path) + "import numpy.linalg")
        processes += report.read()["processes"]  # that of another job is replaced
    first, process = processes
    assert first["manifest"] == {"path": manifest, "wanted": 0, "hits": 0}
    assert process["manifest"]["wanted"] > 100
    assert 0.9 * process["manifest"]["wanted"] <= process["manifest"]["hits"] <= process["manifest"]["wanted"]
    assert process["wants"]["wanted"] >= process["manifest"]["wanted"]


def test_collfs_run_writes_it_by_itself(stack, job, report, tmp_path):
    script = tmp_path / "job.py"
    script.write_text(PROGRAM + "import sys\nprint(sys.argv[1:])\nsys.exit(3)\n")
    words = ["-m", "collfs", "run", "--transport", "local", "--job", job, "--manifest", "none", "--report", report.path]
    for prefix in stack.prefixes:
        words += ["--prefix", prefix]
    result = stack.run_words([*words, script, "one", "--two"], check=False)
    assert result.rc == 3
    assert result.stdout == stack.expected + "['one', '--two']\n"
    data = report.read()
    (process,) = data["processes"]
    assert process["argv"] == [str(script), "one", "--two"]
    assert data["options"]["report"] == report.path
    assert data["prefixes"] == stack.prefixes
    assert process["calls"]["open"]["redirected"] > 500
    assert process["state"] in ("serving", "closing")


def test_stats_is_the_same_while_it_runs(stack, job):
    code = stack.start(job) + "import json, numpy\nprint(json.dumps(collfs.stats()))"
    process = json.loads(stack.run(code).stdout)
    assert set(process) == FIELDS
    assert process["state"] == "serving"


def test_an_idle_process_reports_why(stack, report):
    stack.run(f"import collfs\ncollfs.initialize('local', prefixes=[], report={report.path!r})")
    (process,) = report.read()["processes"]
    assert process["idle"] == "no directory to manage"
    assert len(process["warnings"]) == 1
    assert "calls" not in process
