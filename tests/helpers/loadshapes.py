"""The shapes of loading: for each a program that loads some of the libraries of shapelibs.py, and prints what it got.

The same program runs as plain Python, under the default table, and with a client's C functions in the table; what it
prints must be the same to the byte.

Rules of the file: names in the programs are absolute, below ``tree``, unless the shape is about other names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD = """
import _ctypes, ctypes, json, os, sys
tree, results = sys.argv[1], []
NOLOAD, DEEP = 4, 8  # RTLD_NOLOAD, RTLD_DEEPBIND: <bits/dlfcn.h>
libc = ctypes.CDLL(None)
def load(name, mode=os.RTLD_NOW):
    # the handle, or what dlerror says
    try:
        return _ctypes.dlopen(name, mode)
    except OSError as exc:
        return str(exc)
def close(handle):
    if isinstance(handle, int):
        _ctypes.dlclose(handle)
def call(handle, name):
    try:
        return getattr(ctypes.PyDLL(None, handle=handle), name)() if isinstance(handle, int) else handle
    except AttributeError as exc:
        return str(exc)
def origin(handle):
    # RTLD_DI_ORIGIN: man 3 dlinfo
    buffer = ctypes.create_string_buffer(4096)
    assert libc.dlinfo(ctypes.c_void_p(handle), 6, buffer) == 0
    return buffer.value.decode()
def file_of(handle, name):
    # dladdr: the name that the linker has for the object
    class Info(ctypes.Structure):
        _fields_ = [("fname", ctypes.c_char_p), ("more", ctypes.c_void_p * 3)]
    info = Info()
    libc.dladdr(ctypes.cast(getattr(ctypes.PyDLL(None, handle=handle), name), ctypes.c_void_p), ctypes.byref(info))
    return info.fname.decode()
def loaded(name):
    handle = load(name, os.RTLD_NOW | NOLOAD)
    close(handle)
    return isinstance(handle, int)
def got(*values):
    results.extend(values)
def visit(name, *functions):
    handle = load(name)
    got(name, *[call(handle, function) for function in functions])
    close(handle)
"""

TAIL = """
os.write(1, json.dumps(results, indent=0).encode() + b"\\n")
"""


class Shape(NamedTuple):
    """One way of loading: what is done before collfs starts, then the program.

    ``redirects``: whether absolute names are opened at all.
    """

    code: str
    before: str = ""
    env: Mapping[str, str] = {}
    redirects: bool = True


SHAPES: dict[str, Shape] = {
    "by path": Shape(
        """
visit(tree + "/libone.so", "answer_one", "count_one", "count_one", "no_such_function")
visit(tree + "/libnone.so")
visit(tree + "/none/libone.so")
visit(tree + "/libone.so/libone.so")
visit(tree + "/" + "x" * 300)
visit(tree + "/libreal.so.1.2", "answer_real", "answer_one")
handle = load(tree + "/libone.so")
got(file_of(handle, "answer_one") == tree + "/libone.so", origin(handle) == tree)
"""
    ),
    "by soname": Shape(
        """
visit("libsoname.so.1")
first = load(tree + "/libreal.so.1.2")
again = load("libsoname.so.1")
got(first == again, call(first, "count_real"), call(again, "count_real"))
close(first)
got(loaded("libsoname.so.1"))
close(again)
visit("libsoname.so.1")
visit("libreal.so.1.2")
"""
    ),
    "a chain of dependencies": Shape(
        """
for mode in (os.RTLD_NOW, os.RTLD_LAZY, os.RTLD_GLOBAL | os.RTLD_NOW, os.RTLD_NOW | DEEP):
    handle = load(tree + "/chain/libc1.so", mode)
    got(call(handle, "answer_c1"), call(handle, "answer_c4"), loaded("libc3.so"), loaded("libc4.so"))
    close(handle)
    got(loaded("libc3.so"), loaded("libc4.so"))
"""
    ),
    "reload after close": Shape(
        """
for _ in range(3):
    handle = load(tree + "/libone.so")
    twice = load(tree + "/libone.so")
    got(handle == twice, call(handle, "count_one"), call(twice, "count_one"))
    close(twice)
    got(loaded(tree + "/libone.so"))
    close(handle)
    got(loaded(tree + "/libone.so"))
"""
    ),
    "another file of the same name after close": Shape(
        """
import shutil
visit(tree + "/libone.so", "number")
shutil.copy(tree + "/libtwo.so", tree + "/new")
os.replace(tree + "/new", tree + "/libone.so")
visit(tree + "/libone.so", "number", "count_two")
os.unlink(tree + "/libone.so")
visit(tree + "/libone.so", "number")
os.symlink("libreal.so.1.2", tree + "/libone.so")
visit(tree + "/libone.so", "number")
"""
    ),
    "another order": Shape(
        """
names = ["chain/libc1.so", "chain/libc2.so", "chain/deep/libc3.so", "libone.so", "libtwo.so"]
import itertools
for order in list(itertools.permutations(names))[::17]:
    handles = [load(tree + "/" + name, os.RTLD_GLOBAL | os.RTLD_NOW) for name in order]
    got(order, [call(handle, "number") for handle in handles], ctypes.CDLL(None).number())
    for handle in handles[::-1] if len(results) % 4 else handles:
        close(handle)
    got([loaded(name) for name in ("libc1.so", "libc4.so", tree + "/libone.so")])
"""
    ),
    "a missing dependency": Shape(
        """
for mode in (os.RTLD_NOW, os.RTLD_LAZY):
    got(load(tree + "/lost/libneedy.so", mode), load(tree + "/lost/libmiddle.so", mode))
    got(loaded("libmiddle.so"), loaded("libneedy.so"))
import shutil
shutil.copy(tree + "/libone.so", tree + "/lost/libgone.so")
got(load(tree + "/lost/libmiddle.so"), loaded("libgone.so"))  # the file is there, its function isn't
visit(tree + "/libone.so", "answer_one")
"""
    ),
    "an undefined symbol": Shape(
        """
got(load(tree + "/liblazy.so", os.RTLD_NOW), loaded(tree + "/liblazy.so"))
handle = load(tree + "/liblazy.so", os.RTLD_LAZY)
got(call(handle, "answer_lazy"))
"""
    ),
    "RPATH": Shape(
        """
visit(tree + "/paths/librpath.so", "answer_rpath")  # is for what its dependencies need, too
visit(tree + "/paths/one/libmid.so", "answer_mid")
"""
    ),
    "RUNPATH": Shape(
        """
visit(tree + "/paths/librunpath.so", "answer_runpath")  # isn't
handle = load(tree + "/paths/two/libbottom.so")
visit(tree + "/paths/librunpath.so", "answer_runpath")
close(handle)
visit(tree + "/paths/libabsolute.so", "answer_absolute")
"""
    ),
    "ORIGIN": Shape(
        """
for folder in ("lib", "other", "lib/sub/..", "./lib/", "other/../lib"):
    handle = load(tree + "/where/" + folder + "/liborigin.so")
    got(folder, call(handle, "answer_origin"), origin(handle) if isinstance(handle, int) else handle)
    close(handle)
    got(loaded("libside.so"))
got(load("$ORIGIN/libone.so"), load(tree + "/$ORIGIN/libone.so"))
"""
    ),
    "LD_LIBRARY_PATH": Shape(
        """
visit("libpick.so", "answer_pick")
visit("libreal.so", "answer_real")
visit("libnowhere.so")
visit(tree + "/choice/liboldway.so", "answer_oldway")  # RPATH comes before LD_LIBRARY_PATH
visit(tree + "/choice/libnewway.so", "answer_newway")  # RUNPATH behind it
os.environ["LD_LIBRARY_PATH"] = tree + "/chain"  # is read once, when the process starts
visit("libc1.so")
""",
        env={"LD_LIBRARY_PATH": "{tree}/none:{tree}/choice/far:{tree}"},
    ),
    "a symlinked library": Shape(
        """
handles = [load(tree + "/" + name) for name in ("libreal.so", "libreal.so.1", "libreal.so.1.2")]
got(len(set(handles)), [call(handle, "count_real") for handle in handles])
got(file_of(handles[2], "answer_real") == tree + "/libreal.so")
for handle in handles:
    close(handle)
    got(loaded("libsoname.so.1"))
visit(tree + "/libreal.so.1", "count_real")
got(load(tree + "/libbroken.so"), load(tree + "/libloop.so"))
"""
    ),
    "one file under two names": Shape(
        """
names = [tree + "/libone.so", tree + "/libhard.so", tree + "//libone.so", tree + "/./libone.so"]
for turned in (names, names[::-1], names[2:] + names[:2]):
    handles = [load(name) for name in turned]
    got(len(set(handles)), [call(handle, "count_one") for handle in handles])
    for handle in handles:
        close(handle)
    got(loaded(tree + "/libhard.so"))
handles = [load(tree + "/chain/libc1.so"), load(tree + "/alias/libc1.so"), load(tree + "/alias/libc2.so")]
got(handles[0] == handles[1], [call(handle, "count_c2") for handle in handles])
""",
        before='os.link(tree + "/libone.so", tree + "/libhard.so")',
    ),
    "one file by names of which collfs manages some": Shape(
        """
names = [tree + "/libone.so", "./libone.so", "/" + tree + "/libone.so", tree + "/chain/../libone.so"]
for turned in (names, names[::-1], names[1:] + names[:1]):
    handles = [load(name) for name in turned]
    got(len(set(handles)), [call(handle, "count_one") for handle in handles])
    for handle in handles:
        close(handle)
    got(loaded(tree + "/libone.so"))
""",
        before="os.chdir(tree)",
    ),
    "loaded before by another name": Shape(
        """
for name in ("libone.so", "libhard.so", "chain/../libone.so"):
    handle = load(tree + "/" + name)
    got(handle == early, call(handle, "count_one"))
got(load(tree + "/libreal.so") == real, call(real, "count_real"))
got(load(tree + "/alias/libc2.so") == middle, call(middle, "count_c2"))
visit(tree + "/chain/libc1.so", "answer_c1")
""",
        before="""
os.link(tree + "/libone.so", tree + "/libhard.so")
early, real, middle = load(tree + "/libhard.so"), load(tree + "/libreal.so.1.2"), load(tree + "/chain/libc2.so")
""",
    ),
    "LD_PRELOAD": Shape(
        """
got(ctypes.CDLL(None).number(), loaded(tree + "/libtwo.so"))
for name in ("libtwo.so", "libreal.so.1.2"):
    handle = load(tree + "/" + name)
    got(call(handle, "count_two"), call(handle, "count_real"), call(handle, "number"))
    close(handle)
handle = load(tree + "/chain/libc1.so", os.RTLD_GLOBAL | os.RTLD_NOW)
got(call(handle, "answer_c1"), ctypes.CDLL(None).number())
close(handle)
""",
        env={"LD_PRELOAD": "{tree}/libtwo.so:{tree}/libreal.so.1.2"},
    ),
    "LD_PRELOAD, then another name": Shape(
        """
for name in ("libreal.so", "libhard.so"):
    handle = load(tree + "/" + name)
    got(call(handle, "count_two"), call(handle, "count_real"), call(handle, "number"))
    close(handle)
""",
        before='os.link(tree + "/libtwo.so", tree + "/libhard.so")',
        env={"LD_PRELOAD": "{tree}/libtwo.so:{tree}/libreal.so.1.2"},
    ),
    "after fork": Shape(
        """
kept = load(tree + "/libone.so")
got(call(kept, "count_one"))
for number in range(2):
    out, into = os.pipe()
    pid = os.fork()
    if not pid:
        results = []
        got(call(kept, "count_one"), loaded(tree + "/chain/libc1.so"))
        for _ in range(2):
            visit(tree + "/chain/libc1.so", "answer_c1", "count_c1")
            visit(tree + "/libtwo.so", "answer_two", "count_two")
        got(load(tree + "/libone.so") == kept, load(tree + "/lost/libneedy.so"), load(tree + "/libempty.so"))
        close(kept)
        os.write(into, json.dumps(results).encode())
        os._exit(0)
    os.close(into)
    with open(out, "rb") as file:
        got(json.loads(file.read()))
    got(os.waitpid(pid, 0)[1], call(kept, "count_one"))
    visit(tree + "/chain/libc1.so", "answer_c1", "count_c1")
"""
    ),
    "after chdir": Shape(
        """
os.chdir(tree + "/chain")
visit("./libc1.so", "answer_c1")
visit("deep/libc4.so", "answer_c4")
visit("./libone.so")
os.chdir("..")
visit("./libone.so", "answer_one")
visit("./libc1.so")
handle = load("./chain/libc1.so")
os.chdir("/")
got(origin(handle)[len(tree) :], call(handle, "answer_c1"))
close(handle)
visit(tree + "/chain/libc1.so", "answer_c1", "count_c1")
visit("./chain/libc1.so")
""",
    ),
    "a relative path": Shape(
        """
for name in ("libone.so", "./libone.so", "chain/libc1.so", "chain/deep/../libc1.so", "../tree/libtwo.so", "./none.so"):
    visit(name, "answer_one", "answer_c1", "answer_two")
visit("./libempty.so")
visit("./libbroken.so")
""",
        before="os.chdir(tree)",
        redirects=False,
    ),
    "a file of length zero": Shape('visit(tree + "/libempty.so")\nvisit(tree + "/libone.so", "answer_one")'),
    "no ELF file": Shape(
        """
for name in ("libtext.so", "libshort.so", "libcut.so", "lib32.so", "libmips.so", "libprogram.so", "libfolder.so"):
    visit(tree + "/" + name)
    got(loaded(tree + "/" + name))
"""
    ),
    "no permission": Shape(
        """
visit(tree + "/libone.so", "answer_one")
visit(tree + "/libtwo.so", "answer_two")
visit(tree + "/paths/librpath.so", "answer_rpath")
visit(tree + "/choice/near/libpick.so", "answer_pick")
visit(tree + "/choice/libnewway.so", "answer_newway")
got(results[1].endswith("Permission denied"))
""",
        before="""
# Root may read everything: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (<linux/capability.h>) modes count for it
# too. man 2 capset; the version is _LINUX_CAPABILITY_VERSION_3.
if os.geteuid() == 0:
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    data[0] &= ~6
    data[1] &= ~6
    assert libc.capset(header, data) == 0
os.chmod(tree + "/libone.so", 0)
os.chmod(tree + "/libtwo.so", 0o444)
os.chmod(tree + "/paths/one/libmid.so", 0o200)
os.chmod(tree + "/choice/near", 0o600)
""",
    ),
}
