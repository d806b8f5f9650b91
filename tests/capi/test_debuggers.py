"""GDB's backtrace through a hook, instruction by instruction; names for perf."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import childproc
import collfs

CLIENT = r"""
#define _GNU_SOURCE
#include <collfs.h>
#include <sys/syscall.h>
#include <unistd.h>
int my_open(const char *path, int flags, mode_t mode) { return (int)syscall(SYS_openat, -100, path, flags, mode); }
int my_close(int fd) { return (int)syscall(SYS_close, fd); }
const struct libc_collfs_api table = {.open = my_open, .close = my_close};
"""
CALLER = r"""
#include <dlfcn.h>
__attribute__((noinline)) void *caller_of_dlopen(const char *path) {
  void *handle = dlopen(path, RTLD_NOW);
  __asm__ volatile("" ::: "memory");
  return handle;
}
"""
PROGRAM = """
import ctypes, os, sys
import collfs
library = collfs.export_c_api()
client, caller = ctypes.CDLL(sys.argv[1] + "/client.so"), ctypes.CDLL(sys.argv[1] + "/caller.so")
assert library.collfsinitialize(ctypes.byref(ctypes.c_char.in_dll(client, "table"))) == 0
caller.caller_of_dlopen.restype = ctypes.c_void_p
for name in ("/answer.so", "/other.so"):
    assert caller.caller_of_dlopen((sys.argv[1] + name).encode())
library.collfsfinalize()
print("loaded", flush=True)
"""
# Python inside of gdb. At the first my_open: the names of the frames. Of the next call every instruction from the
# trampoline's first one on: what is older than the trampoline, and the registers there, are always the same.
SCRIPT = """
import gdb
for setting in ("pagination off", "debuginfod enabled off", "auto-load no", "breakpoint pending on", "confirm off"):
    try:
        gdb.execute("set " + setting)
    except gdb.error:
        pass
KEPT = ("rsp", "rbp", "rbx", "r12", "r13", "r14", "r15")
def frames():
    out, frame = [], gdb.newest_frame()
    while frame is not None:
        out.append(frame)
        frame = frame.older()
    return out
def state(found):
    return [frame.pc() for frame in found], [int(found[0].read_register(name)) for name in KEPT]
gdb.execute("break my_open")
gdb.execute("run")
names = [frame.name() or "?" for frame in frames()]
print("FRAMES", *names)
inner = frames()[names.index("collfs:ld.so:openat")]
offset = int(gdb.execute("info symbol %d" % inner.pc(), to_string=True).split(" + ")[1].split()[0])
entry, site = inner.pc() - offset, inner.older().pc()
gdb.execute("delete")
gdb.execute("break *%d" % entry)
gdb.execute("continue")
gdb.execute("delete")
older = len(frames()) - 1
wanted, steps, seen = state(frames()[1:]), 0, set()
assert wanted[0][0] == site
while gdb.newest_frame().pc() != site:
    name = gdb.newest_frame().name() or ""
    if name.startswith(("collfs:", "my_")):
        got = state(frames()[-older:])
        assert got == wanted, (hex(gdb.newest_frame().pc()), name, got, wanted)
        seen.add(name)
        steps += 1
        gdb.execute("stepi", to_string=True)
    else:
        gdb.execute("finish", to_string=True)  # libc
print("STEPS", steps, *sorted(seen))
gdb.execute("continue")
"""


@pytest.fixture(scope="module")
def built(run_command, tmp_path_factory):
    """client.so and caller.so, with symbols."""
    for tool in ("gcc", "gdb"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    folder = tmp_path_factory.mktemp("gdb")
    answer = "int answer(void) { return 42; }\n"
    for name, text in (("client", CLIENT), ("caller", CALLER), ("answer", answer), ("other", answer)):
        (folder / f"{name}.c").write_text(text)
        words = ["gcc", "-shared", "-fPIC", "-g", "-O1", f"-I{collfs.get_include()}", f"{name}.c", "-o", f"{name}.so"]
        run_command([*words, "-ldl"], cwd=folder)
    (folder / "program.py").write_text(PROGRAM)
    return folder


def test_a_backtrace_goes_through_hook_machine_code_and_trampoline_to_the_program(run_command, built):
    (built / "script.py").write_text(SCRIPT)
    words = ["gdb", "-batch", "-nx", "-x", built / "script.py", "--args", sys.executable, built / "program.py", built]
    result = run_command(words, timeout=100, check=False)
    if "ptrace" in result.stderr or "not permitted" in result.stderr:
        pytest.skip("no process may be traced here")
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.split()}
    assert "FRAMES" in lines, result.describe()
    frames = lines["FRAMES"]
    assert frames[:3] == ["my_open", "collfs:ldso_entry", "collfs:ld.so:openat"], frames
    assert "caller_of_dlopen" in frames[3:], frames
    assert frames[-1] in ("main", "_start", "__libc_start_main", "Py_BytesMain"), frames
    assert "STEPS" in lines, result.describe()
    assert int(lines["STEPS"][0]) > 60
    assert {"collfs:ld.so:openat", "collfs:ldso_entry", "my_open"} <= set(lines["STEPS"][1:])
    assert "loaded" in lines, result.describe()


def test_a_debugger_that_comes_later_has_the_names(run_command, built):
    program = "import collfs, sys\ncollfs.export_c_api()\nprint('ready', flush=True)\nsys.stdin.read()\n"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=childproc.clean_env()
    )
    with child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            words = ["gdb", "-batch", "-nx", "-ex", "set auto-load no", "-ex", "set debuginfod enabled off"]
            words += ["-ex", f"attach {child.pid}", "-ex", "info functions ^collfs:"]
            words += ["-ex", "info symbol collfsinitialize", "-ex", "detach"]
            result = run_command(words, timeout=100, check=False)
        finally:
            child.kill()
    if "ptrace" in result.stderr or "not permitted" in result.stderr:
        pytest.skip("no process may be traced here")
    for name in ("collfs:ldso_entry", "collfs:c_initialize", "collfs:ld.so:mmap", "collfs:libc:openat"):
        assert name in result.stdout, result.describe()
    assert "collfsinitialize in section .text of /proc/" in result.stdout, result.describe()


def test_perf_has_a_map_of_anonymous_code_only_if_it_is_asked_for(run_python, built):
    result = run_python(
        [
            "-c",
            """
import os, sys
import collfs
path = f"/tmp/perf-{os.getpid()}.map"
def code():
    spans = []
    for line in open("/proc/self/maps"):
        words = line.split()
        start, end = (int(x, 16) for x in words[0].split("-"))
        if start <= base < end:
            return end, words[1], words[5:]
collfs.export_c_api()
from collfs.c_api import _export
base, page = _export.interposer.code.base, _export.interposer.code.page
assert not os.path.exists(path)
end, protection, file = code()
assert protection == "r-xp" and "collfs-code" in file[0]
program = open(sys.argv[1] + "/program.py").read()
exec(program)
collfs.export_c_api(perf=True)
try:
    lines = [line.split() for line in open(path)]
    spans = {name: (int(start, 16), int(size, 16)) for start, size, name in lines}
    assert {"collfs:ldso_entry", "collfs:ld.so:openat", "collfs:libc:newfstatat"} <= set(spans)
    assert code() == (end, "r-xp", [])
    assert all(base <= start < start + size <= end for start, size in spans.values())
    exec(program)
    collfs.export_c_api(perf=True)
    assert len(list(open(path))) == len(lines)
finally:
    os.unlink(path)
""",
            built,
        ]
    )
    assert result.stdout == "loaded\nloaded\n"


def test_perf_reports_our_names(run_command, run_python, tmp_path):
    if shutil.which("perf") is None:
        pytest.skip("no perf")
    program = """
import os
import collfs
collfs.export_c_api(perf=True)
from collfs.c_api import _export
buffer = bytes(1 << 20)
for _ in range(2000):
    _export.interposer.code.sum64(buffer, len(buffer), 0)
print(os.getpid())
"""
    record = ["perf", "record", "-o", tmp_path / "data", "-e", "cpu-clock", sys.executable, "-c", program]
    result = run_command(record, check=False)
    if result.rc:
        pytest.skip(f"perf may not record here: {result.stderr[-200:]}")
    try:
        report = run_command(["perf", "report", "-i", tmp_path / "data", "--stdio"], check=False)
        assert "collfs:sum64" in report.stdout, report.describe()
    finally:
        Path(f"/tmp/perf-{int(result.stdout)}.map").unlink()
