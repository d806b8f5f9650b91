"""What the interpreter's own library looks at without a word: no event, no import tells of it.

``sysconfig``, when it is imported, calls ``os.path.realpath`` on the interpreter and its directory, one lstat for each
component (Lib/sysconfig: ``_safe_realpath``), and looks whether the interpreter lies in its build tree (two stats,
``is_python_build``). In a collective session the root wants these first, so that every rank has them before all else;
where each process asks for itself, each does.
"""

from __future__ import annotations

import os
import sys

from ..record import META, Want

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SETUP = ("Modules/Setup", "Modules/Setup.dist", "Modules/Setup.local")


def interpreter_wants(prefixes: Iterable[str], ask: Callable[[list[Want]], None] | None = None) -> list[Want]:
    """Metadata of *prefixes*, of the interpreter under all its names and of the directories above these.

    :param ask: has wants staged, so that where a link leads is found in the table; None: the original is read
    """
    found: dict[str, None] = dict.fromkeys(prefixes)
    name = sys.executable or ""
    for _ in range(40):  # MAXSYMLINKS of Linux; each look is one readlink that sysconfig would make as well
        if not name:
            break
        above = os.path.dirname(name)
        while above.count("/") > 0 and above != "/":
            found[above] = None
            above = os.path.dirname(above)
        found[name] = None
        try:
            if ask is not None:
                ask([Want(name, META)])
            target = os.readlink("/" + name if ask is None else name)
        except OSError:
            break
        name = os.path.normpath(os.path.join(os.path.dirname(name), target))
    for folder in {os.path.dirname(path) for path in (name, sys.executable or "") if path}:
        found.update(dict.fromkeys(f"{folder}/{setup}" for setup in SETUP))
    return [Want(path, META) for path in found]
