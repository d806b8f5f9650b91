"""Choosing a transport: from what the user asked for to an object that can work.

Looking a name up in the installed packages' metadata is the very storm that collfs is made against: measured with 200
distributions, one scan costs 1,897 path calls per rank. So a name of our own is found in a table, ``module:object`` is
simply imported, and only an unknown name is searched for.

Rules of the file: no import but ``os`` and ``sys`` (and nothing that they don't have loaded) unless there is a secret;
``"auto"`` decides only by what is the same on all ranks, or can't do harm if it isn't; whatever goes wrong names the
transport, the reason and what to do.
"""

from __future__ import annotations

import os
import sys

from collfs.errors import CollfsError, OptionError, TransportNotFound, TransportUnavailable
from collfs.transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Protocol, Union

    class TransportOptions(Protocol):
        """What a transport may rely on among the options of the session. Others, and own ones, it reads by getattr."""

        @property
        def cache(self) -> str | None: ...
        @property
        def max_file_bytes(self) -> int | None: ...
        @property
        def patience(self) -> float: ...

    Spec = Union[str, Transport]

GROUP = "collfs.transports"  #: the entry point group, ours and strangers'

#: Names of our own: where it is (None: not part of this version), and what to do if its library is missing.
ROWS: tuple[tuple[str, str | None, str], ...] = (
    ("local", "collfs_local:transport", "pip install --force-reinstall collfs"),
    ("mpi", "collfs_mpi:transport", 'pip install "collfs[mpi]"'),
    ("zmq", "collfs_zmq:transport", 'pip install "collfs[zmq]"'),
)

#: The rows that this version has, as in ``[project.entry-points."collfs.transports"]`` of pyproject.toml.
OWN: dict[str, str] = {name: where for name, where, _ in ROWS if where is not None}

# What each launcher sets is told, with sources, in the heads of plugins/collfs_*; repeated here is only what decides
# about MPI, since a rank of every job reads it and shall not import a plugin for it.
# How many ranks the launcher started; the same number on each of them.
_SIZES = (
    "OMPI_COMM_WORLD_SIZE",  # Open MPI: docs.open-mpi.org, "Environment variables set for MPI applications"
    "PMI_SIZE",  # PMI-1 wire protocol: MPICH and Intel MPI (Hydra), Slurm's pmi2
    "MV2_COMM_WORLD_SIZE",  # MVAPICH2 (mpirun_rsh)
)
# Signs of a launcher that doesn't say how many. Only their presence is used: MPI_LOCALNRANKS differs from node to node.
_SIGNS = (
    "PMIX_RANK",  # PMIx: prterun, srun --mpi=pmix (PMIx standard, "PMIx_Init")
    "PMI_ID",  # Hydra with -pmi-port
    "MPI_LOCALNRANKS",  # MPICH, Intel MPI
)
RANK_PID = "COLLFS_MPI_PID"  # set by transport mpi: the process that is the rank
_STEP_SIZE = "SLURM_STEP_NUM_TASKS"  # man srun, "output environment variables": the tasks of this step


class Choice:
    """What was asked for, what was taken, and why the ones before it were not.

    ``asked`` is the text or the name of the object given, ``taken`` the name of the transport that will serve, and
    ``reasons`` a list of (name, why it was passed over or taken) in the order of trying.
    """

    __slots__ = ("asked", "reasons", "taken", "transport")

    def __init__(self, asked: str, taken: str, reasons: list[tuple[str, str]], transport: Transport) -> None:
        self.asked = asked
        self.taken = taken
        self.reasons = reasons
        self.transport = transport

    def __str__(self) -> str:
        why = "".join(f"; {name}: {text}" for name, text in self.reasons)
        return f"transport {self.taken!r} (asked for: {self.asked!r}){why}"


def select(
    spec: Spec,
    options: TransportOptions,
    *,
    fallback: Sequence[Spec] = (),
    prefixes: Sequence[str] | None = None,
) -> Transport:
    """:func:`choose`, for those who only want the transport.

    >>> select("local", options)                                          # doctest: +SKIP
    """
    return choose(spec, options, fallback=fallback, prefixes=prefixes).transport


def choose(
    spec: Spec,
    options: TransportOptions,
    *,
    fallback: Sequence[Spec] = (),
    prefixes: Sequence[str] | None = None,
    store: str = "",
    trouble: str = "",
) -> Choice:
    """Find the transport that the user asked for, or the first of *fallback* that works.

    :param spec: a :class:`Transport` object, a short name, ``"module:object"`` or ``"auto"``
    :param options: handed to the transport's factory
    :param fallback: what to try, in this order, if *spec* can't work
    :param prefixes: if given, each candidate is also opened with them, and one that can't be opened is passed over
    :param store: directory of this node's store, for the transport to know
    :param trouble: :attr:`Transport.trouble`, for each candidate to know
    :raises OptionError: an argument or an option of the transport is wrong; this ends the ladder
    :raises TransportNotFound: nothing has that name
    :raises TransportUnavailable: it exists but can't work here, or, with *fallback*, none of them can
    """
    if isinstance(fallback, str) or not isinstance(fallback, (tuple, list)):
        raise OptionError(f"fallback={fallback!r}: give a tuple or list of transports, such as ('local',)")
    asked = _label(spec)
    reasons: list[tuple[str, str]] = []
    ladder: list[tuple[Spec, str]] = []
    for rung in (spec, *fallback):
        _label(rung)  # a bad one is the user's mistake whether or not its turn comes
        ladder += auto(os.environ, store) if rung == "auto" else [(rung, "")]
    failures: list[CollfsError] = []
    for rung, why in ladder:
        try:
            transport = _attempt(rung, options, prefixes, store, trouble)
        except (TransportNotFound, TransportUnavailable) as exc:
            reasons.append((_label(rung), str(exc)))
            failures.append(exc)
            continue
        if why:
            reasons.append((_label(rung), why))
        return Choice(asked, transport.name or _label(rung), reasons, transport)
    if len(failures) == 1:
        raise failures[0]
    tried = "".join(f"\n  {name}: {text}" for name, text in reasons)
    raise TransportUnavailable(f"none of the {len(ladder)} transports asked for can work here:{tried}") from failures[0]


def auto(environ: Mapping[str, str], store: str = "") -> list[tuple[Spec, str]]:
    """The ladder that ``"auto"`` stands for: (name, why), best first, ``local`` last.

    MPI, if an MPI launcher started this process and more than one rank; zmq, if there are servers of other nodes to ask
    (:func:`served`); local always. What this version doesn't have is left out: a job works with any version, however it
    is started.

    :param store: directory of this node's store; empty: unknown
    """
    ladder: list[tuple[Spec, str]] = []
    ranks = launched(environ)
    if "mpi" in OWN and ranks:
        ladder.append(("mpi", f"started by an MPI launcher ({ranks})"))
    servers = served(environ, store) if "zmq" in OWN else ""
    if servers:
        ladder.append(("zmq", servers))
    ladder.append(("local", "auto: nothing better is there for this kind of start"))
    return ladder


def served(environ: Mapping[str, str], store: str = "") -> str:
    """What speaks for zmq, in a few words; empty: nothing.

    ``COLLFS_ROOT`` and what the launcher says of the nodes are the same on all ranks. Whether a server runs on this
    node is not, and pyzmq may be missing on one node. But zmq is not collective: no process ever waits there for one
    that has decided otherwise; its node reads for itself, that is all.

    :raises OptionError: a ``COLLFS_...`` variable about nodes has a bad value
    """
    root = environ.get("COLLFS_ROOT")
    if root:
        return f"a root address is known (COLLFS_ROOT={root})"
    if store and os.path.exists(f"{store}/server"):  # collfs_zmq.local.NAME
        return "a server of this job runs on this node"
    nodes = tree(environ)
    return f"the launcher names {nodes} nodes, and there is a secret" if nodes else ""


def tree(environ: Mapping[str, str]) -> int:
    """How many nodes a tree of servers can have without anybody's help (``collfs serve --tree``); 0: it can't be.

    :raises OptionError: as :func:`collfs.launch.place`
    """
    if not (environ.get("COLLFS_SECRET") or environ.get("COLLFS_SECRET_FILE")):
        return 0  # first: most jobs have none, and shall not import a launcher's plugin
    from collfs.launch import place

    here = place(environ)
    known = here.job and here.root_host and here.node >= 0
    return len(here.nodes) if known and len(here.nodes) > 1 else 0


def launched(environ: Mapping[str, str]) -> str:
    """Which sign says that an MPI launcher started several ranks, as ``NAME=value``; empty if none does.

    A program that a rank starts inherits the signs, but it is no rank: MPI_Init would fail in it, or wait for ever.
    """
    if environ.get(RANK_PID, str(os.getpid())) != str(os.getpid()):
        return ""
    for name in _SIZES:
        text = environ.get(name, "")
        if text.isdigit():
            return f"{name}={text}" if int(text) > 1 else ""
    for name in _SIGNS:
        if name in environ:
            alone = environ.get(_STEP_SIZE) == "1"
            return "" if alone else f"{name} is set"
    return ""


def find(name: str) -> str:
    """Search the metadata of all installed packages for a stranger's transport: ``"module:object"``.

    Costs several path calls for each installed package. One rank does it; the result can be given to the others.

    :raises TransportNotFound: no package offers that name
    :raises OptionError: several do, and differ
    """
    # metadata imports some forty modules: it comes only now, when a name is unknown
    import importlib.metadata as metadata

    offered: dict[str, set[str]] = {}
    if sys.version_info >= (3, 10):
        points = tuple(metadata.entry_points(group=GROUP))
    else:
        points = tuple(metadata.entry_points().get(GROUP, ()))
    for point in points:
        offered.setdefault(point.name, set()).add(f"{point.module}:{point.attr or 'transport'}")
    values = sorted(offered.get(name, ()))
    if len(values) > 1:
        raise OptionError(f'transport={name!r} is offered by several packages: choose one as "module:object": {values}')
    if not values:
        known = sorted(set(offered) | set(OWN))
        raise TransportNotFound(
            f"no transport is named {name!r}. Known here: {', '.join(known)}. Install the package that has it (entry "
            f'point group "{GROUP}"), or give "module:object" or a Transport object'
        )
    return values[0]


def _label(spec: object) -> str:
    """How a message calls *spec*.

    :raises OptionError: if it is none of the forms that are allowed
    """
    if isinstance(spec, Transport):
        return spec.name or type(spec).__qualname__
    if isinstance(spec, str) and spec and not spec.startswith(":") and not spec.endswith(":"):
        return spec
    hint = " (that is a class: give an object of it)" if isinstance(spec, type) else ""
    raise OptionError(
        f'transport={spec!r}{hint}: give "auto", a name such as "local", "module:object", or an object whose class '
        "derives from collfs.transport.Transport"
    )


def _attempt(
    spec: Spec, options: TransportOptions, prefixes: Sequence[str] | None, store: str, trouble: str
) -> Transport:
    """Load, make, check and, if there are *prefixes*, open one transport."""
    if isinstance(spec, Transport):
        transport = _checked(spec, _label(spec))
    else:
        transport = _make(spec, options)
    if prefixes is not None:
        transport.node_store, transport.trouble = store, trouble
        try:
            transport.open(prefixes)
        except CollfsError:
            _drop(transport)
            raise
        except Exception as exc:
            _drop(transport)
            raise TransportUnavailable(f"transport {_label(spec)!r} can't be opened: {_tell(exc)}") from exc
    return transport


def _drop(transport: Transport) -> None:
    try:
        transport.close()
    except Exception:  # why it couldn't be opened matters more than how it went away
        pass


def _make(spec: str, options: TransportOptions) -> Transport:
    hint = ""
    where = spec
    if ":" not in spec:
        for name, own, install in ROWS:
            if name == spec:
                if own is None:
                    raise TransportUnavailable(
                        f"transport {spec!r} is not part of this version of collfs, which has: {', '.join(OWN)}. "
                        'Use one of these, or "auto"'
                    )
                where, hint = own, install
                break
        else:
            where = find(spec)
    module, _, attribute = where.partition(":")
    factory = _load(spec, module, attribute, hint)
    if isinstance(factory, Transport):
        return _checked(factory, spec)
    if not callable(factory):
        raise TransportUnavailable(
            f"transport {spec!r}: {where} is {factory!r}; it has to be a callable that takes the options and returns a "
            "Transport, a Transport class, or a Transport object"
        )
    try:
        made: object = factory(options)
    except CollfsError:
        raise
    except ImportError as exc:
        raise _unavailable(spec, exc, hint) from exc
    except Exception as exc:
        raise TransportUnavailable(f"transport {spec!r}: {where}(options) raised {_tell(exc)}") from exc
    return _checked(made, spec)


def _load(spec: str, module: str, attribute: str, hint: str) -> object:
    """Import *module* and take the dotted *attribute* of it."""
    try:
        __import__(module)  # importlib need not be loaded for this
    except ModuleNotFoundError as exc:
        if exc.name is not None and not hint and (module == exc.name or module.startswith(exc.name + ".")):
            raise TransportNotFound(
                f"transport {spec!r}: there is no module {exc.name!r} on sys.path. Check the spelling, or install it"
            ) from exc
        raise _unavailable(spec, exc, hint) from exc
    except ImportError as exc:
        raise _unavailable(spec, exc, hint) from exc
    except CollfsError:
        raise
    except Exception as exc:
        raise TransportUnavailable(f"transport {spec!r}: importing {module} raised {_tell(exc)}") from exc
    found: object = sys.modules[module]
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as exc:
            raise TransportNotFound(f"transport {spec!r}: module {module} has no {attribute!r}") from exc
    return found


def _checked(made: object, spec: str) -> Transport:
    """*made*, if it is a transport with all that an author must write."""
    if not isinstance(made, Transport):
        raise TransportUnavailable(
            f"transport {spec!r} gave an object of {type(made)!r}: its class has to derive from "
            "collfs.transport.Transport"
        )
    kind = type(made)
    missing = [name for name in ("stat", "listdir", "read") if getattr(kind, name) is getattr(Transport, name)]
    if missing:
        raise TransportUnavailable(
            f"transport {spec!r}: class {kind.__qualname__} has no {', '.join(missing)} of its own: write "
            "stat(path), listdir(path) and read(path)"
        )
    return made


def _unavailable(spec: str, exc: ImportError, hint: str) -> TransportUnavailable:
    todo = f". Do: {hint}" if hint else f". Install what it needs{f': {exc.name}' if exc.name else ''}"
    return TransportUnavailable(f"transport {spec!r} can't be loaded: {exc}{todo}", name=exc.name, path=exc.path)


def _tell(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}"
