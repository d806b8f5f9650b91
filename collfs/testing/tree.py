"""The directory tree that the contract test asks about: every kind of file that a real software tree has.

Rule of the file: the same tree each time, byte for byte; mtimes lie in the past, all different.
"""

from __future__ import annotations

import os

BIG_BYTES = 5 * 1024 * 1024 + 7  #: 5 MB and an odd rest: more than one read, message or frame of most transports
MANY = 100  #: small files in one directory
BASE_NS = 1_600_000_000 * 10**9  #: September 2020; each file's mtime is some whole seconds later
ODD_NS = 123_456_789  #: of the one file whose mtime isn't whole seconds

#: Names that people, tools and old archives produce. The fourth isn't UTF-8: its bytes come as surrogates.
ODD_NAMES = (
    "with space",
    "new\nline",
    "\u00fcml\u00e4ut-\u4e2d",
    "latin-\udce9\udcff",
    "-dash",
    "back\\slash",
    "a" * 200,
)


def make_tree(root: str) -> None:
    """Build the tree in the new or empty directory *root*.

    :raises OSError: if a file can't be made; odd names that the file system refuses are left out
    """
    os.makedirs(root, exist_ok=True)
    for name in ("empty_dir", "many", "odd", "package/sub/deep/er"):
        os.makedirs(os.path.join(root, name))
    files: dict[str, bytes] = {
        "empty": b"",
        "one": b"x",
        "all_bytes": bytes(range(256)) * 3,
        "big": _noise(BIG_BYTES),
        "package/__init__.py": b"from .sub import thing\n",
        "package/sub/deep/er/file.txt": b"deep\n",
        "private": b"mine",
        "script": b"#!/bin/sh\nexit 0\n",
        "times": b"an mtime with nanoseconds",
    }
    files.update({f"many/{number:03d}.py": b"number = %d\n" % number for number in range(MANY)})
    for name, content in files.items():
        _write(os.path.join(root, name), content)
    for name in ODD_NAMES:
        try:
            _write(os.path.join(root, "odd", name), os.fsencode(name))
        except OSError:  # a file system that takes UTF-8 only
            continue
    os.chmod(os.path.join(root, "private"), 0o400)
    os.chmod(os.path.join(root, "script"), 0o755)
    links = {
        "link_to_file": "one",
        "link_to_dir": "package",
        "link_to_link": "link_to_file",
        "package/link_up": "../all_bytes",
        "dangling": "nowhere/at/all",
        "loop": "loop",
    }
    for name, target in links.items():
        os.symlink(target, os.path.join(root, name))
    _set_times(root)


def _set_times(root: str) -> None:
    number = 0
    for folder, folders, names in os.walk(root, topdown=False):  # a directory after all that is in it
        folders.sort()
        for name in [*sorted(names), ""]:
            path = os.path.join(folder, name) if name else folder
            number += 1
            when = BASE_NS + number * 10**9 + (ODD_NS if name == "times" else 0)
            os.utime(path, ns=(when, when), follow_symlinks=False)


def _write(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o644)


def _noise(size: int) -> bytes:
    """Bytes that neither compress nor repeat at any power of two."""
    import hashlib

    return hashlib.shake_128(b"collfs").digest(size)
