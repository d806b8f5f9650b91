"""Fixtures of the tests of transport zmq: nodes on this machine, servers by hand, programs that run on them."""

from __future__ import annotations

import itertools
import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from zmqnode import Program, Server

if find_spec("zmq") is None:
    collect_ignore_glob = ["*"]  # pyzmq comes with the extra of this name


class Bench:
    """One job on nodes of this machine: a managed tree, its nodes, its servers, its programs. Ended in any case."""

    def __init__(self, folder: Path) -> None:
        import mpitree
        import zmqnode
        from collfs_zmq.keys import new_secret

        self.folder, self.tree = folder, folder / "tree"
        mpitree.make_tree(self.tree, 0)
        self.secret = new_secret()
        self.job = f"test-{self.secret[:12]}"
        self.stores = zmqnode.Stores()
        self.node = self.stores.new
        self._children: list[zmqnode.Child] = []
        self._numbers = itertools.count()

    def env(self, store: str, **more: str | None) -> dict[str, str]:
        """The environment of a process on the node *store*."""
        import zmqnode

        return zmqnode.environment(self.tree, self.job, store, {"COLLFS_SECRET": self.secret, **more})

    def start(self, code: str, store: str, *words: str, before: list[str] | None = None, **more: str | None) -> Program:
        """Start program text on a node.

        :param before: words before the command
        :param more: variables of its environment
        """
        import zmqnode

        folder = self._folder("program")
        script = folder / "program.py"
        script.write_text(zmqnode.HEAD + zmqnode.LOOK + textwrap.dedent(code))
        command = [*(before or []), *zmqnode.python(str(script)), *words]
        made = zmqnode.Program(folder, command, self.env(store, **more))
        self._children.append(made)
        return made

    def run(self, code: str, store: str, *words: str, timeout: float = 60, **more: str | None) -> dict[str, object]:
        """What program text tells until it has ended well."""
        return self.start(code, store, *words, **more).end(timeout)  # type: ignore[arg-type]

    def serve(
        self, store: str, *words: str, before: list[str] | None = None, host: str = "127.0.0.1", **more: str | None
    ) -> Server:
        """Start a node's server with *words*; it ends a second after the last process."""
        import zmqnode

        words = ("--host", host, "--linger", "1", *words)
        if "--prefix" not in words:
            words = ("--prefix", str(self.tree), *words)
        command = [*(before or []), *zmqnode.python("-m", "collfs", "serve"), *words]
        made = zmqnode.Server(self._folder("server"), command, self.env(store, **more))
        self._children.append(made)
        return made

    def _folder(self, name: str) -> Path:
        folder = self.folder / f"{name}{next(self._numbers)}"
        folder.mkdir()
        return folder

    def close(self) -> None:
        """End and remove all."""
        for child in reversed(self._children):
            child.stop()
        self.stores.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """See :class:`Bench`."""
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def watch() -> Iterator[Callable[[int], object]]:
    """Watch a process that is nobody's child here, by pid: :class:`zmqnode.Watched`."""
    import zmqnode

    watched: list[zmqnode.Watched] = []

    def start(pid: int) -> zmqnode.Watched:
        watched.append(zmqnode.Watched(pid))
        return watched[-1]

    yield start
    for one in watched:
        one.close()
