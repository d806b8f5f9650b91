"""The originals are taken away once they are on the node, and nobody notices."""

from __future__ import annotations

import textwrap

import pytest

from realstack import PROGRAM

# A child without collfs renames: what the job itself changes is native from then on, and that isn't the question here.
HIDE = """
import os, subprocess, sys
def hide(*roots):
    text = '''
import os, sys
count = 0
for root in sys.argv[1:]:
    for folder, _, names in os.walk(root):
        for name in names:
            if name.endswith((".py", ".pyc")) or ".so" in name:
                os.rename(os.path.join(folder, name), os.path.join(folder, name + ".hidden"))
                count += 1
print(count)
'''
    out = subprocess.run([sys._base_executable, "-I", "-S", "-c", text, *roots], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return int(out.stdout)
"""


def unhide(root):
    for path in root.rglob("*.hidden"):
        path.rename(path.with_suffix(""))


@pytest.fixture
def hidden_again(own_stack):
    yield own_stack
    unhide(own_stack.venv)


def test_what_was_prefetched_imports_and_computes_without_its_originals(hidden_again, job):
    stack = hidden_again
    packages = str(stack.packages)
    extra = [packages + "/six.py", packages + "/dateutil"]
    names = ["numpy", "scipy", "pandas", *extra]
    names += [str(p) for p in stack.packages.glob("*.libs")] + [str(p) for p in stack.packages.glob("pytz*")]
    code = f"""
{stack.start(job)}{HIDE}
collfs.prefetch({names!r})
assert hide({packages!r}) > 1000
{PROGRAM}
"""
    result = stack.run(code)
    assert result.stdout == stack.expected
    assert "Error" not in result.stderr, result.stderr


def test_what_another_process_staged_is_there_without_its_originals(hidden_again, job):
    stack = hidden_again
    code = f"""
import subprocess, sys
{stack.start(job)}
{PROGRAM}
{HIDE}
assert hide({str(stack.packages)!r}) > 1000
out = subprocess.run([sys.executable, "-c", sys.argv[1]], capture_output=True, text=True, timeout=60)
print(out.stdout, out.stderr, sep="", end="")
"""
    second = stack.start(job) + PROGRAM
    assert stack.run_words(["-c", code, second]).stdout == stack.expected * 2


def test_a_manifest_stages_what_the_last_run_used(hidden_again, job, tmp_path):
    stack = hidden_again
    manifest = str(tmp_path / "manifest")
    assert stack.run(stack.start(job, manifest=manifest) + PROGRAM).stdout == stack.expected
    code = f"""
{stack.start(job + "b", manifest=manifest)}{HIDE}
assert hide({str(stack.packages)!r}) > 1000
{PROGRAM}
"""
    assert stack.run(code).stdout == stack.expected


def test_prefetch_stages_a_module_a_file_and_a_directory_and_nothing_else(venv, job):
    venv.module("alone", "x = 1")
    venv.module("package.__init__")
    venv.module("package.deep.module", "x = 2")
    (venv.packages / "package" / "deep" / "data.txt").write_text("three")
    venv.module("other", "x = 4")
    data = venv.venv / "share" / "data"
    data.mkdir(parents=True)
    (data / "file").write_text("five")
    (data.parent / "single").write_text("six")
    (data.parent / "not").write_text("seven")
    code = venv.start(job) + textwrap.dedent(
        f"""
        collfs.prefetch(["alone", "package", {str(data)!r}, {str(data.parent / "single")!r}])
        import os
        from collfs.interpose.machine.layout import K_FILE
        staged = [p for p, e in session.store.table if e.word & 255 == K_FILE and p.startswith({str(venv.venv)!r})]
        print(sorted(os.path.basename(p) for p in staged))
        """
    )
    expected = ["__init__.py", "alone.py", "data.txt", "file", "module.py", "single"]
    assert venv.run(code).stdout == f"{expected}\n"


def test_prefetch_refuses_what_is_neither_module_nor_path(venv, job):
    code = venv.start(job) + 'collfs.prefetch(["relative/path"])'
    result = venv.run(code, check=False)
    assert "OptionError" in result.stderr
    assert "'relative/path' is neither the name of a module nor an absolute path" in result.stderr
