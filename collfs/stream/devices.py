"""``st_dev`` is a number of each node's kernel: records that come from another node are told this node's.

Rule of the file: a file system that isn't known on both sides keeps the number that came.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from collfs.record import Record


def devices(prefixes: Iterable[str]) -> dict[str, int]:
    """What the file system of each of *prefixes* is called on this node; 0: it isn't here."""
    return {path: _device(path) for path in prefixes}


def _device(path: str) -> int:
    try:
        return os.stat(path).st_dev  # of the table, if it knows the path: what it tells is this node's name
    except OSError:
        return 0


def renamed(theirs: Mapping[str, int], mine: Mapping[str, int]) -> dict[int, int]:
    """Their ``st_dev`` -> ours, for two answers of :func:`devices`."""
    return {theirs[path]: device for path, device in mine.items() if device and theirs.get(path)}


def mended(record: Record, names: Mapping[int, int]) -> Record:
    """*record*, changed in place, with ``st_dev`` as this node calls it.

    :param names: of :func:`renamed`
    """
    stats = [record.st, record.lst]
    for name in record.names or ():
        stats += (name.lst, name.st)
    for st in stats:
        if st is not None:
            st.st_dev = names.get(st.st_dev, st.st_dev)
    return record
