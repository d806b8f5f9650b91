"""Slurm's srun: who this process is in its job step.

Sources: srun(1), "OUTPUT ENVIRONMENT VARIABLES", for all variables; scontrol(1), "show hostnames", for the lists of
hosts. Seen with Slurm 22.05 on three nodes, with --mpi=none and pmi2, -m block, cyclic and arbitrary, and as a
heterogeneous step, where all of them speak of the whole step:

* ``SLURM_PROCID``, ``SLURM_LOCALID``, ``SLURM_NODEID``: rank, local rank, index of the node in the step's list of nodes
  (also with -m arbitrary, where rank 0 may be on any node).
* ``SLURM_STEP_NUM_TASKS``: ranks of the step. The batch script has no ``SLURM_STEP_...``, but ``SLURM_PROCID=0`` and
  the job's ``SLURM_NTASKS``.
* ``SLURM_STEP_NODELIST``, ``SLURM_STEP_TASKS_PER_NODE``: the nodes of the step, and the ranks on each, as ``2(x3),1``.
* ``SLURM_JOB_ID``, ``SLURM_STEP_ID``: as squeue writes them, with a point between.

Rules of the file: no import; what can't be understood is unknown; a list of hosts is bounded before it is made.
"""

from __future__ import annotations

from collfs.launch import Place, number, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 1_000_000  # names in a list: 25 times the nodes of the largest machine so far; 100 MB


def collfs_place(environ: Mapping[str, str]) -> Place | None:
    """See :meth:`collfs.plugins.Hooks.collfs_place`."""
    rank, size = number(environ, "SLURM_PROCID"), number(environ, "SLURM_STEP_NUM_TASKS")
    if rank < 0 or size < 0:
        return None
    node = number(environ, "SLURM_NODEID")
    try:
        nodes = expand(environ.get("SLURM_STEP_NODELIST", ""))
    except ValueError:
        nodes = ()
    job, step = environ.get("SLURM_JOB_ID", ""), environ.get("SLURM_STEP_ID", "")
    return Place(
        rank=rank,
        size=size,
        local_rank=number(environ, "SLURM_LOCALID"),
        local_size=tasks_on(environ.get("SLURM_STEP_TASKS_PER_NODE", ""), node),
        node=node,
        nodes=nodes,
        job=f"{job}.{step}" if job and step else job,
    )


def tasks_on(text: str, node: int) -> int:
    """How many ranks the node with this index has, by a list as ``2(x3),1``; -1 if that is unknown."""
    for item in text.split(",") if node >= 0 else ():
        count, cross, times = item.partition("(x")
        repeat = 1
        if cross:
            repeat = whole(times[:-1]) if times.endswith(")") else -1
        if repeat < 1:
            return -1
        if node < repeat:
            return whole(count)
        node -= repeat
    return -1


def expand(text: str) -> tuple[str, ...]:
    """The host names of a list as ``cn[001-003,007],gpu[1-2]x[0-3]``, in the order that Slurm counts nodes in.

    With several brackets in one name the last one counts fastest, then the first, the second, and so on (seen).

    :raises ValueError: the text is none, or stands for more than :data:`LIMIT` names
    """
    names: list[str] = []
    for item in _split(text, ", \t\n"):
        *fixed, last = item.split("[")
        if not fixed:
            if "]" in last:
                raise ValueError(f"a ] without a [ in {item!r}")
            names.append(last)
            continue
        parts, values = [fixed[0]], []
        for piece in (*fixed[1:], last):
            inside, bracket, after = piece.partition("]")
            if not bracket or "]" in after or "]" in fixed[0]:
                raise ValueError(f"brackets that don't match in {item!r}")
            values.append(_numbers(inside))
            parts.append(after)
        total = len(names)
        product = 1
        for found in values:
            product *= len(found)
        if total + product > LIMIT:
            raise ValueError(f"more than {LIMIT} names")
        heads = [parts[0]]
        for found, after in zip(values[:-1], parts[1:-1]):
            heads = [head + value + after for value in found for head in heads]
        names += [head + value + parts[-1] for head in heads for value in values[-1]]
    if len(names) > LIMIT:
        raise ValueError(f"more than {LIMIT} names")
    return tuple(names)


def _split(text: str, separators: str) -> list[str]:
    """Cut at each of *separators* that isn't in brackets; empty pieces are left out."""
    pieces, start, depth = [], 0, 0
    for index, letter in enumerate(text):
        if letter == "[":
            depth += 1
        elif letter == "]":
            depth -= 1
        elif letter in separators and depth == 0:
            pieces.append(text[start:index])
            start = index + 1
        if not 0 <= depth <= 1:
            raise ValueError(f"brackets that don't match in {text[start : index + 1]!r}")
    pieces.append(text[start:])
    return [piece for piece in pieces if piece]


def _numbers(text: str) -> list[str]:
    """The numbers of ``001-003,007``, as many digits wide as the lower bound is written."""
    found: list[str] = []
    for item in text.split(","):
        low, dash, high = item.partition("-")
        first = whole(low)
        until = whole(high) if dash else first
        if first < 0 or until < first:
            raise ValueError(f"{item!r} is no range of numbers")
        if len(found) + until - first + 1 > LIMIT:
            raise ValueError(f"more than {LIMIT} names")
        found += [f"{value:0{len(low)}}" for value in range(first, until + 1)]
    return found
