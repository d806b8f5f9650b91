"""Readers of the path table in other processes, while the writer adds names and the table grows under them."""

from __future__ import annotations

import subprocess
import sys

import childproc
import smalltmpfs

NAMES = 50_000

# saved: how many names are published, a counter that the machine code doesn't use. used: the writer's "that was all".
READER = """
import os, random, sys
from collfs.interpose.machine.code import Code
from collfs.interpose.machine.layout import K_FILE, K_UNKNOWN, K_WRITTEN
from collfs.store.table import Table
table, number = Table(sys.argv[1], Code([], 0)), int(sys.argv[2])
print("ready", flush=True)
header, pick, probes, seen = table.header, random.Random(number).randrange, 0, {}
slots = {int(header.slots)}
mine, natives = [], set()
while True:
    last, published = bool(header.overflow), int(header.saved)
    for i in [pick(published + 1) for _ in range(20)] if published else []:
        if i < published:
            word = table.probe(f"/p/lib{i % 89}/module{i}.py")
            if word & 0xFF == K_FILE:
                assert table.copy_of(word) == f"/copy/{i}", i
                assert table.stat_of(table.entry(f"/p/lib{i % 89}//./module{i}.py"))[1] == i + 1, i
                probes += 1
            else:
                assert word & 0xFF == K_WRITTEN, (i, published, hex(word))
                natives.add(i)
        assert table.probe(f"/p/lib{i % 89}/absent{i}.py") == K_UNKNOWN
    # names that the writer publishes again and again, and this process changes: never believed again
    if published > 1000 * len(mine):
        name = f"/p/changed{number}-{len(mine)}"
        table.code.forget(table.address, name.encode(), 1, 0)
        mine.append(name)
    for name in mine:
        assert table.probe(name) & 0xFF in (K_WRITTEN, K_UNKNOWN), name
    slots.add(int(header.slots))
    if last:
        break
for i in range(published):
    word = table.probe(f"/p/lib{i % 89}/module{i}.py")
    if word & 0xFF == K_WRITTEN:
        natives.add(i)
    else:
        assert table.copy_of(word) == f"/copy/{i}", i
assert len(natives) < published / 100, len(natives)
print(probes, len(slots), len(mine))
"""

WRITER = """
import sys
from collfs.interpose.machine.code import Code
from collfs.interpose.machine.layout import K_FILE, K_REG, K_WRITTEN
from collfs.record import Stat
from collfs.store.table import Table, pack_stat
table, names = Table(sys.argv[1], Code([], 0)), int(sys.argv[2])
for i in range(names):
    packed = pack_stat(Stat(0o100644, i + 1, 1, 1, 0, 0, 0, 1, 4096, 8, 1, 2, 3))
    name = f"/p/lib{i % 89}/module{i}.py"
    for _ in range(1000):  # while a reader is just changing something, any name is doubtful for a moment
        if table.put(name, K_FILE, st=packed, copy=f"/copy/{i}", seq=1, epoch=int(table.header.epoch)):
            break
        if table.probe(name) & 0xFF == K_WRITTEN:  # it shares its bit of table.written with a changed name: native
            break
    else:
        raise AssertionError(name)
    table.header.saved = i + 1
    if i % 50 == 0:
        for reader in range(2):
            for k in range(i // 1000 + 2):
                table.put(f"/p/changed{reader}-{k}", K_FILE, copy="/stale", seq=1, epoch=int(table.header.epoch))
        table.put(name, K_REG, seq=1, epoch=int(table.header.epoch))  # a listing without metadata takes nothing away
table.header.overflow = 1
"""

MAKE = """
import sys
from collfs.interpose.machine.code import Code
from collfs.store.table import Table
Table(sys.argv[1], Code([], 0), create=True).add_prefix("/p")
"""


def test_no_reader_ever_gets_a_wrong_answer_while_the_table_grows(run_python, tmp_path):
    path = str(tmp_path / "t")
    run_python(["-c", MAKE, path])
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, path, str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=childproc.clean_env(),
        )
        for number in range(2)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n", "the reader failed at once"
        run_python(["-c", WRITER, path, str(NAMES)], timeout=60)
        for reader in readers:
            out, err = reader.communicate(timeout=60)
            assert reader.returncode == 0, err
            probes, arrays, changed = map(int, out.split())
            assert probes > 1000
            assert arrays > 1, "the table didn't grow while this reader looked"
            assert changed > 10
    finally:
        for reader in readers:
            if reader.poll() is None:
                reader.kill()
                reader.communicate()


SMALL = """
import os, sys
from collfs.errors import StoreError
from collfs.interpose.machine.code import Code
from collfs.interpose.machine.layout import K_FILE
from collfs.store.table import Table
table, done = Table(sys.argv[1] + "/t", Code([], 0), create=True), 0
try:
    while True:
        assert table.put(f"/p/name{done}", K_FILE, copy=f"/c/{done}" * 50, seq=1, epoch=0)
        done += 1
except StoreError as exc:
    assert exc.errno == 28, exc
assert all(table.copy_of(table.probe(f"/p/name{i}")) == f"/c/{i}" * 50 for i in range(done))
print("full at", done)
"""


def test_a_store_without_room_is_an_error_and_never_sigbus(tmp_path):
    assert "full at" in smalltmpfs.run(SMALL, tmp_path, "size=3m")
