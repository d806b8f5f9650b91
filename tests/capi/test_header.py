"""``collfs.h`` by the C and the C++ compiler: it stands alone, and it is the table that Python has."""

from __future__ import annotations

import ctypes
import re
import shutil
from pathlib import Path

import pytest

import collfs
from collfs.interpose import api

STRICT = ["-Wall", "-Wextra", "-Werror", "-pedantic"]


@pytest.fixture
def compiles(run_command, tmp_path):
    """Compile a translation unit; its compiler's Result."""

    def run(compiler, text, *flags, check=True):
        if shutil.which(compiler) is None:
            pytest.skip(f"no {compiler}")
        source = tmp_path / f"unit.{'cc' if compiler == 'g++' else 'c'}"
        source.write_text(text)
        words = [compiler, *flags, f"-I{collfs.get_include()}", "-c", source, "-o", tmp_path / "unit.o"]
        return run_command(words, check=check)

    return run


@pytest.mark.parametrize("flags", ["-std=c99", "-std=c11", "-std=gnu17", "-std=c11 -D_GNU_SOURCE"])
def test_it_compiles_by_itself_in_c(compiles, flags):
    compiles("gcc", "#include <collfs.h>\n#include <collfs.h>\nint unit;\n", *flags.split(), *STRICT)


def test_it_compiles_by_itself_in_cpp_with_c_names(compiles, run_command, tmp_path):
    text = "#include <collfs.h>\nint unit(libc_collfs_api *t) { collfsfinalize(); return collfsinitialize(t); }\n"
    compiles("g++", text, "-std=c++11", *STRICT)
    wanted = run_command(["nm", tmp_path / "unit.o"]).stdout
    assert " U collfsinitialize\n" in wanted
    assert " U collfsfinalize\n" in wanted


def test_its_layout_is_the_one_of_python(compiles):
    checks = [f'_Static_assert(sizeof(struct libc_collfs_api) == {ctypes.sizeof(api.LibcCollfsApi)}, "size");']
    for name, _, _ in api.ROWS:
        offset = getattr(api.LibcCollfsApi, name).offset
        checks.append(f'_Static_assert(offsetof(struct libc_collfs_api, {name}) == {offset}, "{name}");')
    text = "#include <stddef.h>\n#include <collfs.h>\n" + "\n".join(checks)
    compiles("gcc", text, "-std=c11", *STRICT)
    with pytest.raises(AssertionError):
        compiles("gcc", text.replace("== 64", "== 72"), "-std=c11")


def test_its_prototypes_are_the_documented_ones_of_python(compiles):
    assert api.__doc__ is not None
    body = re.search(r"struct libc_collfs_api \{.*\n((?: +.*\);\n)+)", api.__doc__)
    assert body is not None
    checks = "\n".join(
        f"_Static_assert(__builtin_types_compatible_p(__typeof__(((struct libc_collfs_api *)0)->{name}),"
        f' __typeof__(((struct documented *)0)->{name})), "{name}");'
        for name, _, _ in api.ROWS
    )
    text = f"#include <collfs.h>\nstruct documented {{\n{body[1]}}};\n{checks}\n"
    compiles("gcc", text, "-std=gnu11")
    with pytest.raises(AssertionError, match="read"):
        compiles("gcc", text.replace("size_t count", "int count"), "-std=gnu11")


def test_its_functions_have_the_prototypes_of_the_proposal(compiles):
    compiles(
        "gcc",
        """#include <collfs.h>
int (*initialize)(const struct libc_collfs_api *) = collfsinitialize;
void (*finalize)(void) = collfsfinalize;
struct libc_collfs_api *table = &_dl_collfs_api;
""",
        "-std=c11",
        *STRICT,
    )


def test_the_include_directory_is_inside_the_package():
    folder = Path(collfs.get_include())
    assert (folder / "collfs.h").is_file()
    assert folder.parent == Path(collfs.__file__).parent
