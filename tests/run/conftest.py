"""Fixtures of the tests of ``collfs run``."""

from __future__ import annotations

import os

import pytest

from runner import CONSOLE_SCRIPT, SESSION


@pytest.fixture(scope="module")
def stub(tmp_path_factory):
    """A folder for PYTHONPATH that puts a session in place which does nothing, and a console script."""
    folder = tmp_path_factory.mktemp("stub")
    (folder / "sitecustomize.py").write_text(SESSION)
    (folder / "bin").mkdir()
    (folder / "bin" / "collfs").write_text(CONSOLE_SCRIPT)
    return folder


@pytest.fixture
def env(stub):
    """Changes to the environment for the children."""
    path = os.pathsep.join(filter(None, [str(stub), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
