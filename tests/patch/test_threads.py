"""Threads and signals while sites are patched and unpatched: no deadlock, no crash, no wrong answer.

``COLLFS_STRESS_SECONDS`` sets the length of the stress (default 10; the slow one takes 60).
"""

from __future__ import annotations

import os
import textwrap

import pytest

import cancelled
from patchstate import PRELUDE

SECONDS = float(os.environ.get("COLLFS_STRESS_SECONDS", "10"))

STRESS = """
import ctypes, faulthandler, importlib, itertools, os, random, signal, threading, time
import _ctypes
import collfs
tree, library, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
faulthandler.dump_traceback_later(seconds + 45, exit=True)
before = texts()
sys.path.insert(0, tree)
sys.setswitchinterval(0.0005)
session = collfs.initialize("local", prefixes=[tree], manifest="none")
assert not session.idle, session.idle
collfs.prefetch([tree])
interposer = session.interposer
table = session.store.table.address
end = time.monotonic() + seconds
faults, rounds = [], dict.fromkeys(("load", "import", "start", "toggle", "alarm"), 0)
lock, numbers = threading.Lock(), itertools.count()
sys.dont_write_bytecode = True
def worker(kind, work):
    def run():
        done = 0
        try:
            while time.monotonic() < end and not faults:
                work(done)
                done += 1
        except BaseException as exc:
            faults.append(f"{kind}: {exc!r}")
            raise
        finally:
            with lock:
                rounds[kind] += done
    return threading.Thread(target=run, name=f"{kind}-{next(numbers) % 2}")
copies = [f"{tree}/lib{i}.so" for i in range(4)]
def load(n):
    path = copies[n % 4]
    handle = _ctypes.dlopen(path, 0)
    value = ctypes.PyDLL(None, handle=handle).answer()
    _ctypes.dlclose(handle)
    assert value == 42, value
    try:
        _ctypes.dlopen(tree + "/none.so", 0)
    except OSError as exc:
        assert str(exc).endswith("cannot open shared object file: No such file or directory"), exc
    else:
        raise AssertionError("none.so was loaded")
def import_(n):
    name = f"module_{threading.current_thread().name[-1]}_{n % 10}"
    sys.modules.pop(name, None)
    assert importlib.import_module(name).VALUE == n % 10
    with open(f"{tree}/{name}.py") as file:
        assert file.read() == f"VALUE = {n % 10}\\n"
    assert os.stat(f"{tree}/{name}.py").st_size == 10
    assert not os.path.exists(f"{tree}/{name}.none")
    assert len(os.listdir(tree)) >= 24
def start(n):
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()
def toggle(n):
    interposer.uninstall()
    interposer.install()
    interposer.set_table(table)
    time.sleep(random.random() * 0.002)
def alarm(*_):
    rounds["alarm"] += 1
    assert os.stat(f"{tree}/module_0_1.py").st_size == 10
signal.signal(signal.SIGALRM, alarm)
threads = [worker("load", load), worker("load", load), worker("import", import_), worker("import", import_),
           worker("start", start), worker("toggle", toggle)]
for thread in threads:
    thread.start()
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
for thread in threads:
    while thread.is_alive():
        thread.join(0.05)
signal.setitimer(signal.ITIMER_REAL, 0)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
collfs.finalize()
print(rounds)
assert not faults, faults
assert changed(before) == set()
assert session.messages.warnings == [], session.messages.warnings
assert all(rounds.values()), rounds
redirected = sum(outcomes["redirected"] for outcomes in interposer.counts().values())
assert redirected > 0, interposer.counts()
"""


@pytest.fixture
def tree(tmp_path):
    import subprocess

    folder = tmp_path / "tree"
    folder.mkdir()
    for kind in range(2):
        for n in range(10):
            (folder / f"module_{kind}_{n}.py").write_text(f"VALUE = {n}\n")
    (tmp_path / "lib.c").write_text("int answer(void) { return 42; }\n")
    for n in range(4):
        try:
            subprocess.run(
                ["gcc", "-shared", "-fPIC", tmp_path / "lib.c", "-o", folder / f"lib{n}.so"], check=True, timeout=60
            )
        except FileNotFoundError:
            pytest.skip("no gcc")
    return folder


def stress(run_python, tree, seconds):
    program = tree.parent / "stress.py"
    program.write_text(PRELUDE + STRESS)
    result = run_python([program, tree, tree / "lib0.so", str(seconds)], timeout=seconds + 60, check=False)
    print(result.stdout)
    assert result.rc == 0, result.describe()


@pytest.mark.stress
def test_loads_imports_thread_starts_signals_and_toggled_hooks_go_together(run_python, tree):
    stress(run_python, tree, SECONDS)


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.timeout(180)
def test_the_same_for_a_minute(run_python, tree):
    stress(run_python, tree, max(SECONDS, 60))


IN_THE_KERNEL = """
import ctypes, faulthandler, os, threading
from collfs.interpose.interposer import Interposer
from collfs.interpose import patch
faulthandler.dump_traceback_later(40, exit=True)
before = texts()
fifo = sys.argv[1].encode()
kind = sys.argv[2]
os.mkfifo(fifo)
reading, writing = os.pipe()

def waiting(task):
    # in the kernel? wchan isn't readable everywhere, so: asleep, in the system call that was asked for
    with open(f"/proc/self/task/{task}/syscall") as file:
        number = file.read().split()[0]
    return number == {"open": "257", "open_nocancel": "257", "read": "0"}[kind]

def until_it_waits(known):
    while True:
        new = set(os.listdir("/proc/self/task")) - known
        if len(new) == 1 and waiting(*new):
            return

def answer():
    if kind == "read":
        os.write(writing, b"x")
    else:
        os.close(os.open(fifo, os.O_WRONLY))
"""

RESTARTED = (
    IN_THE_KERNEL
    + """
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.siginterrupt(signal.SIGUSR1, False)
steps = {"patch": ["install"], "unpatch": ["uninstall"], "both": ["install", "uninstall"],
         "signal": ["install", "signal"], "signal after": ["install", "uninstall", "signal"],
         "signal before": ["signal", "install"]}[sys.argv[3]]
interposer = Interposer()
if steps[0] == "uninstall":
    interposer.install()
result, started = [], threading.Event()
def wait():
    started.set()
    if kind == "read":
        result.append(os.read(reading, 1))
    else:
        fd = os.open(fifo, os.O_RDONLY)
        result.append(b"x" if fd >= 0 else b"")
        os.close(fd)
known = set(os.listdir("/proc/self/task"))
thread = threading.Thread(target=wait)
thread.start()
until_it_waits(known)
for step in steps:
    if step == "signal":
        signal.pthread_kill(thread.ident, signal.SIGUSR1)
        time.sleep(0)
        until_it_waits(known)
    else:
        getattr(interposer, step)()
answer()
thread.join(20)
assert not thread.is_alive(), "the thread hangs"
assert result == [b"x"], result
if interposer.patches:
    interposer.uninstall()
assert changed(before) == set()
"""
)


@pytest.mark.parametrize("kind", ["open", "read"])
@pytest.mark.parametrize("steps", ["patch", "unpatch", "both", "signal", "signal after", "signal before"])
def test_a_thread_that_waits_in_the_kernel_survives(run_python, tmp_path, kind, steps):
    result = run_python(["-c", PRELUDE + RESTARTED, tmp_path / "fifo", kind, steps], check=False)
    assert result.rc == 0, result.stderr


@pytest.mark.parametrize("kind", ["open", "read"])
@pytest.mark.parametrize(
    "steps", ["install start", "start install", "install start uninstall", "start install uninstall"]
)
def test_a_thread_that_waits_in_the_kernel_can_be_cancelled(run_python, tmp_path, kind, steps):
    try:
        waiter = cancelled.build(tmp_path)
    except FileNotFoundError:
        pytest.skip("no gcc")
    result = run_python([cancelled.__file__, tmp_path / "fifo", kind, steps, waiter], check=False)
    assert result.rc == 0, result.stderr


def test_a_signal_handler_does_not_run_in_the_middle_of_a_transaction(run_python):
    """A handler that called a half-patched function would wait for ever for the thread that it interrupted."""
    code = textwrap.dedent(
        """
        import signal
        from collfs.interpose import patch
        from collfs.interpose.interposer import Interposer
        before, interposer, blocked = texts(), Interposer(), []
        real = patch._Writable.__call__
        def call(self, one):
            blocked.append(signal.SIGALRM in signal.pthread_sigmask(signal.SIG_BLOCK, []))
            real(self, one)
        patch._Writable.__call__ = call
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        interposer.install()
        interposer.uninstall()
        assert blocked and all(blocked)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == mask == {signal.SIGUSR2}
        assert changed(before) == set()
        """
    )
    run_python(PRELUDE + code)
