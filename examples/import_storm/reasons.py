"""Why a node asks the file server before collfs is active there: every path by its name, each with a reason.

A path that nobody has explained has no reason (an empty string), and a test fails for it: what each of a hundred
thousand ranks asks in vain, or needlessly, shall not come back unseen.

Rules of the file: modules are named by their path without suffix, whether they were found as source, bytecode or
library, or looked for in vain; whole folders are listed only where all of them belongs to the reason.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import countingfs

START = "the interpreter's own start"
PTH = "lines of .pth files, which site executes"
COLLFS = "collfs itself, and ctypes, by which it patches"
MPI = "mpi4py and the MPI library"
ZMQ = "pyzmq, for the server of the node"
LIBRARY = "standard library that mpi4py, pyzmq and the server load"
FOLDERS = "the shared folders themselves"

#: Names below lib/pythonX.Y of the installation.
_STDLIB = {
    START: (
        "__future__ __pycache__ _bootlocale _collections_abc _sitebuiltins abc codecs encodings encodings/aliases "
        "encodings/latin_1 encodings/utf_8 genericpath importlib importlib/_bootstrap importlib/_bootstrap_external "
        "importlib/machinery importlib/util io lib-dynload os posixpath site site-packages stat types "
        "warnings zipimport"
    ),
    COLLFS: "_ctypes _struct ctypes ctypes/_endian struct",
    LIBRARY: (
        "_blake2 _compat_pickle _pickle _socket _typing _weakrefset binascii collections collections/abc "
        "contextlib copyreg enum functools heapq _heapq _queue importlib/_abc keyword operator pickle queue re "
        "re/_casefix re/_compiler re/_constants re/_parser reprlib resource select sre_compile sre_constants "
        "sre_parse threading types typing weakref zlib"
    ),
}
#: The same in site-packages: packages, with all that is in them.
_PACKAGES = {
    PTH: "_distutils_hack _virtualenv __pycache__",  # the second one in environments that virtualenv or tox has made
    COLLFS: "collfs collfs_local collfs_mpi collfs_zmq collfs_hydra collfs_pmix collfs_slurm collfs_flux "
    "collfs_torchrun",
    MPI: "mpi4py",
    ZMQ: "zmq pyzmq.libs",
}
#: Paths from the top of the environment, or of the installation. ld.so looks for the libraries of each program and
#: extension module in the folders of its RUNPATH first (man ld.so), and for each folder in its hwcaps.
_TOP = {
    START: (
        r"bin(/python[\d.]*(\._pth)?|/Modules(/Setup.local)?|/lib|/pybuilddir\.txt|/pyvenv\.cfg)?",
        r"pyvenv\.cfg|lib64|lib(/python\d+\.zip|/tls|/x86_64|/glibc-hwcaps|/lib(python[\d.]*|c|m|dl|pthread|util)\.so[\d.]*)?",
    ),
    COLLFS: (r"lib/libffi\.so[\d.]*",),
    MPI: (
        r"lib/(etc|libz\.so\.1|lib(rt|fabric|mpi|mpi_abi|mpifort|ucm|ucp|ucs|uct)\.so[\d.]*)",
        r"lib/mpich(/(ucx|lib[\w.]+|tls|x86_64|glibc-hwcaps))*",
    ),
    LIBRARY: (r"lib/libz\.so[\d.]*",),
    # what pyzmq's wheel leaves to the system is looked for beside Python first, if that has a RUNPATH
    ZMQ: (r"lib/lib(pthread|rt|stdc\+\+|gcc_s)\.so[\d.]*",),
}

_WORDS = {
    where: {word: why for why, words in reversed(list(table.items())) for word in words.split()}
    for where, table in (("stdlib", _STDLIB), ("site", _PACKAGES))
}
_TOP_FORMS = [(re.compile("|".join(forms)), why) for why, forms in _TOP.items()]
_LIBRARY = re.compile(r"lib(?:64)?/python3\.\d+(?:/|$)")
_SUFFIX = re.compile(r"(/__init__)?(\.cpython-\d+(-[\w-]+)?|\.abi3)?(\.opt-\d)?\.(pyc|py|so)$")


def reason(path: str, places: Sequence[str]) -> str:
    """Why *path* is asked for; an empty string: nobody knows."""
    place = max((place for place in places if path == place or path.startswith(f"{place}/")), key=len, default=None)
    if place is None:
        return ""
    inner = path[len(place) + 1 :]
    if not inner:
        return FOLDERS
    library = _LIBRARY.match(inner)
    if library is None:
        return next((why for form, why in _TOP_FORMS if form.fullmatch(inner)), "")
    name = inner[library.end() :]
    if name in ("", "site-packages"):
        return START
    if name.startswith("site-packages/"):
        name = name.partition("/")[2]
        if name.endswith(".pth"):
            return PTH
        if re.fullmatch(r"collfs-[\w.]+\.dist-info(/entry_points\.txt)?", name):
            return COLLFS
        return _WORDS["site"].get(module(name).partition("/")[0], "")
    return _WORDS["stdlib"].get(module(name), "")


def module(name: str) -> str:
    """Name of a module, with slashes, from the path of anything that it could be loaded from.

    >>> module("json/__pycache__/__init__.cpython-311.pyc"), module("lib-dynload/_json.cpython-311-x86_64-linux-gnu.so")
    ('json', '_json')
    """
    plain = name.replace("/__pycache__", "").replace("__pycache__/", "")
    plain = plain.removeprefix("lib-dynload/")
    return _SUFFIX.sub("", plain)


def grouped(ops: Iterable[countingfs.Op], places: Sequence[str]) -> dict[str, list[countingfs.Op]]:
    """Operations by reason."""
    found: dict[str, list[countingfs.Op]] = {}
    for op in ops:
        found.setdefault(reason(op.path, places), []).append(op)
    return found
