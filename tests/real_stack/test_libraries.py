"""Libraries that can't be loaded fail exactly as without collfs, and odd ones load exactly as without it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

# Root may read everything: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (<linux/capability.h>) modes count for it
# too. man 2 capset; the version is _LINUX_CAPABILITY_VERSION_3.
NO_PRIVILEGE = """
import ctypes, os
if os.geteuid() == 0:
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, data) == 0, ctypes.get_errno()
    data[0] &= ~6
    data[1] &= ~6
    assert libc.capset(header, data) == 0, ctypes.get_errno()
"""

TRY = """
import ctypes, os, sys
def attempt(path, how=ctypes.CDLL):
    try:
        print(type(how(path)).__name__)
    except Exception as exc:
        print(type(exc).__name__, getattr(exc, "errno", None), exc)
"""


def extension(stack):
    """Some library of the stack that needs no other."""
    return next((stack.packages / "numpy" / "random").glob("_mt19937*.so"))


@pytest.fixture
def folder(venv):
    made = venv.venv / "libs"
    made.mkdir()
    return made


def test_missing_empty_short_and_corrupt_libraries_give_the_same_errors(same, venv, stack, folder):
    whole = extension(stack).read_bytes()
    for name, content in {
        "libempty.so": b"",
        "libshort.so": whole[:40],
        "libcut.so": whole[:100],  # program headers said to be there aren't
        "libtext.so": b"INPUT(-lc)\n" * 20,
        "libother.so": whole[:18] + b"\x08\x00" + whole[20:],  # e_machine: MIPS
        "libheader.so": whole[:4] + b"\x01" + whole[5:],  # ELFCLASS32
        "libgarbage.so": whole[:64] + b"\xff" * (len(whole) - 64),
    }.items():
        (folder / name).write_bytes(content)
    (folder / "libdir.so").mkdir()
    (folder / "liblost.so").symlink_to("libnowhere.so.1")
    (folder / "libloop.so").symlink_to("libloop.so")
    names = [*sorted(path.name for path in folder.iterdir()), "libmissing.so", "no/such/dir/x.so", "libtext.so/x.so"]
    program = f"for name in {names!r} * 2:\n    attempt({str(folder)!r} + '/' + name)\n"
    out = same(venv, TRY + program)
    for said in ("file too short", "invalid ELF header", "cannot open shared object file", "wrong ELF class"):
        assert said in out


def test_broken_extension_modules_give_the_same_import_errors(same, venv, stack):
    suffix = extension(stack).name.partition(".")[2]
    whole = extension(stack).read_bytes()
    (venv.packages / f"cut.{suffix}").write_bytes(whole[:100])
    (venv.packages / f"empty.{suffix}").write_bytes(b"")
    (venv.packages / f"misnamed.{suffix}").write_bytes(whole)
    out = same(
        venv,
        TRY + "for name in ('cut', 'empty', 'misnamed', 'absent'):\n    attempt(name, __import__)\n",
    )
    assert out.count("ImportError") == 3
    assert "dynamic module does not define module export function" in out
    assert "ModuleNotFoundError None No module named 'absent'" in out


def test_unreadable_files_give_the_same_errors(same, venv, stack, folder):
    shutil.copy(extension(stack), folder / "libsecret.so")
    venv.module("secret", "x = 1")
    closed = folder / "closed"
    closed.mkdir()
    (closed / "libinside.so").write_bytes(b"")
    for path in (folder / "libsecret.so", venv.packages / "secret.py", closed):
        path.chmod(0)
    try:
        out = same(
            venv,
            NO_PRIVILEGE
            + TRY
            + f"""
for name in ("libsecret.so", "closed/libinside.so"):
    attempt({str(folder)!r} + "/" + name)
    attempt({str(folder)!r} + "/" + name, open)
    print(os.access({str(folder)!r} + "/" + name, os.R_OK))
attempt({str(closed)!r}, os.listdir)
attempt("secret", __import__)
""",
        )
    finally:
        closed.chmod(0o755)
    assert out.count("Permission denied") == 6


def test_a_symlinked_library_keeps_its_name_and_is_loaded_once(same, venv, stack, folder):
    shutil.copy(extension(stack), folder / "libx.so.1.2")
    (folder / "libx.so.1").symlink_to("libx.so.1.2")
    (folder / "libx.so").symlink_to("libx.so.1")
    os.link(folder / "libx.so.1.2", folder / "libhard.so")
    out = same(
        venv,
        f"""
        import ctypes, os
        folder = {str(folder)!r}
        names = ("libx.so", "libx.so.1", "libx.so.1.2", "libhard.so")
        print(len({{ctypes.CDLL(folder + "/" + name)._handle for name in names}}))
        link = folder + "/libx.so"
        print(os.readlink(link), os.path.realpath(link), os.path.islink(link))
        print(os.lstat(link).st_size, os.stat(link).st_size, os.path.samefile(link, folder + "/libhard.so"))
        """,
    )
    assert out.startswith("1\n")


def test_one_library_under_two_names_of_a_directory_is_loaded_once(same, venv, stack):
    """lib64 is a link to lib in every virtual environment."""
    (venv.venv / "lib" / "native").mkdir()
    shutil.copy(extension(stack), venv.venv / "lib" / "native" / "liby.so")
    out = same(
        venv,
        f"""
        import ctypes
        names = [{str(venv.venv)!r} + "/" + lib + "/native/liby.so" for lib in ("lib", "lib64")]
        print(len({{ctypes.CDLL(name)._handle for name in names}}))
        """,
    )
    assert out == "1\n"


def test_what_is_loaded_comes_from_the_node(venv, stack, folder, job):
    shutil.copy(extension(stack), folder / "libz.so")
    code = venv.start(job) + (
        f"import ctypes\nctypes.CDLL({str(folder)!r} + '/libz.so')\n"
        "print([line.split()[-1] for line in open('/proc/self/maps') if 'libz.so' in line])\n"
        "print(session.store.path in open('/proc/self/maps').read())\n"
    )
    assert venv.run(code).stdout == "[]\nTrue\n"


def test_the_environments_python_is_what_it_was(same, stack):
    out = same(
        stack,
        """
        import site, sys, sysconfig, os
        print(sys.prefix, sys.base_prefix, sys.executable, site.getsitepackages(), sysconfig.get_paths())
        print(os.path.realpath(sys.executable), os.path.islink(sys.prefix + "/lib64"), sorted(os.listdir(sys.prefix)))
        print(os.path.realpath(sys.prefix + "/lib64/../lib64"), sorted(os.listdir(sys.prefix + "/lib64")))
        """,
    )
    assert out.startswith(str(stack.venv))
    assert Path(sys.base_prefix).name in out
