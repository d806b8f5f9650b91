"""A table with any of its members NULL, and functions that fail: what ld.so's text and its messages are then."""

from __future__ import annotations

import shutil
import subprocess

import pytest

import passthrough
from patchstate import PRELUDE

HEAD = (
    PRELUDE
    + passthrough.LOAD
    + """
import _ctypes, errno, os, shutil
here = sys.argv[1]
copies = []
def fresh():
    # ld.so remembers of each RUNPATH directory whether it exists
    copies.append(f"{here}/copy{os.getpid()}.{len(copies)}")
    shutil.copytree(here + "/shared", copies[-1])
    return copies[-1]
def load(path):
    try:
        handle = _ctypes.dlopen(path, os.RTLD_NOW)
    except OSError as exc:
        return str(exc).replace(path, "NAME")
    value = ctypes.PyDLL(None, handle=handle).answer()
    _ctypes.dlclose(handle)
    return value
"""
)


@pytest.fixture(scope="module")
def built(root, tmp_path_factory):
    """The library of examples/c_client, whose loading makes every call, and a client that passes all on."""
    for tool in ("gcc", "make"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool}")
    folder = tmp_path_factory.mktemp("subsets")
    for name in ("Makefile", "demo.c", "part.c"):
        shutil.copy(root / "examples" / "c_client" / name, folder)
    subprocess.run(["make", "CC=gcc", "shared/libdemo.so"], cwd=folder, check=True, timeout=60)
    passthrough.build(folder)
    return folder


@pytest.fixture
def child(run_python, built):
    """Run program text behind HEAD; ``client`` is the client."""

    def run(code):
        __tracebackhide__ = True
        program = built / "program.py"
        program.write_text(HEAD + code)
        result = run_python([program, built], timeout=100, check=False)
        assert result.rc == 0, result.describe()

    return run


def test_every_subset_of_the_rows_works_and_leaves_the_other_sites_untouched(child):
    child(
        """
from collfs.interpose.image import objects
from collfs.interpose.sites import CALLS, find
before = texts()
image = objects()["ld.so"]
sites, functions = find(image), image.functions()
rows_of = {nr: set(rows.split()) for _, nr, _, rows in CALLS}
client = Client(here + "/passthrough.so")
reachable = set(client.names)
for bits in range(256):
    rows = {name for i, name in enumerate(client.names) if bits >> i & 1}
    client.calls[:] = [0] * 8
    if rows:
        client.use(*rows)
    else:
        assert client.c.collfsinitialize((ctypes.c_void_p * 8)()) == 0
    now, inside = changed(before), set()
    for site in sites:
        wanted = rows_of[site.nr] & rows
        if site.name == "pread64":  # is made of lseek and read
            wanted = {"read", "lseek"} <= rows
        span = set(range(site.address, site.syscall + 2))
        assert bool(span & now) == bool(wanted), (rows, site)
        inside |= span
    for at in now - inside:  # jumps on the way, in padding
        assert functions.containing(at) is None, (rows, hex(at))
    folder = fresh()
    assert load(folder + "/libdemo.so") == 42, rows
    shutil.rmtree(folder)
    # lseek is never called alone
    assert client.called() == (rows if "read" in rows else rows - {"lseek"}), (rows, client.called())
client.stop()
assert changed(before) == set()
client.calls[:] = [0] * 8
assert load(fresh() + "/libdemo.so") == 42
assert not client.called()
"""
    )


@pytest.mark.parametrize("code", ["ENOENT", "EACCES", "EMFILE", "EIO"])
def test_an_errno_of_open_gives_the_very_message_of_a_plain_dlopen(child, code):
    """Where a plain error can be made, it is. No file system at hand fails an open with EIO: there the words are."""
    child(
        f"""
import resource
code = errno.{code}
name = fresh() + "/libdemo.so"
if os.geteuid() == 0:  # modes count without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, for root too: man 2 capset
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None)
    assert libc.capget(header, data) == 0
    data[0] &= ~6
    data[1] &= ~6
    assert libc.capset(header, data) == 0
def plain(of):
    if code == errno.EACCES:
        os.chmod(of, 0)
        try:
            return load(of)
        finally:
            os.chmod(of, 0o755)
    if code == errno.EMFILE:
        old = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, old[1]))
        try:
            return load(of)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, old)
    os.rename(of, of + "~")
    try:
        return load(name).replace(os.strerror(errno.ENOENT), os.strerror(code))
    finally:
        os.rename(of + "~", of)
part = os.path.dirname(name) + "/deps/libpart.so"
wanted = [plain(name), plain(part) if code == errno.ENOENT else ""]
assert all(os.strerror(code) in text for text in wanted if text), wanted
name = fresh() + "/libdemo.so"
client = Client(here + "/passthrough.so")
client.use()
client.failing(open=code)
got = [load(name), ""]
if code == errno.ENOENT:
    client.only.value = b"libpart"
    got[1] = load(name)
client.failing()
assert load(name) == 42
client.stop()
assert got == wanted, (got, wanted)
"""
    )


def test_an_errno_of_read_gives_the_very_message_of_a_plain_dlopen(child):
    child(
        """
wanted = load("/proc/self/mem")  # can be opened; there is nothing at address 0 (man 5 proc)
assert wanted == "NAME: cannot read file data: Input/output error", wanted
client = Client(here + "/passthrough.so")
client.use()
client.failing(read=errno.EIO)
got = load(fresh() + "/libdemo.so")
client.stop()
assert got == wanted, got
"""
    )
