"""What travels: wants go up to a transport, records come down from it.

A *want* names a path and what is wanted of it. A *record* answers one path: with metadata, with a listing, with
content, with the knowledge that nothing is there, or with the error that the original gave.

Rules of the file: plain values, no behaviour that touches a file, a socket or a table; no imports, because every rank
loads this module before its hooks are live.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from typing import Union

    Buffer = Union[bytes, bytearray, memoryview]

# What a want asks for. Each includes the ones before it where that makes sense: content comes with metadata.
META = "meta"  #: the metadata of a path (and of the link itself, if it is a symbolic link)
LIST = "list"  #: all names of a directory, with their metadata
NAMES = "names"  #: all names of a directory with their kinds, without their metadata (a bulk start)
CONTENT = "content"  #: the whole content of a regular file

ASPECTS = (META, LIST, NAMES, CONTENT)


class Stat:
    """The metadata of one file: the fields of ``struct stat`` (man 3type stat), times in nanoseconds since the epoch.

    ``st_atim``, ``st_mtim`` and ``st_ctim`` are ints (tv_sec * 10**9 + tv_nsec). Equality compares all fields.
    """

    __slots__ = FIELDS = (
        "st_mode",
        "st_ino",
        "st_dev",
        "st_nlink",
        "st_uid",
        "st_gid",
        "st_rdev",
        "st_size",
        "st_blksize",
        "st_blocks",
        "st_atim",
        "st_mtim",
        "st_ctim",
    )

    st_mode: int
    st_ino: int
    st_dev: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_rdev: int
    st_size: int
    st_blksize: int
    st_blocks: int
    st_atim: int
    st_mtim: int
    st_ctim: int

    def __init__(self, *values: int) -> None:
        if len(values) != len(Stat.FIELDS):
            raise TypeError(f"Stat takes {len(Stat.FIELDS)} values, not {len(values)}")
        for name, value in zip(Stat.FIELDS, values):
            setattr(self, name, value)

    @classmethod
    def from_stat_result(cls, st: os.stat_result) -> Stat:
        """Take over what :func:`os.stat` gave."""
        return cls(
            st.st_mode,
            st.st_ino,
            st.st_dev,
            st.st_nlink,
            st.st_uid,
            st.st_gid,
            st.st_rdev,
            st.st_size,
            st.st_blksize,
            st.st_blocks,
            st.st_atime_ns,
            st.st_mtime_ns,
            st.st_ctime_ns,
        )

    def values(self) -> tuple[int, ...]:
        """All fields in the order of :attr:`FIELDS`."""
        return tuple(getattr(self, name) for name in Stat.FIELDS)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stat) and self.values() == other.values()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Stat(" + ", ".join(f"{n}={getattr(self, n)}" for n in Stat.FIELDS) + ")"


class Name:
    """One name of a listing.

    ``d_type`` is the DT_... value of <dirent.h> (DT_REG 8, DT_DIR 4, DT_LNK 10, DT_UNKNOWN 0). ``lst`` is the metadata
    of the name itself (lstat), or None where the listing was asked for without it. For a symbolic link ``st`` is the
    metadata of what it leads to (None: nothing, or not asked) and ``target`` the text of the link; else ``st`` is None.
    """

    __slots__ = ("d_type", "lst", "name", "st", "target")

    def __init__(
        self, name: str, d_type: int, lst: Stat | None = None, st: Stat | None = None, target: str | None = None
    ) -> None:
        self.name = name
        self.d_type = d_type
        self.lst = lst
        self.st = st
        self.target = target

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Name) and all(getattr(self, a) == getattr(other, a) for a in Name.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Name({self.name!r}, d_type={self.d_type})"


class Record:
    """What is known of one absolute, normalised path. One of these shapes:

    ============  =====================================================================================
    known absent  ``errno`` is ENOENT or ENOTDIR; everything else is None
    error         ``errno`` is any other errno that the original gave; the path goes native
    metadata      ``st`` only
    listing       ``st`` of the directory and ``names``, complete
    content       ``st`` of a regular file, and either ``content`` (all bytes) or ``node_path``
    ============  =====================================================================================

    ``st`` is what stat(2) gives, links followed. If the path itself is a symbolic link, ``lst`` (lstat) and ``target``
    (readlink) are set as well. ``node_path`` names a file on this node that already holds exactly these bytes: the
    store links to it instead of copying. Paths are str in the file system encoding with surrogateescape, as in os.
    """

    __slots__ = ("content", "errno", "lst", "names", "node_path", "path", "st", "target")

    def __init__(
        self,
        path: str,
        st: Stat | None = None,
        *,
        names: Sequence[Name] | None = None,
        content: Buffer | None = None,
        node_path: str | None = None,
        lst: Stat | None = None,
        target: str | None = None,
        errno: int = 0,
    ) -> None:
        self.path = path
        self.st = st
        self.names = names
        self.content = content
        self.node_path = node_path
        self.lst = lst
        self.target = target
        self.errno = errno

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and all(getattr(self, a) == getattr(other, a) for a in Record.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self.errno:
            what = f"errno={self.errno}"
        elif self.names is not None:
            what = f"{len(self.names)} names"
        elif self.content is not None:
            what = f"{len(self.content)} bytes"
        elif self.node_path is not None:
            what = f"at {self.node_path!r}"
        else:
            what = "metadata"
        return f"Record({self.path!r}, {what})"


class Want:
    """One path and what is wanted of it (one of :data:`ASPECTS`). Hashable, so that wants can be kept in sets."""

    __slots__ = ("aspect", "path")

    def __init__(self, path: str, aspect: str) -> None:
        self.path = path
        self.aspect = aspect

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Want) and self.path == other.path and self.aspect == other.aspect

    def __hash__(self) -> int:
        return hash((self.path, self.aspect))

    def __repr__(self) -> str:
        return f"Want({self.path!r}, {self.aspect})"
