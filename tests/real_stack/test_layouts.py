"""Every way in which an environment may lay out its modules works as without collfs."""

from __future__ import annotations

import compileall
import os
import py_compile
import shutil
import zipfile

import pytest

TELL = """
import sys
def tell(*names):
    for name in names:
        try:
            module = __import__(name, fromlist=["x"])
        except ImportError as exc:
            print(name, type(exc).__name__, exc)
        else:
            file, cached = (getattr(module, name, None) for name in ("__file__", "__cached__"))
            print(name, file, cached, list(getattr(module, "__path__", ())), type(module.__loader__).__name__)
"""


def told(names):
    """Program text that imports *names* and prints where they come from."""
    return TELL + f"tell(*{names!r})\n"


def test_a_pth_file_and_an_editable_install_lead_outside_of_site_packages(same, venv):
    inside, outside = venv.venv / "src", venv.folder / "elsewhere"
    venv.module("editable.__init__", where=inside)
    venv.module("editable.part", where=inside)
    venv.module("foreign", where=outside)
    (venv.packages / "editable.pth").write_text(f"{inside}\n")
    (venv.packages / "easy-install.pth").write_text(f"{outside}\nimport sys; sys.from_pth = 1\n")
    (venv.packages / "foreign.egg-link").write_text(f"{outside}\n.")
    out = same(venv, told(["editable", "editable.part", "foreign", "nothing"]) + "print(sys.from_pth)")
    assert f"editable.part {inside}/editable/part.py" in out
    assert f"foreign {outside}/foreign.py" in out
    assert "nothing ModuleNotFoundError" in out


def test_an_editable_finder_finds_what_no_path_entry_has(same, venv):
    """As setuptools writes them: a finder in sys.meta_path with a table of names."""
    source = venv.venv / "project" / "code"
    venv.module("mapped", "x = 1", where=source)
    venv.module(
        "__editable___finder",
        f"""
import sys
from importlib.util import spec_from_file_location
class Finder:
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return spec_from_file_location(name, {str(source / "mapped.py")!r}) if name == "mapped" else None
sys.meta_path.append(Finder)
""",
    )
    (venv.packages / "__editable__.pth").write_text("import __editable___finder\n")
    assert f"mapped {source}/mapped.py" in same(venv, told(["mapped"]))


def test_a_namespace_package_may_lie_under_two_prefixes_and_outside(same, venv):
    second, third = venv.folder / "second", venv.folder / "third"
    venv.module("space.one")
    venv.module("space.two", where=second)
    venv.module("space.three", where=third)
    program = f"import sys\nsys.path += [{str(second)!r}, {str(third)!r}]\n"
    program += told(["space", "space.one", "space.two", "space.three", "space.four"])
    out = same(venv, program, prefixes=[*venv.prefixes, str(second)])
    assert out.count("space.") >= 4
    assert f"[{str(venv.packages / 'space')!r}, {str(second / 'space')!r}, {str(third / 'space')!r}]" in out


def test_modules_come_out_of_zip_archives(same, venv):
    archive = venv.packages / "bundle.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped/__init__.py", "x = 1\n")
        file.writestr("zipped/inner.py", "def broken():\n    raise ValueError('here')\n")
        file.writestr("zipped/data.txt", "text")
    (venv.packages / "bundle.pth").write_text(f"{archive}\n")
    out = same(
        venv,
        told(["zipped", "zipped.inner", "zipped.absent"])
        + "import pkgutil, traceback, zipped.inner\nprint(pkgutil.get_data('zipped', 'data.txt'))\n"
        + "try:\n    zipped.inner.broken()\nexcept ValueError:\n    print(traceback.format_exc())\n",
    )
    assert f"{archive}/zipped/inner.py" in out
    assert "raise ValueError('here')" in out


def test_source_without_bytecode_bytecode_without_source_and_bytecode_that_is_old(same, venv):
    for name in ("source", "compiled", "stale", "checked", "damaged"):
        venv.module(name, f"text = '{name}'\n")
    compiled = venv.packages / "compiled.py"
    py_compile.compile(str(compiled), str(compiled) + "c", dfile=str(compiled), doraise=True)
    compiled.unlink()
    venv.module("stale", "text = 'older'\n")
    os.utime(venv.packages / "stale.py", ns=(1, 10**18))
    py_compile.compile(str(venv.packages / "stale.py"), doraise=True)
    venv.module("stale", "text = 'fresh'\n")
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    py_compile.compile(str(venv.packages / "checked.py"), doraise=True, invalidation_mode=mode)
    venv.module("checked", "text = 'changed'\n")
    os.truncate(str(py_compile.compile(str(venv.packages / "damaged.py"), doraise=True)), 10)
    program = "import sys\nsys.dont_write_bytecode = True\n"
    for name in ("source", "compiled", "stale", "checked", "damaged"):
        program += f"import {name}\nprint({name}.text, {name}.__file__, {name}.__cached__)\n"
    out = same(venv, program)
    assert [line.split()[0] for line in out.splitlines()] == ["source", "compiled", "fresh", "changed", "damaged"]


def test_bytecode_is_written_once_and_is_right(venv, job):
    venv.module("alone", "x = 1\n")
    program = "import os, alone\nprint(alone.__cached__, os.path.exists(alone.__cached__))\n"
    first = venv.run(venv.start(job) + program)
    assert first.stdout.endswith("True\n")
    assert venv.run(program, env={"PYTHONDONTWRITEBYTECODE": "1"}).stdout == first.stdout


@pytest.mark.parametrize("managed", [True, False], ids=["below a prefix", "outside"])
def test_a_cache_prefix_for_bytecode_is_honoured(same, venv, managed):
    venv.module("one", "x = 1\n")
    venv.module("pack.__init__")
    venv.module("pack.two", "x = 2\n")
    cache = (venv.venv if managed else venv.folder) / "pycache"
    env = {"PYTHONPYCACHEPREFIX": str(cache)}
    program = told(["one", "pack.two"])
    out = same(venv, program, env=env)  # the plain run fills the cache
    assert out.count(str(cache)) == 2
    assert same(venv, program, env=env) == out


def test_optimised_bytecode_is_found(venv, job):
    venv.module("one", "x = __debug__\n")
    compileall.compile_dir(str(venv.packages), optimize=1, quiet=1)
    code = venv.start(job) + "import one\nprint(one.x, one.__cached__)"
    out = venv.run_words(["-O", "-c", code]).stdout
    assert out.startswith("False")
    assert ".opt-1.pyc" in out


def test_an_environment_is_the_same_through_its_lib64_and_a_link_to_it(same, venv):
    venv.module("one")
    venv.module("two")
    link = venv.folder / "link"
    link.symlink_to(venv.venv)
    spelled = str(link / "lib64" / venv.packages.relative_to(venv.venv / "lib"))
    venv.module("three", where=link / "other")
    program = f"import sys\nsys.path[:0] = [{spelled!r}, {str(link / 'other')!r}]\n" + told(["one", "two", "three"])
    out = same(venv, program, prefixes=[str(link), *venv.prefixes])
    assert f"one {spelled}/one.py" in out


def test_odd_spellings_in_sys_path_are_kept(same, venv):
    for name in ("one", "two", "three", "four"):
        venv.module(name, where=venv.venv / name)
    root = str(venv.venv)
    entries = [f"{root}/one/", f"{root}//two", f"{root}/four/../three", f"{root}/./four", f"{root}/absent", ""]
    out = same(venv, f"import sys\nsys.path[:0] = {entries!r}\n" + told(["one", "two", "three", "four"]))
    assert f"three {root}/four/../three/three.py" in out


def test_unreadable_and_odd_names_are_passed_over(same, venv):
    venv.module("good")
    (venv.packages / "caf\u00e9.py").write_text("x = 1", encoding="utf-8")
    (venv.packages / os.fsdecode(b"\xff\xfe.py")).touch()
    (venv.packages / "lost.py").symlink_to("nowhere.py")
    (venv.packages / "loop.py").symlink_to("loop.py")
    (venv.packages / "folder.py").mkdir()
    os.mkfifo(venv.packages / "pipe.txt")
    out = same(
        venv,
        told(["good", "caf\u00e9", "lost", "loop", "folder"])
        + "import os\nfor name in sorted(os.listdir(os.fsencode(sys.path[-1]))):\n"
        + "    print(name, oct(os.lstat(os.path.join(os.fsencode(sys.path[-1]), name)).st_mode))\n",
        env={"PYTHONUTF8": "1"},
    )
    assert f"good {venv.packages}" in out
    assert "lost ModuleNotFoundError" in out


def test_a_package_that_is_a_link_works(same, venv):
    outside = venv.folder / "store"
    venv.module("linked.__init__", "from . import part", where=outside)
    venv.module("linked.part", where=outside)
    (venv.packages / "linked").symlink_to(outside / "linked")
    program = told(["linked", "linked.part"])
    program += "import linked, os\nprint(os.path.realpath(linked.__file__), os.path.islink(linked.__path__[0]))\n"
    out = same(venv, program)
    assert f"linked.part {venv.packages}/linked/part.py" in out
    assert f"{outside}/linked/__init__.py True" in out


def test_reload_takes_the_new_text(same, venv):
    venv.module("changing", "x = 1\n")
    backup = venv.folder / "backup"
    shutil.copy(venv.packages / "changing.py", backup)
    program = """
        import importlib, os, shutil, sys
        sys.dont_write_bytecode = True
        import changing
        path = changing.__file__
        shutil.copy(BACKUP, path)
        importlib.reload(changing)
        print(changing.x)
        with open(path, "w") as file:
            file.write("x = 'another'\\n")
        importlib.reload(changing)
        print(changing.x, importlib.reload(changing) is changing)
        shutil.copy(BACKUP, path)
    """
    assert same(venv, program.replace("BACKUP", repr(str(backup)))) == "1\nanother True\n"
