"""Run a child process that may crash, hang or be killed, and say in plain words how it ended.

Everything that patches memory runs in such a child, so that a crash fails one test and not the whole run.

Rules of the file: a child gets a clean environment, a process group of its own and a time limit; on timeout that group
is killed and nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Union

    Arg = Union[str, "os.PathLike[str]"]

# What would make a child behave differently from one machine to the next. PYTHONPATH stays: a checkout needs it.
_DROPPED = ("PYTHON", "COLLFS_", "LD_PRELOAD", "LD_AUDIT", "LD_DEBUG", "COV_CORE_")
_KEPT = ("PYTHONPATH", "PYTHONPYCACHEPREFIX")
_SHOWN = 6000  # characters of each stream in a failure message: a faulthandler dump of a few threads fits


class Result(NamedTuple):
    """How a child ended. ``rc`` is as in :mod:`subprocess`; ``signal_name`` is "" unless a signal ended it."""

    args: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str
    signal_name: str

    def describe(self) -> str:
        """For assertion messages: what was run, how it ended, what it said."""
        end = f"died by {self.signal_name}" if self.signal_name else f"ended with exit status {self.rc}"
        return f"{_words(self.args)}\n{end}\n{_streams(self.stdout, self.stderr)}"


def clean_env(extra: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """The environment for a child: ours, less what configures Python, the dynamic linker or collfs, plus *extra*.

    :param extra: variables to set; None removes one
    """
    env = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_DROPPED)}
    env["PYTHONFAULTHANDLER"] = "1"
    for name, value in (extra or {}).items():
        if value is None:
            env.pop(name, None)
        else:
            env[name] = value
    return env


def run_command(
    args: Sequence[Arg],
    *,
    timeout: float = 60,
    env: Mapping[str, str | None] | None = None,
    cwd: Arg | None = None,
    stdin: str | None = None,
    check: bool = True,
) -> Result:
    """Run a program to its end.

    :param timeout: seconds; then the process group of the child is killed
    :param env: changes to :func:`clean_env`
    :param stdin: text for its standard input; None: empty
    :param check: whether any end but exit status 0 is a failure
    :raises AssertionError: on timeout, or with *check*; the message holds everything known, a signal by name
    """
    __tracebackhide__ = True  # a failure shows the test and what the child said
    words = tuple(os.fspath(a) for a in args)
    child = subprocess.Popen(
        words,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_env(env),
        cwd=cwd,
        encoding="utf-8",
        errors="backslashreplace",
        start_new_session=True,
    )
    with child:
        try:
            out, err = child.communicate(stdin, timeout)
        except BaseException as exc:  # KeyboardInterrupt too: the child sits in another group and wouldn't get it
            os.killpg(child.pid, signal.SIGKILL)  # still our child and not yet reaped: the number can't be another's
            out, err = child.communicate()
            if not isinstance(exc, subprocess.TimeoutExpired):
                raise
            raise AssertionError(
                f"{_words(words)}\nwas killed: not finished after {timeout} s\n{_streams(out, err)}"
            ) from None
    result = Result(words, child.returncode, out, err, _signal_name(child.returncode))
    if check and result.rc != 0:
        raise AssertionError(result.describe())
    return result


def run_python(
    code_or_args: str | Sequence[Arg],
    *,
    timeout: float = 60,
    env: Mapping[str, str | None] | None = None,
    python: Arg = sys.executable,
    check: bool = True,
    cwd: Arg | None = None,
    stdin: str | None = None,
) -> Result:
    """Run *python* with program text (a str, for ``-c``) or a list of arguments. Otherwise as :func:`run_command`."""
    __tracebackhide__ = True
    args = ["-c", code_or_args] if isinstance(code_or_args, str) else list(code_or_args)
    return run_command([python, *args], timeout=timeout, env=env, cwd=cwd, stdin=stdin, check=check)


def _signal_name(rc: int) -> str:
    if rc >= 0:
        return ""
    try:
        return signal.Signals(-rc).name
    except ValueError:  # a real-time signal between SIGRTMIN and SIGRTMAX has no name
        return f"signal {-rc}"


def _words(args: Sequence[str]) -> str:
    return " ".join(a if a and not any(c.isspace() for c in a) else repr(a) for a in args)


def _streams(out: str, err: str) -> str:
    return "".join(f"--- {name} ---\n{text[-_SHOWN:]}\n" for name, text in (("stdout", out), ("stderr", err)) if text)
