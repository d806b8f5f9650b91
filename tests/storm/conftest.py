"""Fixtures of the tests of examples/import_storm: a small program, and runs of it on simulated nodes."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

LAB = Path(__file__).resolve().parents[2] / "examples" / "import_storm"
if str(LAB) not in sys.path:
    sys.path.append(str(LAB))

import countingfs  # noqa: E402
import nodes  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from methods import Run

PACKAGES, MODULES = 10, 10  # of the generated program


def make_tree(folder: Path) -> None:
    """A package ``stormtree``: each of its modules imports the one before it, the last of a package all of it."""
    for package in range(PACKAGES):
        inner = folder / "stormtree" / f"p{package}"
        inner.mkdir(parents=True)
        (inner / "__init__.py").write_text(f"from . import m{MODULES - 1}\n")
        for number in range(MODULES):
            before = f"from . import m{number - 1}\n" if number else "import json\n"
            (inner / f"m{number}.py").write_text(f"{before}VALUE = {package * MODULES + number}\n")
    lines = [f"from . import p{package}\n" for package in range(PACKAGES)]
    (folder / "stormtree" / "__init__.py").write_text("".join(lines))


def why_not_run(label: str) -> str:
    """Why this method can't be run here, or an empty string."""
    for name, module in (("mpi", "mpi4py"), ("zmq", "zmq")):
        if name in label and find_spec(module) is None:
            return f"{module} is not installed here: tox -e py311-storm"
    return ""


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """Run a method: (label, nodes, seconds for which the kernel believes what it was told) as :class:`methods.Run`.

    What was run already is given again.
    """
    for why in (nodes.why_not(), countingfs.why_not()):
        if why:
            pytest.skip(why)
    import environment
    import methods
    from queueing import Load

    folder = tmp_path_factory.mktemp("storm")
    tree, manifests = folder / "tree", folder / "manifests"
    make_tree(tree)
    manifests.mkdir()
    modules = (
        "stormtree",
        *(name for name in ("numpy", "scipy.linalg", "pandas") if find_spec(name.partition(".")[0])),
    )
    setup = methods.Setup(
        sys.executable,
        (*environment.places(sys.executable), str(tree)),
        modules,
        Load(service_s=0.0, bandwidth=0.0),
        manifests,
        paths=(str(tree),),
        launcher=environment.launcher(sys.executable, folder / "launcher"),
    )
    prepared: set[str] = set()
    known: dict[tuple[str, int, float], Run] = {}

    def run(label: str, count: int, believed: float = 0.0) -> Run:
        why = why_not_run(label)
        if why:
            pytest.skip(why)
        method = methods.METHODS[label]
        first = label if method.program != "plain" else "floor"
        if first not in prepared:  # byte code, the manifest, what collfs leaves for later starts
            inner = folder / f"prepare.{first}"
            inner.mkdir()
            methods.run(setup, methods.METHODS[first], 2, inner, prepare=True)
            prepared.add(first)
        key = (label, count, believed)
        if key not in known:
            inner = folder / f"{label}.{count}.{believed:g}"
            inner.mkdir()
            load = setup.load._replace(attributes=believed, entries=believed, negatives=believed)
            known[key] = methods.run(setup._replace(load=load), method, count, inner)
        return known[key]

    return run
