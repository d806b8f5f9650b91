"""The function-pointer table with C functions: each is called, its result counts, its errors read like the kernel's."""

from __future__ import annotations

import errno

import pytest


def test_loading_goes_through_every_row_and_gives_the_same_result(child):
    child(
        """
before, maps = texts(), protections()
plain = all_three(fresh())
assert plain[:2] == ["42", "42"], plain
interposer, where = Interposer(), fresh()
interposer.install(table())
assert all_three(where) == plain
interposer.uninstall()
assert changed(before) == set() and protections() == maps
called = dict(zip(names, calls))
assert all(called.values()), called
counted = interposer.row_calls()
assert counted == called, (counted, called)
# afterwards none is called any more
old = list(calls)
assert all_three(fresh()) == plain
assert list(calls) == old
"""
    )


def test_each_row_by_itself_works(child):
    child(
        """
interposer = Interposer()
for name in names:
    calls[:], where = [0] * 8, fresh()
    interposer.install(table(name))
    got = all_three(where)
    interposer.uninstall()
    assert got[:2] == ["42", "42"], (name, got)
    used = {n for n, c in zip(names, calls) if c}
    assert used <= {name}, (name, used)
    # lseek is never called alone: it is the half of a pread, and that needs read as well
    assert used or name == "lseek", name
"""
    )


def test_reading_somewhere_needs_lseek_and_read(child):
    child(
        """
interposer = Interposer()
for rows, lseeks in ((("read",), 0), (("lseek",), 0), (("read", "lseek"), 1)):
    calls[:] = [0] * 8
    interposer.install(table(*rows))
    assert attempt(folder + "/libphdr.so") == 42
    interposer.uninstall()
    assert bool(calls[names.index("lseek")]) == bool(lseeks), (rows, list(calls))
"""
    )


@pytest.mark.parametrize("code", ["ENOENT", "EACCES", "EIO", "EMFILE", "ENOTDIR", "ELOOP", "ENAMETOOLONG"])
def test_an_errno_of_open_gives_the_message_of_a_plain_dlopen(child, code):
    """Where the plain error can be made, it is; the others must read alike but for the error's text."""
    child(
        f"""
code = errno.{code}
def plain():
    if code == errno.ENOENT:
        return attempt(folder + "/x.so"), folder + "/x.so"
    if code == errno.ENOTDIR:
        return attempt(folder + "/libtop.so/x.so"), folder + "/libtop.so/x.so"
    if code == errno.ELOOP:
        os.symlink("loop.so", folder + "/loop.so")
        try:
            return attempt(folder + "/loop.so"), folder + "/loop.so"
        finally:
            os.unlink(folder + "/loop.so")
    if code == errno.ENAMETOOLONG:
        name = folder + "/" + "x" * 300 + ".so"
        return attempt(name), name
    if code == errno.EMFILE:
        import resource
        old = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, old[1]))
        try:
            return attempt(folder + "/libtop.so"), folder + "/libtop.so"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, old)
    text, name = attempt(folder + "/x.so"), folder + "/x.so"
    return text.replace(os.strerror(errno.ENOENT), os.strerror(code)), name
wanted, name = plain()
assert os.strerror(code) in wanted, wanted
interposer = Interposer()
interposer.install(table())
fail[names.index("open")] = code
got = attempt(folder + "/libtop.so")
fail[names.index("open")] = 0
again = attempt(folder + "/libtop.so")
interposer.uninstall()
assert got == wanted.replace(name, folder + "/libtop.so"), (got, wanted)
assert again == 42, again
"""
    )


@pytest.mark.parametrize(
    ("row", "code", "message"),
    [
        ("read", errno.EIO, "cannot read file data"),
        ("fxstat64", errno.EIO, "cannot stat shared object"),
        ("mmap", errno.ENOMEM, "failed to map segment from shared object"),
        ("lseek", errno.EIO, "cannot read file data"),
    ],
)
def test_an_errno_of_another_row_is_reported_as_ldso_does(child, row, code, message):
    child(
        f"""
interposer = Interposer()
interposer.install(table())
fail[names.index({row!r})] = {code}
name = folder + "/libphdr.so"
got = attempt(name)
fail[names.index({row!r})] = 0
again = attempt(name)
interposer.uninstall()
assert got.startswith(name + ": {message}"), got
assert got.endswith(os.strerror({code})) or {row!r} == "mmap", got  # some builds leave mmap's out
assert again == 42
"""
    )


def test_a_failure_without_an_errno_is_eio(child):
    child(
        """
from collfs.interpose.api import PROTOTYPES
import ctypes
interposer = Interposer()
api = table()
def bad(path, flags, mode):
    ctypes.set_errno(0)
    return -1
api.open = PROTOTYPES["open"](bad)
interposer.install(api)
got = attempt(folder + "/libtop.so")
interposer.uninstall()
assert got.endswith(os.strerror(errno.EIO)), got
"""
    )


def test_a_runpath_directory_that_failed_once_is_found_when_xstat64_answers(child):
    """ld.so stats a RUNPATH directory when the first name isn't found there, and believes the answer for ever."""
    child(
        """
interposer = Interposer()
interposer.install(table())
only.value, fail[names.index("open")] = b"libdep", errno.ENOENT
got = attempt(folder + "/libtop.so")
assert "libdep.so: cannot open shared object file: No such file" in got, got
assert calls[names.index("xstat64")] > 0
fail[names.index("open")] = 0
assert attempt(folder + "/libtop.so") == 42
interposer.uninstall()
"""
    )


def test_errno_of_the_c_library_stays_what_it_was(child):
    child(
        """
top, none = (folder + "/libtop.so").encode(), (folder + "/none.so").encode()
plain = [counter.errno_after_dlopen(top), counter.errno_after_dlopen(none)]
interposer = Interposer()
interposer.install(table())
assert [counter.errno_after_dlopen(top), counter.errno_after_dlopen(none)] == plain
only.value, fail[names.index("open")] = b"libtop", errno.EACCES
assert counter.errno_after_dlopen(top) == plain[1]
fail[names.index("open")] = 0
interposer.uninstall()
interposer.install()
assert [counter.errno_after_dlopen(top), counter.errno_after_dlopen(none)] == plain
interposer.uninstall()
assert 77 in plain, plain
"""
    )


def test_a_session_without_prefixes_installs_the_table_alone(child):
    child(
        """
import collfs
before = texts()
with collfs.session("local", prefixes=[], manifest="none", api=table()) as session:
    assert session.store is None
    assert all_three(fresh())[:2] == ["42", "42"]
    assert session.interposer.row_calls()["mmap"] > 0
    assert collfs.stats()["warnings"] == [], collfs.stats()["warnings"]
    assert changed(before)
assert all(calls)
assert changed(before) == set()
"""
    )
