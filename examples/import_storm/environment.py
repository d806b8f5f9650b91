"""What lies on the shared file server: a virtual environment with the program, its Python, an archive of both.

Rules of the file: nothing outside the given folder is written; what is there already is used again, but collfs,
which is installed anew from this checkout.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = ("numpy", "scipy", "pandas")
TRANSPORTS = ("mpi4py", "mpich", "pyzmq")
TOOLS = ("mfusepy", "matplotlib")
LAUNCHER = ("mpiexec", "hydra_pmi_proxy")  # of the wheel mpich: all that starts a job, linked to the C library alone
TIMEOUT = 900


def pip(python: Path, *words: str) -> None:
    """Install with the environment's own pip.

    :raises SystemExit: if that fails; pip has said why
    """
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *words]
    if subprocess.run(command, timeout=TIMEOUT, check=False).returncode:
        raise SystemExit(f"pip could not install {' '.join(words)}: see above. Started again, this goes on from here")


def make(folder: Path, packages: Iterable[str]) -> Path:
    """A virtual environment with *packages*, as binary wheels; its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip(python, "--only-binary", ":all:", *packages)
    return python


def make_program(folder: Path) -> Path:
    """The environment that the jobs use, with this checkout of collfs."""
    python = make(folder, (*PROGRAM, *TRANSPORTS))
    pip(python, "--force-reinstall", "--no-deps", str(CHECKOUT))
    return python


def use_tools(folder: Path) -> None:
    """Go on in an environment that has what the laboratory itself needs, unless this one has."""
    if all(importlib.util.find_spec(name) for name in TOOLS):
        return
    python = make(folder, TOOLS)
    os.execv(python, [str(python), *sys.argv])


def places(python: str) -> tuple[str, ...]:
    """The directories that are the shared ones: the environment, and the installation that it was made from.

    :raises SystemExit: if the machine itself lives in them
    """
    asked = (
        "import os, sys; print(*sorted({os.path.realpath(sys.prefix), os.path.realpath(sys.base_prefix)}), sep='\\n')"
    )
    said = subprocess.run([python, "-c", asked], capture_output=True, text=True, timeout=60, check=True).stdout.split(
        "\n"
    )
    found = tuple(place for place in said if place and place not in ("/", "/usr"))
    if not found:
        raise SystemExit(f"{python} belongs to the system; give --python of a virtual environment")
    return found


def archive(path: Path, directories: Sequence[str]) -> Path:
    """Everything below *directories* that a job could want, as a tar file to be unpacked at the root.

    Of an installation under a virtual environment the packages and the tests are left out: nobody uses them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    base = max(directories, key=lambda place: not os.path.exists(f"{place}/pyvenv.cfg"))
    without = [f"--exclude={base[1:]}/lib/python*/{name}" for name in ("site-packages", "test")]
    words = ["tar", "-cf", f"{path}.new", "-C", "/", *(without if len(directories) > 1 else [])]
    subprocess.run([*words, *(place[1:] for place in directories)], timeout=TIMEOUT, check=True)
    os.replace(f"{path}.new", path)
    return path


def launcher(python: str, folder: Path) -> str:
    """mpiexec on the nodes' own disk, where a batch system's launcher lies; an empty string if there is none."""
    source = Path(python).parent
    if not (source / "mpiexec").exists():
        return ""
    if not (source / LAUNCHER[1]).exists():
        return str(source / "mpiexec")  # another MPI's: it stays on the shared file server, and is counted
    folder.mkdir(parents=True, exist_ok=True)
    for name in LAUNCHER:
        shutil.copy2(source / name, folder / name)
    return str(folder / "mpiexec")
