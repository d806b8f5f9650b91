"""Generate and build a program that loads many libraries: the import storm without anybody's real packages.

    python workload.py --preset 200 --out DIR        # then: python DIR/driver.py

In the manner of LLNL's Pynamic (https://github.com/LLNL/pynamic; of its 900 libraries, 350 are utility libraries):
extension modules with many small functions that call one another, functions of utility libraries, and of other
extension modules; Python modules in packages around them; and a driver that imports all, calls the entry functions, and
knows which sum must come out. Without Python.h they are plain libraries, loaded by ctypes::

    DIR/driver.py  source/*.c  storm_libs/libstorm_N.so  storm_package_N/{__init__,module_N}.py  .../library_N.*.so

Rules of the file: the same sizes and seed give the same bytes, on the same machine. At most two compilers at a time.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import random
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from callgraph import MASK, Graph, Library
from programtext import DRIVER, EXTENSION, WRAPPER, module

LIBS, MADE = "storm_libs", 1_000_000_000  # folder of the utility libraries; time of change of all files, seconds
COMPILERS = ("cc", "gcc", "clang")


class Sizes(NamedTuple):
    """What to generate. Averages are of a uniform spread from half to one and a half times the number."""

    libraries: int = 200  # all of them
    utilities: int = 80  # how many of these are utility libraries
    functions: int = 100  # of a library, on average
    arguments: int = 3  # of a function, on average
    depth: int = 10  # functions of a library that call one another in a chain; utility libraries that need one another
    modules: int = 400  # Python modules
    packages: int = 20  # Python packages, which both kinds of modules are spread over
    uses: int = 3  # utility libraries that an extension module is linked with
    cross: int = 1  # other extension modules that one is linked with
    names: int = 30  # letters added to each function's name; the dynamic linker compares them
    seed: int = 1


PRESETS = {
    "50": Sizes(50, 20, modules=100, packages=5),
    "200": Sizes(),
    "500": Sizes(500, 200, modules=1000, packages=50),
}
LEAST = Sizes(1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0)


class Built(NamedTuple):
    """What was built, and what it took."""

    driver: Path
    files: int
    libraries_bytes: int
    bytes: int
    seconds: float
    extensions: bool  # extension modules of Python; False: plain libraries for ctypes


def compiler() -> list[str]:
    """The C compiler's words: ``$CC``, or the first that there is.

    :raises SystemExit: there is none; the message says what to install
    """
    given = shlex.split(os.environ.get("CC", ""))
    for words in [given] if given else [[name] for name in COMPILERS]:
        if shutil.which(words[0]):
            return words
    raise SystemExit(
        f"no C compiler: {given[0] + ' (from CC)' if given else ', '.join(COMPILERS)} not found on PATH. Install one "
        "(apt-get install gcc libc6-dev; dnf install gcc), or name yours in the variable CC"
    )


def build(sizes: Sizes, out: Path, *, jobs: int = 2, extensions: bool | None = None) -> Built:
    """Generate, compile and link everything into *out*, which is empty or doesn't exist.

    :param jobs: compilers that run at a time
    :param extensions: extension modules (True) or plain libraries (False); None: the former if there is a Python.h
    :raises SystemExit: bad sizes, no compiler, or it failed; the message says what it said
    """
    begun = time.monotonic()
    for name, number, least in zip(Sizes._fields, sizes, LEAST):
        if number < least:
            raise SystemExit(f"--{name} {number}: must be at least {least}")
    if sizes.utilities >= sizes.libraries:
        raise SystemExit(f"--utilities {sizes.utilities}: must be less than all {sizes.libraries} libraries")
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"{out} is not empty: remove it, or give another folder")
    words, include = compiler(), sysconfig.get_path("include")
    if extensions is None:
        extensions = os.path.exists(os.path.join(include, "Python.h"))
    tree = _Tree(sizes, out.absolute(), extensions)
    tree.write()
    tree.compile([*words, f"-I{include}"], jobs)
    tree.finish()
    files = [p for p in out.rglob("*") if p.is_file()]
    libraries = sum(p.stat().st_size for p in files if p.suffix == ".so")
    total = sum(p.stat().st_size for p in files)
    return Built(out / "driver.py", len(files), libraries, total, time.monotonic() - begun, extensions)


class _Tree:
    def __init__(self, sizes: Sizes, out: Path, extensions: bool) -> None:
        self.sizes, self.out, self.extensions = sizes, out, extensions
        self.random = rng = random.Random(sizes.seed)
        self.graph = Graph(rng, functions=sizes.functions, arguments=sizes.arguments, depth=sizes.depth)
        self.suffix = sysconfig.get_config_var("EXT_SUFFIX") if extensions else ".so"
        for number in range(sizes.libraries):
            if number < sizes.utilities:
                needs = (number - 1,) if number % sizes.depth else ()
                self.graph.add(f"storm_{number}", utility=True, package=0, needs=needs)
            else:
                first = sizes.utilities
                used = rng.sample(range(first), min(sizes.uses, first))
                used += rng.sample(range(first, number), min(sizes.cross, number - first))
                package = rng.randrange(sizes.packages)
                self.graph.add(f"library_{number}", utility=False, package=package, needs=tuple(used))
        self.source = out / "source"

    def folder(self, library: Library) -> str:
        """Where it lies, from the top of the tree."""
        return LIBS if library.utility else f"storm_package_{library.package}"

    def file(self, library: Library) -> str:
        """What its file is called."""
        plain = library.utility or not self.extensions
        return f"lib{library.name}.so" if plain else f"{library.name}{self.suffix}"

    def write(self) -> None:
        """All but the libraries."""
        self.source.mkdir(parents=True)
        (self.out / LIBS).mkdir()
        names, total = [], 0
        for number in range(self.sizes.packages):
            package = self.out / f"storm_package_{number}"
            package.mkdir()
            (package / "__init__.py").write_text('"""A package."""\n')
        values: list[tuple[str, int]] = []
        for number in range(self.sizes.modules):
            package_name = f"storm_package_{self.random.randrange(self.sizes.packages)}"
            used, used_value = self.random.choice(values) if values else ("", 0)
            constant = self.random.randrange(MASK)
            name, value = f"{package_name}.module_{number}", (constant + used_value) & MASK
            values.append((name, value))
            where = self.out / (name.replace(".", "/") + ".py")
            where.write_text(module(used, constant, self.sizes.functions // 5))
        for number, library in enumerate(self.graph.libraries):
            text = self.graph.source(number, self.sizes.names)
            if not library.utility:
                names.append(f"{self.folder(library)}.{library.name}")
                total += self.graph.entry_returns(library)
                if self.extensions:
                    text += EXTENSION.replace("NAME", library.name)
                else:
                    where = self.out / self.folder(library) / f"{library.name}.py"
                    where.write_text(WRAPPER.replace("NAME", library.name))
            (self.source / f"{library.name}.c").write_text(text)
        total += sum(value for _, value in values)
        text = DRIVER.replace("MODULES", repr([name for name, _ in values])).replace("LIBRARIES", repr(names))
        (self.out / "driver.py").write_text(text.replace("EXPECTED", str(total & MASK)))

    def compile(self, words: list[str], jobs: int) -> None:
        """A library is linked as soon as those are that it needs; these come before it in the queue."""
        done: list[Future[None]] = []
        with ThreadPoolExecutor(jobs) as pool:
            for library in self.graph.libraries:
                done.append(pool.submit(self._one, library, words, [done[n] for n in library.needs]))
            try:
                for one in done:
                    one.result()
            except BaseException:
                for one in done:
                    one.cancel()
                raise

    def _one(self, library: Library, words: list[str], needed: list[Future[None]]) -> None:
        source, made = f"{library.name}.c", f"{library.name}.o"
        self._run([*words, "-O0", "-fPIC", "-c", source, "-o", made])
        for one in needed:
            one.result()
        others = [self.graph.libraries[n] for n in library.needs]
        paths = [f"../{self.folder(o)}/{self.file(o)}" for o in others]
        run = sorted({f"-Wl,-rpath,$ORIGIN/../{self.folder(o)}" for o in others})
        soname = f"-Wl,-soname,{self.file(library)}"
        flags = ["-shared", "-Wl,--no-as-needed", "-Wl,--enable-new-dtags", "-Wl,--build-id=none", soname, *run]
        self._run([*words, *flags, "-o", f"../{self.folder(library)}/{self.file(library)}", made, *paths])
        (self.source / made).unlink()

    def _run(self, words: list[str]) -> None:
        ended = subprocess.run(words, cwd=self.source, capture_output=True, text=True, timeout=300, check=False)
        if ended.returncode:
            raise SystemExit(f"{shlex.join(words)}\nended with {ended.returncode}:\n{ended.stderr[-2000:]}")

    def finish(self) -> None:
        """Times of change that are always the same, since a .pyc holds its source's, and then the .pyc files."""
        for path in sorted(self.out.rglob("*"), reverse=True):
            os.utime(path, (MADE, MADE))
        mode = py_compile.PycInvalidationMode.TIMESTAMP
        compileall.compile_dir(self.out, quiet=1, stripdir=str(self.out), invalidation_mode=mode)


def main(arguments: list[str] | None = None) -> int:
    """The command line: an option for each number of :class:`Sizes`."""
    parser = argparse.ArgumentParser(description="Generate and build a program that loads many libraries.")
    parser.add_argument("--preset", choices=PRESETS, default="200", help="sizes to start from (default: 200)")
    parser.add_argument("--out", type=Path, required=True, help="folder to make; must not exist or be empty")
    parser.add_argument("--jobs", type=int, default=2, help="compilers at a time (default: 2)")
    parser.add_argument("--no-extensions", action="store_true", help="plain libraries for ctypes, as without Python.h")
    for name in Sizes._fields:
        parser.add_argument(f"--{name}", type=int, metavar="N")
    given = vars(parser.parse_args(arguments))
    sizes = PRESETS[given["preset"]]._replace(**{n: given[n] for n in Sizes._fields if given[n] is not None})
    built = build(sizes, given["out"], jobs=max(1, given["jobs"]), extensions=False if given["no_extensions"] else None)
    kind = "extension modules" if built.extensions else "plain libraries for ctypes"
    print(
        f"{sizes.libraries} libraries ({sizes.libraries - sizes.utilities} {kind}), {sizes.modules} Python modules: "
        f"{built.files} files, {built.bytes / 1e6:.1f} MB, {built.libraries_bytes / 1e6:.1f} of it libraries, "
        f"in {built.seconds:.1f} s"
    )
    print(f"python {built.driver}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
