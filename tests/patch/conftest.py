"""Fixtures for children that patch themselves, and the libraries that they load."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

import passthrough
from patchstate import INSTALL, PRELUDE

COUNTER = (
    passthrough.ROWS
    + r"""
#include <dlfcn.h>
int errno_after_dlopen(const char *name) {
  errno = 77;
  void *handle = dlopen(name, RTLD_NOW);
  int kept = errno;
  if (handle) dlclose(handle);
  return kept;
}
"""
)

ROWS = """
import ctypes, errno, os
from collfs.interpose.api import PROTOTYPES, ROWS, LibcCollfsApi
from collfs.interpose.interposer import Interposer
import _ctypes
counter = ctypes.CDLL({counter!r})
names = [name for name, _, _ in ROWS]
calls, fail = (ctypes.c_long * 8).in_dll(counter, "calls"), (ctypes.c_int * 8).in_dll(counter, "fail")
only = ctypes.c_char_p.in_dll(counter, "only")
def table(*wanted):
    api = LibcCollfsApi()
    for name in wanted or names:
        setattr(api, name, PROTOTYPES[name](ctypes.cast(getattr(counter, "row_" + name), ctypes.c_void_p).value))
    return api
def attempt(path):
    try:
        handle = _ctypes.dlopen(path, 0)
    except OSError as exc:
        return str(exc)
    value = ctypes.PyDLL(None, handle=handle).answer() if "libtop" in path or "libphdr" in path else 0
    _ctypes.dlclose(handle)
    return value
folder = {folder!r}
copies = []
def fresh():
    # ld.so remembers of each RUNPATH directory whether it exists
    import shutil
    copies.append(folder + "/copy%d.%d" % (os.getpid(), len(copies)))
    shutil.copytree(folder, copies[-1], ignore=shutil.ignore_patterns("copy*"))
    return copies[-1]
def all_three(folder):
    got = [attempt(folder + name) for name in ("/libtop.so", "/libphdr.so", "/libnone.so")]
    return [str(one).replace(folder, "") for one in got]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """libtop.so needs libdep.so, which lies in the last directory of its RUNPATH.

    libphdr.so has its program headers far away, so that ld.so must read them by pread.
    """
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    made = tmp_path_factory.mktemp("rows")
    (made / "counter.c").write_text(COUNTER)
    (made / "dep.c").write_text("int dep(void) { return 20; }\n")
    (made / "top.c").write_text("int dep(void);\nint answer(void) { return dep() + 22; }\n")
    (made / "phdr.c").write_text("int answer(void) { return 42; }\n")
    (made / "deps").mkdir()

    def gcc(*args):
        subprocess.run(["gcc", "-shared", "-fPIC", "-O1", *args], cwd=made, check=True, timeout=60)

    gcc("counter.c", "-o", "counter.so", "-ldl")
    gcc("dep.c", "-o", "deps/libdep.so")
    runpath = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/missing:$ORIGIN/empty:$ORIGIN/deps"
    gcc("top.c", "-o", "libtop.so", "-Ldeps", "-ldep", runpath)
    (made / "empty").mkdir()
    gcc("phdr.c", "-o", "libphdr.so")
    data = bytearray((made / "libphdr.so").read_bytes())
    phoff, phnum = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    data += bytes(-len(data) % 8)
    struct.pack_into("<Q", data, 32, len(data))
    data += data[phoff : phoff + 56 * phnum]
    (made / "libphdr.so").write_bytes(data)
    return made


@pytest.fixture
def rows_head(folder):
    """What a program about rows begins with."""
    return PRELUDE + ROWS.format(counter=str(folder / "counter.so"), folder=str(folder))


@pytest.fixture
def child(run_python, rows_head):
    """Run program text behind it."""

    def run(code, **options):
        __tracebackhide__ = True
        result = run_python(rows_head + code, check=False, **options)
        assert result.rc == 0, f"{result.signal_name or result.rc}\n{code}\n{result.stdout}\n{result.stderr}"
        return result

    return run


@pytest.fixture
def tree(tmp_path):
    """A directory with one module, to manage."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "some_module.py").write_text("VALUE = 42\n")
    return str(folder)


@pytest.fixture
def patching(run_python):
    """Run program text behind PRELUDE and INSTALL; its failure shows the text and what it said."""

    def run(code, **options):
        __tracebackhide__ = True
        result = run_python(PRELUDE + INSTALL + code, check=False, **options)
        assert result.rc == 0, f"{result.signal_name or result.rc}\n{code}\n{result.stdout}\n{result.stderr}"
        return result

    return run
