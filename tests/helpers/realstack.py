"""A private virtual environment with numpy, scipy and pandas, for tests that rename its files or write into it.

It is a real one (pyvenv.cfg, bin/python, lib64), made of hard links to the installed packages, which takes less than a
second. A test may rename, remove and add files in it; it must not write *into* a file, since that is the installed one.

Rules of the file: collfs itself lies beside it, never below a managed prefix, so that what is counted there is the
program's.
"""

from __future__ import annotations

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import childproc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What `pip install numpy scipy pandas` brings along, with the oldest and the newest of the versions that we run.
PACKAGES = ("numpy", "scipy", "pandas", "python-dateutil", "six", "pytz", "tzdata")
VERSION = f"python{sys.version_info[0]}.{sys.version_info[1]}"

# Enough of the stack to load most of its libraries, and a result that a wrong byte would change.
PROGRAM = """
import numpy, scipy.linalg, scipy.optimize, scipy.sparse, pandas
a = numpy.arange(36.0).reshape(6, 6) + 6 * numpy.eye(6)
lu, piv = scipy.linalg.lu_factor(a)
root = scipy.optimize.brentq(lambda x: x * x - 2, 0, 2)
frame = pandas.DataFrame({"x": a[0], "y": a[1]}).groupby(lambda i: i % 2).sum()
print(float(lu.sum()).hex(), float(root).hex(), frame.to_csv().split(), flush=True)
"""


def missing() -> str:
    """Why the stack can't be had here, or an empty string."""
    for name in ("numpy", "scipy", "pandas"):
        if find_spec(name) is None:
            return f"{name} is not installed in {sys.prefix}"
    return ""


def link_or_copy(source: str, target: str) -> None:
    """One file, without its bytes where the file system allows that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def make_venv(folder: Path) -> Path:
    """A virtual environment in *folder* with nothing in it."""
    packages = folder / "lib" / VERSION / "site-packages"
    packages.mkdir(parents=True)
    (folder / "lib64").symlink_to("lib")
    (folder / "bin").mkdir()
    base = os.path.realpath(sys.executable)
    (folder / "bin" / "python").symlink_to(base)
    (folder / "pyvenv.cfg").write_text(f"home = {os.path.dirname(base)}\ninclude-system-site-packages = false\n")
    return folder


class Bare:
    """An environment without packages, and what a test asks of it."""

    def __init__(self, folder: Path) -> None:
        """Make it in *folder*, which is empty."""
        self.folder = folder
        self.venv = make_venv(folder / "venv")
        self.packages = self.venv / "lib" / VERSION / "site-packages"
        self.python = self.venv / "bin" / "python"
        self.base = sys.base_prefix
        self.ours = folder / "ours"
        self.ours.mkdir()
        for name in ("collfs", "collfs_local"):
            spec = find_spec(name)
            assert spec is not None
            assert spec.origin is not None
            (self.ours / name).symlink_to(os.path.dirname(spec.origin))

    @property
    def prefixes(self) -> list[str]:
        """Both that an environment consists of."""
        return [str(self.venv), self.base]

    def env(self, extra: Mapping[str, str | None] | None = None) -> dict[str, str | None]:
        """Changes to the environment of a child that is to find collfs, and a cache that is not the user's."""
        return {"PYTHONPATH": str(self.ours), "XDG_CACHE_HOME": str(self.folder / "cache"), **(extra or {})}

    def start(self, job: str, *, transport: str = '"local"', **options: object) -> str:
        """Program text that starts collfs as a process of *job*; options as in :func:`collfs.initialize`."""
        given = {"prefixes": self.prefixes, "manifest": "none", "job": job, **options}
        words = "".join(f", {name}={value!r}" for name, value in given.items())
        return (
            f"import collfs\nsession = collfs.initialize({transport}{words})\nassert not session.idle, session.idle\n"
        )

    def run(
        self,
        code: str,
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: childproc.Arg | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> childproc.Result:
        """Run *code* in the environment; as :func:`childproc.run_command`."""
        return self.run_words(["-c", code], env=env, cwd=cwd, timeout=timeout, check=check)

    def run_words(
        self,
        words: Sequence[childproc.Arg],
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: childproc.Arg | None = None,
        timeout: float = 60,
        check: bool = True,
    ) -> childproc.Result:
        """Run the environment's python with *words*."""
        words = [self.python, *words]
        return childproc.run_command(words, env=self.env(env), cwd=cwd or self.folder, timeout=timeout, check=check)

    def module(self, name: str, text: str = "", where: Path | None = None) -> Path:
        """Write a module (``a.b`` lies in a package ``a``) into site-packages, or into *where*."""
        path = (where or self.packages) / (name.replace(".", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


class Stack(Bare):
    """An environment with numpy, scipy and pandas."""

    def __init__(self, folder: Path) -> None:
        """Link them into it, and run the program once: what isn't compiled yet, is then."""
        super().__init__(folder)
        for name in PACKAGES:
            self._install(name)
        self.expected = self.run(PROGRAM).stdout

    def _install(self, name: str) -> None:
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            return
        made = set()
        for file in files:
            if ".." in file.parts or ("tests" in file.parts and name != "numpy"):  # numpy 2.2 imports one of them
                continue
            source, target = str(file.locate()), self.packages / file
            if not os.path.isfile(source):
                continue
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            if not target.exists():
                link_or_copy(source, str(target))
