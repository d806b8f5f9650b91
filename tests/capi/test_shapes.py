"""Every shape of loading: plain Python, the default table and a C client's table give the same results and messages."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

import loadshapes
import passthrough
import shapelibs
from loadshapes import SHAPES

# What a program begins with, behind `before`: nothing; a session that manages the tree; a client's functions
WAYS = {
    "plain": "def reached(): return 1\n",
    "default table": """
import collfs
session = collfs.initialize("local", prefixes=[tree], manifest="none", job=sys.argv[2], store=sys.argv[3])
assert not session.idle, session.idle
def reached():
    return session.interposer.counts()["open"]["redirected"]
""",
    "C client": passthrough.LOAD
    + """
client = Client(sys.argv[4])
client.use()
def reached():
    return client.calls[2]
""",
}
END = """
sys.stderr.write(f"reached {reached()}")
if "client" in dir():
    client.stop()
elif "session" in dir():
    collfs.finalize()
"""


@pytest.fixture(scope="module")
def built():
    """All libraries, and a C client. Not pytest's folder: others than its owner may not enter that."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    folder = Path(tempfile.mkdtemp(prefix="collfs-shapes-"))
    try:
        (folder / "tree").mkdir()
        shapelibs.build(folder / "tree")
        (folder / "tree").rename(folder / "original")
        (folder / "stores").mkdir()
        passthrough.build(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_of_loading_gives_the_same_three_times(run_python, built, name):
    shape, tree, said = SHAPES[name], built / "tree", {}
    for way, start in WAYS.items():
        shutil.rmtree(tree, ignore_errors=True)
        shutil.copytree(built / "original", tree, symlinks=True)
        program = built / "program.py"
        program.write_text(f"{loadshapes.HEAD}\n{shape.before}\n{start}\n{shape.code}\n{loadshapes.TAIL}\n{END}")
        job = f"shapes-{built.name}-{list(SHAPES).index(name)}"
        result = run_python(
            [program, tree, job, built / "stores", built / "passthrough.so"],
            env={key: value.format(tree=tree) for key, value in shape.env.items()},
            check=False,
        )
        assert result.rc == 0, f"{way}\n{result.describe()}"
        error, _, count = result.stderr.rpartition("reached ")
        assert error == "", f"{way}: {error}"
        assert int(count) > 0 or (way == "default table" and not shape.redirects), f"{way}: not one open came through"
        said[way] = result.stdout
    for way, text in said.items():
        assert text.splitlines() == said["plain"].splitlines(), way
    assert not [path for path in (built / "stores").iterdir() if path.suffix != ".lock"]
