"""Whatever fails beside the program, the program doesn't: its result is right, one line says why, a counter tells."""

from __future__ import annotations

import json
import sys
import textwrap
import time
from types import SimpleNamespace

import pytest

PATIENCE = 1.0

# A transport of a stranger that reads the originals and goes wrong in the way that is asked for.
STRANGER = """
import os, sys, threading, time
from collfs.reader import Reader
from collfs.record import CONTENT, LIST, Name, Record, Stat
from collfs.transport import Transport

class Stranger(Transport):
    name = "stranger"
    calls = 0

    def __init__(self, options):
        self.reader = Reader()

    def stat(self, path):
        return self.reader.stat(path)

    def listdir(self, path):
        return self.reader.listdir(path, True)

    def read(self, path):
        return self.reader.read(path)[1]

    def fetch(self, wants):
        Stranger.calls += 1
        return getattr(self, os.environ["WRONG"])(super().fetch(wants), wants)

    def log(self, text):
        with open(os.environ["LOG"], "a") as file:
            file.write(text + "\\n")

    def close(self):
        self.log("close")
        if os.environ["WRONG"] == "hangs_at_the_end":
            time.sleep(1000)

    def nothing(self, records, wants):
        return records

    hangs_at_the_end = nothing

    def raises(self, records, wants):
        raise ValueError("no luck")

    def leaves(self, records, wants):
        sys.exit("bye")

    def hangs(self, records, wants):
        time.sleep(1000)

    def hangs_half_way(self, records, wants):
        yield next(iter(records))
        threading.Event().wait()

    def dies_half_way(self, records, wants):
        yield next(iter(records))
        raise OSError(104, "connection reset")

    def gives_none(self, records, wants):
        return None

    def gives_texts(self, records, wants):
        return ["record"] * len(wants)

    def keeps_silent(self, records, wants):
        return iter(())

    def cuts_content(self, records, wants):
        for record in records:
            if record.content:
                record.content = record.content[:-1]
            yield record

    def names_with_slashes(self, records, wants):
        for record in records:
            if record.names is not None:
                record.names = [*record.names, Name("../../escaped", 8)]
            yield record

    def numbers_out_of_range(self, records, wants):
        for record in records:
            if record.st is not None:
                values = record.st.values()
                record.st = Stat(*(2**100 if f == "st_mtim" else v for f, v in zip(Stat.FIELDS, values)))
            yield record

    def odd_types(self, records, wants):
        for record in records:
            record.st, record.names, record.target = object(), 5, b"x"
            yield record

    def other_paths(self, records, wants):
        for record in records:
            record.path = "/etc" + record.path
            yield record
            record.path = record.path[4:] + "/../x"
            yield record

    def copies_that_are_none(self, records, wants):
        for record in records:
            if record.content is not None:
                record.content, record.node_path = None, "/etc/passwd"
            yield record

    def input_output_error(self, records, wants):
        for record in records:
            yield Record(record.path, errno=5) if record.content is not None else record

    def uses_the_original_itself(self, records, wants):
        # a careless author: the plain spelling, and an import of its own, in the middle of the program's
        for record in records:
            import sqlite3.dump
            if os.path.isdir(record.path):
                os.listdir(record.path)
            elif os.path.exists(record.path):
                open(record.path, "rb").close()
            yield record

    def slow_but_steady(self, records, wants):
        for record in records:
            time.sleep(0.3)
            yield record

transport = Stranger
"""

PROGRAM = """
import first, package.second, package.third
assert (first.x, package.second.x, package.third.x) == (1, 2, 3)
try:
    import absent
except ModuleNotFoundError:
    pass
import os
where = os.path.dirname(package.__file__)
assert open(where + "/data.txt").read() == "data"
names = sorted(name for name in os.listdir(where) if name != "__pycache__")
assert names == ["__init__.py", "data.txt", "second.py", "third.py"], names
print("right")
"""


@pytest.fixture
def program(venv, job, tmp_path):
    """Run PROGRAM under collfs: its output lines that are ours, and its part of the report."""
    venv.module("first", "x = 1")
    venv.module("package.__init__")
    venv.module("package.second", "x = 2")
    venv.module("package.third", "x = 3")
    (venv.packages / "package" / "data.txt").write_text("data")
    (venv.ours / "stranger.py").write_text(STRANGER)

    seen = SimpleNamespace()

    def run(wrong="nothing", *, transport='"stranger:transport"', between="", prefixes=None, report=None, **options):
        report = report or str(tmp_path / "report.json")
        options = {"patience": PATIENCE, "report": report, "prefixes": prefixes or [str(venv.venv)], **options}
        code = venv.start(job, transport=transport, **options) + textwrap.dedent(between) + PROGRAM
        env = {"WRONG": wrong, "LOG": str(tmp_path / "log")}
        began = time.monotonic()
        result = venv.run(code, env=env)
        seen.seconds = time.monotonic() - began
        assert result.stdout == "right\n", result.describe()
        assert "Traceback" not in result.stderr, result.describe()
        lines = [line for line in result.stderr.splitlines() if line.startswith("collfs: ")]
        log = tmp_path / "log"
        seen.log = log.read_text().split() if log.exists() else []
        try:
            with open(report) as file:
                (process,) = json.load(file)["processes"]
        except OSError:
            process = None
        return lines, process

    seen.run = run
    return seen


def test_without_a_fault_nothing_is_said_and_all_comes_from_the_node(program):
    lines, report = program.run()
    assert lines == []
    assert report["wants"]["gave_up"] == ""
    assert report["wants"]["refused"] == report["wants"]["timeouts"] == report["wants"]["failed"] == 0
    assert report["staged"]["files"] >= 5
    assert program.log == ["close"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("raises", "ValueError: no luck"),
        ("leaves", "SystemExit: bye"),
        ("dies_half_way", "connection reset"),
        ("gives_none", "'NoneType' object is not iterable"),
    ],
)
def test_a_transport_that_fails_is_not_asked_again(program, wrong, said):
    lines, report = program.run(wrong)
    assert len(lines) == 1
    assert said in lines[0]
    assert said in report["wants"]["gave_up"]
    assert report["warnings"] == [lines[0].replace("collfs: ", "", 1)]
    assert report["wants"]["unanswered"] >= (0 if wrong == "dies_half_way" else 1)
    assert report["wants"]["timeouts"] == 0
    assert program.log == ["close"]


@pytest.mark.parametrize("wrong", ["hangs", "hangs_half_way"])
def test_a_transport_that_hangs_costs_patience_once_and_is_never_called_again(program, wrong):
    lines, report = program.run(wrong)
    assert program.seconds < PATIENCE + 15
    assert len(lines) == 1
    assert f"no answer for {PATIENCE:g} s" in lines[0]
    assert report["wants"]["timeouts"] == 1
    assert report["wants"]["gave_up"]
    assert program.log == []  # not even closed


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 2), reason="starts no thread in an atexit function: cpython issue 113964"
)
def test_a_transport_that_hangs_while_it_is_closed_is_left_behind(program):
    lines, report = program.run("hangs_at_the_end")
    assert program.seconds < PATIENCE + 15
    assert len(lines) == 1
    assert "no answer for" in lines[0]
    assert report["wants"]["gave_up"] == ""


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("gives_texts", "a str instead of a Record"),
        ("cuts_content", "bytes of content, found"),
        ("names_with_slashes", "without '/'"),
        ("numbers_out_of_range", "gave what can't be right"),
        ("odd_types", "AttributeError"),
        ("copies_that_are_none", "/etc/passwd is no file of"),
    ],
)
def test_a_record_that_cant_be_right_is_refused_and_counted(program, wrong, said):
    lines, report = program.run(wrong)
    assert len(lines) == 1
    assert said in lines[0]
    assert report["wants"]["refused"] >= 1
    assert report["wants"]["gave_up"] == ""


def test_a_record_of_a_path_that_is_none_of_ours_is_refused(program):
    lines, report = program.run("other_paths")
    assert "must be normalised" in lines[0]
    assert report["wants"]["refused"] >= 2
    assert report["store"]["files"] == 0


def test_a_transport_that_keeps_silent_is_asked_once_for_each_path(program):
    lines, report = program.run("keeps_silent")
    assert lines == []
    assert report["wants"]["staged"] == 0
    assert report["wants"]["unanswered"] == report["wants"]["wanted"] < 40


def test_a_transport_that_uses_the_plain_spelling_doesnt_lock_itself_out(program, venv):
    lines, report = program.run("uses_the_original_itself", prefixes=venv.prefixes)
    assert lines == []
    assert report["wants"]["gave_up"] == ""


def test_patience_is_for_silence_and_not_for_slowness(program, tmp_path):
    manifest = str(tmp_path / "manifest")
    program.run(manifest=manifest, report=str(tmp_path / "first.json"))
    lines, report = program.run("slow_but_steady", manifest=manifest, report=str(tmp_path / "second.json"))
    assert lines == []
    assert program.seconds > 2 * PATIENCE
    assert report["manifest"]["wanted"] * 0.3 > PATIENCE
    assert report["wants"]["gave_up"] == ""


def test_an_input_output_error_of_the_reader_leaves_the_file_to_the_file_system(program):
    lines, report = program.run("input_output_error")
    assert len(lines) == 1
    assert "Input/output error" in lines[0]
    assert report["wants"]["failed"] >= 3
    assert report["staged"]["files"] == 0


def test_a_store_that_is_deleted_under_the_process_costs_only_time(program, venv):
    lines, report = program.run(
        transport='"local"',
        prefixes=venv.prefixes,
        between="""
        import subprocess, first
        text = open(first.__file__).read()
        subprocess.run(["rm", "-rf", session.store.path], check=True)
        assert open(first.__file__).read() == text
        """,
    )
    assert len(lines) == 1
    assert "some files stay on the original file system" in lines[0]
    assert report["staged"]["failed"] >= 1
    assert report["calls"]["open"]["fallback"] >= 1


@pytest.mark.parametrize("content", [b"\x00\xff" * 500, b"collfs manifest 999\nx\n", b"C 1 relative\n", None])
def test_a_manifest_that_is_garbage_is_done_without(program, tmp_path, content):
    manifest = tmp_path / "manifest"
    if content is None:
        manifest.mkdir()
    else:
        manifest.write_bytes(content)
    lines, report = program.run(transport='"local"', manifest=str(manifest))
    assert len(lines) == 1
    assert "manifest" in lines[0]
    assert report["manifest"]["wanted"] == 0
    assert report["staged"]["files"] >= 5


def test_a_report_that_cant_be_written_is_said_once(program, tmp_path):
    lines, report = program.run(transport='"local"', report=str(tmp_path / "absent" / "report.json"))
    assert report is None
    assert len(lines) == 1
    assert "the report can't be written" in lines[0]
