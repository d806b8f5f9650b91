"""The texts of the generated program that are no C libraries: Python modules, the driver, and what joins both worlds.

Rules of the file: NAME, MODULES, LIBRARIES and EXPECTED are replaced by workload.py; everything else is what lands in
the tree. The driver prints the same line each time, so runs can be compared byte for byte.
"""

from __future__ import annotations

from callgraph import MASK


def module(used: str, constant: int, functions: int) -> str:
    """A Python module with so many functions, which uses the module *used* unless that is ""."""
    head = f"import {used} as used\n\nVALUE = ({constant} + used.VALUE) & {MASK}\n" if used else f"VALUE = {constant}\n"
    body = [f"\n\ndef function_{i}(a, b={i}):\n    return [a * b + {i}, VALUE]\n" for i in range(functions)]
    return "".join(['"""A module."""\n\n', head, *body])


EXTENSION = """
#define PY_SSIZE_T_CLEAN
#include <Python.h>
static PyObject *entry(PyObject *self, PyObject *unused) { return PyLong_FromUnsignedLong(NAME_entry()); }
static PyMethodDef methods[] = {{"entry", entry, METH_NOARGS, "What all functions return together."}, {0}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "NAME", 0, 0, methods};
PyMODINIT_FUNC PyInit_NAME(void) { return PyModuleDef_Init(&definition); }
"""
WRAPPER = '''"""A library without Python.h."""

import ctypes
import os

entry = ctypes.CDLL(os.path.join(os.path.dirname(__file__), "libNAME.so")).NAME_entry
entry.restype = ctypes.c_uint
'''
DRIVER = '''"""Import everything, call what can be called, check the sum. With --times: say on stderr how long."""

import importlib
import sys
import time

begun = time.perf_counter()
modules = [importlib.import_module(name) for name in MODULES]
libraries = [importlib.import_module(name) for name in LIBRARIES]
imported = time.perf_counter()
total = (sum(m.VALUE for m in modules) + sum(l.entry() for l in libraries)) & 0xFFFFFFFF
if "--times" in sys.argv:
    print(f"import {imported - begun:.3f} s, calls {time.perf_counter() - imported:.3f} s", file=sys.stderr)
if total != EXPECTED:
    sys.exit(f"the sum is {total}, not EXPECTED: these are not the libraries that were built")
print(f"{len(modules)} modules, {len(libraries)} libraries, sum {total}: right")
'''
