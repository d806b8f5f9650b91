"""What one process of a job does in the laboratory: starts collfs if it was told to, imports, and tells when.

::

    python rank.py METHOD MANIFEST REPORTS RELEASE PLACES PATHS MODULES

    METHOD    plain, or a transport of collfs; mpi+zmq: mpi, started through zmq
    REPORTS   a named pipe that gets one line when the import begins, one when it is done, and one before the end
    RELEASE   a named pipe: open(2) waits there until the laboratory has looked at the server
    PLACES    the mounted directories, divided by ":"; managed by collfs, and marked when it is active
    PATHS     directories for sys.path, divided by ":"
    MODULES   what to import, divided by ","

Rules of the file: nothing is imported that an interpreter hasn't loaded when it starts, so that what is seen at the
file server is the interpreter's, collfs' and the program's; times are CLOCK_BOOTTIME, the clock in which the kernel
notes when a process has started (proc(5)).
"""

from __future__ import annotations

import os
import sys
import time

MARK = "/.mark-live-"  # of countingfs, which isn't imported here


def now() -> float:
    """Seconds since the machine was booted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def started() -> float:
    """The same for the start of this process, to 10 ms."""
    with open("/proc/self/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")


def number() -> int:
    """This process' number in its job: told as srun does, or by mpiexec (MPICH, Open MPI)."""
    for name in ("SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    raise SystemExit("nobody has numbered this process")


def tell(pipe: str, *words: object) -> None:
    """One line, which is whole as long as it is shorter than PIPE_BUF (pipe(7))."""
    fd = os.open(pipe, os.O_WRONLY)
    os.write(fd, (" ".join(map(str, words)) + "\n").encode())
    os.close(fd)


def main(method: str, manifest: str, reports: str, release: str, places: str, paths: str, modules: str) -> None:
    """See above."""
    begun, rank = now(), number()
    managed = [place for place in places.split(":") if place]
    session = None
    if "COLLFS_NODES" in os.environ and "COLLFS_NODE" not in os.environ:
        os.environ["COLLFS_NODE"] = str(rank // int(os.environ["STORM_EACH"]))  # mpiexec gives one environment to all
    if method != "plain":
        import collfs

        transport, _, bootstrap = method.partition("+")
        more: dict[str, object] = {"bootstrap": bootstrap} if bootstrap else {}
        session = collfs.initialize(transport, prefixes=managed, manifest=manifest, patience=120, **more)
        if session.idle:
            raise SystemExit(f"collfs is idle: {session.idle}")
    for place in managed:
        try:
            os.stat(f"/{place}{MARK}{rank}")
        except OSError:
            pass
    sys.path[1:1] = [path for path in paths.split(":") if path]
    tell(reports, "live", rank, os.getpid())
    live, used = now(), time.process_time()
    for name in modules.split(","):
        __import__(name)
    end, total = now(), time.process_time()
    tell(reports, "done", rank, os.getpid(), started(), begun, live, end, used, total)

    os.close(os.open(release, os.O_RDONLY))
    if session is not None:
        import collfs

        stats = collfs.stats()
        trouble = [stats.get("silences"), session.fetcher and session.fetcher.dead, stats["warnings"]]
        store = stats["store"]
        assert isinstance(store, dict)
        tell(
            reports,
            "staged",
            rank,
            store["files"],
            store["bytes"],
            repr([one for one in trouble if one]).encode().hex(),
        )
        collfs.finalize()
    if method.startswith("mpi"):
        from mpi4py import MPI

        MPI.COMM_WORLD.Barrier()


if __name__ == "__main__":
    main(*sys.argv[1:])
