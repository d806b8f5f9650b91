"""``collfs check``: what collfs would do here, without running a program.

It looks at the C library, installs the redirects for a moment in this process, finds a place for the store, and says
which directories would be managed and why. Exit code 0 if a program would be served, 1 if files would be read as
without collfs.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..interpose.interposer import Interposer


def main(argv: Sequence[str]) -> int:
    """Run the check and print it."""
    parser = argparse.ArgumentParser(prog="collfs check", description="Say what collfs would do here.")
    parser.add_argument("--prefix", action="append", metavar="DIR", help="as in collfs run")
    parser.add_argument("--store", metavar="DIR", help="as in collfs run")
    parser.add_argument("--sites", action="store_true", help="list every redirected call")
    arguments = parser.parse_args(list(argv))
    works = _machine(arguments.sites)
    works = _prefixes(arguments.prefix) and works
    works = _store(arguments.store) and works
    print("\nA program would be served." if works else "\nA program would run as without collfs.")
    return 0 if works else 1


def _machine(list_sites: bool) -> bool:
    from .. import __version__
    from ..errors import InterposeRefused
    from ..interpose.image import glibc_version
    from ..interpose.interposer import Interposer

    print(f"collfs {__version__}, Python {platform.python_version()}, {platform.machine()}, glibc {glibc_version()}")
    try:
        interposer = Interposer()
        interposer.install()
        counts = interposer.sites_by_object()
        interposer.uninstall()
    except InterposeRefused as exc:
        print(f"redirects: no: {exc}")
        return False
    for name, image in interposer.images.items():
        print(f"redirects: {sum(counts.get(name, {}).values()):3} sites in {image.path} ({name})")
    if list_sites:
        _list(interposer, counts)
    return True


def _list(interposer: Interposer, counts: dict[str, dict[str, int]]) -> None:
    from ..interpose.sites import CALLS

    print(f"\n  {'call':14}" + "".join(f"{name:>12}" for name in interposer.images))
    for call in [*(row[0] for row in CALLS), "syscall_cancel"]:
        row = [counts.get(name, {}).get(call, 0) for name in interposer.images]
        if any(row):
            print(f"  {call:14}" + "".join(f"{n or '':>12}" for n in row))
    print()


def _prefixes(given: list[str] | None) -> bool:
    from ..errors import OptionError
    from ..options import Options
    from ..prefixes import automatic, explicit

    try:
        options = Options.from_call({} if given is None else {"prefixes": given}, os.environ)
        if options.prefixes is not None:
            for path in explicit(options.prefixes):
                print(f"managed:   {path} (given)")
            return True
    except OptionError as exc:
        print(f"managed:   error: {exc}", file=sys.stderr)
        return False
    chosen, reasons = automatic(os.environ)
    for path in chosen:
        print(f"managed:   {path} ({reasons.get(path) or 'real path of another one'})")
    for path, reason in reasons.items():
        if path not in chosen:
            print(f"not:       {path} ({reason})")
    if not chosen:
        print("           nothing lies on a shared file system; --prefix DIR manages DIR all the same")
    return bool(chosen)


def _store(given: str | None) -> bool:
    from ..store.node import candidates, unsuitable
    from ..store.stager import default_limit

    chosen = given or os.environ.get("COLLFS_STORE") or None
    for base in candidates(chosen, os.environ):
        why = unsuitable(base, chosen is not None)
        if not why:
            print(f"store:     {base} (up to {default_limit(base) >> 20} MiB)")
            return True
        print(f"store:     not {base}: {why}")
    return False
