"""Interpreters under a session: sub-interpreters, command-line flags, faulthandler."""

from __future__ import annotations

import os
import shutil
import signal
import sys

import pytest


def test_a_sub_interpreter_imports(place):
    place.run(
        """
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        session = start()
        collfs.prefetch(sys.path[:1])
        old = redirected(session)
        code = f"import sys; sys.path.insert(0, {sys.path[0]!r}); import package_2; assert package_2.VALUE == 2"
        run = getattr(interpreters, "exec", None) or interpreters.run_string
        other = interpreters.create()
        assert not run(other, code)
        interpreters.destroy(other)
        assert redirected(session) > old
        import package_3
        """
    )


@pytest.mark.parametrize(
    "flags", [["-O"], ["-OO"], ["-I"], ["-X", "importtime"], ["-X", "dev"], ["-B"], ["-s"], ["-S"]]
)
def test_interpreter_flags_make_no_difference(place, flags):
    code = """
    session = start()
    import package_0, package_1.inner
    assert redirected(session) > 0
    assert package_1.VALUE == 1
    print("done")
    """
    if flags in (["-I"], ["-S"]):  # no PYTHONPATH, no site-packages
        places = [p for p in sys.path if p and os.path.isdir(p)]
        file = place.script(code)
        file.write_text(f"import sys; sys.path += {places!r}\n" + file.read_text())
        result = place.run_python([*flags, file], check=False)
        assert result.rc == 0, result.describe()
    else:
        result = place.run(code, *flags)
    assert result.stdout == "done\n"
    if "importtime" in flags:
        assert "package_1.inner" in result.stderr
    else:
        assert result.stderr == ""


def test_faulthandler_still_dumps(place):
    result = place.run("start()\nimport faulthandler\nfaulthandler.enable()\nos.abort()\n", check=False)
    assert result.rc == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in result.stderr
    shutil.rmtree(place.store)  # nobody could remove it
    place.store.mkdir()
