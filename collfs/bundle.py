"""The bundle: the modules of the core path in one file, so that a start reads one file instead of some thirty.

A package's modules cost a rank four path operations each before collfs can help (stat of the directory, two of the
source, open of the bytecode). The bundle is written at the end of a session, into the package's ``__pycache__``, if
that is allowed, and again when a session has loaded more, such as another transport; ``collfs/__init__.py`` uses it.
Deleting it is harmless.

Rules of the file: loaded late, once; what can't be bundled or written is no error.
"""

from __future__ import annotations

import marshal
import os
import sys

from . import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

#: packages whose loaded modules go into the bundle
TRANSPORTS = ("collfs_local", "collfs_mpi", "collfs_zmq")
PLUGINS = ("collfs_flux", "collfs_hydra", "collfs_pmix", "collfs_slurm", "collfs_torchrun")
PACKAGES = ("collfs", *TRANSPORTS, *PLUGINS)


def path(directory: str) -> str:
    """Where the bundle of the package in *directory* is."""
    return f"{directory}/__pycache__/core.{sys.implementation.cache_tag}.bundle"


def modules() -> dict[str, tuple[str, bool, CodeType]]:
    """The modules of :data:`PACKAGES` that were loaded from files: file, is package, code.

    But for collfs itself, which reads the bundle.
    """
    out: dict[str, tuple[str, bool, CodeType]] = {}
    for name, module in sorted(sys.modules.items()):
        if name == "collfs" or name.partition(".")[0] not in PACKAGES:
            continue
        spec = getattr(module, "__spec__", None)
        get_code = getattr(getattr(spec, "loader", None), "get_code", None)
        if spec is None or get_code is None or not spec.origin or not spec.origin.endswith(".py"):
            continue
        out[name] = (spec.origin, spec.submodule_search_locations is not None, get_code(name))
    return out


def write() -> bool:
    """Add what this process has loaded to the bundle of this installation; True if there was something to add."""
    import collfs

    directory = os.path.dirname(collfs.__file__)
    target = path(directory)
    if "-packages" not in collfs.__file__ or sys.dont_write_bytecode:
        return False
    found = modules()
    if found.keys() <= (collfs._bundled or {}).keys():
        return False
    known = collfs.read_bundle()  # others may have added to it since
    if found.keys() <= known.keys():
        return False
    temporary = f"{target}.{os.getpid()}"
    try:
        st = os.stat(collfs.__file__)
        key = (__version__, sys.hexversion, collfs.__file__, st.st_mtime_ns, st.st_size)
        with open(temporary, "xb") as file:
            file.write(marshal.dumps((key, {**known, **found})))
        os.replace(temporary, target)
    except (OSError, ValueError, ImportError, SyntaxError):
        try:
            os.unlink(temporary)
        except OSError:
            pass
        return False
    return True
