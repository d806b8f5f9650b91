"""Where anything is not as expected nothing is changed, and a session goes on natively with one warning.

All of it runs in child processes.
"""

from __future__ import annotations

import pytest

from patchstate import SESSION


def test_an_unknown_machine_is_refused(patching, tree):
    patching(
        SESSION
        + f"""
class Name:
    machine, nodename = "riscv64", "here"
os.uname = lambda: Name
refusal(Interposer, "riscv64")
native_session("riscv64", {tree!r})
""",
    )


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        ("content[:100]", "damaged"),
        ("b'x' + content[1:]", "damaged"),
        ("content + b'x'", "damaged"),
        ("b''", "damaged"),
        ("content[:20]", "damaged"),
    ],
)
def test_damaged_machine_code_is_refused(patching, tree, damage, word):
    patching(
        SESSION
        + f"""
real = os.read
def read(fd, n):
    content = real(fd, n)
    return {damage} if content[:8] == b"collfs03" else content
os.read = read
refusal(Interposer, {word!r})
native_session({word!r}, {tree!r})
""",
    )


def test_missing_machine_code_is_refused(patching, tree):
    patching(
        SESSION
        + f"""
real = os.open
def open_(path, *args, **kwargs):
    if os.fspath(path).endswith(".bin"):
        raise FileNotFoundError(2, "No such file or directory", path)
    return real(path, *args, **kwargs)
os.open = open_
native_session("no machine code", {tree!r})
""",
    )


def test_a_canary_that_the_c_library_does_not_see_is_a_refusal(patching, tree):
    patching(SESSION + f"Interposer.set_table = lambda self, address: None\nnative_session('canary', {tree!r})")


def test_a_canary_that_ldso_does_not_see_is_a_refusal(patching, tree):
    patching(
        SESSION
        + f"""
import collfs.interpose.interposer as module
real = module.find
module.find = lambda image: [s for s in real(image) if image.name != "ld.so" or s.name not in ("open", "openat")]
module._NEEDED = {{}}
native_session("dynamic linker", {tree!r})
""",
    )


def test_a_canary_of_another_size_is_a_refusal(patching, tree):
    patching(
        SESSION
        + f"""
import collfs.redirect
collfs.redirect.CANARY += b"more"
native_session("bytes in the canary", {tree!r})
""",
    )


def test_a_c_library_without_known_sites_is_refused(patching, tree):
    patching(
        SESSION
        + f"""
import collfs.interpose.interposer as module
module.find = lambda image: []
native_session("no known site", {tree!r})
""",
    )


def test_text_that_lies_in_no_function_is_refused(patching, tree):
    patching(
        SESSION
        + f"""
from collfs.interpose.image import Functions
Functions.containing = lambda self, address: None
native_session("no function", {tree!r})
""",
    )


def test_missing_memfd_create_is_refused(patching, tree):
    patching(
        SESSION + f"import collfs._libc\ncollfs._libc.memfd_create_ = None\nnative_session('memfd', {tree!r})",
    )


def test_no_membarrier_under_threads_is_refused_and_alone_not_needed(patching, tree):
    patching(
        SESSION
        + f"""
import threading
from collfs.interpose import patch
patch.MEMBARRIER = 100000  # no such system call
interposer = Interposer()
interposer.install()
interposer.uninstall()
untouched()
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
refusal(interposer.install, "membarrier")
native_session("membarrier", {tree!r})
stop.set()
""",
    )


def test_a_process_without_descriptors_is_refused(patching, tree):
    patching(
        SESSION
        + f"""
import resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
collfs.initialize, collfs.stats, collfs.finalize, logging.raiseExceptions  # loaded
for limit in (3, 4, 5):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    try:
        session = collfs.initialize("local", prefixes=[{tree!r}], manifest="none")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    assert session.idle and len(said) == 1, (limit, session.idle, said)
    untouched()
    collfs.finalize()
    said.clear()
""",
    )


# PR_SET_MDWE of prctl(2), linux/prctl.h; Linux 6.3
MDWE = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(65, 1, 0, 0, 0) != 0:
    print("SKIP: no PR_SET_MDWE")
    raise SystemExit
"""


def test_where_text_may_not_become_writable_one_thread_is_patched_all_the_same(patching, tree):
    result = patching(
        MDWE
        + f"""
import collfs
with collfs.session("local", prefixes=[{tree!r}], manifest="none") as session:
    assert not session.idle, session.idle
    assert changed(before)
    sys.path.insert(0, {tree!r})
    import some_module
    assert session.interposer.counts()["open"]["redirected"] > 0
    assert protections() == maps
untouched()
assert session.messages.warnings == []
""",
    )
    if "SKIP" in result.stdout:
        pytest.skip(result.stdout)


def test_where_text_may_not_become_writable_several_threads_are_refused(patching, tree):
    result = patching(
        SESSION
        + MDWE
        + f"""
import threading
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
refusal(Interposer().install, "several threads")
native_session("several threads", {tree!r})
stop.set()
""",
    )
    if "SKIP" in result.stdout:
        pytest.skip(result.stdout)


def test_where_nothing_can_write_the_text_the_session_is_native(patching, tree):
    patching(
        SESSION
        + f"""
from collfs import _libc
import ctypes
def mprotect(*args):
    ctypes.set_errno(errno.EACCES)
    return -1
_libc.mprotect_ = mprotect
real = os.open
def open_(path, *args, **kwargs):
    if path == "/proc/self/mem":
        raise PermissionError(13, "Permission denied")
    return real(path, *args, **kwargs)
os.open = open_
refusal(Interposer().install, "mprotect")
native_session("mprotect", {tree!r})
os.open = real
def pwrite(fd, data, at):
    raise OSError(5, "Input/output error")
os.pwrite = pwrite
refusal(Interposer().install)
""",
    )


def test_patched_bytes_that_somebody_changed_stay_and_are_harmless(patching, tree):
    patching(
        SESSION
        + f"""
from collfs.interpose import patch
session = collfs.initialize("local", prefixes=[{tree!r}], manifest="none")
interposer = session.interposer
# a site that nothing calls: jmp to itself would hang
mine = next(p for p, s in zip(reversed(interposer.patches), reversed(interposer.installed)) if s.name == "pivot_root")
theirs = patch.Patch(mine.address, mine.new, b"\\xe9" + (-5 & 0xFFFFFFFF).to_bytes(4, "little"))
patch.apply([theirs], interposer.code)
seen = changed(before)
collfs.finalize()
assert len(said) == 1 and "stay in memory" in said[0], said
assert changed(before) == seen
assert protections() == maps
assert interposer.code.cell.table == 0 and interposer.code.cell.api[:] == [0] * 8
sys.path.insert(0, {tree!r})
import some_module
import ctypes
ctypes.CDLL("libm.so.6")
patch.undo([theirs], interposer.code)
interposer.uninstall()
untouched()
""",
    )


def test_a_second_interposer_in_the_process_is_refused(patching):
    patching(
        """
one = Interposer()
one.install()
seen = changed(before)
for name in [n for n in sys.modules if n.split(".")[0] == "collfs"]:
    del sys.modules[name]
from collfs.errors import InterposeRefused as Again
from collfs.interpose.interposer import Interposer as Second
assert Second is not Interposer
try:
    Second()
except Again as exc:
    assert "another copy of collfs" in str(exc), exc
else:
    raise SystemExit("not refused")
assert changed(before) == seen
one.uninstall()
untouched()
two = Second()
two.install()
two.uninstall()
untouched()
""",
    )


def test_a_session_in_a_sub_interpreter_is_native_while_ours_runs(patching, tree):
    patching(
        SESSION
        + f"""
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
session = collfs.initialize("local", prefixes=[{tree!r}], manifest="none")
seen = changed(before)
code = '''
import sys
sys.path[:] = {{path!r}}
import collfs
session = collfs.initialize("local", prefixes=[{tree!r}], manifest="none", quiet=True)
assert "another copy" in session.idle or "ctypes" in session.idle, session.idle
sys.path.insert(0, {tree!r})
import some_module
assert some_module.VALUE == 42
collfs.finalize()
'''.format(path=sys.path)
try:
    other = interpreters.create("legacy")
except TypeError:
    other = interpreters.create()
failed = (interpreters.exec if hasattr(interpreters, "exec") else interpreters.run_string)(other, code)
assert not failed, failed
interpreters.destroy(other)
assert changed(before) == seen
collfs.finalize()
untouched()
""",
    )
