"""Which records, wants, paths and names make sense.

Bytes from another process and objects from somebody's transport are checked here, by the same functions, so that sender
and receiver can't disagree on what is allowed.

Rules of the file: it judges and never mends; whatever is wrong raises :class:`~collfs.errors.RecordError` with what was
expected and what was found; it touches no file; it imports only what every Python has loaded already.
"""

from __future__ import annotations

import os
import stat
from errno import ENOENT, ENOTDIR

from collfs.errors import RecordError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Buffer, Name, Record, Stat

PATH_MAX = 4096  #: include/uapi/linux/limits.h
NAME_MAX = 255  #: include/uapi/linux/limits.h
MAX_ERRNO = 4095  #: include/linux/err.h
DT_LNK = 10  #: <dirent.h>, as all of:
DT_VALUES = frozenset((0, 1, 2, 4, 6, 8, DT_LNK, 12, 14))

# The shapes of a record (see its docstring). The numbers go over the wire.
KIND_ABSENT, KIND_ERROR, KIND_METADATA, KIND_LISTING, KIND_CONTENT, KIND_PLACED = range(1, 7)


def kind_of(record: Record) -> int:
    """Which of the shapes *record* has.

    :raises RecordError: if none
    """
    path, st, lst = record.path, record.st, record.lst
    given = [a for a in ("names", "content", "node_path") if getattr(record, a) is not None]
    if record.errno:
        given += [a for a in ("st", "lst", "target") if getattr(record, a) is not None]
        if given:
            raise RecordError(f"{path!r}: a record with an errno has nothing else, found {', '.join(given)}")
        if not 0 < record.errno <= MAX_ERRNO:
            raise RecordError(f"{path!r}: errno must be in 1..{MAX_ERRNO}, found {record.errno}")
        return KIND_ABSENT if record.errno in (ENOENT, ENOTDIR) else KIND_ERROR
    if st is None:
        raise RecordError(f"{path!r}: expected metadata (st) or an errno, found neither")
    if _is(st, stat.S_IFLNK):
        raise RecordError(f"{path!r}: st is of what a link leads to (lst is of the link), found mode {st.st_mode:#o}")
    if (lst is None) != (record.target is None):
        raise RecordError(f"{path!r}: a link has lst and target, found only {'target' if lst is None else 'lst'}")
    if lst is not None and not _is(lst, stat.S_IFLNK):
        raise RecordError(f"{path!r}: lst must be of a symbolic link, found mode {lst.st_mode:#o}")
    if not given:
        return KIND_METADATA
    if len(given) > 1:
        raise RecordError(f"{path!r}: at most one of names, content, node_path is allowed, found {', '.join(given)}")
    must_be = stat.S_IFDIR if record.names is not None else stat.S_IFREG
    if not _is(st, must_be):
        raise RecordError(f"{path!r}: {given[0]} goes with file type {must_be:#o}, found mode {st.st_mode:#o}")
    if record.names is not None:
        return KIND_LISTING
    if record.content is None:
        return KIND_PLACED
    size = view_of(record.content, "content").nbytes
    if size != st.st_size:
        # Usually the file changed between stat and read: what stat says and what read gives would differ for ever.
        raise RecordError(f"{path!r}: expected st_size = {st.st_size} bytes of content, found {size}")
    return KIND_CONTENT


def _is(st: Stat, file_type: int) -> bool:
    return st.st_mode & 0o170000 == file_type  # S_IFMT; the functions of stat overflow on modes that are out of range


def check_absolute(raw: bytes, what: str) -> None:
    """A path that the kernel takes, in whatever spelling."""
    if not raw.startswith(b"/") or b"\0" in raw or len(raw) > PATH_MAX:
        raise RecordError(f"{what} must be absolute, without NUL, of at most {PATH_MAX} bytes, found {_short(raw)}")


def check_path(raw: bytes, what: str) -> None:
    """Absolute and normalised: '/a/../b' would pass a test for the prefix '/a'."""
    check_absolute(raw, what)
    ended = raw + b"/"
    if (b"//" in ended and raw != b"/") or b"/./" in ended or b"/../" in ended:
        raise RecordError(f"{what} must be normalised (no '//', '.', '..', no '/' at the end), found {_short(raw)}")


def check_target(raw: bytes, what: str) -> None:
    """The text of a link: mostly relative, never empty (man 7 symlink)."""
    if not raw or b"\0" in raw or len(raw) > PATH_MAX:
        raise RecordError(f"{what} must have 1 to {PATH_MAX} bytes without NUL, found {_short(raw)}")


def check_name_bytes(raw: bytes, what: str) -> None:
    """One component of a path, as readdir gives them."""
    if not raw or raw in (b".", b"..") or b"/" in raw or b"\0" in raw or len(raw) > NAME_MAX:
        allowed = f"1 to {NAME_MAX} bytes without '/' and NUL, and not '.' or '..'"
        raise RecordError(f"{what} must have {allowed}, found {_short(raw)}")


def check_name(name: Name) -> None:
    """Do the parts of *name* fit together? (Its bytes: :func:`check_name_bytes`.)"""
    if name.d_type not in DT_VALUES:
        raise RecordError(f"name {name.name!r}: d_type must be one of {sorted(DT_VALUES)}, found {name.d_type}")
    # d_type and lst may differ (the name was replaced between readdir and lstat); it is a link if one of them says so.
    if name.d_type != DT_LNK and not (name.lst is not None and _is(name.lst, stat.S_IFLNK)):
        if name.st is not None or name.target is not None:
            raise RecordError(f"name {name.name!r}: st and target are for symbolic links, found d_type {name.d_type}")
    elif name.st is not None and _is(name.st, stat.S_IFLNK):
        raise RecordError(f"name {name.name!r}: st is of what a link leads to, found mode {name.st.st_mode:#o}")


def _short(raw: bytes) -> str:
    return repr(raw) if len(raw) <= 80 else f"{raw[:80]!r}... ({len(raw)} bytes)"


def encoded(text: str, check: Callable[[bytes, str], None], what: str) -> bytes:
    """*text* in the file system encoding, if *check* has nothing against it."""
    try:
        raw = os.fsencode(text)
    except (UnicodeEncodeError, TypeError) as exc:
        raise RecordError(f"{what} must be str in the file system encoding, found {text!r}: {exc}") from exc
    check(raw, what)
    return raw


def view_of(buffer: Buffer, what: str) -> memoryview:
    """*buffer* as plain bytes, not copied."""
    try:
        view = memoryview(buffer)
        return view.cast("B") if view.nbytes else memoryview(b"")  # cast refuses shapes with a 0 in them
    except TypeError as exc:
        raise RecordError(f"{what} must be a contiguous buffer of bytes, found {type(buffer).__name__}: {exc}") from exc
