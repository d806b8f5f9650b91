"""The hooks of collfs, for plugins of other packages: found by entry point, called through pluggy.

A plugin is a module, or any object, that an entry point of group ``collfs.plugins`` names. Each function of it whose
name begins with ``collfs_`` is a hook; :data:`hookimpl` is needed only for pluggy's options. A hook tells of an event
or selects something, never carries bytes: a call through pluggy costs some 1,600 ns, a method call 64.

Rules of the file: only imported when a stranger's plugin is asked for, since finding one scans the metadata of all
installed packages (measured with 200 of them: 1,897 path calls); our own are called by :mod:`collfs.launch` without it.
"""

from __future__ import annotations

import inspect
from importlib.metadata import distributions

import pluggy

from collfs.errors import OptionError
from collfs.launch import OWN, answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from collfs.launch import Place

GROUP = "collfs.plugins"  #: the entry point group, ours and strangers'
PREFIX = "collfs_"  #: with it begins the name of each hook

hookspec = pluggy.HookspecMarker("collfs")
hookimpl = pluggy.HookimplMarker("collfs")


class Hooks:
    """What a plugin may implement."""

    @hookspec(firstresult=True)
    def collfs_place(self, environ: Mapping[str, str]) -> Place | None:
        """Who this process is, as its launcher tells.

        Called by each process for itself, in the thread that starts the session, before a transport is chosen. What it
        needs is in *environ*: it must not wait for anybody, and open no file, since all ranks would.

        :returns: a :class:`collfs.launch.Place`, in which what isn't known is left out; None: this process wasn't
            started by the launcher that the plugin is for. The first answer is taken
        """


class Manager(pluggy.PluginManager):
    """pluggy's, with the rule that a function is a hook by its name, as pytest's are."""

    def __init__(self) -> None:
        super().__init__("collfs")
        self.add_hookspecs(Hooks)

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """pluggy's point to say what a hook is: https://pluggy.readthedocs.io/en/stable/api_reference.html"""
        options = super().parse_hookimpl_opts(plugin, name)
        if options is None and name.startswith(PREFIX) and inspect.isroutine(getattr(plugin, name)):
            return pluggy.HookimplOpts(
                wrapper=False, hookwrapper=False, optionalhook=False, tryfirst=False, trylast=False, specname=None
            )
        return options


def load(name: str | None = None) -> Manager:
    """A manager with the plugins of all installed packages, or with that one of them.

    :raises OptionError: there is none of that *name*
    :raises pluggy.PluginValidationError: a plugin has a hook that collfs hasn't, or with other arguments
    """
    manager = Manager()
    manager.load_setuptools_entrypoints(GROUP, name)
    if name is not None and not manager.has_plugin(name):
        found = {point.name for package in distributions() for point in package.entry_points if point.group == GROUP}
        raise OptionError(
            f"no plugin is named {name!r}. Known here: {', '.join(sorted(found | set(OWN)))}. Install the package that "
            f'has it (entry point group "{GROUP}"), or give "module:function"'
        )
    manager.check_pending()
    return manager


def ask_one(name: str, environ: Mapping[str, str]) -> Place | None:
    """What the plugin says that the entry point *name* leads to.

    :raises OptionError: there is none
    """
    return answer(name, load(name).hook.collfs_place(environ=environ))


def ask_all(environ: Mapping[str, str]) -> Place | None:
    """What the first plugin of any installed package says that knows this environment; a broken one is only told of."""
    try:
        manager = load()
        for plugin_name, plugin in manager.list_name_plugin():
            if plugin is None or not hasattr(plugin, "collfs_place"):
                continue
            others = [other for other in manager.get_plugins() if other is not plugin]
            told = manager.subset_hook_caller("collfs_place", others)(environ=environ)
            if told is not None:
                return answer(plugin_name, told)
    except Exception as exc:  # nobody has asked for just this plugin: the job goes on without
        import logging

        logging.getLogger("collfs").warning("collfs: plugins: %s: %s", type(exc).__name__, exc)
    return None
