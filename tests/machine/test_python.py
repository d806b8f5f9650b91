"""The functions that CPython calls itself: built-in functions of a table, and the audit hook."""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collfs import _libc
from collfs.fetcher import Fetcher
from collfs.interpose.machine.code import Code
from collfs.interpose.machine.layout import (
    F_COMPLETE,
    K_ABSENT,
    K_DIR,
    K_FILE,
    K_NATIVE,
    K_REG,
    K_WRITTEN,
    SEEK_ASK,
    SEEK_ELSEWHERE,
    SEEK_HERE,
)
from collfs.record import Stat
from collfs.store.table import Table, pack_stat
from collfs.triggers.finder import BYTECODE_END, SUFFIXES, Finder

KINDS = st.one_of(
    st.sampled_from([(K_FILE, True), (K_REG, False), (K_REG, True), (K_DIR, True), (K_DIR | F_COMPLETE, True)]),
    st.sampled_from([(K_ABSENT, False), (K_NATIVE, False), (K_WRITTEN, False)]),
)
FILES = [*(f"m{suffix}" for suffix in SUFFIXES), f"__pycache__/m{BYTECODE_END}"]
INNER = [*(f"m/__init__{suffix}" for suffix in SUFFIXES), f"m/__pycache__/__init__{BYTECODE_END}"]


@pytest.fixture(scope="module")
def code():
    return Code([], 0)


@pytest.fixture
def table(code, tmp_path):
    made = Table(str(tmp_path / "t"), code, create=True, size=1 << 24)
    code.cell.floor = 0
    yield made
    made.close()
    _libc.munmap_(made.address, made.size)


def packed():
    return pack_stat(Stat(0o100644, 1, 1, 1, 0, 0, 0, 1, 4096, 8, 1, 2, 3))


def put(table, path, kind, has_stat=True):
    copy = "/copy" if kind & 0xFF == K_FILE else None
    seq = table.next_sequence() if kind & 0xFF in (K_DIR, K_ABSENT) else 1
    assert table.put(path, kind, st=packed() if has_stat else None, copy=copy, seq=seq, epoch=int(table.header.epoch))


@pytest.mark.parametrize("path", [b"/p/x", 7, None, ["/p"]])
def test_a_path_that_is_no_str_is_refused_as_python_does(table, path):
    with pytest.raises(TypeError):
        table.probe(path)


@pytest.mark.parametrize("name", ["plain", "\u00e9\u4e2d", "\udcff\udc80", "a" * 255])
def test_a_name_is_spelled_as_the_file_system_has_it(table, name):
    put(table, f"/p/{name}", K_NATIVE)
    assert table.probe(f"/p/{name}") & 0xFF == K_NATIVE
    assert table.probe(f"/p/{name}x") == 0


ASCII = r"""
import os, sys
from collfs.interpose.machine.code import Code
from collfs.interpose.machine.layout import K_NATIVE
from collfs.store.table import Table

assert sys.getfilesystemencoding() == "ascii", sys.getfilesystemencoding()
table = Table(sys.argv[1], Code([], 0), create=True, size=1 << 24)
name = os.fsdecode(b"/p/\xc3\xa9")
assert table.put(name, K_NATIVE, seq=1, epoch=0) and table.probe(name) == K_NATIVE
try:
    table.probe("/p/\u00e9")  # in UTF-8 these bytes, here no name at all
except UnicodeEncodeError:
    pass
else:
    raise AssertionError("spelled as nobody asked for")
"""


def test_where_the_file_system_is_not_utf_8_its_encoding_counts(run_python, tmp_path):
    run_python(["-X", "utf8=0", "-c", ASCII, str(tmp_path / "t")], env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"})


def test_a_name_longer_than_all_that_can_be_known_is_unknown(table):
    assert table.probe("/p" + "/a" * 600) == 0
    assert table.searcher(SUFFIXES, BYTECODE_END)("/p" + "/a" * 600, "m") == SEEK_ASK
    assert table.searcher(SUFFIXES, BYTECODE_END)("/p", "a" * 2000) == SEEK_ASK


class Asked(Fetcher):
    """Answers from a table and notes what it would have to fetch."""

    def __init__(self, table):
        self.table, self._told, self.asked = table, None, []

    def managed(self, path):
        return True

    def want(self, wants):
        # what the job has written may have to be told to others
        self.asked += [w for w in wants if not self.settled(w.path, w.aspect) or self.kind(w.path) == K_WRITTEN]


@settings(max_examples=600, deadline=None)
@given(
    directory=st.sampled_from([None, K_DIR, K_DIR | F_COMPLETE, K_DIR | F_COMPLETE, K_DIR | F_COMPLETE, 1, 2, 4, 5, 6]),
    package=st.sampled_from([None, None, K_DIR, K_DIR | F_COMPLETE, K_DIR | F_COMPLETE, K_REG, K_NATIVE]),
    known=st.dictionaries(st.sampled_from([*FILES, *INNER]), KINDS, max_size=5),
    old=st.booleans(),
)
def test_the_machine_code_seeks_as_the_finder_does(code, tmp_path_factory, directory, package, known, old):
    table = Table(str(tmp_path_factory.mktemp("table") / "t"), code, create=True, size=1 << 22)
    code.cell.floor = 0
    try:
        for name, (kind, has_stat) in known.items():
            put(table, f"/p/{name}", kind, has_stat)
        if package is not None:
            put(table, "/p/m", package)
        code.cell.floor = int(table.header.sequence) if old else 0
        if directory is not None:
            put(table, "/p", directory)
        asked = Asked(table)
        found = Finder(asked, lambda: None)._look("/p", "m")
        wanted = SEEK_ASK if asked.asked else SEEK_HERE if found else SEEK_ELSEWHERE
        assert table.searcher(SUFFIXES, BYTECODE_END)("/p", "m") == wanted
    finally:
        table.close()
        _libc.munmap_(table.address, table.size)


def test_the_order_of_suffixes_is_the_one_that_is_given(table):
    put(table, "/p/m.py", K_REG)
    put(table, f"/p/m{EXTENSION_SUFFIXES[0]}", K_REG)
    put(table, "/p", K_DIR | F_COMPLETE)
    assert table.searcher([".py", EXTENSION_SUFFIXES[0]], ".pyc")("/p", "m") == SEEK_HERE  # no bytecode there: absent
    put(table, "/p/__pycache__/m.pyc", K_REG)
    assert table.searcher([".py", EXTENSION_SUFFIXES[0]], ".pyc")("/p", "m") == SEEK_ASK
    assert table.searcher([EXTENSION_SUFFIXES[0], ".py"], ".pyc")("/p", "m") == SEEK_HERE


@pytest.mark.parametrize("arguments", [(), ("/p",), ("/p", 1), (1, "m"), ("/p", ""), ("/p", "a/b"), ("/p", "m", "n")])
def test_what_is_no_question_is_asked_in_python(table, arguments):
    put(table, "/p", K_DIR | F_COMPLETE)
    assert table.searcher(SUFFIXES, BYTECODE_END)(*arguments) == SEEK_ASK


AUDIT = """
import ctypes, os, sys
from collfs.interpose.machine.code import Code
from collfs.interpose.machine.layout import *
from collfs.store.table import Table
from collfs.triggers import audit

code = Code([], 0)
table = Table(base + "/t", code, create=True, size=1 << 24)
table.add_prefix("/p")
for name, kind in (("file", K_FILE), ("reg", K_REG), ("absent", K_ABSENT), ("native", K_NATIVE), ("written", K_WRITTEN),
                   ("dir", K_DIR), ("full", K_DIR | F_COMPLETE)):
    copy = "/c" if kind == K_FILE else None
    assert table.put("/p/" + name, kind, st=None, copy=copy, seq=table.next_sequence(), epoch=0)

class Fetcher:
    table_suffices = True
    def managed(self, path): return path.startswith("/p/")
fetcher = Fetcher()
fetcher.table = table
seen = []
hook = audit.Audit(fetcher, None)
hook.handlers = {event: (lambda args, event=event: seen.append((event, *args))) for event in EVENTS}
hook.install()

def told(event, *args):
    del seen[:]
    sys.audit(event, *args)
    return [what for what in seen if what[0] == event]
"""


def test_only_events_that_may_need_something_reach_python(child):
    child(
        AUDIT
        + """
read = os.O_RDONLY
for name, kept in (("file", 0), ("reg", 1), ("absent", 0), ("native", 0), ("written", 0), ("new", 1)):
    assert len(told("open", "/p/" + name, "r", read)) == kept, name
assert not told("open", "/q/reg", "r", read)
assert not told("open", "relative", "r", read)
assert not told("open", "/p/reg", "w", os.O_WRONLY | os.O_CREAT)
assert not told("open", "/p/reg", "r+", os.O_RDWR)
assert told("open", b"/p/reg", "r", read) and told("open", 3, "r", read), "what isn't plain is for Python"
assert told("open", "/p/reg", "r", None)
assert told("open", "/p/" + "a" * 2000, "r", read)
for event in ("os.listdir", "os.scandir"):
    for name, kept in (("dir", 1), ("full", 0), ("file", 0), ("absent", 0), ("written", 1), ("new", 1)):
        assert len(told(event, "/p/" + name)) == kept, (event, name)
    assert told(event, None)
assert not told("import", "m", None, [], [], []) and told("import", "m", "/p/m.so", [], [], [])
assert told("ctypes.dlopen", "/p/file")
for other in ("openx", "ope", "os.listdirs", "os.rename", "imports", "ctypes.dlsym", "", "exec"):
    assert not told(other, "/p/new", "r", read)
for event in EVENTS:
    assert told(event) == [(event,)], "who raises an event without arguments is heard, too"

fetcher.table_suffices = False
hook.install()
assert told("open", "/p/file", "r", read), "others may have to be told of what is known here"
hook.stop()
assert not told("open", "/p/reg", "r", read)
"""
    )


def test_what_a_handler_raises_stops_the_call_that_was_announced(child):
    child(
        AUDIT
        + """
def interrupted(args): raise KeyboardInterrupt("now")
audit._handlers["open"] = interrupted
try:
    sys.audit("open", "/p/reg", "r", os.O_RDONLY)
except KeyboardInterrupt as exc:
    assert exc.args == ("now",)
else:
    raise AssertionError("swallowed")
sys.audit("open", "/p/file", "r", os.O_RDONLY)
"""
    )


def test_another_interpreter_is_left_alone(child):
    child(
        AUDIT
        + """
import _testcapi
del seen[:]
code = "import sys; sys.audit('open', '/p/reg', 'r', 0); sys.audit('os.listdir', '/p/new')"
assert _testcapi.run_in_subinterp(code) == 0
assert not [what for what in seen if str(what[1]).startswith("/p/")], seen
assert told("open", "/p/reg", "r", 0)
"""
    )


def test_the_hook_outlives_a_session_and_the_interpreter(child):
    done = child(AUDIT + "assert told('open', '/p/reg', 'r', 0)\nprint('whole', flush=True)\n")
    assert done.stdout == "whole\n"


@pytest.mark.parametrize("number", [1, 1000])
def test_references_are_given_back(table, number):
    put(table, "/p/m.py", K_REG)
    path, seek = "/p/m.py", table.searcher(SUFFIXES, BYTECODE_END)
    before = sys.getrefcount(path)
    for _ in range(number):
        table.probe(path)
        table.probe("/p/\u00e9")
        seek(path, path)
    assert sys.getrefcount(path) == before
