"""For the tests of ``collfs run``: a session that does nothing, the ways to start, and the files of a program."""

from __future__ import annotations

import py_compile
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SESSION = """
import sys
session = type(sys)("collfs.calls")
def initialize(**options):
    import atexit, ctypes, json, os, struct
    path = os.environ.get("SPY")
    if path:
        seen = {"options": options, "argv": sys.argv, "last": sys.path[-1], "main": sys.modules["__main__"].__name__,
                "code": "program" in sys.modules["__main__"].__dict__}
        with open(path, "w") as file:
            json.dump(seen, file)
    error = os.environ.get("FAIL")
    if error:
        import collfs.errors
        raise getattr(collfs.errors, error)("the reason")
session.initialize = initialize
session.finalize = lambda: None
sys.modules["collfs.calls"] = session
"""
CONSOLE_SCRIPT = """
import sys
from collfs.cli import main
if __name__ == '__main__':
    sys.exit(main())
"""


def launchers(stub: Path) -> dict[str, list[str]]:
    """How a program can be started under collfs: words after ``python``."""
    return {"module": ["-m", "collfs", "run"], "console script": [str(stub / "bin" / "collfs"), "run"]}


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Make *files* in *folder*.

    A ``.zip`` gets its text as ``__main__.py``, a ``.pyc`` is compiled, b"->x" becomes a link to x.
    """
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".zip"):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("__main__.py", content)
        elif name.endswith(".pyc") and isinstance(content, str):
            source = path.with_suffix(".txt")
            source.write_text(content)
            py_compile.compile(str(source), str(path), doraise=True)
        elif isinstance(content, bytes) and content.startswith(b"->"):
            path.symlink_to(content[2:].decode())
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content)
