"""Memory for messages, used again and again.

Fresh memory costs as much as the copying, and pages of a mapped file cost a receiver in another process
(process_vm_readv, MPI's way within a node) five times as much as these.

Rule of the file: a buffer is free when nobody holds a view of it.
"""

from __future__ import annotations

from sys import getrefcount


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
