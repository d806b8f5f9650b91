"""Installing and uninstalling: every byte comes back to its place, also when it fails in the middle.

All of it runs in child processes.
"""

from __future__ import annotations

import pytest


def test_sites_are_reported_by_object_and_call(patching):
    result = patching(
        """
interposer = Interposer()
assert interposer.sites_by_object() == {}
interposer.install()
sites = interposer.sites_by_object()
assert set(sites) >= {"ld.so", "libc"}, sites
assert sites["ld.so"].keys() <= {"open", "openat", "stat", "newfstatat"}, sites
assert sites["ld.so"].keys() & {"open", "openat"} and sites["ld.so"].keys() & {"stat", "newfstatat"}, sites
assert {"access", "readlink", "rename", "unlink", "mkdir"} <= sites["libc"].keys(), sites
assert sum(sum(calls.values()) for calls in sites.values()) == len(interposer.installed)
interposer.uninstall()
assert interposer.sites_by_object() == {}
""",
    )
    assert result.stderr == ""


def test_uninstall_restores_every_byte_and_every_protection(patching):
    patching(
        """
for _ in range(3):
    interposer = Interposer()
    untouched()
    interposer.install()
    patched = changed(before)
    covered = {a + i for p in interposer.patches for a in [p.address] for i in range(len(p.new))}
    assert patched and patched <= covered, sorted(map(hex, patched - covered))
    assert protections() == maps, protections()
    interposer.uninstall()
    untouched()
""",
    )


def test_uninstall_works_with_threads_that_came_after_install(patching):
    patching(
        """
import threading
stop = threading.Event()
interposer = Interposer()
interposer.install()
threads = [threading.Thread(target=stop.wait) for _ in range(2)]
for thread in threads: thread.start()
interposer.uninstall()
untouched()
interposer.install()
assert changed(before)
interposer.uninstall()
untouched()
stop.set()
""",
    )


def test_every_subset_of_the_rows_installs_touches_only_its_sites_and_goes(patching):
    """Which sites of ld.so a row needs is written down here again, so that CALLS can't be wrong unnoticed."""
    patching(
        """
NEEDS = {"open": "open", "openat": "open", "close": "close", "read": "read", "lseek": "lseek", "mmap": "mmap",
         "munmap": "munmap", "fstat": "fxstat64", "stat": "xstat64"}
def wanted(name, rows):
    if name == "newfstatat":
        return bool({"xstat64", "fxstat64"} & rows)
    if name == "pread64":
        return {"read", "lseek"} <= rows
    return NEEDS.get(name) in rows
interposer = Interposer()
ldso = [site for site in interposer.sites if site.object == "ld.so"]
spans = [(a, a + len(content)) for a, content in before]
own = [span for span in spans if any(span[0] <= site.address < span[1] for site in ldso)]
assert {"fstat", "newfstatat", "read", "pread64", "mmap", "munmap", "close", "lseek"} & {s.name for s in ldso}
import ctypes, _imp
never = ctypes.cast(ctypes.pythonapi.Py_IsInitialized, ctypes.c_void_p).value
for subset in range(256):
    rows = {name for i, (name, _, _) in enumerate(ROWS) if subset >> i & 1}
    api = LibcCollfsApi()
    for name in rows:
        setattr(api, name, PROTOTYPES[name](never))  # an address; nothing of ld.so runs meanwhile
    interposer.install(api)
    touched = {a for a in changed(before) if any(start <= a < end for start, end in own)}
    interposer.uninstall()
    reported = {site.address for site in ldso if wanted(site.name, rows)}
    near = {a for site in ldso if wanted(site.name, rows) for a in range(site.address, site.syscall + 2)}
    caves = touched - near
    assert all(touched & set(range(s.address, s.syscall + 2)) for s in ldso if wanted(s.name, rows)), rows
    quiet = {a for site in ldso if not wanted(site.name, rows) for a in range(site.address, site.syscall + 2)}
    assert not touched & quiet, (rows, touched & quiet)
    assert len(caves) <= 5 * sum(site.needs_cave for site in ldso if wanted(site.name, rows)), (rows, caves)
    assert interposer.code.cell.api[:] == [0] * 8
    untouched()
""",
    )


@pytest.mark.parametrize("at", [0, 1, 7, -1])
@pytest.mark.parametrize("how", ["InterposeRefused('a poke failed')", "KeyboardInterrupt"])
def test_a_transaction_that_fails_in_the_middle_is_undone(patching, at, how):
    patching(
        f"""
from collfs.interpose import patch
interposer = Interposer()
real, count, fail_at = patch._Writable.__call__, 0, {at}
def call(self, one):
    global count, fail_at
    if count == fail_at:
        fail_at = None
        raise {how}
    count += 1
    real(self, one)
if fail_at == -1:  # after the last one
    def compare(address, expected):
        global fail_at
        if fail_at is not None and any(p.address == address and p.new == expected for p in interposer.patches[-1:]):
            fail_at = None
            raise {how}
    patch._compare = compare
else:
    patch._Writable.__call__ = call
try:
    interposer.install()
except (InterposeRefused, KeyboardInterrupt) as exc:
    print(type(exc).__name__)
assert fail_at is None
assert interposer.patches == [] and interposer.installed == []
untouched()
interposer.install()  # and the next try works
assert changed(before)
interposer.uninstall()
untouched()
""",
    )


def test_a_poke_that_says_no_undoes_the_transaction(patching):
    patching(
        """
interposer = Interposer()
real, calls = interposer.code.poke, []
def poke(address, new, size, alone):
    calls.append(address)
    return -errno.EINVAL if len(calls) == 20 else real(address, new, size, alone)
interposer.code.poke = poke
refusal(interposer.install, "Invalid argument")
assert len(calls) > 20
""",
    )


def test_text_that_somebody_changed_before_install_is_refused(patching):
    patching(
        """
from collfs.interpose import patch
interposer = Interposer()
site = interposer.sites[-1]
other = patch.Patch(site.address, site.displaced, b"\\x90" * len(site.displaced))
patch.apply([other], interposer.code)
seen = changed(before)
try:
    interposer.install()
except InterposeRefused as exc:
    assert "expected" in str(exc)
else:
    raise SystemExit("not refused")
assert changed(before) == seen
patch.undo([other], interposer.code)
untouched()
""",
    )
