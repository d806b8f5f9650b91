"""PMI-1 launchers: Hydra (mpiexec of MPICH and of Intel MPI), and PALS of HPE Cray.

Sources and what they say:

* ``PMI_RANK``, ``PMI_SIZE``: the PMI-1 wire protocol (Flux RFC 13, "Simple Process Manager Interface v1"). With
  ``-pmi-port`` MPICH sets ``PMI_ID`` instead, and no size.
* ``MPI_LOCALRANKID``, ``MPI_LOCALNRANKS``, ``PMI_HOSTNAME`` (this node, as the list of hosts calls it): MPICH,
  src/pm/hydra/proxy; seen with 5.0.2 on one and two nodes. The first two are Intel MPI's, too.
* ``I_MPI_HYDRA_UUID``, ``HYDRA_BSTRAP_NODE_ID``, ``HYDRA_BSTRAP_LOCALHOST``: one text for each mpiexec, the index of
  the node in the list of hosts, its name. Not documented; seen with Intel MPI 2021.19 on one and three nodes.
* ``PALS_RANKID``, ``PALS_NODEID``, ``PALS_APID``, ``PALS_LOCAL_RANKID``, ``PALS_LOCAL_SIZE``, ``PMI_LOCAL_RANK``,
  ``PMI_LOCAL_SIZE``, ``PMI_JOBID``: HPE's pals.h, and Slurm's mpi/cray_shasta, which sets the same.

MPICH's Hydra has no variable that tells one mpiexec from another: there the job is unknown. (The name of the key-value
space does, but it comes over the connection ``PMI_FD``, which is MPI's.)

Rule of the file: no import.
"""

from __future__ import annotations

from collfs.launch import Place, number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

JOBS = ("I_MPI_HYDRA_UUID", "PALS_APID")
HOSTS = ("PMI_HOSTNAME", "HYDRA_BSTRAP_LOCALHOST")


def collfs_place(environ: Mapping[str, str]) -> Place | None:
    """See :meth:`collfs.plugins.Hooks.collfs_place`."""
    rank = number(environ, "PMI_RANK", "PMI_ID", "PALS_RANKID")
    if rank < 0:
        return None
    size = number(environ, "PMI_SIZE")
    local_size = number(environ, "MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "PALS_LOCAL_SIZE")
    alone = 0 < size == local_size
    host = _first(environ, HOSTS)
    return Place(
        rank=rank,
        size=size,
        local_rank=number(environ, "MPI_LOCALRANKID", "PMI_LOCAL_RANK", "PALS_LOCAL_RANKID"),
        local_size=local_size,
        node=0 if alone else number(environ, "HYDRA_BSTRAP_NODE_ID", "PALS_NODEID"),
        nodes=(host,) if alone and host else (),
        # a rank of Hydra may have that of the srun that started Hydra's proxy
        job=_first(environ, JOBS if "MPI_LOCALRANKID" in environ else (*JOBS, "PMI_JOBID")),
    )


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        text = environ.get(name)
        if text:
            return text
    return ""
