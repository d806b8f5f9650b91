"""CPython's own tests give the same results under collfs, with the standard library as the managed prefix.

The truth is the plain interpreter, run just before on the same files: each test case must end alike. Differences that
are allowed are in a table with the reason; there are none today.
"""

from __future__ import annotations

import json
import os
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from childproc import Result

SUITES = (
    "test_import",
    "test_importlib",
    "test_os",
    "test_posix",
    "test_io",
    "test_zipimport",
    "test_pkgutil",
    "test_subprocess",
    "test_ctypes",
)
# test case -> why it may differ
EXPLAINED: dict[str, str] = {}
# cases whose result depends on the load of the machine: a failure in either run says nothing
LIMIT = 600

have_tests = (Path(os.__file__).parent / "test" / "test_os").exists() or (
    Path(os.__file__).parent / "test" / "test_os.py"
).exists()


def outcomes(path: Path) -> Counter[tuple[str, str]]:
    """(case, ok | skipped | failed) of a JUnit file."""
    found: Counter[tuple[str, str]] = Counter()
    for case in ElementTree.parse(path).iter("testcase"):
        state = "skipped" if case.find("skipped") is not None else "ok"
        if case.find("failure") is not None or case.find("error") is not None:
            state = "failed"
        found[case.get("name", ""), state] += 1
    return found


def run(run_command: Callable[..., Result], tmp_path: Path, name: str, *before: str) -> Counter[tuple[str, str]]:
    junit = tmp_path / f"{name}.xml"
    result = run_command(
        [sys.executable, *before, "-m", "test", "--junit-xml", str(junit), *SUITES],
        timeout=LIMIT,
        cwd=tmp_path,
        check=False,
    )
    assert not result.signal_name, result.describe()
    assert junit.exists(), result.describe()
    return outcomes(junit)


@pytest.mark.slow
@pytest.mark.timeout(2 * LIMIT + 60)
@pytest.mark.skipif(not have_tests, reason="this Python came without its own tests")
def test_cpythons_own_tests_end_alike_under_collfs(run_command: Callable[..., Result], tmp_path: Path) -> None:
    plain = run(run_command, tmp_path, "plain")
    report = tmp_path / "report.json"
    options = ("--prefix", str(Path(os.__file__).parent), "--manifest", "none", "--report", str(report))
    hooked = run(run_command, tmp_path, "hooked", "-m", "collfs", "run", *options)

    process = json.loads(report.read_text())["processes"][0]
    assert not process["idle"], process
    assert process["calls"]["stat"]["redirected"] > 1000, process["calls"]

    different = {case for case, _ in (plain - hooked) + (hooked - plain)} - set(EXPLAINED)
    assert sum(plain.values()) > 1000
    assert not different, {c: [k for k in (*plain, *hooked) if k[0] == c] for c in sorted(different)}
