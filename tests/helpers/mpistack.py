"""What ranks do where the promise "one reader" is tested: import numpy, scipy and pandas, compute, and look at files.

Rules of the file: ``WORK`` binds ``answer`` and ``files``; nothing here knows MPI or collfs.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import realstack

if TYPE_CHECKING:
    from collections.abc import Callable

    from childproc import Result

WORK = (
    """
import hashlib, os, sys
"""
    + realstack.PROGRAM.replace("print(", "answer = (").replace(", flush=True)", ")")
    + """
def digest(name):
    with open(sys.modules[name].__file__, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
files = {name: (sys.modules[name].__file__, digest(name)) for name in
         ("numpy", "scipy.linalg._decomp", "scipy.linalg._fblas", "pandas.core.frame", "numpy._core._multiarray_umath")}
"""
)


def plain(run_python: Callable[[str], Result]) -> tuple[object, object]:
    """``answer`` and ``files`` of one plain interpreter, as JSON gives them; all bytecode is written on the way."""
    code = WORK + "\nprint(repr((answer, files)))"
    run_python(code)
    answer, files = ast.literal_eval(run_python(code).stdout)
    return [*answer[:2], list(answer[2])], {name: list(pair) for name, pair in files.items()}
