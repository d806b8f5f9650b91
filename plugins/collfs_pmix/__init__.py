"""PMIx launchers: mpiexec of Open MPI 4 and 5, and prterun of PRRTE.

Sources and what they say:

* ``OMPI_COMM_WORLD_RANK``, ``_SIZE``, ``_LOCAL_RANK``, ``_LOCAL_SIZE``: docs.open-mpi.org, "Environment variables set
  for MPI applications". ``OMPI_COMM_WORLD_NODE_RANK`` is no node's index, but the rank on this node over *all* jobs;
  it isn't used.
* ``PMIX_RANK``, ``PMIX_NAMESPACE``: PMIx standard 4, "PMIx_Init". The namespace is the job, the same on all nodes:
  ``prterun-HOST-PID@1`` of PRRTE, ``slurm.pmix.JOB.STEP`` of Slurm (its mpi_pmix plugin). prterun by itself tells
  neither size nor local rank (seen with that of Open MPI 5.0.11).
* ``PMIX_HOSTNAME``: this node as PRRTE calls it (seen with Open MPI 5.0.11).
* ``OMPI_MCA_ess_base_jobid``: the job of Open MPI up to 4, the same on all nodes (orte/mca/schizo/ompi).

No variable gives the index of the node; it is known only if all ranks are on one.

Rule of the file: no import.
"""

from __future__ import annotations

from collfs.launch import Place, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def collfs_place(environ: Mapping[str, str]) -> Place | None:
    """See :meth:`collfs.plugins.Hooks.collfs_place`."""
    rank = number(environ, "OMPI_COMM_WORLD_RANK", "PMIX_RANK")
    if rank < 0:
        return None
    size = number(environ, "OMPI_COMM_WORLD_SIZE")
    local_size = number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE")
    alone = 0 < size == local_size
    host = environ.get("PMIX_HOSTNAME", "")
    return Place(
        rank=rank,
        size=size,
        local_rank=number(environ, "OMPI_COMM_WORLD_LOCAL_RANK"),
        local_size=local_size,
        node=0 if alone else -1,
        nodes=(host,) if alone and host else (),
        job=environ.get("PMIX_NAMESPACE") or environ.get("OMPI_MCA_ess_base_jobid", ""),
    )
