"""``collfs run`` shows a program nothing that ``python`` wouldn't: the same output, status and signal, to the byte.

Each program runs three times: by python, by ``python -m collfs run`` and by a console script as pip writes it. The
session is replaced, so that only the runner is under test: these tests say nothing about redirected files.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from typing import NamedTuple

import pytest

import childproc
from runner import launchers, write


class Case(NamedTuple):
    name: str
    words: list[str]  # the command line after `python`, or after `collfs run`
    files: dict[str, str | bytes] = {}  # noqa: RUF012 - nobody changes it
    flags: list[str] = []  # noqa: RUF012
    stdin: str | None = None
    status: int = 0
    oldest: tuple[int, int] = (3, 9)


def script(name: str, text: str | bytes, *arguments: str, **more: object) -> Case:
    return Case(name, ["prog.py", *arguments], {"prog.py": text}, **more)  # type: ignore[arg-type]


SHOW = """
import sys
print(sys.argv, sys.path[:2])
print({k: v for k, v in globals().items() if k not in ("__loader__", "__spec__")})
print(__loader__ if isinstance(__loader__, type) else type(__loader__))
print(__spec__ and (__spec__.name, __spec__.origin, __spec__.parent))
print(sys.modules["__main__"].__dict__ is globals(), __name__ == "__main__")
"""
RAISE = """
def inner():
    raise ValueError("wrong")
inner()
"""
POOL = """
import multiprocessing, pickle
from dataclasses import dataclass
@dataclass
class Point:
    x: int
def double(point):
    return Point(2 * point.x)
if __name__ == "__main__":
    print(pickle.loads(pickle.dumps(Point(1))), Point.__module__)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(double, [Point(1), Point(2)]))
else:
    assert __name__ == "__mp_main__", __name__
"""
ENDING = """
import atexit, sys, threading
class Noisy:
    def __del__(self): print("deleted")
noisy = Noisy()
program_file = lambda: "__file__" in sys.modules["__main__"].__dict__
atexit.register(lambda: print("first", program_file()))
atexit.register(lambda: print("second", hasattr(sys, "last_type"), sys.excepthook is sys.__excepthook__))
def outlive():
    threading.main_thread().join()
    print("thread ends")
threading.Thread(target=outlive).start()
print("main ends", program_file())
"""
HOOK = (
    """
import sys, traceback
def hook(kind, value, trace):
    print("hook", kind, value, [f.name for f in traceback.extract_tb(trace)], value.__traceback__ is trace,
          sys.last_traceback is trace, sys.last_value is value, sys.excepthook is hook)
    {}
sys.excepthook = hook
"""
    + RAISE
)
CHAIN = """
def low():
    return {}["key"]
def high():
    try:
        low()
    except KeyError as exc:
        raise RuntimeError("cause") from exc
try:
    high()
except RuntimeError:
    import helper
    helper.fail()
"""
PACKAGE: dict[str, str | bytes] = {
    "pack/__init__.py": "import sys; print('package', sys.argv[0])",
    "pack/__main__.py": SHOW + "from . import other\n",
    "pack/other.py": "print(__name__, __package__)",
    "empty/__init__.py": "",
    "bad/__init__.py": "1/0",
}

CASES = [
    script("a script, its names and arguments", SHOW, "a", "--quiet", "-m", "--", "x"),
    Case("a script by a relative path", ["./sub/../sub/prog.py"], {"sub/prog.py": SHOW}),
    Case("a script by way of a link", ["link.py"], {"link.py": b"->sub/prog.py", "sub/prog.py": SHOW}),
    Case(
        "modules beside the script", ["sub/prog.py"], {"sub/prog.py": "import near", "sub/near.py": "print(__file__)"}
    ),
    Case("no modules from where we stand", ["sub/prog.py"], {"sub/prog.py": "import far", "far.py": ""}, status=1),
    Case("-m module", ["-m", "prog", "a", "-c"], {"prog.py": SHOW}),
    Case("-m joined to its module", ["-mprog", "-m"], {"prog.py": SHOW}),
    Case("-m package", ["-m", "pack", "a"], PACKAGE),
    Case("-m module in a package", ["-m", "pack.other"], PACKAGE),
    Case("-m package that can't run", ["-m", "empty"], PACKAGE, status=1),
    Case("-m package that fails", ["-m", "bad.other"], PACKAGE, status=1),
    Case("-m missing", ["-m", "nothing_of_that_name"], status=1),
    Case("-m with .py", ["-m", "prog.py"], {"prog.py": SHOW}, status=1),
    Case("-m raising", ["-m", "prog"], {"prog.py": RAISE}, status=1),
    Case("-m ending with a status", ["-m", "prog"], {"prog.py": "import sys; sys.exit(5)"}, status=5),
    Case("-m KeyboardInterrupt", ["-m", "prog"], {"prog.py": "raise KeyboardInterrupt"}, status=-signal.SIGINT),
    Case("-m pytest", ["-m", "pytest", "--version"]),
    Case("-m json.tool", ["-m", "json.tool"], stdin='{"a": [1, 2]}'),
    Case("-c code", ["-c", SHOW, "a", "-m", "b"]),
    Case("-c joined to its code", ["-cprint(1)"]),
    Case("-c nothing", ["-c", ""]),
    Case("-c evaluates annotations", ["-c", "def f(x: unknown): pass"], status=1),
    Case("-c raising", ["-c", RAISE], status=1),
    Case("-c that is no Python", ["-c", "x = (\n"], status=1),
    Case("-c KeyboardInterrupt", ["-c", "raise KeyboardInterrupt"], status=-signal.SIGINT),
    Case("-c imports from here", ["-c", "import near"], {"near.py": "print(__file__)"}),
    Case("a directory", ["sub", "a"], {"sub/__main__.py": SHOW + RAISE, "sub/near.py": ""}, status=1),
    Case("a directory without __main__", ["sub"], {"sub/near.py": ""}, status=1),
    Case("an archive", ["prog.zip", "a"], {"prog.zip": SHOW + RAISE}, status=1),
    Case("compiled", ["prog.pyc", "a"], {"prog.pyc": SHOW + RAISE}, status=1),
    Case("compiled, KeyboardInterrupt", ["prog.pyc"], {"prog.pyc": "raise KeyboardInterrupt"}, status=-signal.SIGINT),
    Case("compiled by another", ["old.pyc"], {"old.pyc": b"\0\0\r\n" + bytes(40)}, status=1),
    Case("a missing file", ["it's not there.py"], status=2),
    Case("a missing file in a missing folder", ["/nowhere/at/all.py", "a"], status=2),
    Case("the program from standard input", ["-", "a"], stdin=SHOW + RAISE, status=1),
    Case("the program from a pipe by name", ["/dev/stdin"], stdin="print(__file__)"),
    script("reading standard input", "print(input('? ')); import sys; print(sys.stdin.read())", stdin="one\ntwo\n"),
    script("a syntax error", "x = 1\nprint('x' is 1)\ndef f(:\n", status=1),
    script("a syntax error that the compiler finds", "x = 1\nprint('x' is 1)\nreturn 1\n", status=1),
    script("an indentation error", "if 1:\n\tx = 1\n        y = 2\n", status=1),
    script("a block that is missing", "if 1:\n", status=1),
    script("an end too early", "f(1,\n", status=1),
    script("a string without end", 'x = """abc\n\n', status=1),
    script("bytes of another encoding", b"x = 1\ny = '\xe4'\n", status=1),
    script("an encoding that is declared", b"# coding: latin-1\nx = '\xe4'\nprint(ascii(x))\n1/0  # \xe4\n", status=1),
    script("an encoding that is unknown", "# coding: nonsense\n", status=1),
    script("a byte order mark", b"\xef\xbb\xbfprint('\xc3\xa4' == '\\xe4')\n"),
    script("a bad escape", 'x = "\\U1234"\n', status=1),
    script("annotations are evaluated", "def f(x: unknown): pass\n", status=1),
    script("an exception", RAISE, status=1),
    Case("chained exceptions", ["prog.py"], {"prog.py": CHAIN, "helper.py": "def fail(): 1/0\n"}, status=1),
    script("a raised cause", "raise KeyError(1) from ValueError(2)", status=1),
    script("an exception group", "raise ExceptionGroup('g', [ValueError(1), KeyError(2)])", oldest=(3, 11), status=1),
    script("notes", "e = ValueError(1)\ne.add_note('note')\nraise e", oldest=(3, 11), status=1),
    script(
        "print_exc and print_stack of functions", "import traceback\ntry: 1/0\nexcept Exception: traceback.print_exc()"
    ),
    script("sys.exit(number)", "import sys; sys.exit(3)", status=3),
    script("sys.exit()", "import sys; sys.exit()"),
    script("sys.exit(text)", "import sys; sys.exit('so it ends')", status=1),
    script("sys.exit(large number)", "import sys; sys.exit(256 + 7)", status=7),
    script("sys.exit(object)", "import sys; sys.exit((1, 2))", status=1),
    script("os._exit", "import os; print(1, flush=True); os._exit(9)", status=9),
    script("SIGTERM", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)", status=-signal.SIGTERM),
    script("KeyboardInterrupt", ENDING + "raise KeyboardInterrupt", status=-signal.SIGINT),
    script("an exception in a thread", "import threading\nthreading.Thread(target=lambda: 1/0, name='t').start()"),
    script("threads, atexit and deletions at the end", ENDING),
    script("the same after sys.exit", ENDING + "sys.exit(4)", status=4),
    script("the same after an exception", ENDING + RAISE, status=1),
    script("a hook for exceptions", HOOK.format("sys.__excepthook__(kind, value, trace)"), status=1),
    script("a hook that fails", HOOK.format("1/0"), status=1),
    script("a hook that exits", HOOK.format("sys.exit(6)"), status=6),
    script("no hook", "import sys\ndel sys.excepthook\n" + RAISE, status=1),
    script("a hook that is no function", "import sys\nsys.excepthook = None\n" + RAISE, status=1),
    script(
        "last_traceback seen by atexit",
        "import atexit, sys, traceback\natexit.register(lambda: traceback.print_tb(sys.last_traceback))\n" + RAISE,
        status=1,
    ),
    script("a warning", "import warnings\nwarnings.warn('careful')\n"),
    script("a warning of the compiler", "print('x' is 'y')\n"),
    script("warnings as errors", "import warnings\nwarnings.warn('careful')\n", flags=["-W", "error"], status=1),
    script("-O", "assert 0\nprint(__debug__)", flags=["-O"]),
    script("-X utf8", "import sys; print(sys.flags.utf8_mode, ascii(open(__file__).encoding))", flags=["-X", "utf8"]),
    script("-X dev", "open(__file__)\nprint(1)", flags=["-X", "dev"]),
    script("-bb", "print(1)", flags=["-bb"]),
    Case("-P script", ["sub/prog.py"], {"sub/prog.py": SHOW}, flags=["-P"], oldest=(3, 11)),
    Case("-P -m", ["-m", "json.tool"], stdin="[1]", flags=["-P"], oldest=(3, 11)),
    Case("-P directory", ["sub"], {"sub/__main__.py": SHOW}, flags=["-P"], oldest=(3, 11)),
    script("pickles and spawned processes", POOL),
    Case("spawned processes of -m", ["-m", "prog"], {"prog.py": POOL}),
    script("a fork that fails", "import os\nif not os.fork(): 1/0\nprint(os.waitstatus_to_exitcode(os.wait()[1]))"),
    script("inspect finds the source", "import inspect\ndef f(): pass\nprint(inspect.getsource(f))"),
    script("exec of another program", "import os, sys\nos.execv(sys.executable, [sys.executable, '-c', 'print(7)'])"),
    script("output that can't be written", "import os\nprint(1)\nos.close(1)", status=120),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_as_python_does(case, stub, env, tmp_path, run_python):
    if sys.version_info < case.oldest:
        pytest.skip(f"only from Python {case.oldest[0]}.{case.oldest[1]}")
    write(tmp_path, case.files)
    outcome = {}
    for name, launcher in {"python": [], **launchers(stub)}.items():
        words = [*case.flags, *launcher, *case.words]
        outcome[name] = run_python(words, env=env, cwd=tmp_path, stdin=case.stdin, check=False)
    plain = outcome.pop("python")
    assert plain.rc == case.status, plain.describe()
    for result in outcome.values():
        assert result.stdout == plain.stdout, result.describe()
        assert result.stderr == plain.stderr, result.describe()
        assert result.rc == plain.rc, result.describe()


INTERRUPTED = """
import atexit, signal, time
atexit.register(print, "atexit")
def wait():
    # Held back until it is there, so that it always strikes in the same line.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have it ignored
    print("ready", flush=True)
    end = time.monotonic() + 50
    while signal.SIGINT not in signal.sigpending() and time.monotonic() < end:
        time.sleep(0.005)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    print("nothing came")
try:
    wait()
finally:
    print("finally")
"""


@pytest.mark.parametrize("kind", ["script", "module", "code"])
def test_ctrl_c_ends_it_as_it_ends_python(kind, stub, env, tmp_path):
    (tmp_path / "prog.py").write_text(INTERRUPTED)
    words = {"script": ["prog.py"], "module": ["-m", "prog"], "code": ["-c", INTERRUPTED]}[kind]
    outcome = []
    for launcher in ([], *launchers(stub).values()):
        child = subprocess.Popen(
            [sys.executable, *launcher, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=childproc.clean_env(env),
            cwd=tmp_path,
        )
        assert child.stdout is not None
        with child:
            try:
                assert select.select([child.stdout], [], [], 30)[0], "no ready line in 30 s"
                ready = os.read(child.stdout.fileno(), 6)
                child.send_signal(signal.SIGINT)
                out, err = child.communicate(timeout=30)
            finally:
                child.kill()
        outcome.append((ready, out, err, child.returncode))
    assert outcome[0][0] == b"ready\n"
    assert outcome[0][1] == b"finally\natexit\n"
    assert outcome[0][2].endswith(b"KeyboardInterrupt\n")
    assert outcome[0][3] == -signal.SIGINT
    assert outcome[1:] == outcome[:1] * 2
