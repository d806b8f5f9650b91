"""What is in the wheel and the sdist: everything that runs, nothing with a generic name."""

from __future__ import annotations

import os
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from importlib.util import find_spec

import pytest

OURS = ("collfs",)  # every top-level name must be this or begin with collfs_


@pytest.fixture(scope="session")
def built(root, tmp_path_factory, run_python):
    """Folder with a fresh sdist and wheel of this checkout."""
    if not (root / "pyproject.toml").is_file():
        pytest.skip("no pyproject.toml beside these tests: not a checkout")
    folder = tmp_path_factory.mktemp("built")
    if find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install hatchling")
    run_python(["-m", "hatchling", "build", "-d", folder], cwd=root, timeout=100)
    return folder


@pytest.fixture(scope="session")
def wheel(built):
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="session")
def sdist(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def sources(root, package):
    """All files that lie in a package of the checkout, relative to the folder above it."""
    folder = root / package
    return {
        str(p.relative_to(folder.parent))
        for p in folder.rglob("*")
        if p.is_file() and "__pycache__" not in p.parts and not p.name.startswith(".")
    }


def test_every_package_of_the_checkout_is_in_the_wheel(wheel, root):
    ours = {"collfs"} | {
        p.parent.name for part in ("transports", "plugins") for p in root.glob(f"{part}/*/__init__.py")
    }
    assert {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name} == ours


@pytest.mark.parametrize("package", ["collfs", "transports/collfs_local", "transports/collfs_mpi"])
def test_every_file_of_a_package_is_in_the_wheel_machine_code_included(wheel, root, package):
    assert sources(root, package) <= set(wheel.namelist())


def test_machine_code_goes_with_its_source_in_wheel_and_sdist(wheel, sdist):
    for names in (set(wheel.namelist()), sdist):
        machine = {n.rpartition(".")[2] for n in names if n.startswith("collfs/interpose/machine/")}
        assert "bin" in machine
        assert machine & {"c", "S"}


def test_only_our_own_names_reach_site_packages(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}
    assert tops
    assert {t for t in tops if t not in OURS and not t.startswith("collfs_")} == set()


def test_each_package_says_that_it_is_typed(wheel):
    names = set(wheel.namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert {t for t in tops if f"{t}/py.typed" not in names} == set()


def test_no_test_cache_or_compiled_file_is_shipped_in_the_wheel(wheel):
    assert [n for n in wheel.namelist() if n.endswith((".pyc", ".so")) or "test_" in n.rpartition("/")[2]] == []


def test_entry_points_name_objects_that_exist(wheel, root, run_python):
    (name,) = (n for n in wheel.namelist() if n.endswith("/entry_points.txt"))
    parser = ConfigParser(delimiters="=")
    parser.read_string(wheel.read(name).decode())
    points = {(group, n): v for group in parser.sections() for n, v in parser.items(group)}
    assert points[("console_scripts", "collfs")] == "collfs.cli:main"
    assert points[("collfs.transports", "local")] == "collfs_local:transport"
    assert points[("collfs.transports", "mpi")] == "collfs_mpi:transport"
    code = f"""import sys
sys.path[:0] = [{str(root)!r}, {str(root / "transports")!r}, {str(root / "plugins")!r}]
from importlib import import_module
for value in {sorted(points.values())}:
    module, _, name = value.partition(":")
    assert callable(getattr(import_module(module), name or "collfs_place")), value
"""
    run_python(code)


def test_a_core_install_needs_nothing_else(wheel):
    (name,) = (n for n in wheel.namelist() if n.endswith("/METADATA"))
    metadata = Parser().parsestr(wheel.read(name).decode())
    assert [r for r in metadata.get_all("Requires-Dist", []) if "extra ==" not in r] == []


def test_the_sdist_can_run_the_tests(sdist):
    for name in (
        "pyproject.toml",
        "tox.ini",
        "README.md",
        "LICENSE",
        ".ci/run",
        "tests/conftest.py",
        "CONTRIBUTING.md",
    ):
        assert name in sdist


def test_a_tox_cell_tests_the_wheel_and_not_the_checkout():
    if os.environ.get("TOX_ENV_NAME") is None:
        pytest.skip("not in a tox cell")
    spec = find_spec("collfs")
    assert spec is not None
    assert spec.origin is not None
    assert spec.origin.startswith(sys.prefix)
