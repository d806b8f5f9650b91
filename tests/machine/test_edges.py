"""Odd arguments and odd processes: descriptors of mirrors or none left, NULL, long names, chroot, lost copies."""

from __future__ import annotations

import os

import pytest

TREE = """
import ctypes, resource, shutil, stat
from collfs.record import Want
os.makedirs(top + "/d/sub")
for name in ("d/f", "d/g", "d/sub/a", "meta"):
    with open(f"{top}/{name}", "w") as file:
        file.write("content of " + name)
h = Hooked(base, top)
h.stage_tree(top)
h.install()
d = top + "/d"
def ok(result):
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result
"""

MIRROR = """
libc.opendir.restype = ctypes.c_void_p
def mirror(path):
    stream = libc.opendir(path.encode())
    fd = libc.dirfd(ctypes.c_void_p(stream))
    assert os.readlink(f"/proc/self/fd/{fd}").startswith(os.path.realpath(h.store.path) + "/m/")
    return fd
fd = mirror(d)
"""


def test_a_name_relative_to_a_listing_reaches_the_original(child):
    child(
        TREE
        + MIRROR
        + """
assert os.read(os.open("f", os.O_RDONLY, dir_fd=fd), 99) == b"content of d/f"
assert os.read(os.open("sub/../g", os.O_RDONLY, dir_fd=fd), 99) == b"content of d/g"
assert os.stat("f", dir_fd=fd).st_size == 14 and os.stat("f", dir_fd=fd).st_mode & 0o777
assert os.stat(".", dir_fd=fd).st_ino == os.stat("/" + d).st_ino
assert os.stat("..", dir_fd=fd).st_ino == os.stat("/" + top).st_ino
assert os.access("f", os.R_OK, dir_fd=fd) and not os.access("nope", os.F_OK, dir_fd=fd)
assert outcome(lambda p: os.stat(p, dir_fd=fd), "nope") == "ENOENT"
assert outcome(lambda p: os.readlink(p, dir_fd=fd), "f") == "EINVAL"
"""
    )


@pytest.mark.parametrize(
    "copy",
    [
        "os.dup(fd)",
        "os.dup2(fd, 99, inheritable=False)",
        "fcntl.fcntl(fd, fcntl.F_DUPFD, 5000)",
        "fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 4096)",
        "next(iter(passed(fd)))",
    ],
)
def test_a_copy_of_a_listings_descriptor_means_the_original_too(child, copy):
    child(
        "import fcntl, resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (6000, 6000))\n"
        + TREE
        + MIRROR
        + f"""
def passed(fd):
    here, there = socket.socketpair()
    socket.send_fds(here, [b"x"], [fd])
    return socket.recv_fds(there, 1, 1)[1]
import socket
other = os.open(d, os.O_RDONLY | os.O_DIRECTORY)
copy = {copy}
assert os.read(os.open("f", os.O_RDONLY, dir_fd=copy), 99) == b"content of d/f"
assert os.stat("f", dir_fd=copy).st_size == 14
os.unlink("f", dir_fd=copy)
assert not os.path.lexists("/" + d + "/f")
os.fchdir(copy)
assert os.path.samestat(os.stat("."), os.stat("/" + d))
os.dup2(os.open("/dev/shm", os.O_RDONLY | os.O_DIRECTORY), copy)
open("/dev/shm/of-shm-" + str(os.getpid()), "x").close()
os.unlink("of-shm-" + str(os.getpid()), dir_fd=copy)
assert os.read(os.open("g", os.O_RDONLY, dir_fd=other), 99) == b"content of d/g"
"""
    )


@pytest.mark.parametrize(
    "change",
    [
        "os.close(os.open('f', os.O_WRONLY | os.O_TRUNC, dir_fd=fd))",
        "os.close(os.open('new', os.O_WRONLY | os.O_CREAT, dir_fd=fd))",
        "os.unlink('f', dir_fd=fd), os.mkdir('new', dir_fd=fd)",
        "os.rename('f', 'new', src_dir_fd=fd, dst_dir_fd=fd)",
        "os.rename(d + '/f', 'sub/new', dst_dir_fd=fd)",
        "os.rename('f', top + '/new', src_dir_fd=fd)",
        "os.link('f', 'new', src_dir_fd=fd, dst_dir_fd=fd)",
        "os.symlink('f', 'new', dir_fd=fd)",
        "os.chmod('f', 0o600, dir_fd=fd), os.utime('g', (1, 2), dir_fd=fd), os.chown('g', 5, 5, dir_fd=fd)",
        "os.mkfifo('new', dir_fd=fd), os.mknod('new2', dir_fd=fd)",
        "os.fchdir(fd), os.unlink('f'), os.mkdir('new'), os.chdir('/')",
    ],
)
def test_a_change_relative_to_a_listing_changes_the_original(child, change):
    child(
        TREE
        + MIRROR
        + f"""
before = sorted(os.listdir(f"/proc/self/fd/{{fd}}"))
{change}
assert sorted(os.listdir(f"/proc/self/fd/{{fd}}")) == before, "the listing itself was changed"
check_all(top, d + "/f", d + "/g", d + "/new", d + "/sub/new", top + "/new", d + "/new2")
"""
    )


def test_fchdir_to_a_listing_goes_to_the_original(child):
    child(
        TREE
        + MIRROR
        + """
os.fchdir(fd)
assert os.getcwd() == os.path.realpath(d)
os.chdir("/")
os.close(fd)
again = os.open("/" + top, os.O_RDONLY | os.O_DIRECTORY)
assert again == fd  # the number was a listing's; now it is a plain directory's
assert os.stat("meta", dir_fd=again).st_size == 15
os.fchdir(again)
assert os.getcwd() == os.path.realpath(top)
"""
    )


def test_a_lack_of_descriptors_is_reported(child):
    child(
        TREE
        + """
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
got = [outcome(lambda p: os.open(p, os.O_RDONLY), d + "/f")]
got.append(outcome(os.listdir, d))
kept = outcome(lambda p: os.stat(p).st_size, d + "/f")
for fd in held:
    os.close(fd)
assert got == ["EMFILE", "EMFILE"] and kept == 14, (got, kept)
assert not any(c["fallback"] for c in h.interposer.counts().values()), "the original was tried as well"
check(d + "/f")
"""
    )


def test_a_copy_that_is_gone_or_unreadable_is_read_natively(child):
    child(
        TREE
        + """
shutil.rmtree(h.store.path + "/f")
shutil.rmtree(h.store.path + "/m")
check_all(top, d + "/nope")
counts = h.interposer.counts()
assert counts["open"]["fallback"] and counts["stat"]["fallback"] and counts["opendir"]["fallback"], counts
"""
    )


def test_null_pointers_and_bad_flags_are_the_kernels_business(child):
    child(
        TREE
        + """
fd = os.open("/" + d + "/f", os.O_RDONLY)
ok(libc.futimens(fd, None))
os.utime(fd, (1, 2))
assert os.stat("/" + d + "/f").st_mtime == 2
buffer = ctypes.create_string_buffer(256)
ok(libc.statx(fd, b"", 0x1000, 0x7FF, buffer))
def error(name, *args):
    ctypes.set_errno(0)
    assert getattr(libc, name)(*args) == -1, name
    return ctypes.get_errno()
EFAULT, EINVAL, EBADF = 14, 22, 9
f = (d + "/f").encode()
assert error("statx", -100, None, 0, 0x7FF, buffer) in (EFAULT, EINVAL)
assert error("open", None, 0) == EFAULT
assert error("openat", -100, None, 0) == EFAULT
assert error("unlink", None) == EFAULT
assert error("mkdir", None, 0) == EFAULT
assert error("rename", None, f) == EFAULT
assert error("readlink", f, None, 0) in (EFAULT, EINVAL)
assert error("statx", -100, f, 0, 0x7FF, None) == EFAULT
assert error("statx", -100, f, 0x80000, 0x7FF, buffer) == EINVAL
assert error("statx", -100, d.encode(), 0, 0x7FF, None) == EFAULT
assert error("openat", 999, b"x", 0) == EBADF
assert error("unlinkat", 999, b"x", 0) == EBADF
assert error("readlink", (d + "/sub").encode(), buffer, 0) == EINVAL
assert outcome(os.stat, "") == "ENOENT" and outcome(lambda p: os.open(p, os.O_RDONLY), "") == "ENOENT"
os.close(fd)
"""
    )


def test_long_names_get_the_kernels_answer(child):
    child(
        TREE
        + """
def of_length(n):  # valid and absent: below a listed directory
    path = d + "/nope"
    while len(path) < n:
        path += "/" + "x" * min(200, n - len(path) - 1)
    return path[:-1] + "y"
assert outcome(os.stat, of_length(4095)) == "ENOENT"  # PATH_MAX counts the NUL; the slash that check() adds as well
for n in (1000, 1022, 1023, 1024, 1025, 2000, 3999, 4094, 4096, 4097, 5000, 9000):
    path = of_length(n)
    assert len(path) == n
    for spelled in (path, d + "/sub/.." * ((n - len(d) - 3) // 7) + "/f", d + "/" * (n - len(d) - 1) + "f"):
        if len(spelled) != 4095:
            check(spelled)
for n in (254, 255, 256, 257, 300, 4000):
    check(f"{d}/{'x' * n}")
    check(f"{d}/{'x' * n}/y")
    check(f"{d}/f/{'x' * n}")
deep = d
for _ in range(12):  # longer than the machine code's buffer, and it exists
    deep += "/" + "n" * 200
    os.mkdir("/" + deep)
    h.stager.stage(h.reader.answer(Want(deep, LIST)), 0)
with open("/" + deep + "/f", "w") as file:
    file.write("deep")
assert not h.stager.stage(h.reader.answer(Want(deep + "/f", CONTENT)), 0)  # too long: it stays native
check(deep), check(deep + "/f"), check(deep + "/nope"), check(deep + "//f")
with open(deep + "/f", "w") as file:
    file.write("new")
check(deep + "/f")
"""
    )


def test_after_chroot_the_process_is_on_its_own(child):
    if os.geteuid():
        pytest.skip("chroot needs privileges")
    child(
        TREE
        + """
pid = os.fork()
if not pid:
    try:
        assert outcome(os.chroot, d + "/f") == "ENOTDIR" and not h.interposer.off
        os.chroot(top)
        assert h.interposer.off
        assert os.path.exists("/d/f") and not os.path.exists(top) and outcome(os.stat, d + "/f") == "ENOENT"
        os._exit(0)
    except BaseException as exc:
        print(exc, file=sys.stderr)
    finally:
        os._exit(1)
assert os.waitpid(pid, 0)[1] == 0
assert not h.interposer.off
check(d + "/f")
"""
    )


def test_a_new_mount_namespace_switches_the_process_off(child):
    if os.geteuid():
        pytest.skip("unshare needs privileges")
    child(
        TREE
        + """
pid = os.fork()
if not pid:
    try:
        if libc.unshare(0x20000) != 0:
            os._exit(77)
        os._exit(0 if h.interposer.off else 2)
    finally:
        os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 77)
assert libc.unshare(0) == 0 and not h.interposer.off
"""
    )


def test_registers_and_signals_survive_a_redirected_call(child):
    """Handlers that make redirected calls themselves, on a small stack, while redirected calls run."""
    child(
        TREE
        + """
import signal
seen = []
signal.signal(signal.SIGALRM, lambda *a: seen.append(os.stat(d + "/g").st_size))
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
for _ in range(20000):
    assert os.stat(d + "/f").st_size == 14 and not os.path.exists(d + "/nope")
signal.setitimer(signal.ITIMER_REAL, 0)
assert seen and set(seen) == {14}
"""
    )


def test_uninstalling_gives_the_plain_calls_back_and_a_second_installation_works(child):
    child(
        TREE
        + """
h.interposer.uninstall()
os.rename("/" + top, "/" + top + ".away")
assert outcome(os.stat, d + "/f") == "ENOENT"
from collfs.interpose.interposer import Interposer
again = Interposer()
from collfs.store.table import Table
again.set_table(h.table.address)
again.install()
assert os.stat(d + "/f").st_size == 14
again.uninstall()
assert outcome(os.stat, d + "/f") == "ENOENT"
"""
    )
