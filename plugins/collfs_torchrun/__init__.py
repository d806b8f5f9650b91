"""torchrun (torch.distributed.run): who this worker is.

Source: PyTorch's "torchrun (Elastic Launch)", "Environment Variables", and the agent that sets them
(torch/distributed/elastic/agent/server/local_elastic_agent.py):

* ``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``, ``LOCAL_WORLD_SIZE``: as their names say.
* ``GROUP_RANK``: the rank of the group of workers, which is the index of the node if each node has one agent.
* ``MASTER_ADDR``, ``MASTER_PORT``: the host of rank 0, and a port that torch listens on.
* ``TORCHELASTIC_RUN_ID``: the job (``--rdzv-id``); ``none`` if nobody has chosen one, and then address and port tell
  jobs apart.

``RANK`` and ``WORLD_SIZE`` alone are no sign: many scripts set them for themselves. After an elastic restart the
workers are new processes, perhaps with other numbers.

Rule of the file: no import.
"""

from __future__ import annotations

from collfs.launch import Place, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NO_ID = "none"  # default of --rdzv-id, torch/distributed/run.py


def collfs_place(environ: Mapping[str, str]) -> Place | None:
    """See :meth:`collfs.plugins.Hooks.collfs_place`."""
    rank, size = number(environ, "RANK"), number(environ, "WORLD_SIZE")
    job = environ.get("TORCHELASTIC_RUN_ID", "")
    if rank < 0 or size < 0 or not job:
        return None
    root, port = environ.get("MASTER_ADDR", ""), environ.get("MASTER_PORT", "")
    if job == NO_ID:
        job = f"{root}:{port}" if root and port else ""
    return Place(
        rank=rank,
        size=size,
        local_rank=number(environ, "LOCAL_RANK"),
        local_size=number(environ, "LOCAL_WORLD_SIZE"),
        node=number(environ, "GROUP_RANK"),
        job=job,
        root_host=root,
    )
