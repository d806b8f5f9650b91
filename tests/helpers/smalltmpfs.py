"""Run program text with a tmpfs of its own options mounted for it alone, in a mount namespace of its own."""

from __future__ import annotations

import os
import shutil
import sys

import pytest

import childproc


def run(text: str, place: os.PathLike[str], options: str) -> str:
    """What *text* says on standard output; it finds the tmpfs at ``sys.argv[1]``. Skips where mounting isn't allowed.

    :param place: an existing directory
    :param options: of tmpfs(5), for example ``size=3m``
    """
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("a small tmpfs needs root and unshare(1)")
    script = 'mount -t tmpfs -o "$1" none "$2" || exit 77; exec "$3" -c "$4" "$2"'
    words = ["unshare", "-m", "sh", "-c", script, "sh", options, str(place), sys.executable, text]
    result = childproc.run_command(words, check=False, timeout=60)
    if result.rc == 77:
        pytest.skip("mount isn't allowed here")
    assert result.rc == 0, result.describe()
    return result.stdout
