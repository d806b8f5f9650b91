"""Children with redirects, for the tests of the machine code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import hooked

PRELUDE = """
import os, sys
from hooked import *
top, base = sys.argv[1], sys.argv[2]
"""


@pytest.fixture
def child(run_python, tmp_path):
    """Run program text that knows ``top`` (a name for a tree), ``base`` (for the store) and the names of hooked.py."""
    (tmp_path / "store").mkdir()
    path = os.pathsep.join([str(Path(hooked.__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])

    def run(code, **options):
        args = ["-c", PRELUDE + code, str(tmp_path / "tree"), str(tmp_path / "store")]
        return run_python(args, env={"PYTHONPATH": path}, cwd=tmp_path, **options)

    return run
