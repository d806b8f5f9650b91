"""libcollfs.so.1 by the tools that read ELF files, and by ld.so."""

from __future__ import annotations

import ctypes
import shutil
import struct

import pytest

from collfs.interpose import elf
from collfs.interpose.libcollfs import DT_GNU_HASH, DT_HASH, library


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The library as a file."""
    path = tmp_path_factory.mktemp("elf") / "libcollfs.so"
    path.write_bytes(library())
    return path


@pytest.fixture
def tool(run_command, file):
    """Run a tool on the library; what it prints. Skips without it."""

    def run(*words):
        if shutil.which(words[0]) is None:
            pytest.skip(f"no {words[0]}")
        result = run_command([*words, file])
        assert result.stderr == "", result.describe()
        assert "Warning" not in result.stdout
        return result.stdout

    return run


def test_readelf_finds_nothing_to_complain_about(tool):
    text = tool("readelf", "-aW")
    assert "Library soname: [libcollfs.so.1]" in text
    assert "There are no relocations in this file." in text
    assert "x86 feature: IBT, SHSTK" in text
    assert "Name: COLLFS_1.0" in text
    for line in text.split("\n"):
        assert not ("GNU_STACK" in line and "E" in line.split()[6]), line


def test_nm_lists_what_the_header_declares_and_one_private_name(tool):
    names = [line.split()[1:] for line in tool("nm", "-D", "--with-symbol-versions").splitlines()]
    assert sorted(names) == [
        ["D", "_collfs_slots@@COLLFS_PRIVATE"],
        ["D", "_dl_collfs_api@@COLLFS_1.0"],
        ["T", "collfsfinalize@@COLLFS_1.0"],
        ["T", "collfsinitialize@@COLLFS_1.0"],
    ]


def test_the_names_for_gdb_are_no_dynamic_symbols(tool):
    assert {"t __jit_debug_register_code", "d __jit_debug_descriptor"} <= {
        line.split(None, 1)[1] for line in tool("nm").splitlines()
    }
    assert "__jit" not in tool("nm", "-D")


def test_frames_of_its_functions_can_be_read(tool):
    text = tool("readelf", "-wF")
    functions = [line.split() for line in tool("nm").splitlines() if line.split()[1] in "tT"]
    assert len(functions) == 3
    for at, _, _ in functions:
        assert f"pc={at}.." in text
    assert "rsp+8" in text


@pytest.mark.parametrize(
    ("name", "sysv", "gnu"),
    # as the linker has them in libraries with these names
    [
        ("", 0, 5381),
        ("printf", 0x077905A6, 0x156B2BB8),
        ("exit", 0x0006CF04, 0x7C967E3F),
        ("syscall", 0x0B09985C, 0xBAC212A0),
    ],
)
def test_hashes_of_known_names(name, sysv, gnu):
    assert (elf.sysv_hash(name), elf.gnu_hash(name)) == (sysv, gnu)


def test_the_chain_of_the_gnu_hash_table_has_one_end():
    names = ["printf", "exit", "syscall"]
    *_, first, a, b, c = struct.unpack("<IIIIQI3I", elf.gnu_hash_table(names))
    assert first == 1
    assert [a & 1, b & 1, c & 1] == [0, 0, 1]
    assert [a >> 1, b >> 1, c >> 1] == [elf.gnu_hash(name) >> 1 for name in names]


LOAD = """
import ctypes, os, sys
plain = ctypes.CDLL(None)
assert not hasattr(plain, "collfsinitialize")
library = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL, use_errno=True)
for where in (plain, library):
    for name in ("collfsinitialize", "collfsfinalize", "_dl_collfs_api"):
        assert hasattr(where, name), name
    assert not hasattr(where, "collfs")
    assert not hasattr(where, "__jit_debug_register_code")
dlvsym = plain.dlvsym
dlvsym.restype, dlvsym.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p]
address = ctypes.cast(plain.collfsinitialize, ctypes.c_void_p).value
assert dlvsym(None, b"collfsinitialize", b"COLLFS_1.0") == address
assert dlvsym(None, b"collfsinitialize", b"COLLFS_2.0") is None
assert dlvsym(None, b"collfsinitialize", b"COLLFS_PRIVATE") is None
# as it comes from the disk: it refuses, and does nothing
assert library.collfsinitialize(ctypes.create_string_buffer(64)) == -1
library.collfsfinalize()
assert bytes((ctypes.c_char * 64).in_dll(plain, "_dl_collfs_api")) == bytes(64)
"""


def test_ldso_finds_the_names_and_their_versions(run_python, file):
    run_python(["-c", LOAD, file])


@pytest.mark.parametrize("gone", [DT_GNU_HASH, DT_HASH])
def test_each_hash_table_is_enough(run_python, tmp_path, gone):
    content = library()
    tag = struct.pack("<Q", gone)
    assert content.count(tag) >= 1
    at = content.index(tag, 0x2000)
    path = tmp_path / "libcollfs.so"
    path.write_bytes(content[:at] + struct.pack("<QQ", 21, 0) + content[at + 16 :])  # DT_DEBUG
    run_python(["-c", LOAD, path])


def test_a_debuggers_file_has_symbols_and_frames_for_every_site(run_python, run_command, tmp_path):
    if shutil.which("readelf") is None:
        pytest.skip("no readelf")
    path = tmp_path / "symbols.elf"
    run_python(
        f"""
from collfs.interpose.debug import regions, symbol_file
from collfs.interpose.interposer import Interposer
interposer = Interposer()
open({str(path)!r}, "wb").write(symbol_file(interposer))
found = regions(interposer)
assert len(found) > len(interposer.trampolines) > 40
spans = sorted((one.start, one.start + one.size) for one in found)
assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:]))
print(len(interposer.trampolines), len(found))
"""
    )
    result = run_command(["readelf", "-sW", "-wf", path])
    assert result.stderr == "", result.describe()
    assert "Warning" not in result.stdout
    symbols = [line.split()[-1] for line in result.stdout.splitlines() if " FUNC " in line]
    frames = result.stdout.count(" FDE cie=")
    assert {"collfs:ldso_entry", "collfs:ld.so:openat", "collfs:libc:newfstatat"} <= set(symbols)
    assert frames == len(symbols)


def test_slots_have_the_size_that_their_symbol_says(file):
    from collfs.interpose.libcollfs import Slots

    assert ctypes.sizeof(Slots) == 56
