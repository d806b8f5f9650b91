"""The manifest: which paths earlier runs of this program wanted.

The root keeps one per program, reads it at the start and so stages in bulk what it would otherwise be asked for one by
one. It is a hint about *which* paths and never about content: content is always read fresh, and a wrong line costs one
useless want.

A text file in UTF-8, one path and aspect per line, in the order in which the last run wanted them::

    collfs-manifest 1
    N 0 /sw/lib/python3.11
    A 0 /sw/lib/python3.11/pkg/__init__.abi3.so
    C 3 /sw/lib/python3.11/caf%E9.py

The letter is the aspect (:data:`LETTERS`), the number says how many runs have passed since it was last used. In the
path, control characters, '%' and bytes that are not UTF-8 are written as %XX.

Rules of the file: a manifest that isn't exactly what :meth:`Manifest.save` writes is refused as a whole, with
ManifestError; what it takes to read one is bounded; the root imports this before its hooks are live, so it imports only
modules that every Python has loaded already.
"""

from __future__ import annotations

import io
import os
import stat
import sys

from collfs.errors import ManifestError

from . import CONTENT, LIST, META, NAMES, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ABSENT = "absent"  #: an aspect that only manifests have: was looked for, and nothing was there

LETTERS = {META: "M", LIST: "L", NAMES: "N", CONTENT: "C", ABSENT: "A"}
ASPECT_OF = {letter.encode(): aspect for aspect, letter in LETTERS.items()}

FIRST_LINE = b"collfs-manifest 1\n"
MAX_RUNS = 8  #: unused for so many runs, an entry is dropped; one digit in the file
RUNS_OF = {b"%d" % runs: runs for runs in range(MAX_RUNS)}

# A start of numpy, scipy and pandas makes some 5,000 lines and 0.5 MB: the limits only keep accidents out.
MAX_BYTES = 64 << 20
MAX_LINES = 4_000_000
PATH_MAX = 4096  #: include/uapi/linux/limits.h


class Manifest:
    """Wanted paths and what was wanted of them."""

    __slots__ = ("entries",)

    #: path -> {aspect: runs since it was last used}; in the order of use, paths with content in that of their content
    entries: dict[str, dict[str, int]]

    def __init__(self) -> None:
        self.entries = {}

    @classmethod
    def load(cls, path: str) -> Manifest:
        """Read the manifest file *path*; empty if there is none.

        :raises ManifestError: if it can't be read or is not a manifest
        """
        manifest = cls()
        try:
            data = _read(_native(path))
        except (FileNotFoundError, NotADirectoryError):
            return manifest
        except ManifestError as exc:
            raise ManifestError(f"manifest {path!r}: {exc}") from None
        except (OSError, ValueError) as exc:  # ValueError: NUL in the path, or not encodable
            raise ManifestError(f"manifest {path!r} can't be read: {exc}") from exc
        entries = manifest.entries
        for number, line in enumerate(_lines(data), 2):
            parsed = _parse(line)
            if parsed is None or parsed[1] in entries.get(parsed[0], ()):
                what = "a letter, a digit and a path" if parsed is None else "each aspect of a path once"
                raise ManifestError(
                    f"manifest {path!r}, line {number}: expected {what}, found {line[:80]!r}: delete it"
                )
            name, aspect, runs = parsed
            entries.setdefault(name, {})[aspect] = runs
        return manifest

    def merge(self, used: Iterable[tuple[str, str]]) -> None:
        """Take in what this run used, as (path, aspect) in the order of use; everything else gets one run older.

        Paths that no want can carry (relative, not normalised, over-long) are left out: misses come from anywhere.

        :raises ManifestError: if an aspect is unknown; nothing has changed then
        """
        merged: dict[str, dict[str, int]] = {}
        for path, aspect in used:
            if aspect not in LETTERS:
                raise ManifestError(f"aspect of {path!r} must be one of {', '.join(LETTERS)}, not {aspect!r}")
            aspects = merged.get(path)
            if aspects is None:
                if _encoded(path) is None:
                    continue
                aspects = merged[path] = {}
            elif aspect == CONTENT and CONTENT not in aspects:
                merged[path] = merged.pop(path)  # metadata of many files comes early, their content in the order of use
            aspects[aspect] = 0
        for path, aspects in self.entries.items():
            for aspect, runs in aspects.items():
                if runs + 1 < MAX_RUNS and aspect not in merged.get(path, ()):
                    merged.setdefault(path, {})[aspect] = runs + 1
        self.entries = merged

    def wants(self) -> list[Want]:
        """What to stage: directories, parents first; then metadata; then content in the order in which it was used.

        Each path is wanted once: content and listings bring the metadata along, and a listing answers for the names
        that are not in it. Listings are wanted as NAMES: the metadata that was in use has entries of its own.
        """
        listings, metadata, contents = [], [], []
        for path, aspects in self.entries.items():
            if CONTENT in aspects:
                contents.append(Want(path, CONTENT))
            if LIST in aspects or NAMES in aspects:
                listings.append(Want(path, NAMES))
            elif CONTENT not in aspects and (META in aspects or not self._lists(os.path.dirname(path))):
                metadata.append(Want(path, META))
        listings.sort(key=lambda want: want.path.rstrip("/").count("/"))
        return listings + metadata + contents

    def _lists(self, directory: str) -> bool:
        aspects = self.entries.get(directory, ())
        return LIST in aspects or NAMES in aspects

    def save(self, path: str) -> None:
        """Write the file *path*, and its directories. The last writer wins; a reader sees the old file or the new one.

        What would pass the limits of :meth:`load` is left out, the longest unused first.

        :raises OSError: if it can't be written; the old file is then still there
        """
        target = _native(path)
        temporary = f"{target}.{os.urandom(8).hex()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(temporary, flags, 0o600)
        except FileNotFoundError:
            _make_directory(os.path.dirname(target))
            fd = os.open(temporary, flags, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(b"".join(self._text()))
            os.replace(temporary, target)
        except BaseException:
            try:
                os.unlink(temporary)
            except OSError:
                pass  # what went wrong before matters more
            raise

    def _text(self) -> Iterator[bytes]:
        """The lines of the file, as many as :meth:`load` would take."""
        yield FIRST_LINE
        size, lines = len(FIRST_LINE), 1
        for path, aspects in self.entries.items():
            raw = _encoded(path)
            if raw is None:
                continue
            escaped = _escape(raw)
            for aspect, runs in aspects.items():
                line = b"%s %d %s\n" % (LETTERS[aspect].encode(), runs, escaped)
                size += len(line)
                lines += 1
                if size > MAX_BYTES or lines > MAX_LINES:
                    return
                yield line


def default_path(program: str, executable: str) -> str:
    """Where the manifest of *program* is kept: ``$XDG_CACHE_HOME/collfs/manifests/<name>-<hash>.manifest``.

    Another interpreter, environment or Python version wants other paths, so all of them are in the hash.

    :param program: the absolute path of a script, ``-m module``, or ``-c``
    :param executable: the interpreter, as in ``sys.executable``
    :raises ManifestError: if *program* is none of these, or there is no home directory to keep it in
    """
    if program.startswith("/"):
        name = os.path.basename(program).removesuffix(".py")
    elif program.startswith("-m ") or program == "-c":
        name = program[1:] if program == "-c" else program[3:]
    else:
        raise ManifestError(f"program must be the absolute path of a script, '-m module' or '-c', not {program!r}")
    # XDG Base Directory Specification: a relative value is to be ignored.
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not cache.startswith("/"):
        cache = os.path.join(os.path.expanduser("~"), ".cache")
    if not cache.startswith("/"):
        raise ManifestError(
            "there is no home directory to keep manifests in: set HOME or XDG_CACHE_HOME, or name the file"
        )
    key = "\0".join((program, executable, sys.prefix, f"{sys.hexversion:x}"))
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in name)[:64]
    return os.path.join(cache, "collfs", "manifests", f"{safe}-{_fnv1a(os.fsencode(key)):016x}.manifest")


def _fnv1a(data: bytes) -> int:
    """The 64 bit FNV-1a hash (draft-eastlake-fnv): no secret depends on it, and hashlib is a heavy import."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def _native(path: str) -> str:
    """The spelling of *path* that the interposer leaves alone: two slashes in front, or relative."""
    return "/" + path if path.startswith("/") else path


def _make_directory(path: str) -> None:
    """Make *path* and its parents, each 0700 (XDG Base Directory Specification)."""
    try:
        os.mkdir(path, 0o700)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if parent == path:  # relative, and the working directory is gone
            raise
        _make_directory(parent)
        _make_directory(path)
    except FileExistsError:
        pass  # another process was faster; if it is no directory, the open that follows says so


def _read(path: str) -> bytes:
    """All bytes of the manifest file *path*, within the limits.

    :raises ManifestError: if it is not a file, or too large
    """
    # O_NONBLOCK: without it, opening a FIFO that somebody has put there waits for a writer.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            raise ManifestError(f"expected a regular file, found mode {st.st_mode:#o}")
        if st.st_size > MAX_BYTES:
            raise ManifestError(f"at most {MAX_BYTES} bytes are read, found {st.st_size}; delete the file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(st.st_size)
    finally:
        os.close(fd)
    if not data.startswith(FIRST_LINE):
        raise ManifestError(f"expected {FIRST_LINE!r} at its start, found {data[: len(FIRST_LINE)]!r}; delete the file")
    lines = data.count(b"\n")
    if lines > MAX_LINES:
        raise ManifestError(f"at most {MAX_LINES} lines are read, found {lines}; delete the file")
    return data


def _lines(data: bytes) -> Iterator[bytes]:
    """The lines after the first, each with its newline (the last without, if the file was cut there)."""
    lines = io.BytesIO(data)
    lines.readline()
    return lines


def _parse(line: bytes) -> tuple[str, str, int] | None:
    """Path, aspect and age of one line; None if :meth:`Manifest.save` would not write it so."""
    fields = line.split(b" ", 2)
    if len(fields) != 3 or not line.endswith(b"\n"):
        return None
    aspect, runs, text = ASPECT_OF.get(fields[0]), RUNS_OF.get(fields[1]), fields[2][:-1]
    if aspect is None or runs is None or len(text) > 3 * PATH_MAX:
        return None
    raw = _unescape(text) if b"%" in text else text
    if raw is None or not _fits(raw) or _escape(raw) != text:
        return None
    return os.fsdecode(raw), aspect, runs


def _encoded(path: str) -> bytes | None:
    """*path* as the kernel gets it, or None if no want can carry it."""
    try:
        raw = os.fsencode(path)
    except UnicodeEncodeError:
        return None
    return raw if _fits(raw) else None


def _fits(raw: bytes) -> bool:
    """Absolute, normalised, not too long: checks.check_path without its import."""
    if not raw.startswith(b"/") or b"\0" in raw or len(raw) > PATH_MAX:
        return False
    ended = raw + b"/"
    return raw == b"/" or not (b"//" in ended or b"/./" in ended or b"/../" in ended)


def _escape(raw: bytes) -> bytes:
    text = raw.decode("utf-8", "surrogateescape")
    if "%" not in text and text.isprintable():
        return raw
    escaped = []
    for char in text:
        code = ord(char)
        if 0xDC80 <= code <= 0xDCFF:  # how surrogateescape keeps a byte that is not UTF-8 (PEP 383)
            code -= 0xDC00
            escaped.append(f"%{code:02X}")
        elif code < 0x20 or code == 0x7F or char == "%":
            escaped.append(f"%{code:02X}")
        else:
            escaped.append(char)
    return "".join(escaped).encode()


def _unescape(text: bytes) -> bytes | None:
    """The bytes that *text* stands for, None if a '%' has no number.

    Odd spellings of numbers pass: the caller compares with what :func:`_escape` makes.
    """
    first, *rest = text.split(b"%")
    parts = [first]
    for part in rest:
        try:
            parts.append(bytes((int(part[:2], 16),)))
        except ValueError:
            return None
        parts.append(part[2:])
    return b"".join(parts)
