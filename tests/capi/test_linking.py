"""Libraries and programs that were linked with libcollfs.so: the exported object, or a stub that becomes it."""

from __future__ import annotations

import os
import shutil
import sysconfig

import pytest

import collfs
from collfs.interpose.libcollfs import library

LINKED = r"""
#include <collfs.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>
long opened;
static int my_open(const char *path, int flags, mode_t mode) {
  opened++;
  return (int)syscall(SYS_openat, -100, path, flags, mode);
}
int start(void) {
  struct libc_collfs_api api = {.open = my_open};
  return collfsinitialize(&api);
}
int is_open_stored(void) { return _dl_collfs_api.open == my_open; }
void end(void) { collfsfinalize(); }
"""


@pytest.fixture(scope="module")
def linked(run_command, run_python, built):
    """linked.so, which has DT_NEEDED libcollfs.so.1; the library that it was linked with, in stub/."""
    (built / "stub").mkdir()
    run_python(["-m", "collfs", "stub", "-o", built / "stub" / "libcollfs.so"])
    (built / "linked.c").write_text(LINKED)
    words = ["gcc", "-shared", "-fPIC", "-Wl,-z,defs", f"-I{collfs.get_include()}", "linked.c", "-o", "linked.so"]
    run_command([*words, "-Lstub", "-lcollfs", "-lc"], cwd=built)
    assert "libcollfs.so.1" in run_command(["readelf", "-dV", built / "linked.so"]).stdout
    shutil.copyfile(built / "stub" / "libcollfs.so", built / "stub" / "libcollfs.so.1")
    return built


USE_LINKED = """
linked = ctypes.CDLL(here + "/linked.so")
opened = ctypes.c_long.in_dll(linked, "opened")
assert linked.start() == 0 and linked.is_open_stored() == 1
assert load() == 1
linked.end()
assert load() == 0 and untouched() and linked.is_open_stored() == 0
"""


def test_a_library_that_was_linked_with_the_stub_gets_the_exported_object(child, linked):
    child(
        """
try:
    ctypes.CDLL(here + "/linked.so")
except OSError as exc:
    assert "libcollfs.so.1" in str(exc)
else:
    raise SystemExit("loaded without the export")
collfs.export_c_api()
"""
        + USE_LINKED
        + "assert sum('libcollfs' in line for line in open('/proc/self/maps')) == 3\n"
    )


@pytest.mark.parametrize("how", ["LD_PRELOAD", "LD_LIBRARY_PATH"])
def test_a_stub_that_is_loaded_already_becomes_the_real_one(child, linked, how):
    stub = linked / "stub"
    child(
        """
early = ctypes.CDLL(here + "/linked.so")
assert early.start() == -1
early.end()
collfs.export_c_api()
assert sum("memfd:libcollfs" in line for line in open("/proc/self/maps")) == 0
"""
        + USE_LINKED,
        env={how: str(stub if how == "LD_LIBRARY_PATH" else stub / "libcollfs.so.1")},
    )


PROGRAM = r"""
#include <Python.h>
#include <collfs.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
static long opened;
static int my_open(const char *path, int flags, mode_t mode) {
  opened++;
  return (int)syscall(SYS_openat, -100, path, flags, mode);
}
static int loads(const char *name) {
  long before = opened;
  void *handle = dlopen(name, RTLD_NOW);
  if (!handle || dlclose(handle)) return -1;
  return (int)(opened - before);
}
#define CHECK(what) do { if (!(what)) { fprintf(stderr, "line %d: %s\n", __LINE__, #what); return 1; } } while (0)
int main(int argc, char **argv) {
  const struct libc_collfs_api api = {.open = my_open};
  CHECK(argc == 2);
#ifdef LINKED
  CHECK(collfsinitialize(&api) == -1);
#else
  CHECK(!dlsym(RTLD_DEFAULT, "collfsinitialize"));
  int (*collfsinitialize)(const struct libc_collfs_api *);
  void (*collfsfinalize)(void);
#endif
  Py_Initialize();
  CHECK(PyRun_SimpleString("import collfs; collfs.export_c_api()") == 0);
#ifndef LINKED
  *(void **)&collfsinitialize = dlsym(RTLD_DEFAULT, "collfsinitialize");
  *(void **)&collfsfinalize = dlsym(RTLD_DEFAULT, "collfsfinalize");
  struct libc_collfs_api *table = dlsym(RTLD_DEFAULT, "_dl_collfs_api");
  CHECK(collfsinitialize && collfsfinalize && table);
#else
  struct libc_collfs_api *table = &_dl_collfs_api;
#endif
  CHECK(loads(argv[1]) == 0);
  table->open = my_open;
  CHECK(loads(argv[1]) == 1);
  CHECK(collfsinitialize(&api) == 0);
  CHECK(loads(argv[1]) == 1);
  collfsfinalize();
  CHECK(!table->open);
  CHECK(loads(argv[1]) == 0);
  CHECK(collfsinitialize(&api) == 0);
  PyThreadState *state = PyEval_SaveThread();
  CHECK(collfsinitialize(&api) == 0); /* a thread that Python doesn't run in */
  PyEval_RestoreThread(state);
  Py_Finalize();
  CHECK(loads(argv[1]) == 1);
  errno = 0;
  CHECK(collfsinitialize(&api) == -1 && errno == ENOSYS);
  collfsfinalize();
  CHECK(loads(argv[1]) == 0);
  puts("done");
  return 0;
}
"""


@pytest.mark.parametrize("how", ["dlsym", "linked"])
def test_a_c_program_with_python_inside_uses_it(run_command, linked, how):
    folder = sysconfig.get_config_var("LIBDIR")
    (linked / "program.c").write_text(PROGRAM)
    words = ["gcc", "-O1", f"-I{sysconfig.get_path('include')}", f"-I{collfs.get_include()}", "program.c", "-o", how]
    words += ["-no-pie", "-DLINKED", "-Lstub", "-lcollfs"] if how == "linked" else []
    words += [f"-L{folder}", f"-Wl,-rpath,{folder}", f"-lpython{sysconfig.get_config_var('LDVERSION')}", "-ldl"]
    built = run_command(words, cwd=linked, check=False)
    if built.rc:
        assert "lpython" in built.stderr, built.describe()
        pytest.skip("this Python has no library to link with")
    if how == "linked":  # the program has the table in its own data
        assert "R_X86_64_COPY" in run_command(["readelf", "-rW", linked / how]).stdout
    paths = [os.path.dirname(os.path.dirname(collfs.__file__)), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {"LD_LIBRARY_PATH": str(linked / "stub"), "PYTHONPATH": ":".join(paths)}
    result = run_command([linked / how, linked / "answer.so"], env=env)
    assert result.stdout == "done\n", result.describe()


def test_the_stub_command_says_what_is_wrong(run_python, tmp_path):
    result = run_python(["-m", "collfs", "stub", "-o", tmp_path / "none" / "libcollfs.so"], check=False)
    assert result.rc == 1
    assert "No such file" in result.stderr
    run_python(["-m", "collfs", "stub", "-o", tmp_path / "libcollfs.so"])
    assert (tmp_path / "libcollfs.so").read_bytes() == library()
    assert run_python(["-m", "collfs", "stub", "--include"]).stdout.strip() == collfs.get_include()


def test_there_is_no_stub_for_another_machine(run_python, tmp_path):
    code = """
import os, sys
from types import SimpleNamespace
from collfs.cli import main
os.uname = lambda: SimpleNamespace(machine="aarch64")
sys.exit(main(["stub", "-o", sys.argv[1]]))
"""
    result = run_python(["-c", code, tmp_path / "libcollfs.so"], check=False)
    assert result.rc == 1
    assert result.stderr == "collfs stub: the C interface is for x86-64, this is aarch64\n"
    assert not (tmp_path / "libcollfs.so").exists()


@pytest.fixture(scope="module")
def other(run_command, built):
    """A directory with somebody else's libcollfs.so.1."""
    folder = built / "other"
    folder.mkdir()
    (folder / "other.c").write_text("int collfsinitialize(void *api) { return api != 0; }\n")
    words = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcollfs.so.1", "other.c", "-o", "libcollfs.so.1"]
    run_command(words, cwd=folder)
    return folder


def test_another_library_of_that_name_is_refused(child, other):
    child(
        f"""
ctypes.CDLL({str(other)!r} + "/libcollfs.so.1")
try:
    collfs.export_c_api()
except collfs.InterposeRefused as exc:
    assert "another libcollfs.so.1" in str(exc), exc
else:
    raise SystemExit("not refused")
assert untouched()
"""
    )


def test_a_library_of_that_name_that_only_could_be_loaded_is_not(child, other):
    child("collfs.export_c_api()\nassert client.is_known() == 3\n", env={"LD_LIBRARY_PATH": str(other)})
