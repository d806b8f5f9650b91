"""Plugins of strangers: found by entry point when asked for, never otherwise; what is wrong with them is said."""

from __future__ import annotations

import os
import textwrap
from importlib import import_module
from importlib.util import find_spec

import pytest

from collfs.launch import OWN, Place

if find_spec("pluggy") is None:
    pytest.skip('pluggy is not installed: pip install "collfs[plugins]"', allow_module_level=True)

MINE = """
from collfs.launch import Place, number

def collfs_place(environ):
    if "MYLAUNCH_RANK" not in environ:
        return None
    return Place(rank=number(environ, "MYLAUNCH_RANK"), size=4)
"""
SHOW = """
import sys
{before}
from collfs.launch import place
try:
    print(place(scan={scan}))
except Exception as exc:
    print(type(exc).__name__, exc)
print("pluggy" in sys.modules, "importlib.metadata" in sys.modules, "mine" in sys.modules)
"""


@pytest.fixture
def site(tmp_path):
    """Install a module with an entry point, as pip would."""
    folder = tmp_path / "site"
    folder.mkdir()

    def install(name, text, module="", group="collfs.plugins"):
        module = module or name
        if text:
            (folder / f"{module}.py").write_text(text)
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{name} = {module}\n")
        return folder

    return install


@pytest.fixture
def show(run_python, tmp_path):
    """The place that a child with that site folder finds, and whether pluggy, metadata and mine were loaded."""

    def run(*, scan=False, before="", **env):
        paths = [str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
        code = SHOW.format(scan=scan, before=before)
        cleared = dict.fromkeys(name for name in os.environ if name.startswith(("SLURM_", "PMI", "OMPI_", "FLUX_")))
        return run_python(code, env={**cleared, "PYTHONPATH": os.pathsep.join(paths), **env})

    return run


def lines(result):
    first, last = result.stdout.splitlines()[0], result.stdout.splitlines()[-1]
    return first, last.split()


FOUND = "Place(rank=2, size=4, source='mine')"
SRUN = {"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}


def test_a_strangers_plugin_is_found_by_the_name_of_its_entry_point(site, show):
    site("mine", MINE)
    assert lines(show(COLLFS_PLUGINS="mine", MYLAUNCH_RANK="2"))[0] == FOUND


def test_it_is_neither_looked_for_nor_loaded_unless_it_is_asked_for(site, show):
    site("mine", MINE)
    assert lines(show(MYLAUNCH_RANK="2")) == ("Place()", ["False", "False", "False"])


def test_a_scan_asks_it_if_no_launcher_of_ours_is_there(site, show):
    site("mine", MINE)
    assert lines(show(scan=True, MYLAUNCH_RANK="2")) == (FOUND, ["True", "True", "True"])
    text, loaded = lines(show(scan=True, MYLAUNCH_RANK="2", **SRUN))
    assert text == "Place(rank=1, size=2, source='slurm')"
    assert loaded == ["False", "False", "False"]


def test_a_scan_asks_nobody_where_the_environment_says_which_node_this_is(site, show):
    site("mine", MINE)
    node = {"COLLFS_NODE": "1", "COLLFS_NODES": "a,b"}
    text, loaded = lines(show(scan=True, MYLAUNCH_RANK="2", **node))
    assert text == "Place(node=1, nodes=('a', 'b'), root_host='a', source='environment')"
    assert loaded == ["False", "False", "False"]
    assert lines(show(scan=True, MYLAUNCH_RANK="2", COLLFS_NODE="1"))[1] == ["True", "True", "True"]


def test_a_scan_asks_one_after_the_other(site, show):
    site("mine", MINE)
    site("aother", "def collfs_place(environ): return None\n")
    site("zother", "def collfs_place(environ): return None\n")
    assert lines(show(scan=True, MYLAUNCH_RANK="2"))[0] == FOUND
    assert lines(show(scan=True))[0] == "Place()"


def test_the_named_ones_are_asked_in_their_order_before_ours(site, show):
    site("mine", MINE)
    site("other", "from collfs.launch import Place\ndef collfs_place(environ): return Place(rank=7)\n")
    env = {"MYLAUNCH_RANK": "2", **SRUN}
    assert lines(show(COLLFS_PLUGINS="mine,other", **env))[0] == FOUND
    assert lines(show(COLLFS_PLUGINS="other,mine", **env))[0] == "Place(rank=7, source='other')"
    assert lines(show(COLLFS_PLUGINS="slurm,mine", **env))[0] == "Place(rank=1, size=2, source='slurm')"
    assert lines(show(COLLFS_PLUGINS="mine", **SRUN))[0] == "Place(rank=1, size=2, source='slurm')"


def test_an_explicit_variable_wins_over_a_stranger_too(site, show):
    site("mine", MINE)
    assert lines(show(COLLFS_PLUGINS="mine", MYLAUNCH_RANK="2", COLLFS_RANK="3"))[0] == FOUND.replace("=2", "=3")


def test_a_function_can_be_named_without_entry_point_pluggy_and_metadata(site, show):
    site("mine", MINE, group="nothing")
    text, loaded = lines(show(COLLFS_PLUGINS="mine:collfs_place", MYLAUNCH_RANK="2"))
    assert text == FOUND.replace("'mine'", "'mine:collfs_place'")
    assert loaded == ["False", "False", "True"]


def test_a_marker_of_pluggy_is_welcome_but_not_needed(site, show):
    marked = MINE.replace("def collfs", "from collfs.plugins import hookimpl\n@hookimpl(tryfirst=True)\ndef collfs")
    site("mine", marked)
    assert lines(show(COLLFS_PLUGINS="mine", MYLAUNCH_RANK="2"))[0] == FOUND


NO_PLUGGY = "sys.modules['pluggy'] = None"


def test_without_pluggy_a_scan_finds_nobody_and_a_name_is_an_error(site, show):
    site("mine", MINE)
    assert lines(show(scan=True, before=NO_PLUGGY, MYLAUNCH_RANK="2"))[0] == "Place()"
    text, _ = lines(show(before=NO_PLUGGY, COLLFS_PLUGINS="mine", MYLAUNCH_RANK="2"))
    assert text.startswith("OptionError variable COLLFS_PLUGINS='mine': plugin 'mine' failed")
    assert text.endswith('Do: pip install "collfs[plugins]"')


def test_a_name_that_nobody_has_is_an_error_that_lists_the_known_ones(site, show):
    site("mine", MINE)
    text, _ = lines(show(COLLFS_PLUGINS="mime"))
    assert text.startswith("OptionError no plugin is named 'mime'. Known here: ")
    assert "flux, hydra, mine, pmix, slurm, torchrun" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import nothing_like_this", "ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("def collfs_place(environ): raise KeyError(7)", "KeyError: 7"),
        ("def collfs_palce(environ): pass", "PluginValidationError: unknown hook 'collfs_palce'"),
        ("def collfs_place(environment): pass", "PluginValidationError: Plugin 'mine' for hook 'collfs_place'"),
        ("def collfs_place(environ): return {'rank': 1}", "returned {'rank': 1}: return a collfs.launch.Place"),
        (
            "from collfs.launch import Place\ndef collfs_place(environ): return Place(rank='1')",
            "numbers are int from -1 up",
        ),
        (
            "from collfs.launch import Place\ndef collfs_place(environ): return Place(rank=-2)",
            "numbers are int from -1 up",
        ),
        (
            "from collfs.launch import Place\ndef collfs_place(environ): return Place(nodes=(1,))",
            "the others str",
        ),
    ],
)
def test_a_broken_plugin_is_an_error_for_who_named_it_and_a_warning_in_a_scan(site, show, text, said):
    site("mine", text + "\n")
    result = show(COLLFS_PLUGINS="mine")
    assert result.stdout.startswith("OptionError variable COLLFS_PLUGINS='mine': plugin 'mine' failed: ")
    assert said in result.stdout
    result = show(scan=True)
    assert result.stdout.startswith("Place()\n")
    assert said in result.stderr


@pytest.mark.parametrize("text", [",", "slurm,", "nothing_like_this:x", "collfs.launch:nothing", "mine:"])
def test_a_name_that_leads_nowhere_is_an_error(site, show, text):
    site("mine", MINE)
    assert lines(show(COLLFS_PLUGINS=text))[0].startswith("OptionError ")


def test_our_own_register_as_a_strangers_would():
    from collfs.plugins import Manager

    manager = Manager()
    for name, module in OWN.items():
        manager.register(import_module(module), name)
    manager.check_pending()
    assert len(manager.hook.collfs_place.get_hookimpls()) == len(OWN)
    told = manager.hook.collfs_place(environ={"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "2"})
    assert isinstance(told, Place)
    assert (told.rank, told.size) == (1, 2)


def test_our_own_are_found_by_entry_point_too(site, run_python):
    (folder, *_) = {site(name, "", module) for name, module in OWN.items()}
    code = f"""
        import sys
        sys.path.insert(0, {str(folder)!r})
        from collfs import plugins
        manager = plugins.load()
        print(*sorted(name for name, _ in manager.list_name_plugin()))
        print(plugins.ask_one("flux", {{"FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "2"}}))
    """
    first, second = run_python(textwrap.dedent(code)).stdout.splitlines()
    assert set(OWN) <= set(first.split())
    assert second == "Place(rank=1, size=2, source='flux')"
