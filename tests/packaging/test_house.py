"""The house rules that can be counted: sizes of files, facts typed twice, names of this or that machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

LINES = 400
LINK = re.compile(r"\]\(([^)#:\s]+)\)|src=\"([^\":]+)\"")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
SKIPPED = {"build", "dist", "results", "__pycache__", "htmlcov"}


@pytest.fixture(scope="module")
def files(root):
    """Every text file of ours, with its content."""
    found = {}
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        hidden = any(p.startswith(".") and p not in (".ci", ".gitignore") for p in parts)
        if not path.is_file() or hidden or SKIPPED.intersection(parts) or path.suffix in (".bin", ".pyc"):
            continue
        found[path.relative_to(root)] = path.read_text(encoding="utf-8")
    assert Path("README.md") in found
    return found


@pytest.fixture(scope="module")
def pyproject(files):
    return files[Path("pyproject.toml")]


def test_no_python_file_is_longer_than_one_subject_needs(files):
    long = {str(p): n for p, text in files.items() if p.suffix == ".py" and (n := text.count("\n")) > LINES}
    assert long == {}


def test_every_python_file_is_ready_for_new_annotations_on_old_python(files):
    bad = [
        str(p)
        for p, text in files.items()
        if p.suffix == ".py"
        and re.search(r"^(def|class|import|from)\b", text, re.MULTILINE)
        and "import annotations" not in text
    ]
    assert bad == []


def test_no_file_names_a_place_of_the_machine_it_was_written_on(files, root):
    # Known here only while it runs: the checkout, the home folder, and the hosts of the configured package index.
    places = {str(root), str(Path.home())} - {"/", "/root", "/home"}
    settings = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60, check=False
    ).stdout
    places |= {urlsplit(url).netloc.rpartition("@")[2] for url in re.findall(r"https?://[^\s'\"\\]+", settings)}
    found = {(str(p), place) for p, text in files.items() for place in places if place and place in text}
    assert found == set()


def test_readme_and_pyproject_agree_on_the_pythons(files, pyproject):
    classifiers = re.findall(r"Python :: (3\.\d+)\"", pyproject)
    oldest, newest = classifiers[0], classifiers[-1]
    assert f'requires-python = ">={oldest}"' in pyproject
    assert f'python_version = "{oldest}"' in pyproject
    assert f"Python {oldest} to {newest}" in files[Path("README.md")]


def test_tox_has_a_cell_for_each_python(files, pyproject):
    minors = ",".join(re.findall(r"Python :: 3\.(\d+)\"", pyproject))
    assert f"py3{{{minors}}}-local" in files[Path("tox.ini")]


def test_readme_and_ci_use_the_same_test_command(files):
    command = re.search(r"^tox .*$", files[Path("README.md")], re.MULTILINE)
    assert command is not None
    assert command[0] in files[Path(".ci/run")].replace("\n", " ")


def test_local_links_of_the_documents_lead_somewhere(files, root):
    broken = [
        (str(page), target)
        for page, text in files.items()
        if page.suffix == ".md"
        for target in LINK.findall(COMMENT.sub("", text))
        for target in [target[0] or target[1]]
        if not (root / page.parent / target).exists()
    ]
    assert broken == []


def test_the_version_is_in_the_changelog(files, pyproject):
    version = re.search(r'^version = "(.+)"$', pyproject, re.MULTILINE)
    assert version is not None
    assert re.search(rf"^## {re.escape(version[1])}\b", files[Path("CHANGELOG.md")], re.MULTILINE)


def test_the_version_is_the_same_in_the_package(pyproject):
    import collfs

    assert f'\nversion = "{collfs.__version__}"\n' in pyproject


def test_change_fragments_have_a_known_kind(files):
    names = [p.name for p in files if p.parts[0] == "changelog.d" and p.name != "README.md"]
    assert [n for n in names if not re.fullmatch(r"[\w-]+\.(new|changed|fixed|removed)\.md", n)] == []


def test_readme_names_options_as_they_are(files):
    from collfs.options import ROWS

    listed = re.findall(r"^\| `(--[\w-]+)[^|`]*` \| `(\w+)` \|", files[Path("README.md")], re.MULTILINE)
    assert listed
    assert set(listed) <= {(row.flag, row.variable) for row in ROWS}
