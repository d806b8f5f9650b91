"""For authors of transports: is mine right?

Subclass :class:`TransportContract`, say how to make your transport for a given tree of files, and run pytest::

    # tests/test_mine.py
    import pytest
    from collfs.testing import TransportContract, options

    from my_package import transport

    class TestMine(TransportContract):
        @pytest.fixture
        def transport(self, tree):          # tree: the name of a directory full of all kinds of files
            made = transport(options())
            made.open([tree])
            yield made
            made.close()

Every test asks your transport about files below ``tree`` and compares with what the file system says. If what you serve
keeps less than a file system does, say so with the class attributes of the contract. Needs pytest 7 or newer.

:func:`make_tree` builds the same tree elsewhere; :func:`options` stands for the options of a session.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import SimpleNamespace

    from .contract import TransportContract
    from .tree import make_tree

__all__ = ["TransportContract", "make_tree", "options"]


def options(**changes: object) -> SimpleNamespace:
    """An options object as a session would hand it to a transport: defaults, and *changes*.

    >>> options(cache="/local/scratch/me").cache
    '/local/scratch/me'
    """
    from types import SimpleNamespace

    known: dict[str, object] = {
        "cache": None,
        "cache_max_bytes": None,
        "max_file_bytes": None,
        "patience": 60.0,
    }
    return SimpleNamespace(**{**known, **changes})


def __getattr__(name: str) -> object:
    # Late: the contract needs pytest, and has to be announced to it first, or failing asserts would show no values.
    if name == "TransportContract":
        import pytest

        pytest.register_assert_rewrite("collfs.testing.contract")
        from .contract import TransportContract

        return TransportContract
    if name == "make_tree":
        from .tree import make_tree

        return make_tree
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
