"""Limits: closed descriptors, few of them, little address space, full file systems. Results stay right."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def test_a_program_that_closes_all_descriptors_goes_on_and_its_own_files_stay_open(place):
    place.run(
        """
        session = start()
        import package_0
        ours = [int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2]
        os.closerange(3, 4096)
        null = os.open("/dev/null", os.O_RDWR)
        mine = [os.dup2(null, fd) for fd in ours if fd != null]  # the numbers that were collfs's
        assert len(mine) >= 3, ours
        import package_1, package_2
        assert open(package_2.__path__[0] + "/data.txt").read() == "data 2\\n"
        assert os.path.isdir(package_1.__path__[0])
        if not os.fork():
            import package_3
            for fd in mine:
                os.fstat(fd)
            os._exit(0)
        assert os.wait()[1] == 0
        collfs.finalize()
        for fd in mine:
            os.fstat(fd)
        import package_4
        """
    )
    shutil.rmtree(place.store)  # its locks were closed: the next start would do it
    place.store.mkdir()


@pytest.mark.parametrize("limit", range(4, 16))
def test_a_small_limit_on_descriptors_gives_right_results(place, limit):
    place.run(
        f"""
        import resource, logging
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        logging.disable()
        resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, hard))
        session = collfs.initialize("local", prefixes=sys.path[:1], manifest="none", job="few")
        import package_0, package_1
        assert open(package_1.__path__[0] + "/data.txt").read() == "data 1\\n"
        assert len(session.messages.warnings) <= 2, session.messages.warnings
        collfs.finalize()
        """
    )


def test_an_address_space_too_small_for_the_table_is_native_with_one_warning(place):
    result = place.run(
        """
        import resource
        collfs.initialize, collfs.finalize
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (100 << 20), resource.RLIM_INFINITY))
        session = collfs.initialize("local", prefixes=sys.path[:1], manifest="none", job="little")
        assert session.idle, "not idle"
        import package_0
        """
    )
    assert result.stderr.count("collfs") >= 1
    assert len(result.stderr.splitlines()) == 1, result.stderr


FULL = """
import ctypes, subprocess
libc = ctypes.CDLL(None, use_errno=True)
if libc.unshare(0x20000) or subprocess.run(["mount", "--make-rprivate", "/"]).returncode:
    print("SKIP: no mount namespace of our own"); raise SystemExit
for folder, options in MOUNTS:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]).returncode:
        print("SKIP: no tmpfs"); raise SystemExit
os.environ.pop("TMPDIR", None)
os.execv(sys.executable, [sys.executable, SECOND])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize(
    ("mounts", "where"), [([("/dev/shm", "size=1m")], "/tmp/"), ([("/dev/shm", "noexec")], "/tmp/")]
)
def test_a_full_or_noexec_dev_shm_means_another_directory(place, mounts, where):
    second = place.script(
        f"""
        session = collfs.initialize("local", prefixes=sys.path[:1], manifest="none", job="elsewhere")
        assert not session.idle, session.idle
        assert session.store.path.startswith({where!r}), session.store.path
        import package_0
        assert redirected(session) > 0
        print("done")
        """,
        "second.py",
    )
    result = place.run(FULL.replace("MOUNTS", repr(mounts)).replace("SECOND", repr(str(second))))
    if "SKIP" in result.stdout:
        pytest.skip(result.stdout)
    assert result.stdout == "done\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_no_place_at_all_means_native_with_one_warning_that_names_each(place):
    second = place.script(
        """
        session = collfs.initialize("local", prefixes=sys.path[:1], manifest="none", job="nowhere")
        assert session.idle
        import package_0
        print("done")
        """,
        "second.py",
    )
    mounts = [("/dev/shm", "size=1m"), ("/var/tmp", "noexec"), ("/mnt", "size=1m")]
    code = FULL.replace("MOUNTS", repr(mounts)).replace("SECOND", repr(str(second)))
    # /tmp holds the test itself: a read-only bind mount of it does
    code = code.replace(
        "os.environ.pop",
        "subprocess.run(['mount', '--bind', '/tmp', '/tmp'])\n"
        "subprocess.run(['mount', '-o', 'remount,bind,ro', '/tmp'])\nos.environ.pop",
    )
    result = place.run(code)
    if "SKIP" in result.stdout:
        pytest.skip(result.stdout)
    assert result.stdout == "done\n"
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for name in ("/dev/shm", "/tmp", "/var/tmp"):
        assert name in result.stderr


def test_a_store_that_runs_full_goes_on_natively(place):
    """The disk fills up while files are staged: reads stay right."""
    (place.tree / "big.bin").write_bytes(os.urandom(3 << 20))
    mount = place.path / "small"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        place.run(
            f"""
            import logging
            logging.disable()
            session = start(store={str(mount)!r}, max_store_bytes=1 << 30)
            with open(sys.path[0] + "/big.bin", "rb") as file:
                content = file.read()
            with open("/" + sys.path[0] + "/big.bin", "rb") as file:
                assert file.read() == content
            import package_0, package_1
            assert len(session.messages.warnings) == 1, session.messages.warnings
            """
        )
    finally:
        subprocess.run(["umount", mount], check=True)
