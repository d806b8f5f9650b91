"""Where the manifest of a program is kept, and what loading the module costs."""

from __future__ import annotations

import os
import sys

import pytest

from collfs.errors import ManifestError
from collfs.record import manifest
from collfs.record.manifest import default_path


def test_each_program_interpreter_and_environment_has_a_manifest_of_its_own(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    found = [default_path(p, "/usr/bin/python3") for p in ("/home/me/run.py", "/home/you/run.py", "-m run", "-c")]
    found.append(default_path("-c", "/usr/bin/python4"))
    monkeypatch.setattr(sys, "prefix", "/venv")
    found.append(default_path("-c", "/usr/bin/python3"))
    monkeypatch.setattr(sys, "hexversion", 0x30D63F0)
    found += [default_path("-c", "/usr/bin/python3")] * 2
    assert len(set(found)) == len(found) - 1
    assert [os.path.dirname(path) for path in found] == ["/cache/collfs/manifests"] * len(found)
    names = [os.path.basename(path) for path in found]
    assert [name.rpartition("-")[0] for name in names] == ["run", "run", "run", "c", "c", "c", "c", "c"]
    assert names[-1] == "c-c72b14754b57fbec.manifest"  # stays: a new version of collfs finds the old manifest


@pytest.mark.parametrize(
    ("data", "value"), [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)]
)
def test_the_hash_is_fnv1a(data, value):
    assert manifest._fnv1a(data) == value  # test vectors of draft-eastlake-fnv


def test_names_of_files_are_plain_and_short(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    name = os.path.basename(default_path("/x/a b%é\n\udcff" + "n" * 300 + ".py", ""))
    assert name.startswith("a_b____nnn")
    assert len(name) == 64 + 1 + 16 + len(".manifest")


def test_the_cache_is_below_home_unless_xdg_says_otherwise_absolutely(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for value in (None, "", "relative"):
        if value is None:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert default_path("-c", "").startswith("/home/me/.cache/collfs/manifests/c-")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where there is no home at all
    with pytest.raises(ManifestError, match="set HOME or XDG_CACHE_HOME"):
        default_path("-c", "")


@pytest.mark.parametrize("program", ["", "run.py", "-x", "-mrun"])
def test_a_program_that_is_none_is_refused(program):
    with pytest.raises(ManifestError, match="must be the absolute path of a script, '-m module' or '-c'"):
        default_path(program, "")


def test_importing_the_manifest_loads_nothing_that_python_has_not_loaded(run_python, root):
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); import collfs.errors; old = set(sys.modules)\n"
        "import collfs.record.manifest\n"
        "print(*sorted(set(sys.modules) - old))"
    )
    assert run_python(["-I", "-c", code]).stdout.split() == ["collfs.record", "collfs.record.manifest"]
