"""The test helpers themselves: a helper that lies makes every test that uses it worthless."""

from __future__ import annotations

import os
import re
import signal
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stracecount

# -- children ---------------------------------------------------------------------------------------------------------


def test_a_child_gives_back_its_output_and_status(run_python):
    result = run_python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)", check=False)
    assert (result.rc, result.stdout, result.stderr, result.signal_name) == (3, "out\n", "err\n", "")


def test_a_list_of_arguments_goes_to_the_interpreter_as_it_is(run_python, tmp_path):
    script = tmp_path / "a b.py"
    script.write_text("import sys; print(sys.argv[1:], sys.stdin.read())")
    assert run_python([script, "x y", ""], stdin="given").stdout == "['x y', ''] given\n"


def test_a_failing_child_is_an_assertion_with_its_output(run_python):
    with pytest.raises(AssertionError, match=r"(?s)exit status 1.*stdout.*said so.*stderr.*ZeroDivisionError"):
        run_python("print('said so', flush=True); 1 / 0")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_a_child_that_dies_by_a_signal_is_told_by_name(run_python, name):
    no_core = "import os, resource, signal; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); "
    code = f"{no_core}os.kill(os.getpid(), signal.{name})"
    result = run_python(code, check=False)
    assert (result.rc, result.signal_name) == (-getattr(signal, name), name)
    with pytest.raises(AssertionError, match=f"died by {name}"):
        run_python(code)


def test_a_crash_leaves_a_python_traceback_behind(run_python):
    result = run_python("import ctypes\ndef culprit(): ctypes.string_at(0)\nculprit()", check=False)
    assert result.signal_name == "SIGSEGV"
    assert "culprit" in result.stderr


def test_a_child_that_hangs_is_killed_with_its_own_children_and_says_what_it_had_said(run_python, tmp_path):
    lock = tmp_path / "alive"
    code = f"""
        import fcntl, os, time
        fd = os.open({str(lock)!r}, os.O_CREAT | os.O_RDWR)
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.fork()
        print("locked", flush=True)
        while True:
            time.sleep(60)
    """
    with pytest.raises(AssertionError, match=r"(?s)killed: not finished after 4 s.*locked\nlocked"):
        run_python(textwrap.dedent(code), timeout=4)
    # Parent and child held the lock through one open file: it is free only when both have ended.
    run_python(f"import fcntl; fcntl.flock(open({str(lock)!r}), fcntl.LOCK_EX)", timeout=20)


def test_a_child_does_not_see_our_settings(run_python, monkeypatch):
    for name in ("COLLFS_STORE", "PYTHONWARNINGS", "LD_PRELOAD"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("ELSE", "kept")
    shown = ("COLLFS", "PYTHON", "LD_PRE", "ELSE", "NEW")
    code = f"import os; print(sorted(k for k in os.environ if k.startswith({shown})))"
    seen = run_python(code, env={"NEW": "1", "PYTHONPATH": None, "PYTHONPYCACHEPREFIX": None}).stdout
    assert seen == "['ELSE', 'NEW', 'PYTHONFAULTHANDLER']\n"


# -- reading what strace wrote ----------------------------------------------------------------------------------------


def parsed(text, cwd="/cwd"):
    return stracecount.parse(textwrap.dedent(text).lstrip(), cwd)


def summary(text):
    return [(o.kind, o.path, o.errno) for o in parsed(text).ops]


def test_each_kind_of_call_is_known_with_its_path_and_error():
    assert summary(r"""
        7  execve("/bin/prog", ["prog", "/not/me"], 0x7ffd /* 9 vars */) = 0
        7  access("/etc/a", R_OK)          = -1 ENOENT (No such file or directory)
        7  openat(AT_FDCWD</home>, "rel/b", O_RDONLY|O_CLOEXEC) = 3</home/rel/b>
        7  openat(5</p>, "c", O_RDONLY|O_DIRECTORY) = 4</p/c>
        7  newfstatat(3</home/rel/b>, "", {st_mode=S_IFREG|0644, st_size=1, ...}, AT_EMPTY_PATH) = 0
        7  newfstatat(AT_FDCWD</home>, "//p//q/../d", {st_mode=S_IFREG|0644, ...}, 0) = 0
        7  readlink("/p/link", "/target", 4096) = 7
        7  getdents64(4</p/c>, 0x55 /* 3 entries */, 32768) = 80
        7  getcwd("/home", 4096)           = 6
        7  stat("e", 0x7ffc)               = -1 ENOTDIR (Not a directory)
        7  open("/p/w", O_WRONLY|O_CREAT, 0666) = 5</p/w>
        7  symlink("text", "/p/new")       = 0
        7  renameat(AT_FDCWD</home>, "f", 5</p>, "g") = 0
        7  statfs("/p", {f_type=EXT2_SUPER_MAGIC, ...}) = 0
    """) == [
        ("exec", "/bin/prog", ""),
        ("access", "/etc/a", "ENOENT"),
        ("open", "/home/rel/b", ""),
        ("opendir", "/p/c", ""),
        ("stat", "/p/d", ""),
        ("readlink", "/p/link", ""),
        ("listing", "/p/c", ""),
        ("stat", "/cwd/e", "ENOTDIR"),
        ("write", "/p/w", ""),
        ("change", "/p/new", ""),
        ("change", "/home/f", ""),
        ("change", "/p/g", ""),
        ("other", "/p", ""),
    ]


def test_calls_that_other_threads_interrupt_in_the_log_are_joined():
    assert summary(r"""
        1  newfstatat(AT_FDCWD</>, "a",  <unfinished ...>
        2  openat(AT_FDCWD</>, "/b", O_RDONLY <unfinished ...>
        1  <... newfstatat resumed>0x7f, 0) = -1 ENOENT (No such file or directory)
        2  --- SIGCHLD {si_signo=SIGCHLD} ---
        2  <... openat resumed>)             = 3</b>
        1  +++ exited with 0 +++
    """) == [("stat", "/a", "ENOENT"), ("open", "/b", "")]


def test_a_call_in_which_the_process_was_killed_counts():
    assert summary("""
        1  openat(AT_FDCWD</>, "/b", O_RDONLY <unfinished ...>
        1  +++ killed by SIGKILL +++
        2  stat("/c", 0x7f) = ?
    """) == [("stat", "/c", ""), ("open", "/b", "?")]


def test_threads_count_for_their_process_even_if_they_run_before_their_clone_returns():
    counts = parsed("""
        1  clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0 <unfinished ...>
        2  stat("/a", 0x7f) = 0
        1  <... clone3 resumed>, stack_size=0x7f} => {parent_tid=[2]}, 88) = 2
        2  clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD|CLONE_SETTLS, tls=0x7f) = 3
        3  stat("/b", 0x7f) = 0
        1  vfork() = 4
        4  stat("/c", 0x7f) = 0
        1  clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f) = 5
        5  getcwd("/", 9) = 2
    """)
    assert counts.by_process() == {1: 2, 4: 1, 5: 0}


def test_a_prefix_takes_itself_and_what_is_below_it_only():
    counts = parsed("""
        1  stat("/p", 0x7f) = 0
        1  stat("/p/x", 0x7f) = 0
        2  open("/p/x", O_RDONLY) = 3
        2  open("/p/y", O_RDONLY) = -1 ENOENT (No such file or directory)
        2  stat("/pq", 0x7f) = 0
        3  stat("/elsewhere", 0x7f) = 0
    """).below("/p/")
    assert counts.total == 4
    assert counts.by_kind() == {"stat": 2, "open": 2}
    assert counts.by_process() == {1: 2, 2: 2, 3: 0}
    assert counts.openers() == {"/p/x": {2}}


@given(st.binary(min_size=1, max_size=40).filter(lambda b: b"\0" not in b))
def test_any_name_that_strace_escapes_is_read_back(name):
    letters = {10: "\\n", 9: "\\t", 13: "\\r", 11: "\\v", 12: "\\f", 34: '\\"', 92: "\\\\"}
    quoted = ""
    for i, b in enumerate(name):  # as strace does: the octal code is short unless a digit follows
        digit_next = name[i + 1 : i + 2].isdigit()
        quoted += letters.get(b) or (chr(b) if 32 <= b < 127 else f"\\{b:03o}" if digit_next else f"\\{b:o}")
    (op,) = parsed(f'1  stat("{quoted}", 0x7f) = 0\n').ops
    assert op.path == stracecount._absolute(os.fsdecode(name), "/cwd")


@given(st.text(alphabet='12 ()"\\<>.=,_opentdsumfinrA/\n', max_size=200))
def test_garbage_in_the_log_is_never_an_exception(text):
    stracecount.parse(text, "/cwd")


# -- the real strace --------------------------------------------------------------------------------------------------


def test_real_processes_and_threads_are_counted_to_the_call(strace_counts, tmp_path):
    (tmp_path / "file").write_text("x")
    code = """
        import os, sys, threading
        os.chdir(sys.argv[1])
        def work():
            os.stat("file"); os.close(os.open("file", os.O_RDONLY)); os.listdir("."); os.path.exists('no "such\\n\\xe9')
        threads = [threading.Thread(target=work) for _ in range(3)]
        for t in threads: t.start()
        for t in threads: t.join()
        if os.fork() == 0:
            work()
            os._exit(0)
        os.wait()
        print(os.getpid())
    """
    result, counts = strace_counts(
        [sys.executable, "-I", "-S", "-c", textwrap.dedent(code), tmp_path], [tmp_path], env={"LC_ALL": "C.UTF-8"}
    )
    parent = int(result.stdout)
    # listdir(".") is one opendir and two readings; chdir is one more, by the parent
    assert counts.by_kind() == {"other": 1, "stat": 8, "open": 4, "opendir": 4, "listing": 8}
    assert sorted(counts.by_process().values()) == [6, 1 + 3 * 6]
    assert counts.by_process()[parent] == 19
    assert counts.openers() == {str(tmp_path / "file"): set(counts.processes)}
    assert [o.errno for o in counts.ops if o.path.endswith('no "such\né')] == ["ENOENT"] * 4


def test_without_a_usable_strace_the_reason_is_given(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    stracecount.why_not.cache_clear()
    try:
        assert stracecount.why_not() == "strace is not installed"
        broken = tmp_path / "strace"
        broken.write_text("#!/bin/sh\necho ptrace: not permitted >&2\nexit 1\n")
        broken.chmod(0o755)
        stracecount.why_not.cache_clear()
        assert re.search(r"does not work here: ptrace: not permitted", stracecount.why_not())
    finally:
        stracecount.why_not.cache_clear()
