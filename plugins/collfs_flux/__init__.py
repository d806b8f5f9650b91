"""Flux: who this process is in a job of ``flux run``, ``flux submit`` or a batch of them.

Sources and what they say:

* ``FLUX_TASK_RANK``, ``FLUX_TASK_LOCAL_ID``, ``FLUX_JOB_SIZE``, ``FLUX_JOB_NNODES``, ``FLUX_JOB_ID``:
  flux-environment(7), "JOB ENVIRONMENT". The initial program of ``flux alloc`` and ``flux batch`` has none of them: it
  is no rank.
* ``PALS_NODEID``: the index of the node, where the shell plugin cray_pals is loaded (flux-coral2, cray_pals.c).

No variable gives the hosts or the ranks on this node; the latter and the node's index are known if there is one node.

Rule of the file: no import.
"""

from __future__ import annotations

from collfs.launch import Place, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def collfs_place(environ: Mapping[str, str]) -> Place | None:
    """See :meth:`collfs.plugins.Hooks.collfs_place`."""
    rank, size = number(environ, "FLUX_TASK_RANK"), number(environ, "FLUX_JOB_SIZE")
    if rank < 0 or size < 0:
        return None
    alone = number(environ, "FLUX_JOB_NNODES") == 1
    return Place(
        rank=rank,
        size=size,
        local_rank=number(environ, "FLUX_TASK_LOCAL_ID"),
        local_size=size if alone else -1,
        node=0 if alone else number(environ, "PALS_NODEID"),
        job=environ.get("FLUX_JOB_ID", ""),
    )
