"""Fixtures of the tests of transport mpi: real jobs on this machine. pytest itself never imports mpi4py."""

from __future__ import annotations

import itertools
import textwrap
from typing import TYPE_CHECKING

import pytest

import mpijob
import nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bootsite import Site
    from mpijob import Ended, Job

PATIENCE = 30  # seconds that a test waits for a small job


@pytest.fixture
def mpistart(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Start a job: (ranks, program text or words of Python, ...) as :class:`mpijob.Job`. Ended in any case."""
    reason = mpijob.why_not()
    if reason:
        pytest.skip(reason)
    jobs: list[Job] = []
    numbers = itertools.count()

    def start(ranks: int, program: str | list[str], *words: str, **more: object) -> Job:
        folder = tmp_path / f"job{next(numbers)}"
        folder.mkdir()
        if isinstance(program, str):
            script = folder / "program.py"
            script.write_text("import mpirank\n" + textwrap.dedent(program))
            program = ["-m", "mpi4py", str(script)]
        jobs.append(mpijob.Job(folder, ranks, [*program, *words], **more))  # type: ignore[arg-type]
        return jobs[-1]

    yield start
    for job in jobs:
        job.stop()


@pytest.fixture
def mpirun(mpistart: Callable[..., Job]) -> Callable[..., Ended]:
    """Run a job to its end: as ``mpistart``, with ``timeout`` in seconds; it must end well unless ``check=False``."""

    def run(
        ranks: int, program: str | list[str], *words: str, timeout: float = PATIENCE, check: bool = True, **more: object
    ) -> Ended:
        __tracebackhide__ = True
        ended = mpistart(ranks, program, *words, **more).end(timeout)
        if check and (ended.rc or "Traceback" in ended.output):
            raise AssertionError(f"exit status {ended.rc}\n{ended.ranks}\n{ended.output}")
        return ended

    return run


@pytest.fixture
def site(tmp_path: Path, mpistart: Callable[..., Job]) -> Iterator[Site]:
    """See :class:`bootsite.Site`."""
    from bootsite import Site

    made = Site(tmp_path, mpistart)
    yield made
    made.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[nodes.Nodes]:
    """Four nodes."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with nodes.Nodes(folder, 4) as made:
        yield made
