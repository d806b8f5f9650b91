"""Other builds of glibc: their sites are found in the files, and a Python that runs on them is really redirected.

The builds come by ``survey.py``; where they can't be had the tests are skipped and say why.
``COLLFS_GLIBC_CACHE`` names a directory that keeps them for the next run.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

import pytest

import cancelled
from collfs.interpose.sites import SYSCALL, caves


def _beside(name):
    spec = importlib.util.spec_from_file_location(f"collfs_glibc_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


survey, client = _beside("survey"), _beside("client")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# What ld.so and libc must have in every build, by names in sites.CALLS; | is "or"
LDSO = "open|openat stat|newfstatat fstat|newfstatat read pread64 close lseek mmap munmap"
LIBC = (
    "newfstatat|stat lstat|newfstatat statx access faccessat readlink readlinkat mkdir unlink rmdir rename renameat"
    " unlinkat symlink link truncate chmod chown utimensat chroot unshare setns"
)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    kept = os.environ.get("COLLFS_GLIBC_CACHE")
    return Path(kept).resolve() if kept else tmp_path_factory.mktemp("glibc")


@pytest.fixture(params=survey.RELEASES)
def release(request, cache):
    """(name, directory) of a fetched release."""
    try:
        return request.param, survey.fetch(cache, request.param)
    except survey.Unavailable as exc:
        pytest.skip(str(exc))


def minor(root):
    return int(survey.version(root).split("-")[0].split(".")[1])


def test_all_required_sites_are_found_and_no_false_one(release):
    _, root = release
    images = survey.objects(root / "root")
    counts = {name: survey.count(image) for name, image in images.items()}
    print(survey.version(root), counts)
    assert {name: survey.stray_matches(image) for name, image in images.items()} == {name: [] for name in images}
    for name, groups in (("ld.so", LDSO), ("libc", LIBC)):
        assert [g for g in groups.split() if not any(counts[name][call] for call in g.split("|"))] == []
    if minor(root) >= 41:  # open and openat themselves go by __syscall_cancel
        assert counts["libc"]["syscall_cancel"] >= 1
        assert counts["libc"]["faccessat2"] == 1
    else:
        assert counts["libc"]["openat"] >= 6  # open and openat twice each, and the two _nocancel ones
        assert counts["libc"]["creat"] == 2
    assert ("libpthread" in images) == (minor(root) <= 33)
    if "libpthread" in images:
        assert counts["libpthread"]["openat"] == 2


def test_every_site_can_be_written_under_threads(release):
    """A mov whose first byte is the last of a cache line can't be written by one store: machine.c, poke."""
    _, root = release
    for image in survey.objects(root / "root").values():
        awkward = [site for site in survey.find(image) if site.address % 64 == 63]
        assert [site for site in awkward if not caves(image, site)] == []


def test_what_ldso_reads_by_can_be_redirected(release):
    """`xor %eax,%eax; syscall` leaves room for a short jump only, so padding must be near."""
    _, root = release
    image = survey.objects(root / "root")["ld.so"]
    short = [site for site in survey.find(image) if site.displaced == SYSCALL]
    assert [site.name for site in short] == ["read"]
    assert caves(image, short[0])


@pytest.fixture
def runner(release, run_command):
    """(command, standard library, environment) of a Python on the libraries of a release."""
    name, root = release
    unpacked = root / "root"
    libraries = survey.library_path(unpacked)
    if name == "bullseye":
        home, python = unpacked / "usr", unpacked / "usr/bin/python3.9"
        stdlib = home / "lib/python3.9"
    else:
        if minor(root) < minor_here():
            pytest.skip(f"this Python was built for glibc 2.{minor_here()}")
        home, python = Path(sys.base_prefix), Path(sys.executable).resolve()
        stdlib = Path(sysconfig.get_path("stdlib"))
        libraries += f":{home}/lib:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/lib64:/usr/lib64"
    command = [str(survey.linker(unpacked)), "--library-path", libraries, str(python)]
    places = [p for p in sys.path if p and Path(p).is_dir() and not p.startswith(sys.base_prefix)]
    env = {"PYTHONHOME": str(home), "PYTHONPATH": os.pathsep.join(places)}
    started = run_command([*command, "-c", "import ctypes"], env=env, check=False)
    if started.rc:
        pytest.skip(f"this Python doesn't run on glibc {survey.version(root)}: {started.stderr[-300:]}")
    return command, stdlib, env


def minor_here():
    return int((os.confstr("CS_GNU_LIBC_VERSION") or "glibc 2.0").split(".")[1])


@pytest.mark.parametrize("install", ["alone", "with a thread"])
def test_a_python_on_that_glibc_is_redirected_call_by_call(release, runner, install, run_command, tmp_path):
    _, root = release
    command, stdlib, env = runner
    work = tmp_path / "work"
    work.mkdir()
    env["COLLFS_TEST_INSTALL"] = install
    result = run_command([*command, Path(__file__).with_name("calls.py"), stdlib, work], env=env, check=False)
    assert result.rc == 0, result.describe()
    if minor(root) >= 41:
        assert "'syscall_cancel'" in result.stdout
    if minor(root) <= 33:
        assert "'libpthread': {'openat': 2}" in result.stdout


@pytest.mark.parametrize("kind", ["open", "read"])
@pytest.mark.parametrize("steps", ["install start", "start install", "start install uninstall"])
def test_a_waiting_thread_can_be_cancelled_on_that_glibc(release, runner, kind, steps, run_command, tmp_path):
    """From 2.41 on the cancel handler compares the program counter with the system call that must not be moved."""
    command, _, env = runner
    try:
        waiter = cancelled.build(tmp_path)
    except FileNotFoundError:
        pytest.skip("no gcc")
    arguments = [cancelled.__file__, tmp_path / "fifo", kind, steps, waiter]
    result = run_command([*command, *arguments], env=env, check=False)
    if "version `GLIBC" in result.stderr:
        pytest.skip("the compiler here builds for a newer glibc")
    assert result.rc == 0, result.describe()


def test_a_client_of_the_c_interface_gets_every_call_on_that_glibc(release, runner, run_command, tmp_path):
    command, _, env = runner
    try:
        client.build(tmp_path)
    except FileNotFoundError:
        pytest.skip("no gcc")
    result = run_command([*command, client.__file__, tmp_path], env=env, check=False)
    assert result.rc == 0, result.describe()
    assert result.stdout.startswith("calls [")
