"""The path table against a dict: one writer, whatever it is told in whatever order, and what a look-up then says."""

from __future__ import annotations

import os
import posixpath
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from collfs import _libc
from collfs.errors import StoreError
from collfs.interpose.machine.code import Code
from collfs.interpose.machine.layout import (
    F_COMPLETE,
    F_LINK,
    F_MIRROR,
    F_STAT,
    K_ABSENT,
    K_DIR,
    K_FILE,
    K_NATIVE,
    K_REG,
    K_UNKNOWN,
    K_WRITTEN,
    MAX_PREFIX,
    RING,
)
from collfs.record import Stat
from collfs.store import table as table_module
from collfs.store.table import Table, pack_stat

PARTS = ["a", "b", "module", "a-name-that-is-longer-than-a-word", "\udce9"]
PATHS = [f"/p/{x}" for x in PARTS] + [f"/p/{x}/{y}" for x in PARTS[:3] for y in PARTS] + ["/p/a/b/a", "/p/a/b/b", "/p"]
SPELLINGS = ["{0}", "{0}/", "/{0}", "{0}/.", "{0}/x/..", "{0}//", "/./{0}", "/p/a/../..{0}"]


@pytest.fixture(scope="module")
def code():
    return Code([], 0)


def metadata(ino, size=1):
    return Stat(0o100644, ino, 1, 1, 0, 0, 0, size, 4096, 8, 1, 2 * 10**9 + 3, 4)


def free(table):
    table.close()
    _libc.munmap_(table.address, table.size)


class Known:
    """What the model holds of a name."""

    def __init__(self, word, st, copy, link, seq):
        self.word, self.st, self.copy, self.link, self.seq = word, st, copy, link, seq

    @property
    def kind(self):
        return self.word & 0xFF


class TableMachine(RuleBasedStateMachine):
    """Paths have inodes of their own: names of one file are the business of test_changes.py."""

    shared: ClassVar[list[Code]] = []  # the machine code: mapped once

    @initialize()
    def make(self):
        if not self.shared:
            self.shared.append(Code([], 0))
        self.code = self.shared[0]
        self.code.cell.floor = 0
        self.path = f"/dev/shm/collfs-test-{os.getpid()}-{os.urandom(4).hex()}"
        slot_bits, table_module.SLOT_BITS = table_module.SLOT_BITS, 1  # so that it grows all the time
        try:
            self.table = Table(self.path, self.code, create=True, size=1 << 23)
        finally:
            table_module.SLOT_BITS = slot_bits
        os.unlink(self.path)
        self.table.add_prefix("/p")
        self.model, self.changed, self.tokens = {}, set(), []
        self.counter = 0

    def teardown(self):
        if hasattr(self, "table"):
            free(self.table)
            self.code.cell.floor = 0

    # -- the model ---------------------------------------------------------------------------------------------------

    def ancestor(self, path):
        while path.count("/") > 1:
            path = posixpath.dirname(path)
            if path in self.model:
                return self.model[path]
        return None

    def expected(self, path):
        floor = self.code.cell.floor
        known, above = self.model.get(path), self.ancestor(path)
        absent = above is not None and (
            above.kind in (K_FILE, K_REG)
            or (above.seq > floor and (above.kind == K_ABSENT or bool(above.kind == K_DIR and above.word & F_COMPLETE)))
        )
        if known is None or known.kind == K_UNKNOWN:
            return K_ABSENT if absent else K_UNKNOWN
        if known.kind in (K_DIR, K_ABSENT) and known.seq <= floor:
            return K_UNKNOWN
        if known.kind == K_ABSENT and above is not None and above.kind == K_WRITTEN:
            return K_WRITTEN
        return known.word

    @staticmethod
    def tells_less(old, word, st):
        """Would these news take something away that is still right?"""
        kind = word & 0xFF
        if old.kind == K_DIR and kind == K_DIR and not word & F_COMPLETE:
            return st is None or bool(old.st is not None and old.word & F_COMPLETE and old.st == st)
        if old.kind == K_FILE and kind == K_REG:
            return st is None or old.st is None or old.st == st
        if old.kind == K_REG and kind == K_REG:
            return st is None
        return False

    # -- rules ---------------------------------------------------------------------------------------------------------

    def _put(self, path, word, size, copy, link, epoch, seq):
        st = None if size is None else metadata(PATHS.index(path) + 1, size)
        return st, self.table.put(
            path,
            word,
            st=None if st is None else pack_stat(st),
            lst=pack_stat(metadata(999)) if link else None,
            target=link,
            copy=copy,
            seq=seq,
            epoch=epoch,
        )

    @rule(
        path=st.sampled_from(PATHS),
        kind=st.sampled_from([K_FILE, K_REG, K_REG, K_DIR, K_DIR, K_ABSENT, K_NATIVE]),
        complete=st.booleans(),
        size=st.sampled_from([None, 1, 1, 2]),
        link=st.sampled_from([None, None, "target", "../x"]),
        fresh=st.booleans(),
    )
    def put(self, path, kind, complete, size, link, fresh):
        self.counter += 1
        copy = f"/copy/{self.counter}" if kind == K_FILE or (kind == K_DIR and complete) else None
        word = kind | (F_COMPLETE | F_MIRROR if kind == K_DIR and complete else 0) | (F_LINK if link else 0)
        seq = self.table.next_sequence() if fresh else int(self.table.header.sequence)
        given, done = self._put(path, word, size, copy, link, int(self.table.header.epoch), seq)
        old = self.model.get(path)
        if (old is None and path in self.changed) or (old is not None and old.kind == K_WRITTEN):
            assert not done
            self.model[path] = Known(K_WRITTEN, None, "", None, 0)
            return
        assert done
        if old is not None and self.tells_less(old, word, given):
            if given is not None or old.kind != K_DIR:
                old.seq = seq
            return
        kept = given if given is not None or old is None else old.st
        self.model[path] = Known(word, kept, copy or "", link, seq)

    @rule(path=st.sampled_from(PATHS), with_parent=st.booleans(), tree=st.booleans())
    def change(self, path, with_parent, tree):
        self.code.forget(self.table.address, os.fsencode(path), with_parent, tree)
        self.changed.add(path)
        old = self.model.get(path)
        touched = {path}
        if old is not None and old.link and old.word & F_LINK:  # what it leads to changes with it
            target = posixpath.normpath(posixpath.join(posixpath.dirname(path), old.link))
            touched |= {target, posixpath.dirname(target)} if with_parent else {target}
        below = tree and not (old is not None and old.kind in (K_FILE, K_REG))
        if below:
            touched |= {p for p in self.model if p.startswith(path + "/")}
        if with_parent:
            touched.add(posixpath.dirname(path))
        for name in touched & self.model.keys():
            self.model[name] = Known(K_WRITTEN, self.model[name].st, "", None, self.model[name].seq)
        for token in self.tokens:
            token[1].update(PATHS if below else touched)
            token[2] += 3

    @rule()
    def begin_to_read(self):
        self.tokens.append([int(self.table.header.epoch), set(), 0])

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), path=st.sampled_from(PATHS))
    def publish_what_was_read_before(self, data, path):
        epoch, touched, _ = data.draw(st.sampled_from(self.tokens))
        if path not in touched:
            return
        _, done = self._put(path, K_FILE, 7, "/copy/stale", None, epoch, 1)
        assert not done

    @rule(path=st.sampled_from(PATHS))
    def forget(self, path):
        self.table.forget(path)
        for name, known in self.model.items():
            if name == path or name.startswith(path + "/"):
                known.word, known.copy = K_UNKNOWN, ""
        above = posixpath.dirname(path)
        while above != "/":
            known = self.model.get(above)
            if known is not None and known.kind == K_DIR:
                known.word, known.copy, known.st = K_DIR | known.word & F_LINK, "", None
                break
            if known is not None and known.kind in (K_NATIVE, K_WRITTEN):
                break
            if known is not None:
                known.word, known.copy = K_UNKNOWN, ""
            above = posixpath.dirname(above)
        assert self.table.probe(path) == K_UNKNOWN, "what was forgotten must not be absent"
        parent = posixpath.dirname(path)
        if parent in self.model and self.model[parent].kind == K_DIR:
            assert self.table.probe(parent) & 0xFF != K_ABSENT

    @rule()
    def believe_nothing_older(self):
        self.code.cell.floor = self.table.header.sequence

    @rule(prefix=st.sampled_from(["/p", "/q", "/r/s"]))
    def manage_a_prefix(self, prefix):
        before = self.table.prefixes()
        assert self.table.add_prefix(prefix)
        assert self.table.prefixes() == (before if prefix in before else [*before, prefix])

    # -- what must hold ------------------------------------------------------------------------------------------------

    @invariant()
    def a_lookup_says_what_is_known(self):
        if not hasattr(self, "table"):
            return
        for path in PATHS:
            word, wanted = self.table.probe(path), self.expected(path)
            assert word & 0xFFFFFFFF & ~F_STAT == wanted, (path, hex(word), hex(wanted))
            recorded = word & 0xFF in (K_FILE, K_REG, K_DIR) and self.model[path].st is not None
            assert bool(word & F_STAT) == recorded, path
            if word & 0xFF in (K_FILE, K_DIR):
                assert self.table.copy_of(word) == self.model[path].copy, path

    @rule(path=st.sampled_from(PATHS), spelling=st.sampled_from(SPELLINGS))
    def the_spelling_does_not_matter(self, path, spelling):
        assert self.table.probe(spelling.format(path)) == self.table.probe(path)
        assert self.table.offset(spelling.format(path)) == self.table.offset(path)

    @invariant()
    def all_names_and_only_those_are_iterated(self):
        if not hasattr(self, "table"):
            return
        seen = list(self.table)
        assert sorted(path for path, _ in seen) == sorted(self.model)
        assert self.table.header.entries == len(seen)
        for path, entry in seen:
            known = self.model[path]
            if known.kind in (K_FILE, K_REG, K_DIR):
                got = self.table.stat_of(entry)
                assert (None if got is None else (got[1], got[7])) == (
                    None if known.st is None else (known.st.st_ino, known.st.st_size)
                )

    @invariant()
    def the_slots_are_never_more_than_half_full(self):
        if hasattr(self, "table"):
            assert 2 * self.table.header.entries <= 1 << (self.table.header.slots & 63)
            assert self.table.header.heap <= self.table.header.allocated <= self.table.size


TestTableMachine = TableMachine.TestCase
TestTableMachine.settings = settings(max_examples=200, stateful_step_count=40)


@pytest.fixture
def table(code, tmp_path):
    code.cell.floor = 0
    made = Table(str(tmp_path / "t"), code, create=True, size=1 << 26)
    made.add_prefix("/p")
    yield made
    code.cell.floor = 0
    free(made)


def test_names_survive_many_doublings_of_the_slots(table):
    names = [f"/p/lib/package{i % 97}/module{i}.py" for i in range(20000)]
    for i, name in enumerate(names):
        assert table.put(name, K_FILE, st=pack_stat(metadata(i + 1)), copy=f"/c/{i}", seq=1, epoch=0)
    assert table.header.slots & 63 > table_module.SLOT_BITS
    for i, name in enumerate(names):
        assert table.copy_of(table.probe(name)) == f"/c/{i}"
    assert sorted(name for name, _ in table) == sorted(names)
    assert table.probe("/p/lib/package1/module.py") == K_UNKNOWN


def test_another_process_view_of_the_file_has_the_same_content(table, code, tmp_path):
    table.put("/p/x", K_FILE, st=pack_stat(metadata(5)), copy="/c", seq=1, epoch=0)
    other = Table(str(tmp_path / "t"), code)
    assert other.address != table.address
    assert other.probe("/p/x") == table.probe("/p/x")
    assert other.prefixes() == ["/p"]
    code.forget(other.address, b"/p/x", 0, 0)
    assert table.probe("/p/x") & 0xFF == K_WRITTEN
    free(other)


def test_a_name_that_was_changed_before_anything_was_known_of_it_stays_native(table, code):
    code.forget(table.address, b"/p/log", 1, 0)  # opened for writing: the descriptor may write at any later time
    assert not table.put("/p/log", K_FILE, copy="/c", seq=1, epoch=int(table.header.epoch))
    assert table.probe("/p/log") & 0xFF == K_WRITTEN
    table.forget("/p/log")  # collfs.invalidate: the user says that it is finished
    assert table.put("/p/log", K_FILE, copy="/c", seq=1, epoch=int(table.header.epoch))


def test_news_older_than_the_memory_for_changes_are_refused(table, code):
    for i in range(RING):
        code.forget(table.address, b"/p/other%d" % i, 0, 0)
    assert table.put("/p/x", K_REG, seq=1, epoch=0)
    code.forget(table.address, b"/p/other", 0, 0)
    assert not table.put("/p/y", K_REG, seq=1, epoch=0)


def test_a_change_outside_every_prefix_is_none_of_our_business(table, code):
    before = int(table.header.epoch)
    for name in (b"/q/x", b"/pp", b"/", b"/other"):
        code.forget(table.address, name, 1, 1)
    assert table.header.epoch == before
    code.forget(table.address, b"/", 1, 1)


def test_renaming_what_holds_a_prefix_forgets_everything_in_it(code, tmp_path):
    table = Table(str(tmp_path / "t"), code, create=True, size=1 << 23)
    table.add_prefix("/home/u/env")
    table.put("/home/u/env/x", K_FILE, copy="/c", seq=1, epoch=0)
    code.forget(table.address, b"/home/u", 1, 1)
    assert table.probe("/home/u/env/x") & 0xFF == K_WRITTEN
    free(table)


def test_there_is_room_for_a_fixed_number_of_prefixes(table):
    for i in range(MAX_PREFIX - 1):
        assert table.add_prefix(f"/q{i}")
    assert table.add_prefix("/q0")
    assert not table.add_prefix("/one too many")
    assert len(table.prefixes()) == MAX_PREFIX


def test_a_full_table_says_so_and_keeps_what_it_has(code, tmp_path):
    table = Table(str(tmp_path / "t"), code, create=True, size=1 << 21)

    def fill():
        for i in range(100_000):
            table.put(f"/p/name{i}", K_FILE, st=pack_stat(metadata(i)), copy=f"/c/{i}", seq=1, epoch=0)

    with pytest.raises(StoreError, match="full"):
        fill()
    done = sum(entry.word & 0xFF == K_FILE for _, entry in table)
    assert done > 1000
    assert all(table.copy_of(table.probe(f"/p/name{i}")) == f"/c/{i}" for i in range(done))
    assert table.probe(f"/p/name{done}") & 0xFF == K_UNKNOWN
    assert table.header.heap <= table.header.allocated <= table.size
    with pytest.raises(StoreError):
        table.put("/p/x" * 200, K_FILE, copy="/c" * 5000, seq=1, epoch=0)
    assert table.put("/p/name0", K_ABSENT, seq=1, epoch=0)  # needs no room
    free(table)


def test_what_is_no_table_of_this_version_is_refused(code, tmp_path):
    (tmp_path / "short").write_bytes(b"x")
    with pytest.raises(StoreError, match="no path table"):
        Table(str(tmp_path / "short"), code)
    table = Table(str(tmp_path / "t"), code, create=True, size=1 << 23)
    table.header.version += 1
    with pytest.raises(StoreError, match="version"):
        Table(str(tmp_path / "t"), code)
    free(table)
    with pytest.raises(StoreError):
        Table(str(tmp_path / "t"), code, create=True)
