"""collfs: every process calls the file system as it always did, and only one process of the job really touches it.

>>> import collfs
>>> with collfs.session(transport="local"):                               # doctest: +SKIP
...     import numpy

or, without touching the program: ``collfs run script.py``.

Importing this package has no effect. What it offers is loaded when it is used.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

    from .c_api import export_c_api, get_include
    from .calls import Session, finalize, initialize, invalidate, prefetch, session, stats
    from .errors import (
        CollfsError,
        InterposeRefused,
        ManifestError,
        OptionError,
        RecordError,
        StateError,
        StoreError,
        TransportNotFound,
        TransportUnavailable,
    )
    from .interpose.api import LibcCollfsApi
    from .interpose.callbacks import callback_table

__version__ = "0.1.0"
__all__ = [
    "CollfsError",
    "InterposeRefused",
    "LibcCollfsApi",
    "ManifestError",
    "OptionError",
    "RecordError",
    "Session",
    "StateError",
    "StoreError",
    "TransportNotFound",
    "TransportUnavailable",
    "__version__",
    "callback_table",
    "export_c_api",
    "finalize",
    "get_include",
    "initialize",
    "invalidate",
    "prefetch",
    "session",
    "stats",
]

_HOME = {
    "LibcCollfsApi": "interpose.api",
    "callback_table": "interpose.callbacks",
    "export_c_api": "c_api",
    "get_include": "c_api",
    **dict.fromkeys(("Session", "finalize", "initialize", "invalidate", "prefetch", "session", "stats"), "calls"),
}


def __getattr__(name: str) -> object:
    """PEP 562: load what is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'collfs' has no attribute {name!r}")
    use_bundle()
    home = "collfs." + _HOME.get(name, "errors")
    __import__(home)
    value = getattr(sys.modules[home], name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


_bundled: dict[str, tuple[str, bool, CodeType]] | None = None  # None: nobody has asked yet


def use_bundle() -> bool:
    """Take what is imported from now on out of the bundle, if there is one; whether there is. For ``collfs`` itself."""
    global _bundled
    if _bundled is None:
        _bundled = _open_bundle()
    return bool(_bundled)


def read_bundle() -> dict[str, tuple[str, bool, CodeType]]:
    """Our modules from one file instead of some thirty, where ``collfs.bundle`` has left one.

    Only in an installation, never in a checkout: there sources change. As with unchecked hash-based bytecode (PEP 552)
    the sources aren't looked at; a new installation has a new ``__init__.py`` and another version.
    """
    if "-packages" not in __file__:
        return {}
    import marshal

    directory = os.path.dirname(__file__)
    try:
        with open(f"{directory}/__pycache__/core.{sys.implementation.cache_tag}.bundle", "rb") as file:
            key, found = marshal.loads(file.read())
        st = os.stat(__file__)
        if key != (__version__, sys.hexversion, __file__, st.st_mtime_ns, st.st_size):
            return {}
    except (OSError, ValueError, EOFError, TypeError):
        return {}

    modules: dict[str, tuple[str, bool, CodeType]] = found
    return modules


def _open_bundle() -> dict[str, tuple[str, bool, CodeType]]:
    """Have our modules come from the bundle."""
    modules = read_bundle()
    if not modules:
        return {}

    class Bundle:
        """Finder and loader (PEP 451) of the modules in the bundle."""

        @staticmethod
        def find_spec(fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
            if fullname not in modules:
                return None
            file, is_package, _ = modules[fullname]
            spec = type(__spec__)(fullname, Bundle, origin=file, is_package=is_package)  # type: ignore[arg-type]
            spec.has_location = True
            if is_package:
                spec.submodule_search_locations = [os.path.dirname(file)]
            return spec

        @staticmethod
        def create_module(spec: ModuleSpec) -> None:
            return None

        @staticmethod
        def exec_module(module: ModuleType) -> None:
            exec(modules[module.__name__][2], module.__dict__)

    sys.meta_path.insert(0, Bundle)
    return modules
