"""A small managed tree of modules, and plans of what each rank does with it.

A plan is made from a seed and is the same on all ranks: every rank passes the same barriers, and between two of them
does whatever the dice say: imports in an order of its own, a subset, nothing, or reads of data files.

Rules of the file: pure Python, no MPI; the parent makes trees, the ranks make plans.
"""

from __future__ import annotations

import os
import random
import shutil
import sysconfig
from pathlib import Path

MODULES, FILES, LIBRARIES = 8, 4, ("_bisect", "_heapq", "_random")


def make_tree(folder: Path, number: int, *, talk: bool = False) -> None:
    """Schedule *number*'s modules: ``s<number>m0`` ... each with a VALUE; every third imports another; data files; a
    package with extension modules, if this Python has any as files.

    :param talk: add a module that calls a barrier when it is imported
    """
    folder.mkdir(parents=True)
    name = f"s{number}"
    for index in range(MODULES):
        more = f"import {name}m{index - 1}\n" if index % 3 == 2 else ""
        (folder / f"{name}m{index}.py").write_text(f"{more}VALUE = {value(number, index)}\n")
    for index in range(FILES):
        (folder / f"data{index}").write_bytes(b"%d" % value(number, index) * (index * 20000 + 1))
    package = folder / f"{name}lib"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for library in libraries():
        shutil.copy(library, package)
    if talk:
        (folder / f"{name}talk.py").write_text("import mpirank\nmpirank.comm.barrier()\nVALUE = 1\n")


def libraries() -> list[Path]:
    """Extension modules of this Python that are small files."""
    folder = Path(sysconfig.get_config_var("DESTSHARED") or "")
    return [path for name in LIBRARIES for path in folder.glob(f"{name}.*.so")]


def value(number: int, index: int) -> int:
    """What module *index* of a schedule holds."""
    return number * 1000 + index


def needed(index: int) -> set[int]:
    """The modules that come with *index*."""
    return {index} | (needed(index - 1) if index % 3 == 2 else set())


class Plan:
    """What *ranks* ranks do in schedule *number*: ``phases[i][rank]`` is a list of (what, index); "talk" is for all."""

    def __init__(self, number: int, ranks: int) -> None:
        dice = random.Random(number)
        self.number = number
        self.phases: list[list[list[tuple[str, int]]]] = []
        for _ in range(dice.randint(1, 3)):
            wild = dice.random() < 0.7  # else all do the same
            same = self._work(dice)
            self.phases.append([self._work(dice) if wild else list(same) for _ in range(ranks)])
        self.talks = dice.random() < 0.3
        self.barrier_before_the_end = dice.random() < 0.6
        self.leaves_early = dice.randrange(ranks) if dice.random() < 0.2 else -1

    @staticmethod
    def _work(dice: random.Random) -> list[tuple[str, int]]:
        kind = dice.random()
        if kind < 0.15:
            return []
        work = [("module", index) for index in range(MODULES)] + [("file", index) for index in range(FILES)]
        work += [("library", index) for index in range(len(LIBRARIES))]
        dice.shuffle(work)
        return work[: dice.randint(1, len(work))]

    def modules_of(self, rank: int) -> set[int]:
        """The modules that *rank* imports, dependencies too."""
        found: set[int] = set()
        for phase in self.phases:
            for what, index in phase[rank]:
                if what == "module":
                    found |= needed(index)
        return found

    def files_of(self, rank: int) -> set[int]:
        """The data files that *rank* reads."""
        return {index for phase in self.phases for what, index in phase[rank] if what == "file"}


def work(folder: str, number: int, what: str, index: int) -> None:
    """Do one thing, and check what came.

    :raises AssertionError: if it is wrong
    """
    name = f"s{number}"
    if what == "module":
        module = __import__(f"{name}m{index}")
        assert value(number, index) == module.VALUE, (module, module.VALUE)
        assert module.__file__ == f"{folder}/{name}m{index}.py", module.__file__
    elif what == "file":
        with open(f"{folder}/data{index}", "rb") as file:
            assert file.read() == b"%d" % value(number, index) * (index * 20000 + 1), index
    elif what == "library" and index < len(libraries()):
        path = libraries()[index]
        module = __import__(f"{name}lib." + path.name.partition(".")[0], fromlist=["x"])
        assert module.__file__ == os.path.join(folder, f"{name}lib", path.name), module.__file__
    elif what == "talk":
        assert __import__(f"{name}talk").VALUE == 1
