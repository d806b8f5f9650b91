"""Fixtures for children that are clients of the C interface."""

from __future__ import annotations

import shutil

import pytest

import capiclient
import collfs


@pytest.fixture(scope="module")
def built(run_command, tmp_path_factory):
    """client.so, and the library that it sees loaded."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = tmp_path_factory.mktemp("export")
    (folder / "client.c").write_text(capiclient.CLIENT)
    (folder / "answer.c").write_text("int answer(void) { return 42; }\n")
    shared = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", f"-I{collfs.get_include()}"]
    run_command([*shared, "client.c", "-o", "client.so", "-ldl", "-lpthread"], cwd=folder)
    run_command([*shared, "answer.c", "-o", "answer.so"], cwd=folder)
    return folder


@pytest.fixture
def child(run_python, built):
    """Run program text behind HEAD."""

    def run(code, **options):
        __tracebackhide__ = True
        return run_python(["-c", capiclient.HEAD + code, built], timeout=60, **options)

    return run
