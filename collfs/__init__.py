"""collfs: every process calls the file system as it always did, and only one process of the whole job really touches it.

>>> import collfs
>>> with collfs.session(transport="local"):                               # doctest: +SKIP
...     import numpy

or, without touching the program: ``collfs run script.py``.

Importing this package has no effect. What it offers is loaded when it is used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
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
    from .session import Session, finalize, initialize, invalidate, prefetch, session, stats

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
    "finalize",
    "initialize",
    "invalidate",
    "prefetch",
    "session",
    "stats",
]

_HOME = {
    "LibcCollfsApi": "interpose.api",
    "callback_table": "interpose.callbacks",
    **dict.fromkeys(("Session", "finalize", "initialize", "invalidate", "prefetch", "session", "stats"), "session"),
}


def __getattr__(name: str) -> object:
    """PEP 562: load what is asked for."""
    if name not in __all__:
        raise AttributeError(f"module 'collfs' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module("collfs." + _HOME.get(name, "errors")), name)
    # `session` is a function here and a submodule as well: the import above has just put the module in this place
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
