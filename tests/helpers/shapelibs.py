"""The libraries of the shapes of loading (loadshapes.py): small ones in a tree, and files that are none.

A library says on standard output when it comes and goes, counts its calls (so that a library which is loaded twice, or
not unloaded, is seen), and adds up its number and those of what it needs.

Rule of the file: :data:`LIBRARIES` is the one list.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LIBRARY = r"""
#include <unistd.h>
#define PASTE(a, b) a##b
#define CALL(a, b) PASTE(a, b)
#define TEXT(a) #a
#define SAY(name, what) static const char text[] = TEXT(name) what; if (write(1, text, sizeof text - 1) < 0) _exit(9)
#define UP(name) SAY(name, " up\n")
#define DOWN(name) SAY(name, " down\n")
static int calls;
__attribute__((constructor)) static void up(void) { UP(NAME); }
__attribute__((destructor)) static void down(void) { DOWN(NAME); }
int CALL(count_, NAME)(void) { return ++calls; }
int number(void) { return NUMBER; }  /* exported by all: whose is taken depends on the order of loading */
#ifdef NEEDS
int CALL(answer_, NEEDS)(void);
int CALL(answer_, NAME)(void) { return NUMBER + CALL(answer_, NEEDS)(); }
#else
int CALL(answer_, NAME)(void) { return NUMBER; }
#endif
#ifdef UNDEFINED
int nowhere(void);
int lost(void) { return nowhere(); }
#endif
"""

OLD, NEW = "-Wl,--disable-new-dtags", "-Wl,--enable-new-dtags"  # RPATH, RUNPATH
# file, number, what it needs, more words for the compiler
LIBRARIES: tuple[tuple[str, int, str, tuple[str, ...]], ...] = (
    ("libone.so", 1, "", ()),
    ("libtwo.so", 2, "", ()),
    ("libreal.so.1.2", 3, "", ("-Wl,-soname,libsoname.so.1",)),
    ("liblazy.so", 4, "", ("-DUNDEFINED", "-Wl,-z,lazy")),
    ("chain/deep/libc4.so", 1000, "", ()),
    ("chain/deep/libc3.so", 100, "chain/deep/libc4.so", (NEW, "-Wl,-rpath,$ORIGIN")),
    ("chain/libc2.so", 10, "chain/deep/libc3.so", (NEW, "-Wl,-rpath,$ORIGIN/missing:$ORIGIN:$ORIGIN/deep")),
    ("chain/libc1.so", 5, "chain/libc2.so", (NEW, "-Wl,-rpath,${ORIGIN}")),
    ("lost/libgone.so", 7, "", ()),
    ("lost/libmiddle.so", 8, "lost/libgone.so", (NEW, "-Wl,-rpath,$ORIGIN")),
    ("lost/libneedy.so", 9, "lost/libmiddle.so", (NEW, "-Wl,-rpath,$ORIGIN")),
    ("paths/two/libbottom.so", 20, "", ()),
    ("paths/one/libmid.so", 30, "paths/two/libbottom.so", ()),
    ("paths/librpath.so", 40, "paths/one/libmid.so", (OLD, "-Wl,-rpath,$ORIGIN/none:$ORIGIN/one:$ORIGIN/two")),
    ("paths/librunpath.so", 50, "paths/one/libmid.so", (NEW, "-Wl,-rpath,$ORIGIN/none:$ORIGIN/one:$ORIGIN/two")),
    ("paths/libabsolute.so", 60, "paths/two/libbottom.so", (NEW, "-Wl,-rpath,@TREE@/paths/two")),
    ("choice/near/libpick.so", 70, "", ()),
    ("choice/far/libpick.so", 71, "", ()),
    ("choice/liboldway.so", 80, "choice/near/libpick.so", (OLD, "-Wl,-rpath,$ORIGIN/near")),
    ("choice/libnewway.so", 90, "choice/near/libpick.so", (NEW, "-Wl,-rpath,$ORIGIN/near")),
    ("where/lib/liborigin.so", 11, "where/lib/sub/libside.so", (NEW, "-Wl,-rpath,$ORIGIN/sub")),
    ("where/lib/sub/libside.so", 12, "", ()),
    ("where/other/sub/libside.so", 13, "", ()),
)


def build(tree: Path) -> None:
    """Compile all of :data:`LIBRARIES` below *tree*, then make what is no library."""
    source = tree.parent / "library.c"
    source.write_text(LIBRARY)
    made: set[str] = set()
    waiting = list(LIBRARIES)
    while waiting:
        file, number, needs, words = waiting.pop(0)
        if needs and needs not in made:
            waiting.append((file, number, needs, words))
            continue
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        # without a soname, -L and -l put the bare file name into DT_NEEDED
        folder, _, base = needs.rpartition("/")
        link = [f"-DNEEDS={_name(needs)}", f"-L{tree / folder}", f"-l:{base}"] if needs else []
        words = tuple(word.replace("@TREE@", str(tree)) for word in words)
        first = ["gcc", "-shared", "-fPIC", "-O1", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]
        own = [f"-DNAME={_name(file)}", f"-DNUMBER={number}", str(source), "-o", str(tree / file), *words]
        subprocess.run([*first, *own, *link], check=True, timeout=60)
        made.add(file)
    (tree / "lost/libgone.so").unlink()
    (tree / "libreal.so.1").symlink_to("libreal.so.1.2")
    (tree / "libreal.so").symlink_to(tree / "libreal.so.1")
    (tree / "libbroken.so").symlink_to("libnowhere.so")
    (tree / "libloop.so").symlink_to("libloop.so")
    (tree / "where/other/liborigin.so").symlink_to("../lib/liborigin.so")
    (tree / "alias").symlink_to("chain")
    whole = (tree / "libone.so").read_bytes()
    for name, content in {
        "libempty.so": b"",
        "libtext.so": b"INPUT(-lc)\n" * 20,
        "libshort.so": whole[:40],
        "libcut.so": whole[:100],
        "lib32.so": whole[:4] + b"\x01" + whole[5:],  # ELFCLASS32
        "libmips.so": whole[:18] + b"\x08\x00" + whole[20:],  # EM_MIPS
        "libprogram.so": whole[:16] + b"\x04\x00" + whole[18:],  # ET_CORE
    }.items():
        (tree / name).write_bytes(content)
    (tree / "libfolder.so").mkdir()


def _name(file: str) -> str:
    return file.rpartition("/")[2].split(".")[0][3:]
