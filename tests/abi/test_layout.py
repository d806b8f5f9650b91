"""The structures and numbers that Python and the machine code share, against the C compiler."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
from pathlib import Path

import pytest

import collfs.interpose.machine
from collfs.interpose import api, sites
from collfs.interpose.machine import layout
from collfs.record import Stat
from collfs.store.table import pack_stat

MACHINE = Path(collfs.interpose.machine.__file__).parent
TWINS = {
    "struct cell": layout.Cell,
    "struct prefix": layout.Prefix,
    "struct table": layout.TableHeader,
    "struct entry": layout.Entry,
    "struct news": layout.News,
    "struct search": layout.Search,
    "struct events": layout.Events,
    "struct waiting": layout.Waiting,
}
CONSTANT = re.compile(r"(K|F|MAX|TABLE|PUT|SEEK|WAIT)_\w+|RING|SEEN|WRITTEN|MISS_LOG|STAT_SIZE")
C_TYPES: dict[type, str] = {
    ctypes.c_int: "int",
    ctypes.c_uint: "unsigned",
    ctypes.c_long: "long",
    ctypes.c_size_t: "size_t",
    ctypes.c_ssize_t: "ssize_t",
    ctypes.c_char_p: "const char *",
    ctypes.c_void_p: "void *",
}


@pytest.fixture(scope="module")
def compiled(run_command, tmp_path_factory):
    """Compile a C program, run it, and get its words."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here")
    directory = tmp_path_factory.mktemp("layout")

    def run(body, *, head="", flags=(), arguments=()):
        source = directory / "program.c"
        source.write_text(
            f"#define _GNU_SOURCE\n#include <stdio.h>\n#include <stddef.h>\n{head}\n"
            f"int main(int argc, char **argv) {{ (void)argc; (void)argv;\n{body}\nreturn 0; }}\n"
        )
        program = str(directory / "program")
        run_command([compiler, "-std=gnu11", "-O1", f"-I{MACHINE}", *flags, str(source), "-o", program])
        return run_command([program, *arguments]).stdout.split()

    return run


def c_prints(expressions):
    return "\n".join(f'printf("%lld\\n", (long long)({e}));' for e in expressions)


@pytest.mark.parametrize("name", TWINS)
def test_every_structure_has_the_fields_of_its_twin_in_c(compiled, name):
    python = TWINS[name]
    fields = [field[0] for field in python._fields_]
    wanted = [ctypes.sizeof(python)]
    expressions = [f"sizeof({name})"]
    for field in fields:
        descriptor = getattr(python, field)
        wanted += [descriptor.offset, descriptor.size]
        expressions += [f"offsetof({name}, {field})", f"sizeof((({name} *)0)->{field})"]
    if name == "struct entry":
        expressions.append("offsetof(struct entry, key)")
        wanted.append(ctypes.sizeof(python))
    # put() of writer.h isn't called, but compiled: it wants a cell
    got = compiled(c_prints(expressions), head='#include "writer.h"\nstruct cell cell;')
    assert dict(zip(expressions, map(int, got))) == dict(zip(expressions, wanted))


@pytest.mark.parametrize("name", TWINS)
def test_no_field_of_a_structure_in_c_lacks_its_twin(name):
    text = "\n".join((MACHINE / file).read_text() for file in ("layout.h", "writer.h"))
    body = re.search(re.escape(name) + r" \{\n(.*?)\n\};", text, re.DOTALL)
    assert body is not None
    code = re.sub(r"/\*.*?\*/|\[[^]]*\]", "", body[1], flags=re.DOTALL)
    declared = [word.split()[-1].lstrip("*") for word in re.split(r"[;,]", code) if word.strip()]
    wanted = [field[0] for field in TWINS[name]._fields_]
    assert [d for d in declared if d != "key" or name != "struct entry"] == wanted


def test_every_constant_has_the_value_of_its_twin_in_c(compiled):
    values = {k: v for k, v in vars(layout).items() if CONSTANT.fullmatch(k) and isinstance(v, int)}
    for prefix, names in (("OP", layout.OPERATIONS), ("O", layout.OUTCOMES), ("R", layout.ROW_NAMES)):
        values.update({f"{prefix}_{name.upper()}": i for i, name in enumerate(names)})
    values.update({f"EV_{event.rpartition('.')[2].upper()}": i for i, event in enumerate(layout.EVENTS)})
    values.update({f"PY_{name.partition('_')[2]}": i for i, name in enumerate(layout.PYTHON_FUNCTIONS)})
    values.update(EVENTS=len(layout.EVENTS), PY_FUNCTIONS=len(layout.PYTHON_FUNCTIONS))
    values.update(OPS=len(layout.OPERATIONS), OUTCOMES=len(layout.OUTCOMES), ROWS=len(layout.ROW_NAMES))
    assert {"K_WRITTEN", "F_LINK", "MAX_FD", "WRITTEN", "PUT_FULL", "OP_CHANGE", "R_MUNMAP"} <= values.keys()
    got = compiled(c_prints(values), head='#include "writer.h"\nstruct cell cell;')
    assert dict(zip(values, map(int, got))) == values


def test_the_cell_and_the_displaced_instructions_have_the_room_that_the_sources_say():
    assert f". = {layout.CELL_SIZE:#x};" in (MACHINE / "machine.ld").read_text()
    assembly = (MACHINE / "trampoline.S").read_text()
    assert re.findall(r"\.fill +(\d+), 1, 0x90", assembly) == [str(layout.HEAD_SIZE)]


def test_the_head_of_the_machine_code_is_read_as_the_assembler_wrote_it():
    assembly = (MACHINE / "trampoline.S").read_text()
    names = re.findall(r"^ +\.long +(\w+) - blob$", assembly, re.MULTILINE)
    assert [*names, "even"][: len(names) + len(names) % 2] == [field[0] for field in layout.BlobHeader._fields_[3:]]
    assert ctypes.sizeof(layout.BlobHeader) % 8 == 0, "the templates follow at once"
    assert re.findall(r"^ +ROW +t_(\w+)$", assembly, re.MULTILINE) == list(layout.TEMPLATES)
    assert layout.BlobHeader.libc_entry.offset == 16


def test_struct_stat_is_packed_as_the_c_library_has_it(compiled):
    names = [
        "st_dev",
        "st_ino",
        "st_nlink",
        "st_mode",
        "st_uid",
        "st_gid",
        "st_rdev",
        "st_size",
        "st_blksize",
        "st_blocks",
    ]
    names += [f"st_{which}tim.{part}" for which in "amc" for part in ("tv_sec", "tv_nsec")]
    expressions = ["sizeof(struct stat)"]
    for name in names:
        expressions += [f"offsetof(struct stat, {name})", f"sizeof(((struct stat *)0)->{name})"]
    got = [int(word) for word in compiled(c_prints(expressions), head="#include <sys/stat.h>")]
    assert got[0] == layout.STAT_SIZE == struct.calcsize(layout.STAT_FORMAT)
    at, wanted = 0, []
    for letter in layout.STAT_FORMAT[1:].replace("24x", "").replace("4x", "p"):
        size = 4 if letter == "p" else struct.calcsize("<" + letter)
        if letter != "p":
            wanted += [at, size]
        at += size
    assert got[1:] == wanted


def test_a_packed_stat_has_the_bytes_that_stat_gives(compiled, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"x" * 5000)
    os.utime(file, ns=(-1, 1_234_567_890_123_456_789))  # 1 ns before 1970 as well
    body = """
    struct stat st; unsigned char *p = (unsigned char *)&st;
    for (size_t i = 0; i < sizeof st; i++) p[i] = 0;
    for (int k = 1; k < argc; k++) {
      if (stat(argv[k], &st)) return 1;
      for (size_t i = 0; i < sizeof st; i++) printf("%02x", p[i]);
      printf("\\n");
    }"""
    paths = [str(file), "/dev/null", str(tmp_path)]
    got = compiled(body, head="#include <sys/stat.h>", arguments=paths)
    assert got == [pack_stat(Stat.from_stat_result(os.stat(path))).hex() for path in paths]


def test_the_function_pointer_table_is_the_one_that_its_documentation_shows(compiled):
    assert api.__doc__ is not None
    rows = re.findall(r"^ +([\w ]+?\s\*?) *\(\*(\w+)\)\((.*)\);", api.__doc__, re.MULTILINE)
    assert [name for _, name, _ in rows] == [name for name, _, _ in api.ROWS]
    head = ["#include <sys/stat.h>", "#include <sys/types.h>", "struct libc_collfs_api {"]
    head += [f"{result} (*{name})({arguments});" for result, name, arguments in rows]
    head.append("};")
    for (name, result, arguments), (_, _, documented) in zip(api.ROWS, rows):
        words = [re.sub(r"\w+$", "", word.strip()).strip() for word in documented.split(",")]
        assert len(words) == len(arguments)
        # a pointer to anything is c_void_p in Python: take what it points to from the documentation
        types = [w if t is ctypes.c_void_p and "*" in w else C_TYPES[t] for t, w in zip(arguments, words)]
        head.append(f"extern {C_TYPES[result]} own_{name}({', '.join(types)});")
    head.append("void assign(struct libc_collfs_api *api) {")
    head += [f"api->{name} = own_{name};" for name, _, _ in api.ROWS] + ["}"]
    fields = [name for name, _, _ in api.ROWS]
    expressions = ["sizeof(struct libc_collfs_api)", *[f"offsetof(struct libc_collfs_api, {name})" for name in fields]]
    stubs = [line.replace("extern", "").replace(";", " { __builtin_trap(); }") for line in head if line[:6] == "extern"]
    got = compiled(c_prints(expressions), head="\n".join(head + stubs), flags=["-Werror=incompatible-pointer-types"])
    wanted = [ctypes.sizeof(api.LibcCollfsApi), *[getattr(api.LibcCollfsApi, name).offset for name in fields]]
    assert list(map(int, got)) == wanted == [64, *range(0, 64, 8)]


def test_system_call_numbers_flags_and_errors_are_the_systems(compiled):
    arch = (MACHINE / "arch.h").read_text()
    numbers = dict(re.findall(r"\bNR_(\w+) = (\d+)", arch))
    numbers.update({name: str(nr) for name, nr, _, _ in sites.CALLS if name not in numbers})
    assert all(numbers[name] == str(nr) for name, nr, _, _ in sites.CALLS)
    checks = [f'#ifdef SYS_{n}\n_Static_assert(SYS_{n} == {v}, "{n}");\n#endif' for n, v in numbers.items()]
    for ours, theirs in (("F_O", "O"), ("F_AT", "AT"), ("E", "E")):
        for name, value in re.findall(rf"\b{ours}_(\w+) = (\w+)", arch):
            system = f"{theirs}{'' if ours == 'E' else '_'}{name}"
            if system not in ("O_LARGEFILE", "AT_STATX_SYNC_TYPE"):  # 0 in 64-bit glibc; in linux/stat.h only
                checks.append(f'_Static_assert({system} == {value}, "{system}");')
    assert len(checks) > 70
    head = "#include <sys/syscall.h>\n#include <fcntl.h>\n#include <errno.h>\n"
    compiled("", head=head + "\n".join(checks))
