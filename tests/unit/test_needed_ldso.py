"""The closure of needed libraries, compared with what ld.so really opens and tries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from collfs.reader import Reader
from collfs.record import CONTENT
from collfs.triggers.needed import Closure, expand, normalise

MACHINE = os.uname().machine


class Workshop:
    """Builds small libraries and compares a walk over them with a real dlopen."""

    def __init__(self, root, compiler):
        self.root = root
        self.compiler = compiler

    def build(self, name, needs=(), *, rpath=None, runpath=None, soname=None):
        """*needs*: paths of libraries; each is recorded by its soname, which is its file name if not given."""
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        args = [self.compiler, "-shared", "-fPIC", "-nostdlib", "-o", path, "-x", "c", os.devnull, "-x", "none"]
        args += ["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", f"-Wl,-soname,{soname or os.path.basename(name)}"]
        if rpath is not None:
            args += ["-Wl,--disable-new-dtags", f"-Wl,-rpath,{rpath}"]
        if runpath is not None:
            args += ["-Wl,--enable-new-dtags", f"-Wl,-rpath,{runpath}"]
        args += [os.path.join(self.root, need) for need in needs]
        subprocess.run(args, check=True, timeout=60, capture_output=True)
        return path

    def walk(self, path, **kwargs):
        """All wants, each fetched before the next, from a node that knows nothing at first."""
        known = {}
        reader = Reader()

        def content(name):
            return known[name].content if name in known else None

        def names(name):
            listed = known[name].names if name in known else None
            return None if listed is None else {entry.name for entry in listed}

        def managed(name):
            return (name + "/").startswith(self.root + "/")

        closure = Closure(path, content, names, **kwargs)
        wants = []
        for want in closure:
            assert want not in wants, "wanted twice"
            assert want.path == normalise(want.path)
            if managed(want.path):
                wants.append(want)
                record = reader.answer(want)
                if want.aspect == CONTENT or want.path not in known:
                    known[want.path] = record
        libraries = [name for name in closure.libraries if managed(name) and content(normalise(name)) is not None]
        assert list(Closure(path, content, names, **kwargs)) == [
            want for want in Closure(path, content, names, **kwargs) if not managed(want.path) or known[want.path].errno
        ], "a walk over what is known wants only what can't be had"
        return libraries, known

    def load(self, path, *, library_path=None, before=()):
        """What ld.so opened and tried below our root, in its spelling, and the error if there was one."""
        log = os.path.join(self.root, "ld-debug")
        code = (
            "import ctypes, sys\n"
            "for path in sys.argv[1:-1]: ctypes.CDLL(path)\n"
            "try: ctypes.CDLL(sys.argv[-1])\n"
            "except OSError as exc: print(exc)"
        )
        env = {k: v for k, v in os.environ.items() if not k.startswith("LD_")}
        env.update(LD_DEBUG="libs,files", LD_DEBUG_OUTPUT=log)
        if library_path is not None:
            env["LD_LIBRARY_PATH"] = library_path
        child = subprocess.Popen(
            [sys.executable, "-c", code, *before, path], env=env, stdout=subprocess.PIPE, encoding="utf-8"
        )
        out, _ = child.communicate(timeout=60)
        assert child.returncode == 0
        with open(f"{log}.{child.pid}", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read().partition(f"file={path} [")[2]  # not what the interpreter itself needed
        opened, tried = (
            [name for name in re.findall(pattern, text) if name.startswith(self.root + "/")]
            for pattern in (r"calling init: (.*)", r"trying file=(.*)")
        )
        return [name for name in opened if name not in before], tried, out

    def compare(self, path, *, library_path=None, before=(), exact=True, **kwargs):
        """Every library that ld.so opened is there under its very name; every try is one whose outcome is known."""
        libraries, known = self.walk(path, library_path=library_path or "", **kwargs)
        opened, tried, error = self.load(path, library_path=library_path, before=before)
        assert set(opened) <= set(libraries)
        if exact:
            assert sorted(opened) == sorted(libraries)
        assert [name for name in tried if not self.is_answered(normalise(name), known)] == []
        return libraries, error

    def is_answered(self, path, known):
        """Its content is known, or the nearest ancestor that is known says that it isn't there."""
        if path in known:
            return known[path].content is not None
        while path != self.root:
            path, _, name = path.rpartition("/")
            if path in known:
                record = known[path]
                return bool(record.errno) or name not in [entry.name for entry in record.names or ()]
        return False


@pytest.fixture
def workshop(tmp_path):
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler to build libraries")
    if not os.confstr("CS_GNU_LIBC_VERSION"):
        pytest.skip("the rules are those of glibc")
    return Workshop(os.path.realpath(tmp_path), compiler)


def below(workshop, names):
    return [name[len(workshop.root) + 1 :] for name in names]


def test_runpath_with_origin_leads_along_a_chain_in_the_literal_spelling(workshop):
    workshop.build("more/libc1.so")
    workshop.build("libs/libb1.so", ["more/libc1.so"], runpath="$ORIGIN/.././more//")
    path = workshop.build("pkg/sub/main.so", ["libs/libb1.so"], runpath="$ORIGIN/../../libs")
    libraries, error = workshop.compare(path)
    assert error == ""
    assert below(workshop, libraries) == [
        "pkg/sub/main.so",
        "pkg/sub/../../libs/libb1.so",
        "pkg/sub/../../libs/.././more/libc1.so",
    ]


def test_the_name_that_the_library_is_loaded_by_makes_its_origin(workshop):
    workshop.build("libs/liba.so")
    workshop.build("pkg/main.so", ["libs/liba.so"], runpath="$ORIGIN/../libs")
    libraries, error = workshop.compare(os.path.join(workshop.root, "pkg/../pkg/main.so"))
    assert (error, below(workshop, libraries)[1]) == ("", "pkg/../pkg/../libs/liba.so")


def test_rpath_is_inherited_by_what_is_loaded_and_searched_nearest_first(workshop):
    workshop.build("far/libdeep.so")
    workshop.build("near/libboth.so")
    workshop.build("far/libboth.so")
    workshop.build("near/libmid.so", ["far/libdeep.so", "far/libboth.so"], rpath="$ORIGIN")
    path = workshop.build("main.so", ["near/libmid.so"], rpath="$ORIGIN/missing:$ORIGIN/far:$ORIGIN/near")
    libraries, error = workshop.compare(path)
    assert error == ""
    assert below(workshop, libraries) == ["main.so", "near/libmid.so", "far/libdeep.so", "near/libboth.so"]


def test_runpath_is_not_inherited(workshop):
    workshop.build("libs/libdeep.so")
    workshop.build("libs/libmid.so", ["libs/libdeep.so"])
    path = workshop.build("main.so", ["libs/libmid.so"], runpath="$ORIGIN/libs")
    libraries, error = workshop.compare(path, exact=False)
    assert "libdeep.so: cannot open shared object file" in error
    assert below(workshop, libraries) == ["main.so", "libs/libmid.so"]


def test_an_object_with_runpath_passes_no_rpath_on_but_those_above_it_do(workshop):
    workshop.build("top/libdeep.so")
    workshop.build("top/libmid2.so", ["top/libdeep.so"])
    workshop.build("top/libmid1.so", ["top/libmid2.so"], runpath="$ORIGIN")
    path = workshop.build("main.so", ["top/libmid1.so"], rpath="$ORIGIN/top")
    libraries, error = workshop.compare(path)
    assert (error, len(libraries)) == ("", 4)


def test_an_object_with_runpath_does_not_use_the_rpath_above_it(workshop):
    workshop.build("top/libdeep.so")
    workshop.build("top/libmid.so", ["top/libdeep.so"], runpath="$ORIGIN/nothing")
    path = workshop.build("main.so", ["top/libmid.so"], rpath="$ORIGIN/top")
    libraries, error = workshop.compare(path, exact=False)
    assert "libdeep.so: cannot open" in error
    assert below(workshop, libraries) == ["main.so", "top/libmid.so"]


@pytest.mark.parametrize(("kind", "winner"), [("rpath", "own/liba.so"), ("runpath", "env2/liba.so")])
def test_the_library_path_comes_after_rpath_and_before_runpath(workshop, kind, winner):
    workshop.build("own/liba.so")
    workshop.build("env2/liba.so")
    path = workshop.build("main.so", ["own/liba.so"], **{kind: "$ORIGIN/own"})
    library_path = f"{workshop.root}/env1;{workshop.root}/env2/:{workshop.root}/own"
    libraries, error = workshop.compare(path, library_path=library_path)
    assert (error, below(workshop, libraries)) == ("", ["main.so", winner])


def test_a_needed_name_with_a_slash_is_a_path(workshop):
    workshop.build("sub/libz.so", soname="$ORIGIN/sub/libz.so")
    workshop.build("sub/liby.so", soname=f"{workshop.root}/sub//liby.so")
    path = workshop.build("main.so", ["sub/libz.so", "sub/liby.so"])
    libraries, error = workshop.compare(path)
    assert (error, below(workshop, libraries)) == ("", ["main.so", "sub/libz.so", "sub//liby.so"])


@pytest.mark.parametrize("token", ["$LIB", "${PLATFORM}"])
def test_what_only_ld_so_knows_is_wanted_in_all_its_forms(workshop, token):
    for text in expand(token, "/"):
        workshop.build(f"{text}/liba.so")
    path = workshop.build("main.so", [expand(token, "/")[0] + "/liba.so"], runpath="$ORIGIN/" + token)
    libraries, error = workshop.compare(path, exact=False)
    assert (error, len(libraries)) == ("", 1 + len(expand(token, "/")))


@pytest.mark.skipif(MACHINE != "x86_64", reason="glibc has hwcaps directories for x86-64 only")
def test_hwcaps_directories_are_looked_into_where_there_are_any(workshop):
    workshop.build("libs/liba.so")
    for level in (2, 4):
        workshop.build(f"libs/glibc-hwcaps/x86-64-v{level}/liba.so")
    path = workshop.build("main.so", ["libs/liba.so"], runpath="$ORIGIN/libs")
    libraries, error = workshop.compare(path, exact=False)
    assert (error, len(libraries)) == ("", 4)


def test_a_link_is_wanted_by_the_name_that_is_needed(workshop):
    workshop.build("libs/libfoo.so.1.2", soname="libfoo.so.1")
    os.symlink("libfoo.so.1.2", os.path.join(workshop.root, "libs/libfoo.so.1"))
    path = workshop.build("main.so", ["libs/libfoo.so.1.2"], runpath="$ORIGIN/libs")
    libraries, error = workshop.compare(path)
    assert (error, below(workshop, libraries)) == ("", ["main.so", "libs/libfoo.so.1"])


def test_libraries_that_need_each_other_are_each_wanted_once(workshop):
    workshop.build("liba.so")
    workshop.build("libb.so", ["liba.so"], runpath="$ORIGIN")
    workshop.build("liba.so", ["libb.so"], runpath="$ORIGIN")
    path = workshop.build("main.so", ["liba.so", "libb.so"], runpath="$ORIGIN")
    libraries, error = workshop.compare(path)
    assert (error, below(workshop, libraries)) == ("", ["main.so", "liba.so", "libb.so"])


def test_a_name_that_one_library_has_brought_is_not_looked_for_again_for_another(workshop):
    for name in ("one/libc1.so", "two/libc1.so"):
        workshop.build(name)
    workshop.build("one/liba.so", ["one/libc1.so"], runpath="$ORIGIN")
    workshop.build("two/libb.so", ["two/libc1.so"], runpath="$ORIGIN")
    path = workshop.build("main.so", ["one/liba.so", "two/libb.so"], runpath="$ORIGIN/one:$ORIGIN/two")
    libraries, error = workshop.compare(path)
    assert (error, below(workshop, libraries)) == ("", ["main.so", "one/liba.so", "two/libb.so", "one/libc1.so"])


def test_a_library_found_under_another_name_counts_by_its_soname(workshop):
    workshop.build("odd/file.so", soname="libx.so.1")
    workshop.build("libs/libx.so.1")
    workshop.build("libs/liba.so", ["libs/libx.so.1"], runpath="$ORIGIN")
    # Record the path of the odd one: build against a stand-in that has it as its soname.
    workshop.build("stand-in.so", soname="$ORIGIN/odd/file.so")
    path = workshop.build("main.so", ["libs/liba.so", "stand-in.so"], runpath="$ORIGIN/libs")
    libraries, error = workshop.compare(path)
    assert (error, below(workshop, libraries)) == ("", ["main.so", "libs/liba.so", "odd/file.so"])


def test_what_is_loaded_already_is_not_looked_for(workshop):
    other = workshop.build("elsewhere/liba.so")
    workshop.build("libs/liba.so")
    path = workshop.build("main.so", ["libs/liba.so"], runpath="$ORIGIN/libs")
    libraries, error = workshop.compare(path, before=[other], loaded={"liba.so"})
    assert (error, below(workshop, libraries)) == ("", ["main.so"])


def test_the_rpath_of_the_caller_and_the_program_is_searched_after_the_own(workshop):
    workshop.build("libs/liba.so")
    path = workshop.build("main.so", ["libs/liba.so"])
    libraries, _ = workshop.walk(path, outer_rpath=[f"{workshop.root}/libs"])
    assert below(workshop, libraries) == ["main.so", "libs/liba.so"]
    path = workshop.build("main.so", ["libs/liba.so"], runpath="/nowhere")
    libraries, _ = workshop.walk(path, outer_rpath=[f"{workshop.root}/libs"])
    assert below(workshop, libraries) == ["main.so"]
