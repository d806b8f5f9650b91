"""What the job changes under a prefix is seen at once where it was changed, elsewhere after invalidate_caches()."""

from __future__ import annotations

import sys
import textwrap
import zipfile

import pytest

DEFINITIONS = """
import importlib, os, subprocess, sys
sys.dont_write_bytecode = True
packages = sys.path[-1]
assert packages.endswith("site-packages")
def write(name, text):
    with open(f"{packages}/{name}.py", "w") as file:
        file.write(text)
def missing(name):
    try:
        __import__(name)
    except ModuleNotFoundError:
        return True
    return False
def elsewhere(code, *words):
    # a process that collfs knows nothing of
    subprocess.run([sys._base_executable, "-I", "-S", "-c", code, packages, *words], check=True, timeout=60)
CREATE = "import sys; open(sys.argv[1] + '/' + sys.argv[2], 'w').write(sys.argv[3])"
REMOVE = "import os, sys; os.unlink(sys.argv[1] + '/' + sys.argv[2])"
"""


@pytest.fixture
def run(venv, job):
    venv.module("there", "x = 1\n")

    def start(code, second=""):
        text = venv.start(job) + DEFINITIONS + textwrap.dedent(code)
        other = venv.start(job) + DEFINITIONS + textwrap.dedent(second)
        return venv.run_words(["-c", text, other]).stdout

    return start


def test_a_module_written_during_the_run_is_importable_in_this_process(run):
    code = """
        import there
        assert missing("later")
        write("later", "x = 'new'")
        importlib.invalidate_caches()
        import later
        print(later.x, "later.py" in os.listdir(packages))
        os.unlink(f"{packages}/later.py")
        del sys.modules["later"]
        importlib.invalidate_caches()
        print(missing("later"), os.path.exists(f"{packages}/later.py"), "later.py" in os.listdir(packages))
    """
    assert run(code) == "new True\nTrue False False\n"


def test_a_package_written_during_the_run_is_importable(run):
    code = """
        assert missing("made.inner")
        os.makedirs(f"{packages}/made/deep")
        write("made/__init__", "")
        write("made/deep/inner", "x = 2")
        importlib.invalidate_caches()
        import made.deep.inner
        print(made.deep.inner.x, sorted(os.listdir(f"{packages}/made")))
        os.rename(f"{packages}/made", f"{packages}/moved")
        importlib.invalidate_caches()
        import moved.deep.inner
        print(moved.deep.inner.x, os.path.exists(f"{packages}/made/deep"), missing("made.other"))
    """
    assert run(code) == "2 ['__init__.py', 'deep']\n2 False True\n"


def test_another_process_of_the_job_sees_it_too(run):
    code = """
        import there
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], text=True, **pipes)
        assert child.stdout.readline() == "ready\\n"
        write("later", "x = 'new'")
        print(child.communicate("go\\n", timeout=60)[0], end="")
    """
    second = """
        import there
        assert missing("later")
        print("ready", flush=True)
        assert sys.stdin.readline() == "go\\n"
        importlib.invalidate_caches()
        import later
        print(later.x)
    """
    assert run(code, second) == "new\n"


def test_what_a_stranger_writes_is_seen_after_invalidate_caches(run):
    code = """
        import there
        assert missing("later")
        elsewhere(CREATE, "later.py", "x = 'new'")
        importlib.invalidate_caches()
        import later
        print(later.x, "later.py" in os.listdir(packages), os.path.exists(f"{packages}/later.py"))
    """
    assert run(code) == "new True True\n"


def test_what_a_stranger_removes_is_gone_after_invalidate(run):
    code = """
        import there
        elsewhere(REMOVE, "there.py")
        print(os.path.exists(f"{packages}/there.py"))
        collfs.invalidate(f"{packages}/there.py")
        print(os.path.exists(f"{packages}/there.py"), "there.py" in os.listdir(packages))
    """
    assert run(code) == "True\nFalse False\n"


def test_what_a_stranger_rewrites_is_read_anew_after_invalidate(run):
    code = """
        import there
        elsewhere(CREATE, "there.py", "x = 'rewritten'")
        collfs.invalidate(packages)
        importlib.reload(there)
        print(there.x, open(f"{packages}/there.py").read())
        print(sorted(os.listdir(packages)))
    """
    assert run(code) == "rewritten x = 'rewritten'\n['there.py']\n"


def test_a_package_that_pip_installs_in_a_child_is_importable(venv, job, tmp_path):
    pytest.importorskip("pip", reason="pip is not installed in the interpreter that runs the tests")
    wheel = make_wheel(tmp_path)
    code = (
        venv.start(job)
        + DEFINITIONS
        + textwrap.dedent(
            f"""
        import importlib.metadata as metadata
        assert missing("tiny")
        subprocess.run([{sys.executable!r}, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
                        "--disable-pip-version-check", "--target", packages, {wheel!r}], check=True, timeout=60,
                       env={{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}})
        importlib.invalidate_caches()
        import tiny
        print(tiny.x, metadata.version("tiny"), tiny.__file__ == packages + "/tiny.py")
        """
        )
    )
    assert venv.run(code).stdout == "5 1.0 True\n"


def make_wheel(folder):
    path = folder / "tiny-1.0-py3-none-any.whl"
    files = {
        "tiny.py": "x = 5\n",
        "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files["tiny-1.0.dist-info/RECORD"] = "".join(f"{name},,\n" for name in [*files, "tiny-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(path, "w") as file:
        for name, text in files.items():
            file.writestr(name, text)
    return str(path)
