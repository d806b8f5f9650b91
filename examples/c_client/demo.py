"""Every rank loads a library from a folder that only rank 0 can see, calls it, and unloads it.

``mpiexec -n 4 python -m mpi4py demo.py``. The name of the folder leads through the working directory of a process,
which is an empty one on all ranks but rank 0: so each of them really has no such file.
"""

from __future__ import annotations

import ctypes
import os
import tempfile

from mpi4py import MPI

import collective

HERE = os.path.dirname(os.path.abspath(__file__))
FOLDER = "/proc/self/cwd/shared"


def main() -> None:
    """What the file says."""
    rank = MPI.COMM_WORLD.Get_rank()
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty if rank else HERE)
        sees = os.path.exists(f"{FOLDER}/libdemo.so")
        with collective.opens(FOLDER, f"{HERE}/libclient.so") as client:
            library = ctypes.CDLL(f"{FOLDER}/libdemo.so")
            answer = library.answer()
            collective.unload(library)
            calls, lookups = client.calls(), client.lookups()
        os.chdir(HERE)
    line = f"rank {rank}: sees the file: {sees}, answer: {answer}, looked up there: {lookups}, calls of ld.so: {calls}"
    for text in MPI.COMM_WORLD.gather(line) or ():
        print(text)


if __name__ == "__main__":
    main()
