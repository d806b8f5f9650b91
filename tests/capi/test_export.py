"""``collfs.export_c_api``: C code finds the interface, and the bytes of ld.so are those that its state asks for."""

from __future__ import annotations

import pytest


def test_c_code_finds_the_names_after_the_export_and_not_before(child):
    child(
        """
assert client.is_known() == 0 and untouched()
collfs.export_c_api()
assert client.is_known() == 3
library = collfs.export_c_api()  # again: the same
assert ctypes.cast(library.collfsinitialize, ctypes.c_void_p).value == \\
    ctypes.cast(ctypes.CDLL(None).collfsinitialize, ctypes.c_void_p).value
assert sum("libcollfs" in line for line in open("/proc/self/maps")) == 3
"""
    )


def test_a_pointer_that_is_stored_directly_takes_part_at_once(child):
    child(
        """
collfs.export_c_api()
assert load() == 0
client.store()
assert load() == 1
client.take_away()
assert load() == 0
client.store()
assert load() == 1
client.end()
assert load() == 0 and untouched()
client.store()
assert load() == 0 and untouched()  # finalize ended that
collfs.export_c_api()
assert load() == 1
"""
    )


def test_initialize_takes_the_table_and_finalize_gives_every_byte_back(child):
    child(
        """
collfs.export_c_api()
table = (ctypes.c_uint64 * 8).in_dll(ctypes.CDLL(None), "_dl_collfs_api")
everything = changed(before)
assert client.start(opener) == 0
one = changed(before)
assert [bool(row) for row in table] == [name == "open" for name in
    ("fxstat64", "xstat64", "open", "close", "read", "lseek", "mmap", "munmap")]
assert load() == 1 and closed.value == 0
assert client.start(both) == 0
two = changed(before)
assert one < two < everything, (len(one), len(two), len(everything))
assert load() == 1 and closed.value == 1
assert client.start(opener) == 0 and changed(before) == one
assert load() == 1 and closed.value == 1
for _ in range(2):
    client.end()
    assert untouched() and table[:] == [0] * 8
    assert load() == 0
assert client.start(both) == 0 and changed(before) == two and load() == 1
collfs.export_c_api()  # changes nothing for a client
assert changed(before) == two
client.end()
assert untouched()
"""
    )


def test_a_null_stored_into_the_table_of_a_client_is_the_original_call(child):
    child(
        """
collfs.export_c_api()
assert client.start(both) == 0 and load() == 1
client.take_away()
assert load() == 0 and closed.value == 2
client.store()
assert load() == 1
"""
    )


@pytest.mark.parametrize("what", ["initialize", "finalize"])
def test_a_change_inside_a_hook_is_refused_and_said_once(child, what):
    result = child(
        f"""
library = collfs.export_c_api()
for name in ("initialize", "finalize"):
    number("stay_" + name, ctypes.c_void_p).value = \\
        ctypes.cast(getattr(library, "collfs" + name), ctypes.c_void_p).value
assert client.start(opener) == 0
seen = changed(before)
inside = number("inside", ctypes.c_int)
for _ in range(2):
    inside.value = 1 if {what!r} == "initialize" else 2
    assert load() == 1
    assert inside.value == 0
    assert number("inside_result").value == (-1 if {what!r} == "initialize" else 0)
    assert number("inside_errno").value == errno.EDEADLK
assert changed(before) == seen and load() == 1 and closed.value == 0
client.end()
assert untouched()
"""
    )
    assert result.stderr.count(f"collfs: collfs{what} was called while a file call") == 1, result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


def test_a_change_while_another_thread_is_inside_a_hook_is_refused_until_it_is_out(child):
    result = child(
        """
library = collfs.export_c_api()
assert client.start(opener) == 0
# dlsym would wait for the thread
initialize, finalize, let_go = library.collfsinitialize, library.collfsfinalize, client.let_go
initialize.argtypes = [ctypes.c_void_p]
assert client.begin((here + "/answer.so").encode()) == 0
assert initialize(both) == -1 and ctypes.get_errno() == errno.EBUSY
finalize()
assert ctypes.get_errno() == errno.EBUSY
seen = changed(before)
assert seen
pid = os.fork()
if pid == 0:  # the thread isn't here
    code = 9
    try:
        finalize()
        code = 0 if untouched() else 3
    finally:
        os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
assert let_go() == 1
assert changed(before) == seen
assert initialize(both) == 0 and changed(before) != seen
finalize()
assert untouched()
"""
    )
    assert result.stderr.count("refused") == 1, result.stderr


def test_tables_come_and_go_under_a_thread_that_loads(child):
    child(
        """
library = collfs.export_c_api()
initialize, finalize, stop = library.collfsinitialize, library.collfsfinalize, client.stop_loading
initialize.argtypes, stop.restype = [ctypes.c_void_p], ctypes.c_long
done = refused = 0
name = (here + "/answer.so").encode()
assert client.start_loading(name) == 0
while done < 300 or not (opened.value and closed.value):
    for table in (opener, both):
        if initialize(table) == 0:
            done += 1
        else:
            assert ctypes.get_errno() == errno.EBUSY, ctypes.get_errno()
            refused += 1
    finalize()
assert stop() > 0
finalize()
assert untouched()
"""
    )


def test_a_call_without_a_table_is_einval_and_changes_nothing(child):
    child(
        """
collfs.export_c_api()
assert client.start(opener) == 0
seen = changed(before)
assert client.start(None) == -errno.EINVAL
assert changed(before) == seen and load() == 1
"""
    )


def test_text_that_cant_be_written_is_an_errno_and_the_old_table_stays(child):
    result = child(
        """
from collfs.interpose import patch
collfs.export_c_api()
assert client.start(opener) == 0
table = (ctypes.c_uint64 * 8).in_dll(ctypes.CDLL(None), "_dl_collfs_api")
rows = table[:]
seen, real = changed(before), patch._Writable._unprotect
def refuse(self):
    raise OSError(errno.EACCES, "no")
patch._Writable._unprotect = refuse
assert client.start(both) == -errno.EACCES
assert table[:] == rows and sum(map(bool, rows)) == 1
assert changed(before) == seen and load() == 1 and closed.value == 0
client.end()
assert load() == 0  # bytes of ours are still there, but no row counts
assert changed(before) == seen
patch._Writable._unprotect = real
client.end()
assert untouched()
"""
    )
    lines = result.stderr.splitlines()
    assert lines == [
        "collfs: collfsinitialize: [Errno 13] the text can't be written: no",
        "collfs: collfsfinalize: [Errno 13] the text can't be written: no",
    ]


def test_a_client_in_a_forked_child_is_its_own(child):
    child(
        """
collfs.export_c_api()
assert client.start(opener) == 0
pid = os.fork()
if pid == 0:
    code = 9
    try:
        assert load() == 1
        client.end()
        assert load() == 0 and untouched()
        assert client.start(both) == 0 and load() == 1 and closed.value == 1
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
assert load() == 1 and closed.value == 0
"""
    )


SESSION = """
import tempfile
tree = here + "/tree"
os.makedirs(tree, exist_ok=True)
options = dict(prefixes=[tree], manifest="none", quiet=True)
def session():
    session = collfs.initialize("local", **options)
    assert not session.idle, session.idle
    return session
def libc_changed():
    from collfs.interpose.image import objects
    spans = [span for name, image in objects().items() if name != "ld.so" for span in image.text]
    return {at for at in changed(before) if any(start <= at < end for start, end in spans)}
"""


def test_a_client_in_a_session_decides_about_ldso_alone_and_leaves_it_as_it_was(child):
    child(
        SESSION
        + """
own = session()
assert load() == 0
seen, libc, rows = changed(before), libc_changed(), own.interposer.row_calls
assert libc
collfs.export_c_api()
assert libc_changed() == libc and changed(before) > seen
count = rows()["open"]
assert load() == 0 and rows()["open"] > count  # the session's row is still asked
client.store()
assert load() == 1
client.take_away()
assert client.start(both) == 0
assert libc_changed() == libc
assert load() == 1 and closed.value == 1
client.end()
assert changed(before) == seen and load() == 0
assert client.start(both) == 0
count = rows()["open"]
client.take_away()
assert load() == 0 and rows()["open"] == count  # of a client's table NULL is the original call
client.store()
collfs.finalize()
assert libc_changed() == set() and changed(before)
assert load() == 1 and closed.value == 3
client.end()
assert untouched()
"""
    )


def test_a_session_that_comes_after_the_client_works_and_leaves_it_alone(child):
    child(
        SESSION
        + """
collfs.export_c_api()
own = session()
assert libc_changed() and load() == 0
assert own.interposer.row_calls()["open"] > 0
client.store()
assert load() == 1
client.take_away()
collfs.finalize()
assert not libc_changed() and load() == 0
assert client.start(both) == 0
seen = changed(before)
for _ in range(2):
    own.interposer.code.cell.floor = 1  # importlib.invalidate_caches() in the session before
    own = session()
    assert own.interposer.code.cell.floor == 0
    assert libc_changed() and load() == 1
    assert os.stat(tree).st_ino
    collfs.finalize()
    assert changed(before) == seen and load() == 1
client.end()
assert untouched()
own = session()
assert load() == 0 and libc_changed()
collfs.finalize()
assert untouched()
"""
    )


def test_at_the_end_of_python_a_client_may_still_call(child):
    """A destructor of a library runs behind Python's own end."""
    result = child(
        """
import atexit
collfs.export_c_api()
assert client.start(both) == 0
def last():  # runs behind our own
    assert client.start(both) == -errno.ENOSYS
    assert load() == 1
    assert client.end() == 0
    assert load() == 0
    os.write(1, b"done")
    os._exit(0)
import collfs.c_api
leave = collfs.c_api._export.leave
atexit.unregister(leave)
atexit.register(last)
atexit.register(leave)
"""
    )
    assert result.stdout == "done", result.describe()
