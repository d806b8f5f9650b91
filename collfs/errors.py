"""The errors of collfs.

Every error that collfs raises on purpose is a :class:`CollfsError` and, where a caller would expect one, also the
matching builtin. Errors about files stay real :class:`OSError` objects with ``errno`` and ``filename``.

Rule of the file: a message says what was given, what is allowed, and what to do next.
"""

from __future__ import annotations


class CollfsError(Exception):
    """Root of all errors of collfs."""


class OptionError(CollfsError, ValueError):
    """An option of :func:`collfs.initialize`, ``collfs run`` or ``COLLFS_...`` is unknown or has a bad value.

    Nothing was started; the message names the option.
    """


class StateError(CollfsError, RuntimeError):
    """A call came in a state that doesn't allow it, for example a second ``initialize``.

    The session stays in the state it was in.
    """


class TransportNotFound(CollfsError, LookupError):
    """No transport has the name that was asked for; the message lists those that exist."""


class TransportUnavailable(CollfsError, ImportError):
    """The transport exists but can't work here; the message says what to install or to set."""


class RecordError(CollfsError, ValueError):
    """Bytes that should hold a record don't: wrong magic, version, length or content.

    The path that they were for goes native.
    """


class ManifestError(CollfsError, ValueError):
    """A manifest file can't be understood. It is a hint only: the session starts without it."""


class StoreError(CollfsError, OSError):
    """The node store can't be made, joined or written. The session goes on natively."""


class InterposeRefused(CollfsError, OSError):
    """The process is not exactly as the interposer expects, so not a byte of it was changed.

    The session goes on natively.
    """
