"""Who this process is in its job: rank, size, node, address of the root, as its launcher tells.

Explicit variables (``COLLFS_RANK`` and so on, :data:`INTEGERS`) always win. What they leave open is told by one plugin:
the first of ``COLLFS_PLUGINS`` that knows, else the first of :data:`LAUNCHERS` one of whose signs is set. Nothing else
is asked: what two launchers say may contradict, and then both would be half right.

Rules of the file: no import but ``os`` and ``sys`` before something calls for it; a decision between launchers looks
only at which variables are there, never at their values, so that it's the same on all ranks; a plugin is imported when
its sign is set, which costs the one module and no metadata; what is unknown is said to be unknown, never guessed.
"""

from __future__ import annotations

import os
import sys

from collfs.errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

#: (name of the plugin, its module, signs: it is asked if one of them is set). The innermost launcher comes first:
#: a process has the variables of all that are around it, and the outer ones speak of mpiexec or torchrun, not of it.
LAUNCHERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("torchrun", "collfs_torchrun", ("TORCHELASTIC_RUN_ID",)),  # its agent may be a rank of srun or mpiexec
    # mpiexec in a Slurm job starts its daemons by srun, and the ranks inherit the SLURM_* of their daemon (seen)
    ("pmix", "collfs_pmix", ("OMPI_COMM_WORLD_RANK", "PRTE_LAUNCHED")),
    ("hydra", "collfs_hydra", ("MPI_LOCALRANKID",)),
    ("flux", "collfs_flux", ("FLUX_TASK_RANK",)),  # flux-broker removes SLURM_* (flux-environment(7))
    ("slurm", "collfs_slurm", ("SLURM_STEP_NUM_TASKS",)),  # not set in the batch script, which is no rank (seen)
    # Flux and srun speak PMI and PMIx to their ranks, too: these signs alone say less than theirs above.
    ("pmix", "collfs_pmix", ("PMIX_RANK",)),
    ("hydra", "collfs_hydra", ("PMI_RANK", "PALS_RANKID")),
)

#: Our own plugins, as in ``[project.entry-points."collfs.plugins"]`` of pyproject.toml.
OWN: dict[str, str] = {name: module for name, module, _ in LAUNCHERS}

#: (attribute of a place, variable that sets it, smallest value)
INTEGERS = (
    ("rank", "COLLFS_RANK", 0),
    ("size", "COLLFS_SIZE", 1),
    ("local_rank", "COLLFS_LOCAL_RANK", 0),
    ("local_size", "COLLFS_LOCAL_SIZE", 1),
    ("node", "COLLFS_NODE", 0),
)
RANK_PID = "COLLFS_MPI_PID"  # as in collfs.transport.registry, which isn't imported for this
_DIGITS = 9  # no job has a thousand million ranks, and int() of a very long text is slow or an error
_PORT = 65535  # tcp(7): 16 bits


class Place:
    """What is known of one process: an unknown number is -1, an unknown text empty.

    ``node`` is the index of this node, ``nodes`` the host names in the order of these indices (empty: unknown), ``job``
    the same text on all nodes, ``root_host`` the host of node 0, and ``source`` the plugin that told it
    (``"environment"``: only ``COLLFS_...`` variables did).
    """

    __slots__ = ("job", "local_rank", "local_size", "node", "nodes", "rank", "root_host", "size", "source")

    def __init__(
        self,
        *,
        rank: int = -1,
        size: int = -1,
        local_rank: int = -1,
        local_size: int = -1,
        node: int = -1,
        nodes: tuple[str, ...] = (),
        job: str = "",
        root_host: str = "",
        source: str = "",
    ) -> None:
        self.rank, self.size, self.local_rank, self.local_size, self.node = rank, size, local_rank, local_size, node
        self.nodes, self.job, self.root_host, self.source = nodes, job, root_host, source

    def __repr__(self) -> str:
        known = [f"{name}={value!r}" for name in self.__slots__ if (value := getattr(self, name)) not in (-1, "", ())]
        return f"Place({', '.join(known)})"


def whole(text: str) -> int:
    """The number that *text* is in plain decimal digits; -1 if it is none. For plugins."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else -1


def number(environ: Mapping[str, str], *names: str) -> int:
    """The first of these variables that holds a plain decimal number; -1 if none does. For plugins."""
    for name in names:
        value = whole(environ.get(name, ""))
        if value >= 0:
            return value
    return -1


def place(environ: Mapping[str, str] | None = None, *, scan: bool = False) -> Place:
    """Who this process is.

    A program that a rank starts inherits its variables, but is no rank: of what the launcher said it keeps the node and
    the job, and has no ``rank`` and ``local_rank``.

    :param environ: ``os.environ`` unless given
    :param scan: if none of our launchers is there, and the environment doesn't say which node of which this is, ask
        the plugins of all installed packages, which costs several path calls for each package and some 300 for what
        finds them; needs pluggy, without it nobody is asked
    :raises OptionError: a ``COLLFS_...`` variable has a bad value, or contradicts another one
    """
    env: Mapping[str, str] = os.environ if environ is None else environ
    given = _given(env)
    told = _named(env) or _launcher(env)
    if told is None and scan and not {"node", "nodes"} <= given.keys():
        try:
            from collfs import plugins
        except ModuleNotFoundError as exc:
            if exc.name != "pluggy":
                raise
        else:
            told = plugins.ask_all(env)
    if told is None:
        told = Place(source="environment" if given else "")
    if env.get(RANK_PID, str(os.getpid())) != str(os.getpid()):
        told.rank = told.local_rank = -1
    for name, value in given.items():
        setattr(told, name, value)
    _reconcile(told, given)
    if not told.root_host and told.nodes:
        told.root_host = told.nodes[0]
    return told


def ask(name: str, module: str, environ: Mapping[str, str], function: str = "collfs_place") -> Place | None:
    """What the plugin in *module* says; None: it doesn't know this environment."""
    __import__(module)  # importlib need not be loaded for this
    return answer(name, getattr(sys.modules[module], function)(environ=environ))


def answer(name: str, told: object) -> Place | None:
    """*told*, which plugin *name* returned, if it is a place or None.

    :raises TypeError: if it isn't
    """
    if told is None:
        return None
    if not isinstance(told, Place):
        raise TypeError(f"collfs_place of plugin {name!r} returned {told!r}: return a collfs.launch.Place, or None")
    numbers = [getattr(told, attribute) for attribute, _, _ in INTEGERS]
    texts = (told.job, told.root_host, *told.nodes)
    if any(type(value) is not int or value < -1 for value in numbers) or any(type(text) is not str for text in texts):
        raise TypeError(f"plugin {name!r} returned {told!r}: numbers are int from -1 up, the others str")
    told.source = name
    return told


def _launcher(env: Mapping[str, str]) -> Place | None:
    for name, module, signs in LAUNCHERS:
        for sign in signs:
            if sign in env:
                told = ask(name, module, env)
                if told is not None:
                    return told
                break
    return None


def _named(env: Mapping[str, str]) -> Place | None:
    """What the first of ``COLLFS_PLUGINS`` says that knows something.

    A name of our own and ``module:function`` are simply imported; only another name is looked for in the metadata.
    """
    text = env.get("COLLFS_PLUGINS", "")
    for name in text.split(",") if text else ():
        module, colon, function = name.partition(":")
        try:
            if name in OWN:
                told = ask(name, OWN[name], env)
            elif colon:
                told = ask(name, module, env, function)
            else:
                from collfs import plugins

                told = plugins.ask_one(name, env)
        except OptionError:
            raise
        except Exception as exc:
            lacking = isinstance(exc, ModuleNotFoundError) and exc.name == "pluggy"
            todo = 'Do: pip install "collfs[plugins]"' if lacking else "Mend it, or leave it out"
            raise OptionError(
                f"variable COLLFS_PLUGINS={text!r}: plugin {name!r} failed: {type(exc).__name__}: {exc}. {todo}"
            ) from exc
        if told is not None:
            return told
    return None


def _given(env: Mapping[str, str]) -> dict[str, object]:
    """What the explicit variables say; an empty one counts as not set, as with every option."""
    values: dict[str, object] = {}
    for name, variable, smallest in INTEGERS:
        text = env.get(variable, "")
        if text:
            value = whole(text)
            if value < smallest:
                raise _bad(variable, text, f"a whole number from {smallest} up")
            values[name] = value
    text = env.get("COLLFS_NODES", "")
    if text:
        values["nodes"] = _nodes(text)
    text = env.get("COLLFS_JOB", "")
    if text:
        from collfs.option_kinds import JOB  # the session has loaded it

        try:
            values["job"] = JOB.check(text)
        except ValueError:
            raise _bad("COLLFS_JOB", text, JOB.allowed) from None
    text = env.get("COLLFS_ROOT", "")
    if text:
        scheme, _, address = text.partition("://")
        host, _, port = address.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else "" if ":" in host else host
        if scheme != "tcp" or host.split() != [host] or host == "*" or not 0 < whole(port) <= _PORT:
            raise _bad("COLLFS_ROOT", text, "tcp://host:port, as in tcp://cn001:5555 or tcp://[fe80::1]:5555")
        values["root_host"] = host
    return values


def _nodes(text: str) -> tuple[str, ...]:
    names: tuple[str, ...] = tuple(text.replace(",", " ").split())
    if "[" in text or "]" in text:
        from collfs_slurm import expand

        try:
            names = expand(text)
        except ValueError as exc:
            raise _bad("COLLFS_NODES", text, f"host names with commas, such as cn001,cn[003-007] ({exc})") from None
    if not names:
        raise _bad("COLLFS_NODES", text, "host names with commas, such as cn001,cn[003-007]")
    return names


def _reconcile(found: Place, given: Mapping[str, object]) -> None:
    """Make unknown what can't be together; what was given stays, and may not contradict itself."""
    variables = {name: variable for name, variable, _ in INTEGERS}
    for small, large, more in (("rank", "size", 0), ("local_rank", "local_size", 0), ("local_size", "size", 1)):
        a, b = getattr(found, small), getattr(found, large)
        if b == -1 or a < b + more:
            continue
        if small in given and large in given:
            most = b + more - 1
            raise _bad(variables[small], str(a), f"at most {most}, because {variables[large]} is {b}")
        for name in (small, large):
            if name not in given:
                setattr(found, name, -1)
    if found.nodes and found.node >= len(found.nodes):
        if "node" in given and "nodes" in given:
            raise _bad("COLLFS_NODE", str(found.node), f"at most {len(found.nodes) - 1}: COLLFS_NODES has that many")
        if "nodes" not in given:
            found.nodes = ()
        if "node" not in given:
            found.node = -1


def _bad(variable: str, text: str, allowed: str) -> OptionError:
    return OptionError(f"variable {variable}={text!r}: give {allowed}, or unset it to let the launcher tell")
