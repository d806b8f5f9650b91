"""One run of one method on simulated nodes: what stands between the job and its files, and what has come of it.

A node is a set of namespaces (tests/helpers/nodes.py) with network, host name, mounts, /dev/shm and TMPDIR of its own.
The shared directories are mounts of the file server there, cold in every run; all else is the node's own disk.

Rules of the file: a run takes its nodes, its file server and its processes down with it, whatever happens; times come
from the processes, counts from the server.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import fileserver
import nodes
from jobs import METHODS, Job, Method, Rank, Setup, end_all_in

if TYPE_CHECKING:
    from pathlib import Path

    import countingfs

__all__ = ["METHODS", "Method", "Rank", "Run", "Setup", "run"]


class Run(NamedTuple):
    """What came of it. ``before`` and ``after``: operations of each node until collfs was active, and since then.

    ``beside``: see :attr:`Job.beside`.
    """

    method: Method
    nodes: int
    places: tuple[str, ...]
    ranks: list[Rank]
    before: list[list[countingfs.Op]]
    after: list[list[countingfs.Op]]
    bytes_read: list[int]
    beside: list[float]

    def row(self, round_number: int) -> dict[str, object]:
        """As in results.json; operations are those with a path, ``late`` those of all but the first node in the end."""
        before = [len(fileserver.paths_only(ops)) for ops in self.before]
        after = [len(fileserver.paths_only(ops)) for ops in self.after]
        return {
            "method": self.method.name,
            "manifest": self.method.manifest,
            "nodes": self.nodes,
            "round": round_number,
            "slowest_s": max(rank.end - rank.started for rank in self.ranks),
            "start_s": max(rank.begun - rank.started for rank in self.ranks),
            "activation_s": max(rank.live - rank.begun for rank in self.ranks),
            "import_s": max(rank.end - rank.live for rank in self.ranks),
            "each_s": [rank.end - rank.started for rank in self.ranks],
            "cpu_s": [rank.cpu_end for rank in self.ranks],
            "import_cpu_s": [rank.cpu_end - rank.cpu_start for rank in self.ranks],
            "beside_cpu_s": self.beside,
            "operations": sum(before) + sum(after),
            "by_node": [a + b for a, b in zip(before, after)],
            "before": before,
            "after": after,
            "bytes": sum(self.bytes_read),
            "staged_files": max(rank.staged_files for rank in self.ranks),
            "staged_bytes": max(rank.staged_bytes for rank in self.ranks),
            "late": sorted({op.path for ops in self.after[1:] for op in fileserver.paths_only(ops)})[:20],
        }


def run(setup: Setup, method: Method, count: int, folder: Path, *, each: int = 1, prepare: bool = False) -> Run:
    """*each* processes on each of *count* nodes.

    :param folder: an empty directory, on no shared one
    :param prepare: nothing is mounted, and what a first run leaves behind may be written: byte code, manifest, bundle
    :raises RuntimeError: if a process fails, with what it said
    """
    for name in ("cluster", "server"):
        (folder / name).mkdir()
    with ExitStack() as stack:
        cluster = stack.enter_context(nodes.Nodes(folder / "cluster", count))
        stack.callback(end_all_in, cluster.pids)
        places = setup.places if method.mounted and not prepare else ()
        if method.name == "tar":
            places = (*places, os.path.dirname(setup.archive))
        server = stack.enter_context(fileserver.FileServer(folder / "server", setup.load, cluster.pids, places))
        job = stack.enter_context(Job(setup, method, cluster, folder, each, prepare))
        ranks = job.reports(count * each)
        by_node = [range(node * each, (node + 1) * each) for node in range(count)]
        split = [
            server.split(
                node, [(f"live-{rank}", ranks[rank].pid) for rank in own] if places and method.name != "tar" else []
            )
            for node, own in enumerate(by_node)
        ]
        if method.name == "tar":  # nothing is mounted any more when its processes start
            split = [(ops, []) for ops, _ in split]
        read, beside = server.bytes_read(), job.beside
        ranks = job.release(ranks)
    return Run(method, count, setup.places, ranks, [ops for ops, _ in split], [ops for _, ops in split], read, beside)
