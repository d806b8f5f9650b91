"""Memory for messages, used again and again.

Fresh memory costs as much as the copying, and pages of a mapped file cost a receiver in another process
(process_vm_readv, MPI's way within a node) five times as much as these.

Rule of the file: a buffer is free when nobody holds a view of it.
"""

from __future__ import annotations

import ctypes
from sys import getrefcount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def keep_for_ever(objects: Iterable[object]) -> None:
    """Memory that a library may still read or write when the interpreter has ended, and freed all others."""
    for each in objects:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(each))


class Buffers:
    """Buffers of one size."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._all: list[bytearray] = []

    def take(self) -> memoryview:
        """A piece of memory that nobody holds a view of."""
        for buffer in self._all:
            if getrefcount(buffer) == 3:  # this list's, this name's, and the argument's
                return memoryview(buffer)
        self._all.append(bytearray(self.size))
        return memoryview(self._all[-1])

    def keep(self) -> None:
        """See :func:`keep_for_ever`."""
        keep_for_ever(self._all)
