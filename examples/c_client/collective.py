"""The loader: compiles nothing, starts the C client, and gives its counts.

>>> with collective.opens("/shared/lib", "./libclient.so") as client:     # doctest: +SKIP
...     library = ctypes.CDLL("/shared/lib/libdemo.so")
"""

from __future__ import annotations

import _ctypes
import ctypes
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mpi4py import MPI

import collfs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = ("fxstat64", "xstat64", "open", "close", "read", "lseek", "mmap", "munmap")


class Client:
    """The C client in this process."""

    def __init__(self, path: str) -> None:
        """:param path: of libclient.so"""
        collfs.export_c_api()  # before: libclient.so is bound to what it exports
        self.library = ctypes.CDLL(os.path.abspath(path), use_errno=True)
        self.library.client_start.argtypes = [ctypes.c_int, ctypes.c_char_p]
        self.library.client_stop.restype = None

    def start(self, folder: str, comm: MPI.Comm) -> None:
        """Collective over *comm*: what the dynamic linker opens below *folder* is read by its rank 0 alone."""
        if self.library.client_start(comm.py2f(), os.fsencode(folder)) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), folder)

    def stop(self) -> None:
        """Collective: the linker's own calls again. What was loaded stays loaded."""
        self.library.client_stop()

    def calls(self) -> dict[str, int]:
        """How often each function of the table was called."""
        return self._counts("client_calls")

    def answered(self) -> dict[str, int]:
        """How many of these calls were answered from what rank 0 has read."""
        return self._counts("client_answered")

    def lookups(self) -> int:
        """How often a name below the folder was looked up in the real file system."""
        return ctypes.c_long.in_dll(self.library, "client_lookups").value

    def _counts(self, name: str) -> dict[str, int]:
        return dict(zip(ROWS, (ctypes.c_long * len(ROWS)).in_dll(self.library, name)))


@contextmanager
def opens(folder: str, client: str, comm: MPI.Comm = MPI.COMM_WORLD) -> Iterator[Client]:
    """Collective over *comm*: in this block all ranks load the same libraries below *folder*, in the same order.

    :param client: path of libclient.so
    """
    made = Client(client)
    made.start(folder, comm)
    try:
        yield made
    finally:
        made.stop()


def unload(library: ctypes.CDLL) -> None:
    """What dlclose(3) does. No function of *library* may be called afterwards."""
    _ctypes.dlclose(library._handle)
