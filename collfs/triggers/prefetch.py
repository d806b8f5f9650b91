"""Prefetch: what the program says it will need, staged before it asks.

A module's name means the module and, for a package, everything below its directory; an absolute path means that
file, or everything below that directory.
"""

from __future__ import annotations

import sys

from ..errors import OptionError
from ..interpose.machine.layout import K_DIR, K_FILE, K_REG
from ..record import CONTENT, LIST, META, Want
from .finder import SUFFIXES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..fetcher import Fetcher

MAX_DEPTH = 64


def prefetch(fetcher: Fetcher, names_or_paths: Iterable[str]) -> None:
    """Stage *names_or_paths*; what isn't managed is passed over.

    :raises OptionError: for what is neither a module's name nor an absolute path
    """
    if isinstance(names_or_paths, str):
        names_or_paths = [names_or_paths]
    for item in names_or_paths:
        if item.startswith("/"):
            _tree(fetcher, item.rstrip("/"), 0)
        elif all(part.isidentifier() for part in item.split(".")):
            for path in _module(fetcher, item):
                _tree(fetcher, path, 0)
        else:
            raise OptionError(f"prefetch: {item!r} is neither the name of a module nor an absolute path")


def _module(fetcher: Fetcher, name: str) -> Iterator[str]:
    for entry in sys.path:
        if not fetcher.managed(entry):
            continue
        base = entry.rstrip("/")
        for part in name.split("."):
            fetcher.want([Want(base, LIST)])
            base += "/" + part
        fetcher.want([Want(base, META)])
        if fetcher.kind(base) == K_DIR:
            yield base
            return
        found = [base + suffix for suffix in SUFFIXES if fetcher.kind(base + suffix) in (K_FILE, K_REG)]
        if found:
            yield from found
            return


def _tree(fetcher: Fetcher, path: str, depth: int) -> None:
    fetcher.want([Want(path, META)])
    kind = fetcher.kind(path)
    if kind in (K_REG, K_FILE):
        fetcher.want([Want(path, CONTENT)])
    elif kind == K_DIR and depth < MAX_DEPTH:
        fetcher.want([Want(path, LIST)])
        names = [f"{path}/{name}" for name in fetcher.known_names(path) or ()]
        fetcher.want([Want(name, CONTENT) for name in names if fetcher.kind(name) == K_REG])
        for name in names:
            if fetcher.kind(name) == K_DIR:
                _tree(fetcher, name, depth + 1)
