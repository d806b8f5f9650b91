"""Processes that a program makes under a session: forks, subprocesses, pools, daemons, exec."""

from __future__ import annotations

import time

import pytest


def test_a_forked_child_imports_from_the_node_and_leaves_the_store_alone(place):
    place.run(
        """
        session = start()
        collfs.prefetch([sys.path[0] + "/package_1"])
        import package_0
        fetched, transport = session.fetcher.fetched, session.transport
        def refuse(*args):
            raise SystemExit("the child used the transport")
        transport.fetch = transport.stat = transport.read = transport.listdir = refuse
        pid = os.fork()
        if not pid:
            old = redirected(session)
            import package_1, package_2  # staged, and not staged
            assert open(package_1.__path__[0] + "/data.txt").read() == "data 1\\n"
            assert redirected(session) > old
            assert session.fetcher.fetched == fetched
            try:
                collfs.prefetch(["package_3"])
            except collfs.StateError as exc:
                assert "fork" in str(exc), exc
            sys.exit(0)  # with atexit: finalize in a child
        assert os.waitpid(pid, 0)[1] == 0
        assert len(stores()) == 1
        del transport.fetch, transport.stat, transport.read, transport.listdir
        old = redirected(session)
        import package_3
        assert redirected(session) > old
        assert session.fetcher.fetched > fetched
        """
    )


@pytest.mark.parametrize("early", [False, True], ids=["", "and comes to life after it"])
def test_a_child_that_outlives_its_parent_keeps_its_files(place, early):
    place.run(
        f"""
        reading, writing = os.pipe()
        if {early}:  # before collfs's own function: the parent is gone when that one runs
            os.register_at_fork(after_in_child=lambda: (os.close(writing), os.read(reading, 1)))
        session = start()
        collfs.prefetch(sys.path[:1])
        done, tell = os.pipe()
        pid = os.fork()
        if not pid:
            if not {early}:
                os.close(writing)
                os.read(reading, 1)  # the parent is finalized
            import package_4
            assert redirected(session) > 0
            assert len(stores()) == 1
            os.write(tell, b"y")
            sys.exit(0)
        collfs.finalize()
        os.close(writing)
        os.close(tell)
        assert os.read(done, 1) == b"y"
        assert os.waitpid(pid, 0)[1] == 0
        """
    )


@pytest.mark.parametrize(
    "arguments", ["", "cwd='/'", "preexec_fn=os.getpid", "close_fds=False", "start_new_session=True"]
)
def test_subprocesses_run_as_ever(place, arguments):
    place.run(
        f"""
        import subprocess
        session = start()
        import package_0
        code = "import sys; sys.path.insert(0, " + repr(sys.path[0]) + "); import package_1; print(package_1.VALUE)"
        for _ in range(2):
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, {arguments})
            assert (done.returncode, done.stdout, done.stderr) == (0, "1\\n", ""), done
        with subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"], {arguments}) as child:
            assert child.wait() == 3
        try:
            subprocess.run([sys.path[0] + "/no program"])
        except FileNotFoundError:
            pass
        import package_2
        """
    )


def test_a_program_and_a_script_that_are_managed_themselves_can_be_run(place):
    place.run(
        """
        import subprocess
        program = sys.path[0] + "/program"
        with open(program, "w") as file:
            file.write("#!/bin/sh\\necho ran $1\\n")
        os.chmod(program, 0o755)
        session = start()
        collfs.prefetch([program])
        assert open(program).read().startswith("#!")
        assert subprocess.run([program, "x"], capture_output=True, text=True).stdout == "ran x\\n"
        """
    )


POOL = """
    import multiprocessing
    def work(n):
        import importlib
        module = importlib.import_module(f"package_{n % 6}")
        return module.VALUE, sum(range(n))
    if __name__ == "__main__":
        session = start()
        with multiprocessing.get_context(METHOD).Pool(2) as pool:
            got = pool.map(work, range(12))
        assert got == [(n % 6, sum(range(n))) for n in range(12)], got
        assert redirected(session) > 0 or METHOD != "fork"
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_pools_work(place, method):
    place.run(POOL.replace("METHOD", repr(method)))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_pool_workers_that_start_a_session_themselves_join_the_store(place, method):
    code = (
        POOL.replace("METHOD", repr(method))
        .replace("def work(n):", "session = start()\n    def work(n):\n        assert len(stores()) == 1, stores()")
        .replace("        session = start()\n        with", "        with")
    )
    place.run(code)


@pytest.mark.slow
@pytest.mark.real_stack
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_compute_with_numpy(place, method):
    pytest.importorskip("numpy")
    place.run(
        f"""
        import multiprocessing
        def work(n):
            import numpy
            return float(numpy.linalg.norm(numpy.arange(n, dtype=float)))
        if __name__ == "__main__":
            session = start(prefixes=[sys.prefix])
            import numpy
            with multiprocessing.get_context({method!r}).Pool(2) as pool:
                got = pool.map(work, range(1, 9))
            assert got == [work(n) for n in range(1, 9)]
            assert redirected(session) > 100
        """,
        timeout=100,
    )


def test_posix_spawn_and_its_file_actions_work(place):
    place.run(
        """
        session = start()
        collfs.prefetch(sys.path[:1])
        data, out = sys.path[0] + "/package_5/data.txt", sys.path[0] + "/out.txt"
        flags = os.O_WRONLY | os.O_CREAT
        pid = os.posix_spawn("/bin/cat", ["cat"], os.environ, file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, data, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, out, flags, 0o600)])
        assert os.waitpid(pid, 0)[1] == 0
        assert open(out).read() == "data 5\\n"
        assert "out.txt" in os.listdir(sys.path[0])
        """
    )


def test_a_daemon_by_double_fork_goes_on(place):
    result = place.run(
        """
        import signal
        session = start()
        collfs.prefetch([sys.path[0] + "/package_0"])
        reading, writing = os.pipe()
        if not os.fork():
            os.setsid()
            if os.fork():
                os._exit(0)
            signal.alarm(30)
            os.close(reading)
            import package_0, package_1
            assert redirected(session) > 0
            os.write(writing, b"%d" % (package_0.VALUE + 10 * package_1.VALUE))
            os.close(writing)
            sys.exit(0)
        os.wait()
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            print(pipe.read().decode())
        """
    )
    assert result.stdout == "10\n"
    deadline = time.monotonic() + 20
    while place.left() and time.monotonic() < deadline:  # the daemon is the last one, and nobody's child
        time.sleep(0.01)


def test_exec_replaces_the_process_and_the_next_start_cleans_up(place):
    result = place.run(
        """
        if len(sys.argv) == 1:
            start()
            import package_0
            os.execv(sys.executable, [sys.executable, __file__, "again"])
        old = stores()
        session = start()
        import package_1
        assert len(stores()) == 1 and stores() != old
        print("again", package_1.VALUE)
        """
    )
    assert result.stdout == "again 1\n"
