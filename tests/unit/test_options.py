"""The table of options: every way to give one leads to the same value, and every mistake is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collfs.cli.help import markdown, run_usage
from collfs.cli.run import parse_flags
from collfs.errors import CollfsError, OptionError
from collfs.interpose.api import LibcCollfsApi
from collfs.options import ROWS, Options
from collfs.transport import Transport

GIVABLE = [row for row in ROWS if row.flag]

# For each option that has a flag: a text, and the value that it stands for.
TEXTS = {
    "transport": ("mpi", "mpi"),
    "fallback": ("zmq,local", ("zmq", "local")),
    "bootstrap": ("zmq", "zmq"),
    "prefixes": ("/opt/env", ("/opt/env",)),
    "exclude": ("*/data/*", ("*/data/*",)),
    "manifest": ("/tmp/m", "/tmp/m"),
    "store": ("/dev/shm/x", "/dev/shm/x"),
    "max_store_bytes": ("2G", 2 * 2**30),
    "max_file_bytes": ("512M", 512 * 2**20),
    "patience": ("2.5", 2.5),
    "job": ("a.b_c-1:2", "a.b_c-1:2"),
    "cache": ("/scratch/c", "/scratch/c"),
    "cache_max_bytes": ("10G", 10 * 2**30),
    "report": ("/tmp/r.json", "/tmp/r.json"),
    "quiet": ("yes", True),
}
# For each option: values that are refused, from Python.
REFUSED: dict[str, list[object]] = {
    "transport": ["", "a b", None, 3, Transport],
    "fallback": ["local", None, [""], 3],
    "bootstrap": ["", "mpi", "ZMQ", True, None, 1],
    "prefixes": ["/opt", b"/opt", Path("/opt"), [""], ["a\0b"], [3], 3],
    "exclude": ["*/data", ["data/*"], [""], None, [3]],
    "manifest": ["", None, 3, "a\0b"],
    "store": ["", 3, "a\0b"],
    "max_store_bytes": [-1, 1.5, True, "", "x", "1.5", "-1", "1e3", "1..5K", "1.K", "K", "1 2", "2**63", 2**63, "9E9"],
    "max_file_bytes": [-1, False, "1Q", "²"],
    "patience": [0, -1, float("nan"), float("inf"), "x", "", True, None, "0", 10**400],
    "job": ["", "a/b", "a b", "ä", "x" * 129, 3, "a\n"],
    "cache": [""],
    "cache_max_bytes": [-1, "1Q"],
    "report": ["", 1],
    "quiet": ["", "maybe", 1, None],
    "api": [3, "x"],
    "comm": [3, "MPI_COMM_WORLD"],
    "root": [-1, "0", True, 1.5, None],
    "program": [3],
}


class Mine(Transport):
    name = "mine"


def test_attributes_and_rows_are_the_same():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert sorted(names) == sorted(Options.__slots__) == sorted(Options.__annotations__)
    assert set(TEXTS) == {row.name for row in GIVABLE}
    assert set(REFUSED) == set(names)


@pytest.mark.parametrize("transport", ["local", "zmq", "collfs_mpi:transport"])
def test_a_bootstrap_needs_transport_mpi_or_auto(transport):
    with pytest.raises(OptionError, match='Give transport="mpi" or "auto", or bootstrap="none"'):
        Options(transport=transport, bootstrap="zmq")
    assert Options(transport=transport, bootstrap="none").bootstrap == "none"
    assert Options(transport="mpi", bootstrap="zmq").bootstrap == Options(bootstrap="zmq").bootstrap == "zmq"


def test_flags_and_variables_follow_from_the_name():
    for row in GIVABLE:
        assert row.variable == "COLLFS_" + row.name.upper()
        assert row.flag == ("--prefix" if row.name == "prefixes" else "--" + row.name.replace("_", "-"))
        assert bool(row.metavar) != row.kind.by_itself
    assert {row.name for row in ROWS if not row.flag} == {"api", "comm", "program", "root"}
    assert [row.name for row in ROWS if not row.flag and row.variable] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_default_is_allowed_and_kept(row):
    assert getattr(Options(), row.name) == row.default
    assert getattr(Options(**{row.name: row.default}), row.name) == row.default


@pytest.mark.parametrize("row", GIVABLE, ids=lambda row: row.name)
def test_keyword_flag_and_variable_mean_the_same(row):
    text, value = TEXTS[row.name]
    by_variable = Options.from_call({}, {row.variable: text})
    assert getattr(by_variable, row.name) == value
    for words in ([row.flag] if row.kind.by_itself else [row.flag, text], [f"{row.flag}={text}"]):
        keywords, rest = parse_flags([*words, "job.py", row.flag])
        assert keywords == {row.name: value}
        assert rest == ["job.py", row.flag]
        assert getattr(Options.from_call(keywords, {}), row.name) == value
    assert getattr(Options(**{row.name: value}), row.name) == value


@pytest.mark.parametrize("row", GIVABLE, ids=lambda row: row.name)
def test_keyword_wins_over_variable_and_variable_over_default(row):
    text, value = TEXTS[row.name]
    environ = {row.variable: text}
    assert value != row.default
    assert getattr(Options.from_call({row.name: row.default}, environ), row.name) == row.default
    assert getattr(Options.from_call({}, environ), row.name) == value
    assert getattr(Options.from_call({}, {row.variable: ""}), row.name) == row.default


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_a_bad_keyword_is_named_with_its_value_and_what_is_allowed(name, value):
    row = next(row for row in ROWS if row.name == name)
    with pytest.raises(OptionError) as caught:
        Options(**{name: value})
    message = str(caught.value)
    assert f"{name}={value!r}" in message
    assert row.kind.allowed in message
    assert isinstance(caught.value, (CollfsError, ValueError))


@pytest.mark.parametrize(("name", "text"), [("patience", "soon"), ("max_store_bytes", "lots"), ("quiet", "maybe")])
def test_a_bad_variable_or_flag_is_named_as_it_was_given(name, text):
    row = next(row for row in ROWS if row.name == name)
    with pytest.raises(OptionError, match=re.escape(f"{row.variable}={text!r}")):
        Options.from_call({}, {row.variable: text})
    with pytest.raises(OptionError, match=re.escape(f"{row.flag} {text!r}")):
        parse_flags([f"{row.flag}={text}"])


def test_a_bad_variable_does_not_matter_where_a_keyword_wins():
    assert Options.from_call({"patience": 3}, {"COLLFS_PATIENCE": "soon"}).patience == 3.0


def test_unknown_names_are_refused_with_the_nearest_ones():
    with pytest.raises(OptionError, match=r"'transprot' does not exist\. Did you mean transport\?"):
        Options(transprot="local")
    with pytest.raises(OptionError, match=r"--prefixes does not exist\. Did you mean --prefix\?"):
        parse_flags(["--prefixes", "/opt", "job.py"])
    with pytest.raises(OptionError, match=r"There are: transport, .*program"):
        Options.from_call({"qqq": 1}, {})
    with pytest.raises(AttributeError):
        Options().transprot = "local"  # type: ignore[attr-defined]


def test_variables_of_others_are_left_alone():
    assert Options.from_call({}, {"COLLFS_ROOT": "tcp://x", "COLLFS_API": "1", "COLLFS_PROGRAM": "x"}).program is None


def test_flags_end_at_the_program_or_at_two_dashes():
    assert parse_flags(["--quiet", "--", "-m", "mod", "--store"]) == ({"quiet": True}, ["-m", "mod", "--store"])
    assert parse_flags(["-c", "1", "--quiet"]) == ({}, ["-c", "1", "--quiet"])
    assert parse_flags(["--quiet=off", "--help"]) == ({"quiet": False}, ["--help"])
    assert parse_flags(["--quiet", "yes"]) == ({"quiet": True}, ["yes"])
    assert parse_flags([]) == ({}, [])


def test_repeated_flags_add_up_and_others_take_the_last():
    keywords, rest = parse_flags(["--prefix", "/a", "--prefix=/b", "--store", "/x", "--store", "/y", "--prefix", "/a/"])
    assert keywords == {"prefixes": ("/a", "/b", "/a"), "store": "/y"}
    assert rest == []
    assert Options(**keywords).prefixes == ("/a", "/b", "/a")


@pytest.mark.parametrize("words", [["--store"], ["--store", "--quiet", "job.py"], ["--store=", "job.py"]])
def test_a_flag_without_its_value_is_refused(words):
    with pytest.raises(OptionError, match=r"flag --store needs a value\. Give a path"):
        parse_flags(words)


def test_lists_in_variables_are_divided_and_empty_items_skipped():
    environ = {"COLLFS_PREFIXES": "/a::/b/../c/:", "COLLFS_EXCLUDE": "/x/*:*.txt", "COLLFS_FALLBACK": "zmq,,local"}
    options = Options.from_call({}, environ)
    assert options.prefixes == ("/a", "/c")
    assert options.exclude == ("/x/*", "*.txt")
    assert options.fallback == ("zmq", "local")


def test_paths_become_absolute_and_are_never_native_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    options = Options(store="a/../b", cache=Path("c"), report=b"r.json", prefixes=["//opt//x/", "."], manifest="~/m")
    assert options.store == f"{tmp_path}/b"
    assert options.cache == f"{tmp_path}/c"
    assert options.report == f"{tmp_path}/r.json"
    assert options.prefixes == ("/opt/x", str(tmp_path))
    assert options.manifest == "/home/me/m"


def test_a_relative_path_without_a_working_directory_is_an_error_of_that_option(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(OptionError, match=r"store='x' is not possible: .*No such file"):
        Options(store="x")


def test_a_transport_may_be_an_object_but_not_a_class():
    mine = Mine()
    options = Options(transport=mine, fallback=[mine, "local"])
    assert options.transport is mine
    assert options.fallback == (mine, "local")
    with pytest.raises(OptionError, match="give an object of it"):
        Options(transport=Mine)


def test_an_api_is_kept_as_it_is():
    table = LibcCollfsApi()
    assert Options(api=table).api is table


def test_as_dict_holds_what_json_has():
    import json

    plain = Options(transport=Mine(), prefixes=["/a"], api=LibcCollfsApi()).as_dict()
    assert list(plain) == [row.name for row in ROWS]
    again = json.loads(json.dumps(plain))
    assert again == plain
    assert plain["transport"] == "mine"
    assert plain["prefixes"] == ["/a"]
    assert plain["api"] == "LibcCollfsApi"


def test_repr_shows_what_was_changed():
    assert repr(Options()) == "Options()"
    assert repr(Options(quiet=True, job="j")) == "Options(job='j', quiet=True)"


UNITS = {"": 1, "B": 1, "K": 2**10, "KiB": 2**10, "KB": 10**3, "M": 2**20, "MiB": 2**20, "MB": 10**6}
UNITS.update({"G": 2**30, "GiB": 2**30, "GB": 10**9, "T": 2**40, "TB": 10**12, "E": 2**60})


@given(st.integers(0, 2**63 - 1), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]), st.booleans())
def test_whole_sizes_are_exact_in_every_unit(number, unit, space, lower):
    text = f"{number}{space}{unit}"
    size = number * UNITS[unit]
    if size > 2**63 - 1:
        with pytest.raises(OptionError):
            Options(max_file_bytes=text)
    else:
        assert Options(max_file_bytes=text.lower() if lower else text).max_file_bytes == size


@given(st.integers(0, 2**20), st.integers(0, 999), st.sampled_from(["K", "MiB", "GB"]))
def test_parts_of_a_unit_are_rounded_down_to_bytes(whole, thousandths, unit):
    size = Options(max_file_bytes=f"{whole}.{thousandths:03}{unit}").max_file_bytes
    assert size == (whole * 1000 + thousandths) * UNITS[unit] // 1000


@given(st.text())
def test_any_text_is_a_size_or_an_option_error(text):
    try:
        size = Options(max_file_bytes=text).max_file_bytes
    except OptionError:
        return
    assert size is not None
    assert 0 <= size < 2**63


@given(st.sampled_from(GIVABLE), st.text(st.characters(blacklist_categories=["Cs"])))
def test_any_text_in_a_variable_is_a_value_or_an_option_error_and_checking_again_changes_nothing(row, text):
    try:
        options = Options.from_call({}, {row.variable: text})
    except OptionError:
        return
    value = getattr(options, row.name)
    assert getattr(Options(**{row.name: value}), row.name) == value


def test_help_names_every_flag_variable_and_default():
    text = run_usage()
    for row in GIVABLE:
        head = rf"^  {row.flag}( {re.escape(row.metavar)})? +{row.variable}$"
        assert re.search(head, text, re.MULTILINE), row.name
        assert f"[{row.flag}" in text
    assert "(default: 30)" in text
    assert "(default: auto)" in text
    assert not re.search("program=|--api|--program", text)
    assert max(map(len, text.splitlines())) <= 100


def test_the_options_page_is_made_from_the_table(root):
    page = (root / "docs" / "options.md").read_text(encoding="utf-8")
    assert markdown() in page, "put the output of collfs.cli.help.markdown() into docs/options.md"


def test_documents_show_only_flags_of_run_that_exist(root):
    flags = {row.flag for row in GIVABLE} | {"--help"}
    shown = set()
    for page in [*root.glob("*.md"), *root.glob("docs/*.md")]:
        for command in re.findall(r"collfs run ((?:--[\w-]+[= ]?[^\s`]* ?)*)", page.read_text(encoding="utf-8")):
            shown |= set(re.findall(r"(?<!\S)--[a-z-]+", command))
    assert shown <= flags


def test_reading_options_loads_nothing_that_is_not_loaded_anyway(run_python):
    code = """
import sys
import collfs.errors
before = set(sys.modules)
from collfs.options import Options
Options.from_call({"patience": 3, "prefixes": ["a"]}, {"COLLFS_MAX_STORE_BYTES": "1.5G"})
print(sorted(set(sys.modules) - before))
"""
    assert run_python(code).stdout.split() == ["['collfs.option_kinds',", "'collfs.options']"]
