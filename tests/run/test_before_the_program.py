"""What ``collfs run`` does before the program, and the other words after ``collfs``."""

from __future__ import annotations

import json

import pytest

from runner import launchers, write

# -- what comes before the program ------------------------------------------------------------------------------------


def spied(run_python, stub, env, tmp_path, words, **more):
    """What the session saw, for each way to start."""
    seen = []
    for launcher in launchers(stub).values():
        spy = tmp_path / "spy.json"
        result = run_python([*launcher, *words], env={**env, "SPY": str(spy), **more}, cwd=tmp_path)
        seen.append((json.loads(spy.read_text()), result))
        spy.unlink()
    assert seen[0][0] == seen[1][0]
    return seen[0]


def test_the_session_gets_the_options_and_sees_the_surroundings_of_the_program(stub, env, tmp_path, run_python):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "prog.py").write_text("program = 1\nprint('ran')")
    words = ["--store", "s", "--prefix=/a", "--prefix", "/b", "--quiet", "sub/prog.py", "--store", "x"]
    seen, result = spied(run_python, stub, env, tmp_path, words)
    assert seen["options"] == {
        "store": str(tmp_path / "s"),
        "prefixes": ["/a", "/b"],
        "quiet": True,
        "program": str(tmp_path / "sub/prog.py"),
    }
    assert seen["argv"] == ["sub/prog.py", "--store", "x"]
    assert seen["last"] == str(tmp_path / "sub")
    assert not seen["code"]
    assert result.stdout == "ran\n"


@pytest.mark.parametrize(
    ("words", "program", "argv", "first"),
    [
        (["-m", "mine", "a"], "-m mine", ["-m", "a"], "."),
        (["--", "-c", "1", "a"], "-c 1", ["-c", "a"], ""),
    ],
)
def test_the_session_sees_module_and_code(words, program, argv, first, stub, env, tmp_path, run_python):
    (tmp_path / "mine.py").write_text("")
    seen, _ = spied(run_python, stub, env, tmp_path, words)
    assert seen["options"] == {"program": program}
    assert seen["argv"] == argv
    assert seen["last"] == (str(tmp_path) if first else "")


def test_the_session_comes_before_the_program_is_looked_at(stub, env, tmp_path, run_python):
    spy = tmp_path / "spy.json"
    result = run_python(["-m", "collfs", "run", "missing.py"], env={**env, "SPY": str(spy)}, cwd=tmp_path, check=False)
    seen = json.loads(spy.read_text())
    assert result.rc == 2
    assert seen["options"] == {"program": str(tmp_path / "missing.py")}


def test_modules_of_ours_never_come_from_the_program_or_from_where_we_stand(stub, env, tmp_path, run_python):
    names = ("ctypes", "json", "struct", "runpy", "options")
    write(tmp_path, {f"{folder}/{name}.py": "print('mine')" for name in names for folder in ("here", "sub")})
    write(tmp_path, {"sub/prog.py": "import options, sys; print(sys.path[0] == sys.path[-1])"})
    here = tmp_path / "here"
    (here / "runpy.py").unlink()  # with -m, python itself takes that one
    for launcher in launchers(stub).values():
        result = run_python([*launcher, "../sub/prog.py"], env=env, cwd=here)
        assert result.stdout == "mine\nFalse\n", result.describe()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--patience", "-1", "prog.py"], "--patience '-1'"),
        (["--patienc", "1", "prog.py"], "Did you mean --patience?"),
        (["--store"], "--store needs a value"),
        ([], "no program is given"),
        ([""], "no program is given"),
        (["-m"], "-m needs the name of a module"),
        (["-c"], "-c needs a program text"),
        (["-u", "prog.py"], "python -u -m collfs run"),
    ],
)
def test_a_bad_command_line_is_refused_before_anything_starts(words, message, env, tmp_path, run_python):
    spy = tmp_path / "spy.json"
    result = run_python(["-m", "collfs", "run", *words], env={**env, "SPY": str(spy)}, cwd=tmp_path, check=False)
    assert result.rc == 2
    assert result.stderr.startswith("collfs run: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not spy.exists()


@pytest.mark.parametrize("error", ["OptionError", "TransportUnavailable", "StateError"])
def test_an_error_of_the_session_ends_it_with_a_message(error, env, tmp_path, run_python):
    (tmp_path / "prog.py").write_text("print('ran')")
    result = run_python(["-m", "collfs", "run", "prog.py"], env={**env, "FAIL": error}, cwd=tmp_path, check=False)
    assert result.rc == 2
    assert result.stdout == ""
    assert result.stderr.startswith("collfs run: the reason")
    assert "Traceback" not in result.stderr


def test_nothing_heavy_is_loaded_before_the_session(env, tmp_path, run_python):
    code = """
import sys
sys.modules["collfs.calls"].initialize = lambda **options: print(sorted(set(sys.modules) - before))
import runpy
import collfs
before = set(sys.modules)
from collfs.cli import main
main(["run", "--patience", "3", "prog.py"])
"""
    (tmp_path / "prog.py").write_text("")
    result = run_python(code, env=env, cwd=tmp_path)
    names = ["__future__", "collfs.cli", "collfs.cli.run", "collfs.errors", "collfs.option_kinds", "collfs.options"]
    assert set(json.loads(result.stdout.replace("'", '"'))) <= set(names)


# -- the other words after `collfs` -----------------------------------------------------------------------------------


def test_help_and_version(env, tmp_path, run_python):
    overview = run_python(["-m", "collfs", "--help"], env=env, cwd=tmp_path)
    assert "run " in overview.stdout
    assert "check " in overview.stdout
    for word in ("--help", "-h"):
        usage = run_python(["-m", "collfs", "run", word, "prog.py"], env=env, cwd=tmp_path)
        assert usage.stdout.startswith("usage: collfs run ")
    version = run_python(["-m", "collfs", "--version"], env=env, cwd=tmp_path)
    assert version.stdout.startswith("collfs")
    assert overview.stderr == usage.stderr == version.stderr == ""


@pytest.mark.parametrize(("words", "message"), [(["ran"], "unknown command 'ran'"), ([], "a command is missing")])
def test_an_unknown_command_is_refused(words, message, env, tmp_path, run_python):
    result = run_python(["-m", "collfs", *words], env=env, cwd=tmp_path, check=False)
    assert result.rc == 2
    assert result.stdout == ""
    assert result.stderr == f"collfs: {message}. Commands: run, check, serve, stop, secret, stub. Try: collfs --help\n"
