"""``collfs stub``: the library to link C code with that uses ``collfs.h``."""

from __future__ import annotations

import argparse
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Write the library."""
    parser = argparse.ArgumentParser(prog="collfs stub", description="Write the library to link C code with.")
    parser.add_argument("-o", "--output", default="libcollfs.so", metavar="FILE", help="default: %(default)s")
    parser.add_argument("--include", action="store_true", help="write nothing; print the directory of collfs.h")
    arguments = parser.parse_args(list(argv))
    from ..c_api import get_include, write_stub

    if arguments.include:
        print(get_include())
        return 0
    try:
        write_stub(arguments.output)
    except OSError as exc:
        print(f"collfs stub: {exc}", file=sys.stderr)
        return 1
    return 0
