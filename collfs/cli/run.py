"""``collfs run``: start a session, then run a program in this very process, exactly as ``python`` would.

What the interpreter does with a program is done again here, from CPython's Modules/main.c (pymain_run_python),
Python/pythonrun.c (pyrun_simple_file, _PyErr_PrintEx), Python/pathconfig.c (_PyPathConfig_ComputeSysPath0) and
Python/pylifecycle.c (add_main_module); they agree in these points from 3.9 to 3.13 unless a line here says otherwise.
How the program ends is left to the interpreter: every exception leaves through our frames, so that exit status, death
by SIGINT, threads and atexit come as always; only the traceback loses those frames before somebody shows it.

What stays different: a program that walks the stack to its end, or fills it, finds a few frames of ours at the bottom.

Rules of the file: all ranks load it, so nothing else is imported before the session is live; no name of ours holds on
to a name of the program; no exception is being handled while the program runs, or it would become its context.
"""

from __future__ import annotations

import builtins
import os
import sys

from collfs.errors import CollfsError, OptionError
from collfs.options import ROWS, unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType, TracebackType

STDIN = "-"
FILE_INPUT = 257  # Py_file_input, Include/compile.h
_ABSENT = object()
# The __main__ that we were started in. If a console script was it, pyrun_simple_file() still uses its dict, without a
# reference of its own (3.9), after an exception has gone through us.
_kept: list[object] = []


def main(words: Sequence[str]) -> int:
    """Run the program that *words*, the command line after ``run``, asks for.

    :returns: the exit status, if the program came to its end
    """
    try:
        keywords, rest = parse_flags(words)
        how, what, argv = _program(rest)
    except OptionError as exc:
        return _refuse(exc)
    if how == "--help":
        from collfs.cli.help import run_usage

        sys.stdout.write(run_usage())
        return 0
    # What the interpreter put in front of sys.path was for us (the working directory, or the folder of the command
    # `collfs`). It goes first, so that no module of ours comes from there.
    safe = _is_safe_path()
    if not safe:
        del sys.path[:1]
    from collfs.calls import initialize

    sys.argv[:] = argv
    path = _absolute(what) if not how else what
    # The program's own folder is one that the session may manage. But it comes last until the session is there: beside
    # a program may lie a struct.py that is none of ours.
    entries = sys.path[:]
    first = [] if safe else _first_entry(how, what)
    sys.path += first
    try:
        session = initialize(**keywords, program=f"{how} {what}" if how else path)  # type: ignore[arg-type]
        import ctypes  # noqa: F401  # for _run_source(); the session has loaded it already
    except CollfsError as exc:
        return _refuse(exc)
    sys.path[:] = first + entries
    try:
        return _as_python_does(how, path, safe)
    except BaseException as exc:
        transport = getattr(session, "transport", None)
        if transport is not None and not (isinstance(exc, SystemExit) and not exc.code):
            transport.abandon(exc)
        raise


def parse_flags(words: Sequence[str]) -> tuple[dict[str, object], list[str]]:
    """Read flags up to the first word that is none (what comes there is not looked at), or up to ``--``.

    >>> parse_flags(["--patience", "5", "--quiet", "job.py", "--quiet"])
    ({'patience': 5.0, 'quiet': True}, ['job.py', '--quiet'])

    :returns: keywords for :class:`~collfs.options.Options`, already checked, and the words that are left
    :raises OptionError: naming the flag that is unknown, lacks its value or has a wrong one
    """
    keywords: dict[str, object] = {}
    flags = {row.flag: row for row in ROWS if row.flag}
    at = 0
    while at < len(words) and words[at].startswith("--") and words[at] != "--help":
        word = words[at]
        at += 1
        if word == "--":
            break
        flag, equals, text = word.partition("=")
        row = flags.get(flag)
        if row is None:
            raise OptionError(unknown(f"flag {flag}", flag, list(flags)))
        if row.kind.by_itself and not equals:
            keywords[row.name] = True
            continue
        if not equals and at < len(words) and not words[at].startswith("--"):
            text = words[at]
            at += 1
        if not text:
            raise OptionError(f"flag {flag} needs a value. Give {row.kind.allowed}")
        keywords[row.name] = row.from_flag(text, keywords.get(row.name))
    return keywords, list(words[at:])


def _program(words: Sequence[str]) -> tuple[str, str, list[str]]:
    """What to run: how (``-m``, ``-c``, or nothing for a file), what, and its ``sys.argv`` to start with.

    :raises OptionError: no program is there
    """
    first = words[0] if words else ""
    if first in ("-h", "--help"):
        return "--help", "", []
    if first[:2] in ("-m", "-c"):
        how, rest = first[:2], list(words[1:])
        what = first[2:] or (rest.pop(0) if rest else "")
        if not what and len(words) == 1:
            raise OptionError(f"{how} needs {'the name of a module' if how == '-m' else 'a program text'} after it")
        return how, what, [how, *rest]
    if first.startswith("-") and first != STDIN:
        raise OptionError(f"unknown flag {first}. One of python itself goes in front: python {first} -m collfs run ...")
    if not first:
        raise OptionError("no program is given. Give script.py, -m module or -c code, then its arguments")
    if first == STDIN and os.isatty(0):
        raise OptionError("- reads the program from standard input, but that is a terminal")
    return "", first, list(words)


def _refuse(exc: CollfsError) -> int:
    more = " (see collfs run --help)" if isinstance(exc, OptionError) else ""
    sys.stderr.write(f"collfs run: {exc}{more}\n")
    return 2


# -- the surroundings of the program ----------------------------------------------------------------------------------


def _is_safe_path() -> bool:
    """Whether the interpreter was told (-P, -I, PYTHONSAFEPATH) to put nothing in front of sys.path."""
    if sys.version_info >= (3, 11):
        return sys.flags.safe_path
    return bool(sys.flags.isolated)


def _absolute(path: str) -> str:
    """As _Py_abspath(): nothing is normalised."""
    if path.startswith("/") or path == STDIN:
        return path
    try:
        return f"{os.getcwd()}/{path}"
    except OSError:
        return path


def _first_entry(how: str, what: str) -> list[str]:
    """What stands first in ``sys.path`` of a program."""
    if how == "-c" or what == STDIN:
        return [""]
    try:
        return [os.getcwd() if how == "-m" else os.path.dirname(os.path.realpath(what))]
    except OSError:  # there is no working directory: the interpreter leaves it out, too
        return []


def _fresh_main() -> dict[str, object]:
    """Put a new ``__main__`` where ours was, and return its names."""
    from _frozen_importlib import BuiltinImporter

    _kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = type(sys)("__main__")
    names = sys.modules["__main__"].__dict__
    if sys.version_info < (3, 14):
        names["__annotations__"] = {}
    names["__builtins__"] = builtins
    names["__loader__"] = BuiltinImporter
    return names


def _has_importer(path: str) -> bool:
    """Whether *path* is a directory or an archive that modules can come from: PyImport_GetImporter()."""
    if path in sys.path_importer_cache:
        return sys.path_importer_cache[path] is not None
    sys.path_importer_cache[path] = None
    for hook in sys.path_hooks:
        try:
            sys.path_importer_cache[path] = hook(path)
        except ImportError:
            continue
        return True
    return False


# -- running it -------------------------------------------------------------------------------------------------------


def _as_python_does(how: str, what: str, safe: bool) -> int:
    """Run the program; an exception leaves with a hook set that takes our frames off its traceback."""
    try:
        if how == "-m":
            return _run_module(what, True)
        if how == "-c":
            return _run_text(what)
        if what != STDIN and _has_importer(what):
            sys.path[: 0 if safe else 1] = [what]
            return _run_module("__main__", False)
        return _run_file(what)
    except SystemExit:
        raise
    except BaseException:
        _take_our_frames_off()
        raise


def _run_module(name: str, alter_argv: bool) -> int:
    sys.audit("cpython.run_module", name)
    import runpy

    _fresh_main()
    runpy._run_module_as_main(name, alter_argv)  # type: ignore[attr-defined]
    return 0


def _run_text(text: str) -> int:
    sys.audit("cpython.run_command", text)
    text += "\n"
    try:
        text.encode()
    except UnicodeEncodeError:
        sys.stderr.write("Unable to decode the command from the command line:\n")
        raise
    if sys.version_info >= (3, 13):  # tracebacks show the lines of the text (_PyRun_SimpleStringFlagsWithName)
        import linecache

        linecache.cache["<string>"] = (len(text), None, [line + "\n" for line in text.splitlines()], "<string>")
    exec(compile(text, "<string>", "exec", dont_inherit=True), _fresh_main())
    return 0


def _run_file(path: str) -> int:
    """Run a script or a compiled file."""
    sys.audit("cpython.run_file", path)
    from_stdin = path == STDIN
    try:
        descriptor = 0 if from_stdin else os.open(path, os.O_RDONLY)
    except OSError as exc:
        shown = repr(path) if sys.version_info >= (3, 10) else f"'{path}'"
        sys.stderr.write(f"{_interpreter()}: can't open file {shown}: [Errno {exc.errno}] {exc.strerror}\n")
        return 2
    from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader, SourcelessFileLoader

    try:
        start = os.pread(descriptor, 2, 0)
    except OSError:  # a pipe, as in `collfs run <(...)`: what is read from it is lost
        start = b""
    compiled = not from_stdin and (path.endswith(".pyc") or start == MAGIC_NUMBER[:2])
    path = "<stdin>" if from_stdin else path
    names = _fresh_main()
    names["__file__"] = path
    names["__cached__"] = None
    if not from_stdin:
        names["__loader__"] = (SourcelessFileLoader if compiled else SourceFileLoader)("__main__", path)
    if compiled:
        exec(_code_of_pyc(descriptor, MAGIC_NUMBER), names)
    else:
        _run_source(None if from_stdin else descriptor, path, names)
    _forget_file(names)
    return 0


def _code_of_pyc(descriptor: int, magic: bytes) -> CodeType:
    """As run_pyc_file(). PEP 552: 16 bytes come before the code."""
    import marshal

    with open(descriptor, "rb") as file:
        data = file.read()
    if data[:4] != magic:
        raise RuntimeError("Bad magic number in .pyc file")
    try:
        code = marshal.loads(memoryview(data)[16:])
    except (EOFError, ValueError, TypeError):
        code = None
    if not isinstance(code, type(_code_of_pyc.__code__)):
        raise RuntimeError("Bad code object in .pyc file")
    return code


def _run_source(descriptor: int | None, path: str, names: dict[str, object]) -> None:
    """By the interpreter's own reader of files: compile() finds other words, and other lines, for many errors."""
    import ctypes

    libc = ctypes.CDLL(None)
    if descriptor is None:
        file = ctypes.c_void_p.in_dll(libc, "stdin")
    else:
        libc.fdopen.restype = ctypes.c_void_p
        file = ctypes.c_void_p(libc.fdopen(descriptor, b"rb"))
    if not file.value:
        raise MemoryError
    # PyObject *PyRun_FileExFlags(FILE *fp, const char *filename, int start, PyObject *globals, PyObject *locals,
    #                             int closeit, PyCompilerFlags *flags), Include/pythonrun.h
    run = ctypes.pythonapi.PyRun_FileExFlags
    run.restype = ctypes.py_object
    a_dict = ctypes.py_object(names)
    run(file, ctypes.c_char_p(os.fsencode(path)), FILE_INPUT, a_dict, a_dict, int(descriptor is not None), None)


def _forget_file(names: dict[str, object]) -> None:
    """When a script has ended, its ``__file__`` goes before the functions of atexit run."""
    names.pop("__file__", None)
    names.pop("__cached__", None)


def _interpreter() -> str:
    """The interpreter as it was called."""
    if sys.version_info >= (3, 10):
        return sys.orig_argv[0]
    import ctypes

    name = ctypes.pythonapi.Py_GetProgramName
    name.restype = ctypes.c_wchar_p
    return str(name())


# -- the traceback ----------------------------------------------------------------------------------------------------


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """The part of *trace* that begins below our frames."""
    here = trace
    while here is not None and here.tb_frame.f_code is not _as_python_does.__code__:
        here = here.tb_next
    if here is None:
        return trace
    while here is not None and here.tb_frame.f_code.co_filename == _as_python_does.__code__.co_filename:
        here = here.tb_next
    return here


def _take_our_frames_off() -> None:
    """Stand before the current ``sys.excepthook``, for one call."""
    hook = sys.__dict__.get("excepthook", _ABSENT)

    def excepthook(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        if hook is _ABSENT:
            del sys.excepthook
        else:
            sys.excepthook = hook
        trace = value.__traceback__ = sys.last_traceback = _theirs(trace)
        _call_hook(hook, kind, value, trace)
        main = sys.modules.get("__main__")
        if main is not None and main.__spec__ is None:
            _forget_file(main.__dict__)

    sys.excepthook = excepthook


def _call_hook(
    hook: Callable[..., object] | object, kind: type[BaseException], value: BaseException, trace: TracebackType | None
) -> None:
    """As _PyErr_PrintEx() does, whatever the hook is."""
    if hook is _ABSENT:
        sys.stderr.write("sys.excepthook is missing\n")
        sys.__excepthook__(kind, value, trace)
        return
    try:
        hook(kind, value, trace)  # type: ignore[operator]
    except SystemExit:
        raise
    except BaseException as exc:
        exc.__traceback__ = exc.__traceback__ and exc.__traceback__.tb_next
        sys.stderr.write("Error in sys.excepthook:\n")
        sys.__excepthook__(type(exc), exc, exc.__traceback__)
        sys.stderr.write("\nOriginal exception was:\n")
        sys.__excepthook__(kind, value, trace)
