"""Which directories are managed: explicit ones as they are, automatic ones where they lie on a shared file system."""

from __future__ import annotations

import ctypes
import os
import site
import sys

import pytest

from collfs import mounts, prefixes
from collfs.errors import OptionError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A Python installation whose parts are all below tmp_path, which counts as no temporary directory here."""
    for name in ("venv/lib/site", "base/lib", "user", "extra", "libs", "work"):
        (tmp_path / name).mkdir(parents=True)
    for name, value in {
        "prefix": "venv",
        "exec_prefix": "venv",
        "base_prefix": "base",
        "base_exec_prefix": "base",
    }.items():
        monkeypatch.setattr(sys, name, str(tmp_path / value))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "venv/lib/site"), str(tmp_path / "extra"), "", "relative"])
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "USER_SITE", str(tmp_path / "user"))
    monkeypatch.setitem(sys.modules, "site", site)  # python -S hasn't loaded it
    monkeypatch.setattr(prefixes, "_excluded", lambda environ: [])
    return tmp_path


def automatic(tree, shared, **environ):
    """What is managed and why, as names relative to *tree*."""
    chosen, reasons = prefixes.automatic(environ, lambda path: "nfs" if os.path.relpath(path, tree) in shared else "")
    relative = {os.path.relpath(path, tree): reason for path, reason in reasons.items()}
    return [os.path.relpath(path, tree) for path in chosen], relative


def test_of_all_sources_those_on_a_shared_file_system_are_managed(tree):
    libraries = f"{tree / 'libs'}:{tree / 'absent'};relative:"
    chosen, reasons = automatic(tree, {"base", "user", "libs"}, LD_LIBRARY_PATH=libraries)
    assert chosen == ["base", "user", "libs"]
    assert reasons == {
        "venv": "on a local file system",
        "base": "nfs",
        "user": "nfs",
        "venv/lib/site": "on a local file system",
        "extra": "on a local file system",
        "libs": "nfs",
        "absent": "no such directory",
    }


def test_nothing_shared_means_nothing_managed(tree):
    assert automatic(tree, set())[0] == []


def test_what_lies_in_a_managed_directory_is_managed_with_it(tree):
    assert automatic(tree, {"venv", "venv/lib/site", "extra"})[0] == ["venv", "extra"]


def test_the_user_site_counts_only_if_python_uses_it(tree, monkeypatch):
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    chosen, reasons = automatic(tree, {"user"})
    assert chosen == []
    assert "user" not in reasons


def test_the_working_directory_counts_only_if_it_is_on_the_path_by_name(tree, monkeypatch):
    monkeypatch.chdir(tree / "work")
    assert automatic(tree, {"work"})[0] == []
    sys.path.append(str(tree / "work"))
    assert automatic(tree, {"work"})[0] == ["work"]


def test_a_link_is_managed_under_both_names(tree):
    (tree / "link").symlink_to("extra")
    sys.path.append(str(tree / "link"))
    assert automatic(tree, {"link"})[0] == ["link", "extra"]


@pytest.mark.parametrize("path", ["/", "/usr", "/home", "/proc/self", "/dev/shm", "/sys/fs"])
def test_what_is_too_general_or_no_real_directory_never_counts(tree, monkeypatch, path):
    monkeypatch.setattr(sys, "path", [path])
    chosen, reasons = prefixes.automatic({"HOME": "/home/me"}, lambda _: "nfs")
    assert path not in chosen
    assert reasons[path] in ("too general", "temporary, cache or system directory")


def test_temporary_and_cache_directories_never_count(tmp_path, monkeypatch):
    names = [tmp_path / name for name in ("temporary/venv", "cache/venv", "home/.cache/venv", "home/venv")]
    for name in names:
        name.mkdir(parents=True)
    environ = {"TMPDIR": str(tmp_path / "temporary"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environ["HOME"] = str(tmp_path / "home")
    never = prefixes._excluded(environ)
    assert [any(prefixes.below(str(name), e) for e in never if e != "/tmp") for name in names] == [True] * 3 + [False]
    assert {"/tmp", "/var/tmp"} <= set(never)


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/self", "/dev/shm", "/sys/fs/cgroup"])
def test_an_explicit_prefix_that_cant_be_managed_is_an_error(path):
    with pytest.raises(OptionError, match=r"can't be managed\. Name directories with software in them"):
        prefixes.explicit([path])


def test_an_explicit_prefix_must_be_a_directory_that_exists(tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("absent", "file"):
        with pytest.raises(OptionError, match=r"is not a directory\. Name existing directories"):
            prefixes.explicit([str(tmp_path / name)])


def test_explicit_prefixes_are_taken_in_every_spelling_and_once(tmp_path):
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    link, real = str(tmp_path / "link"), str(tmp_path / "real")
    assert prefixes.explicit([link, real, real + "/inner"]) == [link, real]
    assert prefixes.explicit([]) == []


@pytest.mark.parametrize(
    ("path", "directory", "expected"),
    [("/a/b", "/a", True), ("/a", "/a", True), ("/ab", "/a", False), ("/a", "/a/b", False), ("/a", "/", True)],
)
def test_below_compares_whole_components(path, directory, expected):
    assert prefixes.below(path, directory) is expected


def test_kinds_of_file_systems_come_from_statfs():
    assert mounts.network_name("/proc") == ""
    assert mounts.f_type("/proc") == 0x9FA0  # PROC_SUPER_MAGIC, <linux/magic.h>
    assert mounts.f_type("/no/such/path") == 0
    assert mounts.NETWORK[0x6969] == "nfs"  # NFS_SUPER_MAGIC


@pytest.mark.parametrize(("number", "name"), sorted(mounts.NETWORK.items()))
def test_each_shared_file_system_is_known_by_its_number(monkeypatch, number, name):
    def statfs(path, buffer):
        ctypes.memmove(buffer, number.to_bytes(4, "little"), 4)
        return 0

    monkeypatch.setattr(mounts, "_statfs", statfs)
    assert mounts.network_name("/anything") == name
