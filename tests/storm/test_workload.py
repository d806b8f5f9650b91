"""The generator of import storms: the driver runs the right libraries, the same seed gives the same bytes."""

from __future__ import annotations

import json
import random
import re
import shutil
import sysconfig
from concurrent.futures import Future

import pytest

import workload
from callgraph import Graph
from workload import Sizes

SMALL = Sizes(9, 4, functions=12, arguments=2, depth=3, modules=6, packages=2, uses=2, cross=2, names=5, seed=7)
NO_COMPILER = not any(map(shutil.which, workload.COMPILERS))
needs_compiler = pytest.mark.skipif(NO_COMPILER, reason="no C compiler: apt-get install gcc libc6-dev")
RIGHT = re.compile(r"6 modules, 5 libraries, sum [0-9]+: right\n")


@pytest.fixture(scope="module", params=[True, False], ids=["extension modules", "plain libraries"])
def built(request, tmp_path_factory):
    if NO_COMPILER:
        pytest.skip("no C compiler: apt-get install gcc libc6-dev")
    folder = tmp_path_factory.mktemp("workload") / "tree"
    made = workload.build(SMALL, folder, extensions=request.param)
    return folder, made


def content(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def executed(graph, number, index, known):
    """Calls that one call of a function makes, itself included."""
    if (number, index) not in known:
        function = graph.libraries[number].functions[index]
        known[number, index] = 1 + sum(executed(graph, c.library, c.function, known) for c in function.calls)
    return known[number, index]


def test_the_driver_gets_the_sum_that_was_reckoned_without_a_compiler(built, run_python):
    folder, made = built
    result = run_python([made.driver, "--times"], cwd=folder.parent)
    assert RIGHT.fullmatch(result.stdout)
    assert re.fullmatch(r"import [0-9.]+ s, calls [0-9.]+ s\n", result.stderr)


def test_what_was_built_is_told(built):
    folder, made = built
    files = content(folder)
    assert made.files == len(files)
    assert made.bytes == sum(map(len, files.values()))
    assert made.libraries_bytes == sum(len(data) for name, data in files.items() if name.endswith(".so"))
    assert len([name for name in files if name.endswith(".so")]) == SMALL.libraries
    assert 0 < made.seconds < 120


def test_the_same_seed_gives_the_same_bytes_anywhere(built, tmp_path):
    folder, made = built
    workload.build(SMALL, tmp_path / "again", extensions=made.extensions, jobs=1)
    assert content(tmp_path / "again") == content(folder)


def test_another_seed_gives_other_libraries_which_the_driver_notices(built, tmp_path, run_python):
    folder, made = built
    shutil.copytree(folder, tmp_path / "mixed")
    workload.build(SMALL._replace(seed=8), tmp_path / "other", extensions=made.extensions)
    name = f"{workload.LIBS}/libstorm_3.so"
    assert (tmp_path / "other" / name).read_bytes() != (folder / name).read_bytes()
    # The same functions, one of which returns something else.
    source = tmp_path / "mixed" / "source" / "storm_3.c"
    source.write_text(re.sub(r"return (\d+)u", r"return 1u + \1u", source.read_text()))
    tree = workload._Tree(SMALL, tmp_path / "mixed", made.extensions)
    library = tree.graph.libraries[3]
    done: Future[None] = Future()
    done.set_result(None)
    tree._one(library, workload.compiler(), [done for _ in library.needs])
    ended = run_python([tmp_path / "mixed" / "driver.py"], check=False)
    assert ended.rc == 1
    assert "these are not the libraries that were built" in ended.stderr


@pytest.mark.skipif(shutil.which("readelf") is None, reason="readelf is missing: apt-get install binutils")
def test_libraries_need_those_that_they_call(built, run_command):
    folder, made = built
    needed = {}
    for path in folder.rglob("*.so"):
        said = run_command(["readelf", "-d", path]).stdout
        names = re.findall(r"\(NEEDED\).*\[(.*)\]", said)
        needed[path.name] = [name for name in names if not name.startswith(("libc.", "ld-"))]
    suffix = sysconfig.get_config_var("EXT_SUFFIX") if made.extensions else ".so"
    front = "" if made.extensions else "lib"
    # chains of three utility libraries: 0 1 2, 3
    assert [needed[f"libstorm_{n}.so"] for n in range(4)] == [[], ["libstorm_0.so"], ["libstorm_1.so"], []]
    for number in range(SMALL.utilities, SMALL.libraries):
        names = needed[f"{front}library_{number}{suffix}"]
        utilities = [name for name in names if "storm" in name]
        others = [name for name in names if "storm" not in name]
        assert len(set(utilities)) == SMALL.uses
        assert len(set(others)) == min(SMALL.cross, number - SMALL.utilities)
        assert all(name in needed for name in names)


def test_it_says_the_same_under_collfs_from_copies(built, run_python, tmp_path):
    folder, made = built
    plain = run_python([made.driver])
    report = tmp_path / "report.json"
    options = ["--transport", "local", "--prefix", folder, "--manifest", "none", "--store", tmp_path / "store"]
    (tmp_path / "store").mkdir()
    words = ["-m", "collfs", "run", *options, "--report", report, made.driver]
    ours = run_python(words, env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert ours.stdout == plain.stdout
    counts = json.loads(report.read_text())["processes"][0]["calls"]
    assert sum(outcomes["redirected"] for outcomes in counts.values()) > SMALL.libraries


@pytest.mark.parametrize("name", workload.PRESETS)
def test_a_preset_has_as_many_libraries_as_it_says_and_its_calls_stay_few(name):
    sizes = workload.PRESETS[name]
    assert sizes.libraries == int(name)
    rng = random.Random(sizes.seed)
    graph = Graph(rng, functions=sizes.functions, arguments=0, depth=sizes.depth)
    for number in range(sizes.libraries):
        graph.add(f"l{number}", utility=True, package=0, needs=(number - 1,) if number else ())
    known, total = {}, 0
    for library in graph.libraries:
        total += sum(executed(graph, call.library, call.function, known) for call in library.entries)
    functions = sum(len(library.functions) for library in graph.libraries)
    assert functions <= total <= functions * sizes.libraries * sizes.depth


@needs_compiler
@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (SMALL._replace(functions=0), "--functions 0: must be at least 1"),
        (SMALL._replace(cross=-1), "--cross -1: must be at least 0"),
        (SMALL._replace(utilities=9), "--utilities 9: must be less than all 9 libraries"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(sizes, words, tmp_path):
    with pytest.raises(SystemExit, match=words):
        workload.build(sizes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(SystemExit, match="is not empty: remove it, or give another folder"):
        workload.build(SMALL, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_without_a_compiler_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(SystemExit, match=r"no C compiler: cc, gcc, clang not found.*apt-get install gcc libc6-dev"):
        workload.build(SMALL, tmp_path / "out")
    monkeypatch.setenv("CC", "my-cc -O2")
    with pytest.raises(SystemExit, match=r"no C compiler: my-cc \(from CC\) not found"):
        workload.build(SMALL, tmp_path / "out")


@needs_compiler
def test_what_the_compiler_says_is_passed_on(tmp_path, monkeypatch):
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho it hurts >&2\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setenv("CC", str(failing))
    with pytest.raises(SystemExit, match=r"ended with 3:\nit hurts"):
        workload.build(SMALL, tmp_path / "out")


@needs_compiler
def test_options_on_the_command_line_win_over_the_preset(tmp_path, capsys, run_python):
    numbers = {"preset": 50, "libraries": 3, "utilities": 1, "modules": 2, "packages": 1, "functions": 4}
    words = ["--no-extensions", *(f"--{name}={number}" for name, number in numbers.items())]
    assert workload.main([*words, "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 libraries (2 plain libraries for ctypes), 2 Python modules: ")
    assert "2 modules, 2 libraries" in run_python([tmp_path / "out" / "driver.py"]).stdout
