"""Whatever changes the file system is seen by the next call: what is known of the touched names is forgotten first.

Each change happens in a directory of its own, of which everything is staged; afterwards all questions about all its
names are asked of the path table and of the kernel.
"""

from __future__ import annotations

TREE = """
import shutil, stat, ctypes, tempfile, mmap
def plant(d):
    os.makedirs(d + "/sub/deep"), os.mkdir(d + "/other"), os.mkdir(d + "/empty")
    for name in ("f", "g", "meta", "sub/a", "sub/deep/b", "other/o"):
        with open(f"{d}/{name}", "w") as file:
            file.write("old " + name)
    os.symlink("f", d + "/link"), os.symlink("sub", d + "/ld"), os.symlink("sub/made", d + "/later")
def write(path, flags, how=b"new"):
    fd = os.open(path, flags, 0o644)
    if flags & (os.O_WRONLY | os.O_RDWR):
        os.write(fd, how)
    os.close(fd)
def ok(result):
    assert result == 0, os.strerror(ctypes.get_errno())
def at(d, call):
    fd = os.open(d, os.O_RDONLY | os.O_DIRECTORY)
    call(fd)
    os.close(fd)
def inside(d, call):
    os.chdir(d), call(), os.chdir("/")
def forked(call):
    pid = os.fork()
    if not pid:
        try:
            call()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
def spawned(d):
    action = (os.POSIX_SPAWN_OPEN, 1, d + "/f", os.O_WRONLY | os.O_TRUNC, 0o644)
    pid = os.posix_spawn("/bin/echo", ["echo", "spawned"], os.environ, file_actions=[action])
    assert os.waitpid(pid, 0)[1] == 0
def fopen(path, mode, text=b"new"):
    libc.fopen.restype = ctypes.c_void_p
    file = ctypes.c_void_p(libc.fopen(path.encode(), mode))
    assert file.value
    libc.fputs(text, file), ok(libc.fclose(file))
def temporary(d):
    fd, path = tempfile.mkstemp(dir=d)
    os.write(fd, b"tmp"), os.close(fd), os.replace(path, d + "/f"), tempfile.mkdtemp(dir=d + "/sub")
W, R, C, T = os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC
CHANGES = {}
"""

# name of the change -> a statement about the directory d
CHANGES = {
    "open W": "write(d + '/f', W)",
    "open RW": "write(d + '/f', R)",
    "open W TRUNC": "write(d + '/f', W | T)",
    "open R TRUNC": "write(d + '/f', os.O_RDONLY | T)",
    "open W APPEND": "write(d + '/f', W | os.O_APPEND)",
    "open W CREAT, a new name": "write(d + '/new', W | C)",
    "open W CREAT, an old name": "write(d + '/f', W | C)",
    "open R CREAT": "write(d + '/new', C)",
    "open W CREAT EXCL": "write(d + '/new', W | C | os.O_EXCL)",
    "open W CREAT EXCL, an old name": "outcome(lambda p: write(p, W | C | os.O_EXCL), d + '/f')",
    "open W CREAT TRUNC NOFOLLOW": "write(d + '/f', W | C | T | os.O_NOFOLLOW)",
    "open W below a name that is absent": "outcome(lambda p: write(p, W | C), d + '/new/x')",
    "open W, unusual spelling": "write(d + '//sub/./../sub//a', W)",
    "open W through a link": "write(d + '/link', W | T)",
    "open W APPEND through a link": "write(d + '/link', W | os.O_APPEND)",
    "open W CREAT through a broken link": "write(d + '/later', W | C)",
    "a linked file is written": "write(d + '/f', W | T, b'other')",
    "a file is written behind a linked directory": "write(d + '/sub/a', W | T, b'other')",
    "a file is written through a linked directory": "write(d + '/ld/a', W | T, b'other')",
    "O_TMPFILE and linkat": "tmpfile(d)",
    "creat": "os.close(libc.creat((d + '/new').encode(), 0o644))",
    "creat, an old name": "os.close(libc.creat((d + '/f').encode(), 0o644))",
    "open64 and openat64": "os.close(libc.open64((d + '/f').encode(), W | T)), "
    "os.close(libc.openat64(-100, (d + '/g').encode(), W | T))",
    "fopen w": "fopen(d + '/f', b'w')",
    "fopen a": "fopen(d + '/f', b'a')",
    "fopen r+": "fopen(d + '/f', b'r+')",
    "rename a file": "os.rename(d + '/f', d + '/new')",
    "rename over": "os.rename(d + '/g', d + '/f')",
    "rename a directory": "os.rename(d + '/sub', d + '/moved')",
    "rename a directory over an empty one": "os.rename(d + '/sub', d + '/empty')",
    "rename into another directory": "os.rename(d + '/f', d + '/sub/f')",
    "rename a link to a directory": "os.rename(d + '/ld', d + '/moved')",
    "chmod a directory, then rename it": "os.chmod(d + '/sub', 0o700), os.rename(d + '/sub', d + '/moved')",
    "write in a directory, then rename it": "write(d + '/sub/new', W | C), os.rename(d + '/sub', d + '/moved')",
    "rename the directory above": "os.rename(d, d + '.gone')",
    "renameat2 EXCHANGE": "ok(libc.renameat2(-100, (d + '/sub').encode(), -100, (d + '/other').encode(), 2))",
    "rename fails": "outcome(lambda p: os.rename(p, d + '/f'), d + '/sub')",
    "unlink": "os.unlink(d + '/f')",
    "unlink a link": "os.unlink(d + '/link')",
    "unlink a link to a directory": "os.unlink(d + '/ld')",
    "remove (stdio)": "ok(libc.remove((d + '/f').encode())), ok(libc.remove((d + '/empty').encode()))",
    "rmdir": "os.rmdir(d + '/empty')",
    "rmtree": "shutil.rmtree(d + '/sub')",
    "rmtree of all": "shutil.rmtree(d)",
    "rmtree, then again": "shutil.rmtree(d + '/sub'), os.mkdir(d + '/sub'), write(d + '/sub/z', W | C)",
    "mkdir": "os.mkdir(d + '/new')",
    "makedirs": "os.makedirs(d + '/new/a/b'), write(d + '/new/a/b/c', W | C)",
    "link": "os.link(d + '/f', d + '/new')",
    "symlink": "os.symlink('f', d + '/new')",
    "truncate": "os.truncate(d + '/f', 1)",
    "chmod": "os.chmod(d + '/f', 0o600)",
    "chmod through a link": "os.chmod(d + '/link', 0o600)",
    "chmod of a directory": "os.chmod(d + '/sub', 0o700)",
    "chown": "os.chown(d + '/f', 1234, -1), os.lchown(d + '/link', 1234, -1), os.chown(d + '/sub', 1, 1)",
    "utime": "os.utime(d + '/f', (1, 2)), os.utime(d + '/sub', ns=(1, 2))",
    "utimes": "ok(libc.utimes((d + '/f').encode(), None)), ok(libc.utime((d + '/g').encode(), None))",
    "lutimes": "ok(libc.lutimes((d + '/link').encode(), (ctypes.c_long * 4)(1, 0, 1, 0)))",
    "setxattr": "xattr(d)",
    "mkfifo": "os.mkfifo(d + '/new')",
    "mknod": "os.mknod(d + '/new', 0o644 | stat.S_IFREG)",
    "move": "shutil.move(d + '/sub', d + '/other'), shutil.copytree(d + '/other', d + '/new')",
    "temporary files": "temporary(d)",
    "openat": "at(d, lambda fd: os.close(os.open('f', W | T, dir_fd=fd)))",
    "renameat": "at(d, lambda fd: os.rename('f', 'new', src_dir_fd=fd, dst_dir_fd=fd))",
    "unlinkat": "at(d, lambda fd: (os.unlink('f', dir_fd=fd), os.rmdir('empty', dir_fd=fd)))",
    "mkdirat": "at(d, lambda fd: os.mkdir('new', dir_fd=fd))",
    "linkat": "at(d, lambda fd: os.link('f', 'new', src_dir_fd=fd, dst_dir_fd=fd))",
    "symlinkat": "at(d, lambda fd: os.symlink('f', 'new', dir_fd=fd))",
    "fchmodat": "at(d, lambda fd: os.chmod('f', 0o600, dir_fd=fd))",
    "fchownat": "at(d, lambda fd: os.chown('sub', 7, 7, dir_fd=fd))",
    "utimensat": "at(d, lambda fd: os.utime('f', (1, 2), dir_fd=fd))",
    "mkfifoat": "at(d, lambda fd: os.mkfifo('new', dir_fd=fd))",
    "mknodat": "at(d, lambda fd: os.mknod('new', dir_fd=fd))",
    "openat with .. in it": "at(d + '/sub', lambda fd: os.close(os.open('../f', W | T, dir_fd=fd)))",
    "relative open": "inside(d, lambda: write('f', W | T))",
    "relative open, a new name": "inside(d + '/sub', lambda: write('../new', W | C))",
    "relative fopen": "inside(d, lambda: fopen('f', b'w'))",
    "relative creat": "inside(d, lambda: os.close(libc.creat(b'f', 0o644)))",
    "relative rename": "inside(d, lambda: os.rename('sub', 'moved'))",
    "relative unlink": "inside(d, lambda: os.unlink('f'))",
    "relative rmdir and mkdir": "inside(d, lambda: (os.rmdir('empty'), os.mkdir('new')))",
    "relative symlink and link": "inside(d, lambda: (os.symlink('f', 'new'), os.link('f', 'new2')))",
    "relative chmod, utime, truncate": "inside(d, lambda: "
    "(os.chmod('f', 0o600), os.utime('g'), os.truncate('meta', 2)))",
    "in a forked child": "forked(lambda: "
    "(write(d + '/f', W | T), os.unlink(d + '/g'), os.rename(d + '/sub', d + '/m')))",
    "by posix_spawn": "spawned(d)",
}

MORE = """
def tmpfile(d):
    fd = os.open(d, os.O_TMPFILE | R, 0o644)
    os.write(fd, b"tmp")
    ok(libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, (d + "/new").encode(), 0x400))
    os.close(fd)
def xattr(d):
    try:
        os.setxattr(d + "/f", "user.x", b"1"), os.removexattr(d + "/f", "user.x")
        os.setxattr(d + "/sub", "user.x", b"1")
    except OSError as exc:
        assert exc.errno == 95, exc  # a file system without them
"""


def test_the_next_read_after_any_change_sees_the_truth(child):
    result = child(
        TREE
        + MORE
        + "\n".join(f"CHANGES[{name!r}] = lambda d: ({code})" for name, code in CHANGES.items())
        + """
for number in range(len(CHANGES)):
    plant(f"{top}/{number}")
h = Hooked(base, top)
h.stage_tree(top)
h.stage([f"{top}/{n}/new/x" for n in range(len(CHANGES))], META)
h.install()
for number in range(len(CHANGES)):  # otherwise the test would prove nothing
    for path in (f"{top}/{number}/f", f"{top}/{number}/sub/deep/b", f"{top}/{number}/link"):
        assert h.table.probe(path) & 0xFF == 1, path
bad = []
for number, (name, change) in enumerate(CHANGES.items()):
    d = f"{top}/{number}"
    try:
        change(d)
        known = [d + n for n in ("/f", "/g", "/sub", "/sub/a", "/sub/deep/b", "/new", "/new/x", "/ld", "/ld/a")]
        known += [d + n for n in ("/nope", "/ld/deep/b", "/other/o", "/link", "/empty", "/moved", "/moved/a")]
        check_all(d, *known)
    except Exception as exc:
        bad.append(f"{name}: {type(exc).__name__}: {exc}"[:300])
        os.chdir("/")
print(len(CHANGES), "changes")
h.done()
if bad:
    sys.exit("\\n".join(bad))
"""
    )
    assert f"{len(CHANGES)} changes" in result.stdout
