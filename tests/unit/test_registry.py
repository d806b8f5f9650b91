"""Choosing a transport: what is taken, what it costs, and what is said when it can't be."""

from __future__ import annotations

import sys
import textwrap
from importlib.util import find_spec

import pytest

from collfs.errors import OptionError, TransportNotFound, TransportUnavailable
from collfs.testing import options
from collfs.transport import Transport, registry
from collfs.transport.registry import choose, find, select

LAUNCHER_VARIABLES = (*registry._SIZES, *registry._SIGNS, registry._STEP_SIZE, "COLLFS_ROOT")


class Whole(Transport):
    """All that an author must write, and a diary."""

    name = "whole"

    def __init__(self, opens=None):
        self.opens = opens
        self.diary = []

    def stat(self, path):
        raise FileNotFoundError(2, "", path)

    listdir = read = stat

    def open(self, prefixes):
        self.diary.append(("open", list(prefixes)))
        if isinstance(self.opens, Exception):
            raise self.opens

    def close(self):
        self.diary.append("close")


class Partial(Transport):
    name = "partial"

    def stat(self, path):
        raise FileNotFoundError(2, "", path)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    """These tests may themselves run under a launcher."""
    for name in LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Make an importable module of the given source; returns its name."""
    made = []

    def make(source, name="stranger_mod"):
        (tmp_path / f"{name}.py").write_text("from __future__ import annotations\n" + textwrap.dedent(source))
        made.append(name)
        return name

    monkeypatch.syspath_prepend(str(tmp_path))
    yield make
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Install the metadata of a package that offers transports: ``distribution(name="module:object", ...)``."""

    def install(package="stranger", **points):
        folder = tmp_path / f"{package}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{name} = {value}\n" for name, value in points.items())
        (folder / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{lines}")

    monkeypatch.syspath_prepend(str(tmp_path))
    return install


TRANSPORT_SOURCE = """
    from collfs.transport import Transport

    class Mine(Transport):
        name = "mine"
        def __init__(self, options): self.options = options
        def stat(self, path): raise OSError(2, "", path)
        listdir = read = stat

    def transport(options): return Mine(options)
    ready = Mine(None)
    nothing = 5
    class inner:
        make = Mine
    def broken(options): raise RuntimeError("no such luck")
    def wrong(options): return object()
"""


# -- what is taken


def test_an_object_is_taken_as_it_is():
    mine = Whole()
    assert select(mine, options()) is mine
    assert mine.diary == [], "nobody asked to open it"


def test_our_own_name_gives_our_own_transport():
    assert select("local", options()).name == "local"


@pytest.mark.parametrize("spec", ["stranger_mod:transport", "stranger_mod:Mine", "stranger_mod:inner.make"])
def test_module_and_object_give_what_the_factory_or_class_makes_of_the_options(module, spec):
    module(TRANSPORT_SOURCE)
    given = options(patience=3.0)
    made = select(spec, given)
    assert made.name == "mine"
    assert vars(made) == {"options": given}


def test_module_and_object_may_be_a_finished_transport(module):
    name = module(TRANSPORT_SOURCE)
    assert select(f"{name}:ready", options()) is sys.modules[name].ready


def test_a_strangers_name_is_found_by_its_entry_point(module, distribution):
    distribution(mine="stranger_mod:Mine", bare="stranger_mod")
    module(TRANSPORT_SOURCE)
    assert select("mine", options()).name == "mine"
    assert find("bare") == "stranger_mod:transport"
    assert select("bare", options()).name == "mine"


def test_auto_gives_local_here():
    choice = choose("auto", options())
    assert (choice.asked, choice.taken) == ("auto", "local")
    assert choice.transport.name == "local"
    assert str(choice).startswith("transport 'local' (asked for: 'auto'); local: ")


@pytest.mark.parametrize("variable", LAUNCHER_VARIABLES)
def test_auto_never_fails_however_the_process_was_started(monkeypatch, variable):
    monkeypatch.setenv(variable, "8")
    assert choose("auto", options()).taken == ("zmq" if variable == "COLLFS_ROOT" else "local")


# -- what it costs


def test_our_own_name_reads_no_metadata_and_loads_no_more_than_it_needs(run_python):
    folders = []
    for name in ("collfs.transport.registry", "collfs_local"):
        spec = find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        folders.append(spec.origin[: spec.origin.index(name.replace(".", "/"))])
    code = f"""
        import sys
        sys.path[:0] = {folders!r}
        seen = []
        sys.addaudithook(lambda event, args: seen.append(str(args[0])) if event in ("open", "os.listdir") else None)
        from types import SimpleNamespace
        from collfs.transport.registry import select
        for spec in ("local", "auto", "collfs_local:transport"):
            assert select(spec, SimpleNamespace(cache=None)).name == "local"
        for spec in ("zmq",):
            try:
                select(spec, None)
            except ImportError:
                pass
        print([m for m in sys.modules if m.startswith(("importlib.metadata", "importlib_metadata"))])
        print([m for m in ("typing", "re", "threading", "collections", "functools", "contextlib", "fcntl", "hashlib")
               if m in sys.modules])
        print([s for s in seen if "-info" in s])
    """
    result = run_python(["-I", "-S", "-c", textwrap.dedent(code)])
    metadata, heavy, files = result.stdout.splitlines()
    assert metadata == "[]", "metadata was looked at"
    assert heavy == "[]", "a module was loaded that every rank would pay for"
    assert files == "[]", "a file of a distribution's metadata was opened"


# -- names that don't work


def test_an_unknown_name_lists_those_that_are_known(distribution):
    distribution(mine="stranger_mod:Mine")
    with pytest.raises(TransportNotFound, match=r"'nmie'.*local, mine.*module:object"):
        select("nmie", options())


def test_two_packages_with_the_same_name_are_both_shown(distribution):
    distribution("one", mine="stranger_a:Mine")
    distribution("two", mine="stranger_b:Mine")
    with pytest.raises(OptionError, match=r"stranger_a:Mine.*stranger_b:Mine"):
        select("mine", options())


def test_a_package_that_is_seen_twice_is_no_conflict(distribution):
    distribution("one", mine="stranger_a:Mine")
    distribution("two", mine="stranger_a:Mine")
    assert find("mine") == "stranger_a:Mine"


@pytest.fixture
def later(monkeypatch):
    """The name of a transport that another version of collfs has."""
    monkeypatch.setattr(registry, "ROWS", (*registry.ROWS, ("later", None, "")))
    return "later"


def test_a_name_of_our_own_that_this_version_lacks_is_unavailable_and_not_unknown(later):
    with pytest.raises(TransportUnavailable, match=r"'later' is not part of this version.*local"):
        select(later, options())


def test_a_missing_library_says_what_to_install(module, monkeypatch):
    module("import a_library_that_is_not_there\ndef transport(options): ...", "own_mod")
    monkeypatch.setattr(registry, "ROWS", (("own", "own_mod:transport", 'pip install "collfs[own]"'),))
    with pytest.raises(
        TransportUnavailable, match=r'a_library_that_is_not_there.*pip install "collfs\[own\]"'
    ) as caught:
        select("own", options())
    assert isinstance(caught.value.__cause__, ImportError)
    assert caught.value.name == "a_library_that_is_not_there"


def test_a_library_that_is_missing_only_when_the_transport_is_made_says_the_same(module, monkeypatch):
    module("def transport(options):\n    import a_library_that_is_not_there", "own_mod")
    monkeypatch.setattr(registry, "ROWS", (("own", "own_mod:transport", 'pip install "collfs[own]"'),))
    with pytest.raises(TransportUnavailable, match=r'pip install "collfs\[own\]"'):
        select("own", options())


def test_a_strangers_missing_library_is_named(module):
    module("import a_library_that_is_not_there")
    with pytest.raises(TransportUnavailable, match="Install what it needs: a_library_that_is_not_there"):
        select("stranger_mod:x", options())


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("no_such_module:x", "there is no module 'no_such_module'"),
        ("no_such_package.sub:x", "there is no module 'no_such_package'"),
        ("stranger_mod:missing", "module stranger_mod has no 'missing'"),
        ("stranger_mod:inner.missing", "has no 'inner.missing'"),
    ],
)
def test_a_module_or_object_that_is_not_there_is_not_found(module, spec, says):
    module(TRANSPORT_SOURCE)
    with pytest.raises(TransportNotFound, match=says):
        select(spec, options())


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("stranger_mod:nothing", "is 5; it has to be a callable"),
        ("stranger_mod:broken", "raised RuntimeError: no such luck"),
        ("stranger_mod:wrong", "gave an object of <class 'object'>"),
    ],
)
def test_an_object_that_makes_no_transport_is_unavailable_and_says_why(module, spec, says):
    module(TRANSPORT_SOURCE)
    with pytest.raises(TransportUnavailable, match=says):
        select(spec, options())


def test_a_module_that_fails_to_import_is_unavailable(module):
    module("1 / 0")
    with pytest.raises(TransportUnavailable, match=r"importing stranger_mod raised ZeroDivisionError"):
        select("stranger_mod:x", options())


def test_a_transport_without_the_three_methods_is_refused_with_their_names():
    with pytest.raises(TransportUnavailable, match="class Partial has no listdir, read of its own"):
        select(Partial(), options())


@pytest.mark.parametrize("spec", ["", ":x", "x:", 5, None, b"local", object()])
def test_what_is_no_form_of_a_transport_is_an_error_that_lists_the_forms(spec):
    with pytest.raises(OptionError, match=r'"auto".*"module:object"'):
        select(spec, options())


def test_a_class_in_place_of_an_object_is_explained():
    with pytest.raises(OptionError, match="that is a class: give an object of it"):
        select(Whole, options())  # type: ignore[arg-type]


# -- the ladder


def test_the_first_that_works_is_taken_and_the_reasons_are_kept(later):
    last = Whole()
    choice = choose(later, options(), fallback=("no_such_module:x", last, "local"))
    assert choice.transport is last
    assert (choice.asked, choice.taken) == ("later", "whole")
    assert [name for name, _ in choice.reasons] == ["later", "no_such_module:x"]
    assert "not part of this version" in str(choice)


def test_if_none_works_all_are_named(distribution, later):
    with pytest.raises(TransportUnavailable) as caught:
        select("no_such_module:x", options(), fallback=(later, "unheard-of"))
    assert "none of the 3" in str(caught.value)
    for name in ("no_such_module:x: ", "later: ", "unheard-of: "):
        assert f"\n  {name}" in str(caught.value)


def test_one_that_cannot_be_opened_is_closed_and_passed_over():
    first, second, third = Whole(TransportUnavailable("no root")), Whole(RuntimeError("bug")), Whole()
    choice = choose(first, options(), fallback=[second, third], prefixes=["/a"])
    assert choice.transport is third
    assert first.diary == second.diary == [("open", ["/a"]), "close"]
    assert third.diary == [("open", ["/a"])]
    assert choice.reasons[0][1] == "no root"
    assert "RuntimeError: bug" in choice.reasons[1][1]


def test_a_bad_option_ends_the_ladder(module):
    module(
        """
        from collfs.errors import OptionError
        def transport(options): raise OptionError("cache='x': no")
        """
    )
    with pytest.raises(OptionError, match="cache='x'"):
        select("stranger_mod:transport", options(), fallback=("local",))


@pytest.mark.parametrize("fallback", ["local", None, 5, {"local"}])
def test_a_fallback_that_has_no_order_is_an_error(fallback):
    with pytest.raises(OptionError, match="fallback="):
        select("local", options(), fallback=fallback)


def test_a_bad_rung_is_an_error_even_if_its_turn_does_not_come():
    with pytest.raises(OptionError, match="transport=5"):
        select("local", options(), fallback=(5,))  # type: ignore[arg-type]
