"""Python's look at what the job has changed on this node agrees with the machine code's."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collfs.interpose.machine.layout import K_NATIVE
from collfs.store.table import name_hash

NAMES = st.binary(min_size=1, max_size=60).filter(lambda raw: b"\0" not in raw and b"/" not in raw)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(NAMES)
def test_a_name_has_the_same_number_in_python_and_in_the_table(start, name):
    store = start()
    path = "/p/" + os.fsdecode(name)
    store.table.put(path, K_NATIVE, seq=1, epoch=int(store.table.header.epoch))
    entry = store.table.entry(path)
    if entry is not None:  # not for "." and ".."
        assert entry.hash == name_hash(os.fsencode(path))


def test_a_name_that_was_changed_is_written_and_its_neighbour_is_not(start, run_python, tmp_path):
    folder = str(tmp_path / "tree")
    said = run_python(
        f"""
import os
os.mkdir({folder!r})
import collfs
session = collfs.initialize("local", prefixes=[{folder!r}], manifest="none", store={str(tmp_path)!r})
table = session.store.table
print(table.written({folder!r} + "/new"), table.written({folder!r} + "/other"))
with open({folder!r} + "/new", "w") as file:
    file.write("x")
print(table.written({folder!r} + "/new"), table.written({folder!r} + "/other"))
"""
    ).stdout
    assert said.split() == ["False", "False", "True", "False"]


@pytest.mark.parametrize("length", range(1, 20))
def test_every_length_of_the_last_word(start, length):
    store, path = start(), "/" + "x" * length
    store.table.put(path, K_NATIVE, seq=1, epoch=int(store.table.header.epoch))
    assert store.table.entry(path).hash == name_hash(path.encode())
