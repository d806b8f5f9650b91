"""The function-pointer table with Python functions: results, errors, and exceptions that end a program."""

from __future__ import annotations

import pytest

CALLBACKS = """
import logging, sys
import collfs
seen = []
def op_open(path, flags, mode):
    seen.append(("open", path))
    return os.open(path, flags, mode)
"""


def test_python_rows_see_the_calls_and_their_results_count(child):
    child(
        CALLBACKS
        + """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, PROTOTYPES["mmap"]._argtypes_
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.fstat.argtypes, libc.stat.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_char_p, ctypes.c_void_p]
def result(name, value):
    seen.append((name, value))
    if value == -1:
        raise OSError(ctypes.get_errno(), name)
    return value
def op_read(fd, buffer, count):
    data = os.read(fd, count)
    ctypes.memmove(buffer, data, len(data))
    return result("read", len(data))
rows = {
    "open": op_open,
    "close": lambda fd: result("close", os.close(fd)),
    "read": op_read,
    "lseek": lambda fd, offset, whence: result("lseek", os.lseek(fd, offset, whence)),
    "fxstat64": lambda version, fd, buffer: result("fxstat64", libc.fstat(fd, buffer)),
    "xstat64": lambda version, path, buffer: result("xstat64", libc.stat(path, buffer)),
    "mmap": lambda *args: result("mmap", libc.mmap(*args)),
    "munmap": lambda address, length: result("munmap", libc.munmap(address, length)),
}
with collfs.session("local", prefixes=[], manifest="none", api=collfs.callback_table(**rows)) as session:
    where = fresh()
    got = all_three(where)
assert got[:2] == ["42", "42"], got
assert {name for name, _ in seen} == set(rows), set(rows) - {name for name, _ in seen}
assert ("open", os.fsencode(where + "/libtop.so")) in seen
"""
    )


def test_a_python_row_may_open_another_file(child):
    child(
        CALLBACKS
        + """
def op_open(path, flags, mode):
    return os.open(path.replace(b"/nowhere/", os.fsencode(folder) + b"/"), flags, mode)
with collfs.session("local", prefixes=[], manifest="none", api=collfs.callback_table(open=op_open)):
    assert attempt("/nowhere/libtop.so") == 42
assert "No such file" in attempt("/nowhere/libphdr.so")
"""
    )


def test_an_oserror_of_a_python_row_is_its_errno(child):
    child(
        CALLBACKS
        + """
def op_open(path, flags, mode):
    raise PermissionError(errno.EACCES, "no")
with collfs.session("local", prefixes=[], manifest="none", api=collfs.callback_table(open=op_open)):
    name = folder + "/libtop.so"
    assert attempt(name) == name + ": cannot open shared object file: Permission denied", attempt(name)
assert attempt(name) == 42
"""
    )


def test_another_exception_of_a_python_row_is_logged_and_eio(child):
    child(
        CALLBACKS
        + """
records = []
handler = logging.Handler()
handler.emit = records.append
logging.getLogger("collfs").addHandler(handler)
def op_open(path, flags, mode):
    raise ValueError("a fault of mine")
with collfs.session("local", prefixes=[], manifest="none", api=collfs.callback_table(open=op_open)):
    got = attempt(folder + "/libtop.so")
assert got.endswith("cannot open shared object file: Input/output error"), got
assert len(records) == 1 and "the open row" in records[0].getMessage(), records
assert "a fault of mine" in str(records[0].exc_info[1])
"""
    )


RAISING = (
    CALLBACKS
    + """
def op_open(path, flags, mode):
    seen.append(path)
    if len(seen) == 1:
        raise EXCEPTION
    return os.open(path, flags, mode)
session = collfs.initialize("local", prefixes=[], manifest="none", api=collfs.callback_table(open=op_open))
"""
)


@pytest.mark.parametrize(
    ("exception", "status"),
    [("KeyboardInterrupt", -2), ("SystemExit(7)", 7), ("SystemExit", 0), ("SystemExit('bye')", 1)],
)
def test_what_ends_a_program_is_raised_when_ldso_has_returned(run_python, rows_head, exception, status):
    code = RAISING.replace("EXCEPTION", exception) + "attempt(folder + '/libtop.so')\nprint('still here')\n"
    result = run_python(rows_head + code, check=False)
    assert result.rc == status, result.describe()
    assert "still here" not in result.stdout
    assert "ignored" not in result.stderr, result.stderr
    if exception == "KeyboardInterrupt":
        assert result.stderr.rstrip().endswith("KeyboardInterrupt")
        assert "in op_open" in result.stderr
    if "bye" in exception:
        assert result.stderr == "bye\n"


def test_an_interrupt_that_is_caught_leaves_the_table_at_work(child):
    child(
        RAISING.replace("EXCEPTION", "KeyboardInterrupt")
        + """
try:
    attempt(folder + "/libtop.so")
except KeyboardInterrupt:
    pass
else:
    raise SystemExit("not raised")
assert len(seen) == 1, seen  # the call itself and what it needed went on natively
assert attempt(folder + "/libphdr.so") == 42
assert len(seen) == 2, seen
collfs.finalize()
assert attempt(folder + "/libphdr.so") == 42
assert len(seen) == 2, seen
"""
    )


def test_a_wrong_row_is_an_error_at_once():
    import collfs

    with pytest.raises(collfs.OptionError, match=r"stat64.*fxstat64, xstat64, open"):
        collfs.callback_table(stat64=lambda path: 0)
    with pytest.raises(collfs.OptionError, match="can't be called"):
        collfs.callback_table(open=3)  # type: ignore[arg-type]
