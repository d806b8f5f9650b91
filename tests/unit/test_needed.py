"""What an ELF file says about others, and the walk over them. Compared with ld.so: test_needed_ldso.py."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sysconfig

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collfs.record import CONTENT, LIST, NAMES
from collfs.triggers.needed import Closure, expand, normalise, read_dynamic, search_path

MACHINE = os.uname().machine

# -- ELF files by hand ---------------------------------------------------------------------------------------------


def elf(entries, *, klass=2, data=1, kind=3, machine=62, base=0x1000, strsz=None):
    """An ELF file with only what read_dynamic looks at. *entries*: (tag, text or number)."""
    strings, dynamic = b"\0", []
    for tag, value in entries:
        if isinstance(value, str):
            dynamic.append((tag, len(strings)))
            strings += os.fsencode(value) + b"\0"
        else:
            dynamic.append((tag, value))
    at = 64 + 2 * 56
    size = (len(dynamic) + 3) * 16
    dynamic += [(5, base + at + size), (10, len(strings) if strsz is None else strsz), (0, 0)]
    body = b"".join(struct.pack("<qQ", *entry) for entry in dynamic) + strings
    head = struct.pack(
        "<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", klass, data, 1, kind, machine, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, at + len(body), at + len(body), 4096)
    return head + load + struct.pack("<IIQQQQQQ", 2, 6, at, base + at, base + at, size, size, 8) + body


NEEDED, SONAME, RPATH, RUNPATH = 1, 14, 15, 29


@pytest.mark.parametrize("machine", [62, 183])
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_everything_about_other_files_is_read(machine, wrap):
    entries = [(NEEDED, "liba.so"), (NEEDED, "lib\udce4.so"), (SONAME, "me.so"), (RPATH, "/a:$ORIGIN/b::/c")]
    found = read_dynamic(wrap(elf(entries, machine=machine)))
    assert found is not None
    assert found.needed == ["liba.so", "lib\udce4.so"]
    assert (found.soname, found.rpath, found.runpath) == ("me.so", ["/a", "$ORIGIN/b", "", "/c"], None)


def test_a_library_that_says_nothing_has_nothing():
    found = read_dynamic(elf([]))
    assert found is not None
    assert (found.needed, found.soname, found.rpath, found.runpath) == ([], None, None, None)


def test_runpath_even_an_empty_one_voids_rpath_and_the_last_of_several_counts():
    for text, expected in (("/b", ["/b"]), ("", [])):
        found = read_dynamic(elf([(RPATH, "/a"), (RUNPATH, "/x"), (RUNPATH, text)]))
        assert found is not None
        assert (found.rpath, found.runpath) == (None, expected)


@pytest.mark.parametrize("other", [{"klass": 1}, {"data": 2}, {"kind": 1}, {"kind": 2}, {"machine": 3}])
def test_other_kinds_of_elf_files_are_none_of_ours(other):
    assert read_dynamic(elf([(NEEDED, "liba.so")], **other)) is None


def test_a_program_that_is_not_position_independent_is_read_only_on_request():
    found = read_dynamic(elf([(RPATH, "/a")], kind=2), executable=True)
    assert found is not None
    assert found.rpath == ["/a"]


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"#!/bin/sh\n" * 99, bytes(4096)])
def test_what_is_no_elf_file_is_none(data):
    assert read_dynamic(data) is None


def test_strings_that_reach_out_of_their_table_are_left_out():
    found = read_dynamic(elf([(NEEDED, "liba.so"), (NEEDED, "libb.so"), (NEEDED, 1 << 63), (SONAME, "me")], strsz=9))
    assert found is not None
    assert (found.needed, found.soname) == (["liba.so"], None)


SAMPLE = elf(
    [(NEEDED, "liba.so"), (NEEDED, "$ORIGIN/b.so"), (SONAME, "me"), (RPATH, "$LIB:/x"), (RUNPATH, "${ORIGIN}")]
)


def real_library():
    """Some real shared object of this interpreter, or the sample."""
    folder = sysconfig.get_config_var("DESTSHARED") or ""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    for name in names:
        path = os.path.join(folder, name)
        if name.endswith(".so") and os.path.getsize(path) < 200_000:
            with open(path, "rb") as file:
                return file.read()
    return SAMPLE


REAL = real_library()


def assert_harmless(data):
    found = read_dynamic(data)
    if found is not None:
        for texts in (found.needed, found.rpath or [], found.runpath or [], [found.soname or ""]):
            assert all(isinstance(text, str) for text in texts)
        for text in found.needed:
            expand(text, "/o")
    closure = Closure("/d/x.so", lambda path: data, lambda path: {"liba.so", "libc.so.6", "glibc-hwcaps"})
    for count, _ in enumerate(closure):
        assert count < 10_000


@given(st.binary(max_size=400))
def test_any_bytes_are_harmless(data):
    assert_harmless(data)
    assert_harmless(SAMPLE[:64] + data)


@given(
    st.sampled_from([SAMPLE, REAL]),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)), max_size=8),
    st.none() | st.integers(0, 1 << 20),
)
def test_a_damaged_library_is_harmless(original, damages, end):
    data = bytearray(original)
    where = dynamic_offset(original)
    for offset, patch in damages:
        # Half of the blows go where they hurt: the headers and the dynamic section.
        at = offset // 2 % 512 if offset % 2 else (where + offset // 2 % 512) % len(data)
        data[at : at + len(patch)] = patch
    assert_harmless(bytes(data) if end is None else bytes(data[: end % len(data)]))


def dynamic_offset(data):
    for index in range(struct.unpack_from("<H", data, 56)[0]):
        at = struct.unpack_from("<Q", data, 32)[0] + index * 56
        if struct.unpack_from("<I", data, at)[0] == 2:
            return struct.unpack_from("<Q", data, at + 8)[0]
    raise AssertionError("no dynamic section")


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf (binutils)")
def test_the_libraries_of_this_interpreter_say_what_readelf_says():
    folder = sysconfig.get_config_var("DESTSHARED") or ""
    paths = [
        os.path.join(folder, n) for n in (os.listdir(folder) if os.path.isdir(folder) else ()) if n.endswith(".so")
    ]
    if not paths:
        pytest.skip("this interpreter has its extension modules built in")
    for path in paths:
        with open(path, "rb") as file:
            found = read_dynamic(file.read())
        env = {**os.environ, "LC_ALL": "C"}
        text = subprocess.run(
            ["readelf", "-dW", path], capture_output=True, text=True, timeout=60, check=True, env=env
        ).stdout
        said = {tag: re.findall(rf"\({tag}\).*\[(.*)\]", text) for tag in ("NEEDED", "SONAME", "RPATH", "RUNPATH")}
        assert found is not None, path
        assert found.needed == said["NEEDED"], path
        assert [found.soname] == (said["SONAME"] or [None]), path
        assert [":".join(p) for p in (found.rpath, found.runpath) if p] == said["RPATH"] + said["RUNPATH"], path


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("//", "/"),
        ("/a//b/./c/", "/a/b/c"),
        ("/a/b/../../c", "/c"),
        ("/../a", "/a"),
        ("/a/...", "/a/..."),
        ("//a", "/a"),
    ],
)
def test_paths_are_normalised_by_the_letters(path, expected):
    assert normalise(path) == expected


def test_a_relative_path_is_refused():
    with pytest.raises(ValueError, match=r"'a/b' is relative: give the absolute path"):
        normalise("a/b")
    with pytest.raises(ValueError, match=r"'x\.so' is relative"):
        Closure("x.so", lambda path: None, lambda path: None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a", ["/a"]),
        ("$ORIGIN/x", ["/o/x"]),
        ("${ORIGIN}x$ORIGIN", ["/ox/o"]),
        ("$ORIGINx", ["$ORIGINx"]),
        ("$ORIGIN_1", ["$ORIGIN_1"]),
        ("$ORIGIN.d", ["/o.d"]),
        ("${ORIGIN", ["${ORIGIN"]),
        ("$$ORIGIN$", ["$/o$"]),
        ("$OTHER/${OTHER}", ["$OTHER/${OTHER}"]),
        ("/x/$LIB/$LIB", ["/x/lib64/lib64", f"/x/lib/{MACHINE}-linux-gnu/lib/{MACHINE}-linux-gnu", "/x/lib/lib"]),
    ],
)
def test_tokens_are_expanded_as_ld_so_does(text, expected):
    assert expand(text, "/o") == expected


def test_the_platform_may_be_any_that_this_machine_has():
    assert f"/x/{MACHINE}" in expand("/x/$PLATFORM", "/o")


def test_an_entry_with_an_unknown_origin_a_relative_and_an_empty_one_are_left_out():
    assert search_path(["$ORIGIN/a", "", "rel", "/b/", "/b"], "") == [["/b"]]


# -- the walk itself, on ELF files by hand -------------------------------------------------------------------------


def test_directories_are_wanted_before_what_lies_in_them_and_a_round_is_independent():
    files = {
        "/p/m.so": elf([(NEEDED, "a.so"), (NEEDED, "b.so"), (NEEDED, "c.so"), (RUNPATH, "/x:/y")]),
        "/x/a.so": elf([(NEEDED, "b.so"), (NEEDED, "d.so"), (RUNPATH, "/x:/y")]),
        "/x/b.so": elf([]),
        "/y/d.so": elf([]),
    }
    known = {}
    closure = Closure("/p/m.so", known.get, known.get, listing=NAMES)
    rounds = []
    for wants in closure.rounds():
        rounds.append([(want.aspect, want.path) for want in wants])
        for want in wants:
            names = {path.rpartition("/")[2] for path in files if path.startswith(want.path + "/")}
            known[want.path] = files[want.path] if want.aspect == CONTENT else names
    assert rounds == [
        [(CONTENT, "/p/m.so")],
        [(NAMES, "/x")],
        [(NAMES, "/y")],
        [(CONTENT, "/x/a.so"), (CONTENT, "/x/b.so")],
        [(CONTENT, "/y/d.so")],
    ]


def test_what_nobody_can_tell_ends_that_branch_only():
    files = {"/p/m.so": elf([(NEEDED, "a.so"), (NEEDED, "/q/b.so"), (RPATH, "/x:/y")])}
    wants = [(want.aspect, want.path) for want in Closure("/p/m.so", files.get, lambda path: None)]
    assert wants == [(LIST, "/x"), (LIST, "/y"), (CONTENT, "/q/b.so")]


def test_an_endless_chain_is_cut():
    def content(path):
        number = int(path[3:-3])
        return elf([(NEEDED, f"/n/{number + 1}.so")])

    closure = Closure("/n/0.so", content, lambda path: None)
    assert list(closure) == []
    assert len(closure.libraries) == 64
