"""Which directories are managed: what the user says, or those of this Python that lie on a shared file system.

Every spelling that is in use counts, and the real path of each: the interposer compares names as they are spelled.

Rules of the file: an explicit list is taken as it is; the automatic one never contains the job's working directory by
itself, temporary directories or the user's caches.
"""

from __future__ import annotations

import os
import sys

from .errors import OptionError
from .mounts import network_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

NEVER = ("/proc", "/sys", "/dev")


def below(path: str, directory: str) -> bool:
    """Whether *path* is *directory* or lies in it, by the spelling."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def with_real_paths(paths: Iterable[str]) -> list[str]:
    """Each path and what it really is, without those that lie in another one of them."""
    spelled: list[str] = []
    for path in paths:
        for name in (path, os.path.realpath(path)):
            if name not in spelled:
                spelled.append(name)
    return [p for p in spelled if not any(p != q and below(p, q) for q in spelled)]


def explicit(prefixes: Iterable[str]) -> list[str]:
    """What the user asked for.

    :raises OptionError: for a directory that can't be managed
    """
    given = list(prefixes)
    for path in given:
        if path == "/" or any(below(path, never) for never in NEVER):
            raise OptionError(
                f"prefixes: {path!r} can't be managed. Name directories with software in them, not / and nothing in"
                f" {', '.join(NEVER)}"
            )
        if not os.path.isdir(path):
            raise OptionError(f"prefixes: {path!r} is not a directory. Name existing directories")
    return with_real_paths(given)


def sources(environ: Mapping[str, str]) -> list[str]:
    """The directories that this program's imports and libraries come from, in order, as they are spelled."""
    found: list[object] = [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    user = sys.modules.get("site")
    if user is not None and getattr(user, "ENABLE_USER_SITE", False):
        found.append(str(getattr(user, "USER_SITE", "") or ""))
    found += sys.path
    found += environ.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":")
    out: list[str] = []
    for entry in found:
        if isinstance(entry, str) and entry.startswith("/"):
            path = "/" + os.path.normpath(entry).lstrip("/")
            if path not in out:
                out.append(path)
    return out


def _excluded(environ: Mapping[str, str]) -> list[str]:
    """Directories whose content is the job's own: never managed automatically."""
    home = environ.get("HOME", "")
    names = [environ.get("TMPDIR", ""), "/tmp", "/var/tmp", environ.get("XDG_CACHE_HOME", "")]
    if home.startswith("/"):
        names.append(home + "/.cache")
    return [os.path.normpath(n) for n in names if n.startswith("/")]


def automatic(
    environ: Mapping[str, str], shared: Callable[[str], str] = network_name
) -> tuple[list[str], dict[str, str]]:
    """The managed prefixes, and why each source is or isn't among them.

    :param shared: gives the name of the shared file system of a path, or an empty string
    """
    chosen, reasons = [], {}
    excluded = _excluded(environ)
    for path in sources(environ):
        if any(below(path, e) for e in (*NEVER, *excluded)):
            reasons[path] = "temporary, cache or system directory"
        elif path == "/" or path in ("/usr", "/home", environ.get("HOME", "")):
            # /usr as sys.prefix of a system's Python: its library directories are entries of sys.path
            reasons[path] = "too general"
        elif not os.path.isdir(path):
            reasons[path] = "no such directory"
        else:
            network = shared(path)
            reasons[path] = network or "on a local file system"
            if network:
                chosen.append(path)
    return with_real_paths(chosen), reasons
