"""How a program with a session ends, and a session in a program: signals, exceptions, exit functions, finalize."""

from __future__ import annotations

import signal
import subprocess
import sys

from childproc import clean_env


def test_ctrl_c_in_the_middle_of_a_long_import_ends_the_program_as_ever(place):
    (place.tree / "endless.py").write_text(
        "import sys\nprint('ready', flush=True)\nwhile True:\n    __import__('package_%d' % (len(sys.modules) % 6))\n"
    )
    script = place.script("start()\nimport endless\n")
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_env(), text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            child.send_signal(signal.SIGINT)
            _, err = child.communicate(timeout=30)
        except BaseException:
            child.kill()
            raise
    assert child.returncode == -signal.SIGINT, err
    assert "endless.py" in err
    assert err.rstrip().endswith("KeyboardInterrupt"), err


def test_ctrl_c_while_a_file_is_fetched_ends_the_program_as_ever(place):
    result = place.run(
        """
        import signal
        session = start()
        real = session.transport.fetch
        def fetch(wants):
            os.kill(os.getpid(), signal.SIGINT)
            return real(wants)
        session.transport.fetch = fetch
        import package_0
        """,
        check=False,
    )
    assert result.rc == -signal.SIGINT, result.describe()
    assert result.stderr.rstrip().endswith("KeyboardInterrupt")


def test_after_a_caught_ctrl_c_the_session_goes_on(place):
    place.run(
        """
        import signal
        session = start()
        real = session.transport.fetch
        def fetch(wants):
            session.transport.fetch = real
            os.kill(os.getpid(), signal.SIGINT)
            return real(wants)
        session.transport.fetch = fetch
        try:
            import package_0
        except KeyboardInterrupt:
            pass
        else:
            raise SystemExit("no interrupt")
        old = redirected(session)
        import package_0, package_1
        assert redirected(session) > old
        assert collfs.stats()["warnings"] == []
        """
    )


def test_sigterm_kills_and_the_next_start_removes_the_store(place):
    script = place.script("start()\nimport package_0\nprint('ready', flush=True)\nsys.stdin.read()\n")
    with subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stdin=subprocess.PIPE, env=clean_env(), text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            child.terminate()
            assert child.wait(30) == -signal.SIGTERM
        finally:
            child.kill()
    assert len(place.left()) == 1
    place.run("start()\nassert len(stores()) == 1\n")


def test_exit_functions_run_in_order_and_can_still_import(place):
    result = place.run(
        """
        import atexit
        atexit.register(lambda: print("first registered", collfs.Session and "closed"))
        session = start()
        def late():
            import package_3
            print("last registered", package_3.VALUE, session.state)
        atexit.register(late)
        print("end")
        """
    )
    assert result.stdout == "end\nlast registered 3 serving\nfirst registered closed\n"


def test_an_exception_at_import_has_its_own_traceback_and_exit_status(place):
    (place.tree / "broken.py").write_text("def f():\n    return 1 / 0\nf()\n")
    result = place.run("start()\nimport broken\n", check=False)
    assert result.rc == 1
    assert "broken.py" in result.stderr
    assert "return 1 / 0" in result.stderr
    assert result.stderr.rstrip().endswith("ZeroDivisionError: division by zero")
    assert "collfs" not in result.stderr


def test_finalize_is_idempotent_and_a_session_can_be_started_again(place):
    place.run(
        """
        collfs.finalize()
        first = start()
        import package_0
        try:
            start()
        except collfs.StateError as exc:
            assert "finalize" in str(exc), exc
        else:
            raise SystemExit("a second initialize")
        assert first.state == "serving"
        import package_1
        collfs.finalize()
        collfs.finalize()
        assert first.state == "closed" and stores() == []
        import package_2
        with collfs.session("local", prefixes=sys.path[:1], manifest="none", store=STORE) as second:
            assert second is not first and second.state == "serving"
            import package_3
            assert redirected(second) > 0
        assert second.state == "closed" and stores() == []
        fds = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            start()
            collfs.finalize()
        assert len(os.listdir("/proc/self/fd")) == fds, os.listdir("/proc/self/fd")
        """.replace("STORE", repr(str(place.store)))
    )


def test_an_error_inside_a_with_block_closes_the_session_and_goes_on(place):
    result = place.run(
        f"""
        try:
            with collfs.session("local", prefixes=sys.path[:1], manifest="none", store={str(place.store)!r}) as session:
                raise LookupError("mine")
        except LookupError:
            print(session.state, stores())
        """
    )
    assert result.stdout == "closed []\n"
