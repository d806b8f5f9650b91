"""Count the path operations of a process tree by strace: the unit in which collfs is judged.

A path operation is one system call with one path: stat, open, access, readlink, opendir, each reading of a directory,
and every change. Calls on a descriptor alone (read, fstat, also in its newfstatat(fd, "") form) are none.

Rules of the file: the parser is pure (text in, values out) and knows nothing of collfs. Threads count for their
process.
"""

from __future__ import annotations

import functools
import os
import posixpath
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from childproc import Result, run_command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from childproc import Arg

# The clones tell which thread belongs to which process.
STRACE = ("strace", "-f", "-y", "-qq", "-e", "trace=%file,getdents64,clone,clone3,fork,vfork")

_KINDS = {
    "open": ("open", "openat", "openat2", "creat"),
    "stat": ("stat", "lstat", "newfstatat", "statx", "stat64", "lstat64", "fstatat64"),
    "access": ("access", "faccessat", "faccessat2"),
    "readlink": ("readlink", "readlinkat"),
    "listing": ("getdents64",),
    "exec": ("execve", "execveat"),
    "change": (
        *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
        *("mkdir", "mkdirat", "mknod", "mknodat", "rmdir", "truncate", "truncate64", "chmod", "fchmodat"),
        *("fchmodat2", "chown", "lchown", "fchownat", "utime", "utimes", "utimensat", "futimesat"),
    ),
}
_KIND_OF = {call: kind for kind, calls in _KINDS.items() for call in calls}
_TWO_PATHS = ("rename", "renameat", "renameat2", "link", "linkat")
_TEXT_FIRST = ("symlink", "symlinkat")  # the first string is what the link says, not a path that is looked up
_NO_PATH = ("getcwd", "clone", "clone3", "fork", "vfork")
_CLONES = ("clone", "clone3", "fork", "vfork")

_LINE = re.compile(r"(\d+) +(.*)", re.DOTALL)
_RESUMED = re.compile(r"<\.\.\. \w+ resumed>")
_UNFINISHED = " <unfinished ...>"
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(?: (E[A-Z0-9]+))?", re.DOTALL)
_PATH_ARG = re.compile(r'(?:(AT_FDCWD|\d+)(?:<((?:[^>\\]|\\.)*)>)?, *)?"((?:[^"\\]|\\.)*)"')
_FD_ARG = re.compile(r"\d+<((?:[^>\\]|\\.)*)>")
_ESCAPE = re.compile(r"\\([0-7]{1,3}|x[0-9a-f]{2}|.)", re.DOTALL)
_LETTERS = {"n": 10, "t": 9, "r": 13, "v": 11, "f": 12}  # C escapes that strace writes; any other stands for itself


class Op(NamedTuple):
    """One path operation. ``kind``: open, write, opendir, stat, access, readlink, listing, exec, change or other."""

    process: int
    kind: str
    call: str
    path: str
    errno: str  # "" if it succeeded


class Counts(NamedTuple):
    """Path operations, and all processes that were seen (in the order of their first call), even those without any."""

    ops: tuple[Op, ...]
    processes: tuple[int, ...]

    def below(self, *prefixes: Arg) -> Counts:
        """Only the operations on one of *prefixes* (absolute, normalised) or on anything below it."""
        roots = tuple(os.fspath(p).rstrip("/") for p in prefixes)
        starts = tuple(r + "/" for r in roots)
        return self._replace(ops=tuple(o for o in self.ops if o.path in roots or o.path.startswith(starts)))

    @property
    def total(self) -> int:
        """How many operations."""
        return len(self.ops)

    def by_kind(self) -> dict[str, int]:
        """How many operations of each kind."""
        return dict(Counter(o.kind for o in self.ops))

    def by_process(self) -> dict[int, int]:
        """How many operations each process made; a process without any has 0."""
        counted = Counter(o.process for o in self.ops)
        return {p: counted[p] for p in self.processes}

    def openers(self) -> dict[str, set[int]]:
        """Who opened each file (not directory) with success."""
        found: dict[str, set[int]] = {}
        for o in self.ops:
            if o.kind in ("open", "write") and not o.errno:
                found.setdefault(o.path, set()).add(o.process)
        return found


@functools.cache
def why_not() -> str:
    """Why strace can't be used here, or "" if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run([*STRACE, "-o", os.devnull, "true"], capture_output=True, text=True, timeout=30, check=False)
    return "" if tried.returncode == 0 else f"strace does not work here: {tried.stderr.strip()[-200:]}"


def strace_counts(
    command: Sequence[Arg],
    prefixes: Sequence[Arg] = (),
    *,
    timeout: float = 120,
    env: Mapping[str, str | None] | None = None,
    cwd: Arg | None = None,
    check: bool = True,
) -> tuple[Result, Counts]:
    """Run *command* under strace and count what it and all its descendants did.

    :param prefixes: count only what is below these; none: everything
    :raises AssertionError: as :func:`childproc.run_command` does
    """
    with tempfile.TemporaryDirectory(prefix="stracecount-") as folder:
        log = os.path.join(folder, "log")
        result = run_command([*STRACE, "-o", log, *command], timeout=timeout, env=env, cwd=cwd, check=check)
        with open(log, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
            counts = parse(lines.read(), os.fspath(cwd) if cwd else os.getcwd())
    return result, counts.below(*prefixes) if prefixes else counts


def parse(text: str, cwd: str) -> Counts:
    """Read what ``strace -f -y -o`` wrote.

    :param cwd: base of relative paths where strace doesn't print it (AT_FDCWD is annotated since strace 6.0; the old
        calls without a directory argument never are)
    """
    calls = list(_calls(text))
    # Thread to the one that made it: known only when the clone has returned, so after calls of the new thread itself.
    process_of = {
        value: tid for tid, name, args, value, _ in calls if name in _CLONES and "CLONE_THREAD" in args and value > 0
    }

    def owner(tid: int) -> int:
        seen: set[int] = set()  # a number that the kernel has given twice must not lead us in circles
        while tid in process_of and tid not in seen:
            seen.add(tid)
            tid = process_of[tid]
        return tid

    ops = [
        Op(owner(tid), _kind(name, args), name, path, errno)
        for tid, name, args, _, errno in calls
        for path in _paths(name, args, cwd)
    ]
    return Counts(tuple(ops), tuple(dict.fromkeys(owner(call[0]) for call in calls)))


def _calls(text: str) -> Iterator[tuple[int, str, str, int, str]]:
    """Each complete call as (thread, name, arguments, value, errno name); halves are joined, signals are left out."""
    started: dict[int, str] = {}
    for line in text.split("\n"):
        match = _LINE.match(line)
        if match is None:
            continue
        tid, rest = int(match[1]), match[2]
        if rest.endswith(_UNFINISHED):
            started[tid] = rest[: -len(_UNFINISHED)]
            continue
        resumed = _RESUMED.match(rest)
        if resumed is not None:
            rest = started.pop(tid, "") + rest[resumed.end() :]
        call = _CALL.match(rest)
        if call is not None:
            value = -1 if call[3] == "?" else int(call[3])
            yield tid, call[1], call[2], value, call[4] or ""
    for tid, rest in started.items():  # killed inside the call: it was made, so it counts
        name, _, args = rest.partition("(")
        yield tid, name, args, -1, "?"


def _kind(name: str, args: str) -> str:
    kind = _KIND_OF.get(name, "other")
    if kind == "open":
        if "O_PATH" in args:  # nothing is opened: a way to ask for metadata
            return "stat"
        if "O_DIRECTORY" in args:
            return "opendir"
        if name == "creat" or any(flag in args for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC")):
            return "write"
    return kind


def _paths(name: str, args: str, cwd: str) -> Iterator[str]:
    if name in _NO_PATH:
        return
    if name == "getdents64":
        descriptor = _FD_ARG.match(args)
        if descriptor is not None:
            yield _absolute(_plain(descriptor[1]), cwd)
        return
    found = _PATH_ARG.findall(args)
    chosen = found[1:2] if name in _TEXT_FIRST else found[: 2 if name in _TWO_PATHS else 1]
    for _, base, quoted in chosen:
        if quoted:
            yield _absolute(_plain(quoted), _plain(base) or cwd)


def _absolute(path: str, base: str) -> str:
    # "//a" is the native spelling of "/a"; normpath would keep its two slashes, as POSIX allows.
    joined = posixpath.normpath(posixpath.join(base, path))
    return joined[1:] if joined.startswith("//") else joined


def _plain(quoted: str) -> str:
    """Undo the escapes; bytes that are no UTF-8 come out as :func:`os.fsdecode` gives them."""
    if "\\" not in quoted:
        return quoted
    out = bytearray()
    end = 0
    for match in _ESCAPE.finditer(quoted):
        out += os.fsencode(quoted[end : match.start()])
        code = match[1]
        if code[0] in "01234567":
            out.append(int(code, 8) & 0xFF)
        elif len(code) == 3:
            out.append(int(code[1:], 16))
        else:
            out += bytes([_LETTERS[code]]) if code in _LETTERS else os.fsencode(code)
        end = match.end()
    return os.fsdecode(bytes(out + os.fsencode(quoted[end:])))


def between(
    counts: Counts, pids: Sequence[int], prefixes: Sequence[str], begins: Callable[[str], bool], ends: str
) -> dict[int, list[tuple[str, str]]]:
    """By rank, what its process did below *prefixes* from a path that *begins* to the path *ends*: (call, path).

    :param pids: of the ranks, in their order
    """
    rank_of = {pid: rank for rank, pid in enumerate(pids)}
    live: set[int] = set()
    made: dict[int, list[tuple[str, str]]] = {rank: [] for rank in rank_of.values()}
    for op in counts.ops:
        rank = rank_of.get(op.process)
        if rank is None:
            continue
        if op.path == ends:
            live.discard(rank)
        elif begins(op.path):
            live.add(rank)
        elif rank in live and op.path.startswith(tuple(prefixes)):
            made[rank].append((op.call, op.path))
    return made
