"""What the user leaves out, or what doesn't fit, is read natively, counted, and said once."""

from __future__ import annotations

import json
import os
import textwrap

import pytest

TELL = """
import json
from collfs.interpose.machine.layout import K_FILE
copied = [path for path, entry in session.store.table if entry.word & 255 == K_FILE]
staged = sorted(os.path.basename(path) for path in copied if "/site-packages/" in path)
print(json.dumps({"staged": staged, "stats": collfs.stats()}))
"""


@pytest.fixture
def read(venv, job):
    """Read all files of a small package under collfs; what was staged, the statistics and our lines on stderr."""
    for name, size in {"small": 100, "middle": 1000, "large": 20_000, "tests/one": 300, "deep/tests/two": 300}.items():
        path = venv.packages / "package" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))

    def run(**options):
        code = venv.start(job, prefixes=[str(venv.venv)], **options) + textwrap.dedent(
            f"""
            import os
            for _ in range(2):
                for folder, _, names in os.walk({str(venv.packages / "package")!r}):
                    for name in names:
                        with open(os.path.join(folder, name), "rb") as file:
                            assert len(file.read()) == os.path.getsize(os.path.join(folder, name))
            """
        )
        result = venv.run(code + TELL)
        told = json.loads(result.stdout)
        return told["staged"], told["stats"], [line for line in result.stderr.splitlines() if "collfs" in line]

    return run


def test_without_limits_everything_is_staged(read):
    staged, stats, lines = read()
    assert staged == ["large.txt", "middle.txt", "one.txt", "small.txt", "two.txt"]
    assert stats["staged"]["bytes"] == 100 + 1000 + 20_000 + 300 + 300
    assert lines == []


def test_excluded_paths_are_never_asked_for(read):
    staged, stats, lines = read(exclude=["*/tests/*"])
    assert staged == ["large.txt", "middle.txt", "small.txt"]
    assert stats["wants"]["unanswered"] == 0
    assert stats["calls"]["open"]["native"] >= 2
    assert not [path for path, _ in stats["store"]["misses"] if path.endswith("small.txt")]
    assert lines == []


def test_an_excluded_tree_is_listed_natively(read):
    staged, stats, _ = read(exclude=["*/deep", "*/deep/*"])
    assert "two.txt" not in staged
    assert stats["calls"]["opendir"]["native"] >= 1


def test_larger_files_than_max_file_bytes_stay_where_they_are(read):
    staged, stats, lines = read(max_file_bytes=1000)
    assert staged == ["middle.txt", "one.txt", "small.txt", "two.txt"]
    assert stats["read"]["skipped"] == 1
    assert stats["wants"]["unanswered"] == 1
    assert stats["calls"]["open"]["native"] == 2
    assert lines == []


def test_more_than_max_store_bytes_stays_where_it_is_and_is_said_once(read):
    staged, stats, lines = read(max_store_bytes=1800, max_file_bytes=10**6)
    assert "large.txt" not in staged
    assert len(staged) == 4
    assert stats["staged"]["over_limit"] == 1
    assert stats["store"]["bytes"] <= 1800
    assert len(lines) == 1
    assert "over max_store_bytes (1800)" in lines[0]
    assert stats["warnings"] == [lines[0].replace("collfs: ", "", 1)]


def test_a_limit_of_nothing_stages_nothing(read):
    staged, stats, lines = read(max_store_bytes=0)
    assert staged == []
    assert stats["staged"]["over_limit"] == 5
    assert len(lines) == 1


@pytest.mark.parametrize("quiet", [False, True])
def test_with_nothing_to_manage_one_line_says_so_and_what_to_do(venv, quiet):
    start = f"import collfs\nsession = collfs.initialize('local', prefixes=[], quiet={quiet})\n"
    result = venv.run(start + "print(session.idle)\ncollfs.finalize()")
    assert result.stdout == "no directory to manage\n"
    lines = result.stderr.splitlines()
    assert len(lines) == (0 if quiet else 1)
    if lines:
        assert "nothing to do" in lines[0]
        assert "--prefix DIR, COLLFS_PREFIXES=DIR or prefixes=[DIR]" in lines[0]


def test_automatic_prefixes_are_those_on_a_shared_file_system(venv, job):
    """With a network file system that is one by name only."""
    venv.module("here", "x = 1")
    code = textwrap.dedent(
        f"""
        import sys
        import collfs.prefixes
        collfs.prefixes.automatic.__defaults__ = (lambda path: "nfs" if path.startswith({str(venv.venv)!r}) else "",)
        collfs.prefixes._excluded = lambda environ: []
        session = collfs.initialize("local", manifest="none", job={job!r})
        assert not session.idle, session.idle
        import here, os
        stats = collfs.stats()
        print(session.prefixes, stats["calls"]["stat"]["redirected"] > 1, session.prefix_reasons[sys.base_prefix])
        """
    )
    assert venv.run("import collfs\n" + code).stdout == f"[{str(venv.venv)!r}] True on a local file system\n"


@pytest.mark.parametrize("prefix", ["/proc/self", "/", "/no/such/directory"])
def test_a_prefix_that_cant_be_is_an_error_that_names_it(venv, prefix):
    result = venv.run(f"import collfs\ncollfs.initialize('local', prefixes=[{prefix!r}])", check=False)
    assert result.rc == 1
    assert "OptionError: prefixes: " in result.stderr
    assert repr(prefix) in result.stderr
