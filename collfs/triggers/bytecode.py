"""Bytecode of a collective session, written at its end, by one process.

While the program runs nobody writes any: a directory that gets a ``__pycache__`` is changed by the job, hence native on
the root from then on, and the other ranks would wait for listings that never come.

Rule of the file: importlib does the work (:meth:`importlib.abc.SourceLoader.get_code` reads, compiles and caches), so
what is written and where is what the program would have written without collfs.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = 10.0  # at most; what is left is written by the next run


def write_missing(managed: Callable[[str], bool]) -> int:
    """Write the bytecode of all loaded modules that have none yet; how many were written.

    :param managed: says whether a source file is one of those that were kept from getting theirs
    """
    loader_type = sys.modules["_frozen_importlib_external"].SourceFileLoader
    end, written = time.monotonic() + SECONDS, 0
    refused: set[str] = set()  # directories that can't be written to
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        if spec is None:
            continue
        cached, origin = getattr(spec, "cached", None), getattr(spec, "origin", None)
        if not isinstance(cached, str) or not isinstance(origin, str) or type(spec.loader) is not loader_type:
            continue
        folder = os.path.dirname(origin)
        if folder in refused or not managed(origin) or os.path.exists(cached):
            continue
        if time.monotonic() > end:
            break
        try:
            if not os.access(folder, os.W_OK):
                raise PermissionError
            spec.loader.get_code(name)
            written += 1
        except Exception:  # bytecode is a help; the program has ended well without it
            refused.add(folder)
    return written
