"""A place for programs with a session: a tree of modules to manage, and an own directory for the stores."""

from __future__ import annotations

import textwrap

import pytest

HEAD = """
import os, sys
sys.path.insert(0, {tree!r})
sys.dont_write_bytecode = True
import collfs
def start(**options):
    options = dict(dict(prefixes=[{tree!r}], manifest="none", job={job!r}, store={store!r}), **options)
    session = collfs.initialize("local", **options)
    assert not session.idle, session.idle
    return session
def redirected(session):
    return sum(outcomes["redirected"] for outcomes in session.interposer.counts().values())
def stores():
    return [name for name in os.listdir({store!r}) if not name.endswith(".lock")]
"""


class Place:
    """A tree of modules to manage, and an own directory for the stores; ``run`` runs a script in that setting."""

    def __init__(self, run_python, path):
        self.run_python, self.path = run_python, path
        self.tree, self.store = path / "tree", path / "stores"
        self.store.mkdir()
        for n in range(6):
            package = self.tree / f"package_{n}"
            package.mkdir(parents=True)
            (package / "__init__.py").write_text(f"from .inner import VALUE\nassert VALUE == {n}\n")
            (package / "inner.py").write_text(f"VALUE = {n}\n")
            (package / "data.txt").write_text(f"data {n}\n")

    def script(self, code, name="script.py"):
        head = HEAD.format(tree=str(self.tree), job=self.path.name, store=str(self.store))
        file = self.path / name
        file.write_text(head + textwrap.dedent(code))
        return file

    def run(self, code, *flags, check=True, **options):
        __tracebackhide__ = True
        result = self.run_python([*flags, self.script(code)], check=False, **options)
        if check:
            assert result.rc == 0, result.describe()
        return result

    def left(self):
        """Stores that are still there."""
        return [p.name for p in self.store.iterdir() if p.suffix != ".lock"]


@pytest.fixture
def place(run_python, tmp_path):
    made = Place(run_python, tmp_path)
    yield made
    assert made.left() == [], "a store was left behind"
