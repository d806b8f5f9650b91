"""One node as its user meets it: the first process starts the server, others join, and it goes when they have gone."""

from __future__ import annotations

import json
import os

import pytest

import stracecount
import zmqnode

WORK = """
import mpitree
session = start()
for index in range(mpitree.MODULES):
    mpitree.work(TREE, 0, "module", index)
for index in range(len(mpitree.LIBRARIES)):
    mpitree.work(TREE, 0, "library", index)
seen = look(TREE)
tell(taken=session.choice.taken, native=native(), trouble=trouble(session), counters=session.transport.counters(),
     store=session.store.path, first=session.transport.is_root)
tell(seen=seen)
"""
PLAIN = "tell(seen=look(TREE))"


def files_of(tree):
    """All regular files of the tree."""
    return sorted(str(path) for path in tree.rglob("*") if path.is_file())


def opened(counts, tree):
    """How often each file below the tree was opened with success, by whomever."""
    found = {}
    for op in counts.below(tree).ops:
        if op.kind in ("open", "write") and not op.errno:
            found.setdefault(op.path, []).append(op.process)
    return {path: who for path, who in found.items() if os.path.isfile(path)}


def test_three_processes_are_served_by_one_server_that_reads_each_file_once_and_goes_with_them(bench, tmp_path, watch):
    if stracecount.why_not():
        pytest.skip(stracecount.why_not())
    node, log = bench.node(), tmp_path / "trace"
    plain = bench.run(PLAIN, node)["seen"]
    waits = WORK + "\nhear()\n"
    first = bench.start(waits, node, before=[*stracecount.STRACE, "-o", str(log)])
    store = first.told("store")
    logs = [tmp_path / "trace1", tmp_path / "trace2"]
    others = [bench.start(waits, node, before=[*stracecount.STRACE, "-o", str(one)]) for one in logs]
    assert [one.told("store") for one in others] == [store, store]
    server = watch(zmqnode.server_pid(store))
    with open(f"{store}/server.log", encoding="utf-8") as said:  # it is removed with the store
        for one in (first, *others):
            one.say()
        for one in others:
            told = one.end()
            assert told["seen"] == plain
        assert first.told("seen") == plain
        first.wait()  # and with it strace, when the server that it follows has ended
        assert server.ended(20)
        report = zmqnode.report_in(said.read())
    assert zmqnode.inside(node) == []
    assert report["came"] == 4  # one is server_pid() here
    counts = stracecount.parse(log.read_text(errors="surrogateescape"), str(tmp_path))
    readers = opened(counts, bench.tree)
    assert sorted(readers) == files_of(bench.tree)
    assert {path: who for path, who in readers.items() if len(who) != 1} == {}
    assert {pid for who in readers.values() for pid in who} == {server.pid}
    traces = [counts] + [stracecount.parse(one.read_text(errors="surrogateescape"), str(tmp_path)) for one in logs]
    assert [[*zmqnode.live_ops(one, bench.tree).values()] for one in traces] == [[[]]] * 3


BROKEN = """
import logging, time
import mpitree
logging.basicConfig(format="%(message)s")
session = start(patience=5)
mpitree.work(TREE, 0, "module", 0)
tell(before=session.transport.counters())
tell(store=session.store.path)
hear()
begun = time.monotonic()
for index in range(mpitree.MODULES):
    mpitree.work(TREE, 0, "module", index)
seen = look(TREE)
tell(seconds=time.monotonic() - begun, after=session.transport.counters(), native=native())
tell(seen=seen)
hear()
tell(again=look(TREE), counters=session.transport.counters())
"""


def test_when_the_server_is_killed_the_program_goes_on_with_the_right_bytes_and_says_so_once(bench, watch):
    node = bench.node()
    plain = bench.run(PLAIN, node)["seen"]
    program = bench.start(BROKEN, node)
    server = watch(zmqnode.server_pid(program.told("store")))
    server.kill()
    program.say()
    assert program.told("seconds") < 5
    assert program.told("seen") == plain
    program.say()
    told = program.end()
    assert told["again"] == plain
    assert zmqnode.inside(node) == []  # the process was the last one
    said = [line for line in program.log().splitlines() if line.startswith("collfs: ")]
    assert len(said) == 1, said
    assert "server" in said[0]


@pytest.mark.parametrize("by", ["hand", "a process"])
def test_a_server_that_is_started_again_is_found_by_those_who_lost_the_first(bench, watch, by):
    node = bench.node()
    plain = bench.run(PLAIN, node)["seen"]
    program = bench.start(BROKEN, node)
    before = program.told("before")
    store = program.told("store")
    server = watch(zmqnode.server_pid(store))
    server.kill()
    if by == "hand":
        again = bench.serve(node)
        pid = again.pid
    else:
        bench.run("import mpitree\nstart()\nmpitree.work(TREE, 0, 'module', 1)", node)
        pid = zmqnode.server_pid(store)
    assert pid not in (0, server.pid)
    assert zmqnode.inside(node) == [store]
    program.say()
    told = program.told_all("after")
    assert told["after"]["answered"] > before["answered"] + 5
    assert told["after"]["lost"] == 1
    assert "open" not in told["native"]  # not even what was wanted when the loss was noticed
    assert program.told("seen") == plain
    program.say()
    assert program.end()["again"] == plain


def collfs(bench, node, run_command, *words, **more):
    return run_command(zmqnode.python("-m", "collfs", *words), env=bench.env(node), check=False, **more)


def test_collfs_stop_ends_the_server_and_not_the_program(bench, watch, run_command):
    node = bench.node()
    plain = bench.run(PLAIN, node)["seen"]
    program = bench.start(BROKEN, node)
    server = watch(zmqnode.server_pid(program.told("store")))
    assert collfs(bench, node, run_command, "stop", "--job", "another").rc == 1
    stopped = collfs(bench, node, run_command, "stop")
    assert stopped.rc == 0, stopped.describe()
    assert server.ended(10)
    again = collfs(bench, node, run_command, "stop")
    assert again.rc == 1
    assert "no server of this job" in again.stderr
    program.say()
    assert program.told("seconds") < 5
    assert program.told("seen") == plain
    program.say()
    assert program.end()["again"] == plain
    assert zmqnode.inside(node) == []


def test_a_second_server_of_a_job_on_a_node_is_an_error_that_says_so(bench, run_command):
    node = bench.node()
    first = bench.serve(node)
    words = ["serve", "--prefix", str(bench.tree)]
    second = collfs(bench, node, run_command, *words)
    assert second.rc == 1
    assert "this job has a server on this node already" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.process.poll() is None
    assert bench.run(WORK, node)["native"].keys() <= {"stat"}
    assert collfs(bench, node, run_command, "stop").rc == 0
    assert first.wait() == 0
    assert zmqnode.inside(node) == []
    assert first.report()["came"] >= 2


IDLE = """
import collfs
session = collfs.initialize("zmq", prefixes=[], manifest="none")
tell(idle=session.idle, store=session.store is not None)
import mpitree
"""


def test_a_process_with_nothing_to_manage_starts_no_server(bench):
    node = bench.node()
    told = bench.run(IDLE, node)
    assert told["idle"]
    assert zmqnode.inside(node) == []


FORKS = """
import mpitree, time
session = start()
mpitree.work(TREE, 0, "module", 0)
read, write = os.pipe()
tell(forked=session.transport.counters())
pid = os.fork()
if not pid:
    for index in range(mpitree.MODULES):
        mpitree.work(TREE, 0, "module", index)
    os.write(write, json.dumps([look(TREE), session.transport.counters()]).encode())
    os._exit(0)
os.close(write)
with open(read) as file:
    child = json.load(file)
assert os.waitpid(pid, 0)[1] == 0
mpitree.work(TREE, 0, "library", 0)
tell(child=child, counters=session.transport.counters(), seen=look(TREE), trouble=trouble(session))
"""


def test_a_forked_child_asks_nobody_and_its_parent_is_served_on(bench):
    node = bench.node()
    plain = bench.run(PLAIN, node)["seen"]
    told = bench.run(FORKS, node)
    seen, counters = told["child"]
    assert seen == told["seen"] == plain
    assert counters == told["forked"]
    assert counters["asked"] < told["counters"]["asked"]
    assert told["counters"]["lost"] == 0
    assert told["trouble"] == [[], "", "", ""]


THREADS = """
import mpitree, threading
session = start()
wrong = []
def work(number):
    try:
        for index in range(mpitree.FILES):
            mpitree.work(TREE, 0, "file", (index + number) % mpitree.FILES)
        for index in range(mpitree.MODULES):
            mpitree.work(TREE, 0, "module", (index + number) % mpitree.MODULES)
    except BaseException as exc:
        wrong.append(repr(exc))
threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(30)
import time
end = time.monotonic() + 20
while session.transport._waiting and time.monotonic() < end:  # what is found in the table is often there before DONE
    session.transport.step()
tell(wrong=wrong, left=[thread.name for thread in threads if thread.is_alive()], trouble=trouble(session),
     native=native())
"""


def test_threads_of_a_process_wait_for_what_they_asked_for_and_get_it(bench):
    told = bench.run(THREADS, bench.node())
    assert told == {"wrong": [], "left": [], "trouble": [[], "", "", ""], "native": told["native"]}
    assert "open" not in told["native"]


SCRIPT = """
import collfs, json, os, sys
session = collfs.calls._current
import mpitree
folder = sys.argv[1]
sys.path.insert(0, folder)
for index in range(mpitree.MODULES):
    mpitree.work(folder, 0, "module", index)
sys.stdout.write(json.dumps([session.choice.taken, session.transport.answered, sys.argv]))
"""


def test_collfs_run_with_transport_zmq_runs_a_program(bench, run_command, tmp_path):
    node, script, report = bench.node(), tmp_path / "script.py", tmp_path / "report.json"
    script.write_text(SCRIPT)
    words = ["run", "--transport", "zmq", "--prefix", str(bench.tree), "--manifest", "none", "--report", str(report)]
    said = collfs(bench, node, run_command, *words, str(script), str(bench.tree))
    assert said.rc == 0, said.describe()
    taken, answered, argv = json.loads(said.stdout)
    assert (taken, argv) == ("zmq", [str(script), str(bench.tree)])
    assert answered > 0
    (process,) = json.loads(report.read_text())["processes"]
    assert process["warnings"] == []
    assert process["read"]["answered"] >= answered


WITH = """
import mpitree
session = start(**json.loads(sys.argv[1]))
tell(store=session.store.path)
hear()
"""
WITHOUT = """
session = start()
seen = look(TREE)
header = session.store.table.header
tell(seen=seen, staged=int(header.staged_bytes), native=native(), trouble=trouble(session),
     copies=[path for path in seen if path.startswith(TREE) and session.fetcher.copy_of(path)])
"""


@pytest.mark.parametrize(
    ("name", "value"), [("max_file_bytes", 30000), ("max_store_bytes", 50000), ("exclude", ["*/data[23]"])]
)
def test_options_of_the_first_process_reach_the_server_that_it_starts(bench, name, value):
    node = bench.node()
    plain = bench.run(PLAIN, node)["seen"]
    first = bench.start(WITH, node, json.dumps({name: value}))
    store = first.told("store")
    told = bench.run(WITHOUT, node)  # asks for all of it
    assert told["seen"] == plain
    copies = {os.path.relpath(path, bench.tree) for path in told["copies"]}
    assert {"s0m0.py", "data0"} <= copies
    left = {"data0", "data1", "data2", "data3"} - copies
    if name == "exclude":
        assert left == {"data2", "data3"}
    elif name == "max_file_bytes":
        assert left == {data.name for data in bench.tree.glob("data*") if data.stat().st_size > value}
    else:
        assert left
        assert told["staged"] <= value
    first.say()
    first.end()
    assert store


HIDDEN = """
from collfs.errors import TransportUnavailable
import collfs
try:
    start()
except TransportUnavailable as exc:
    tell(error=str(exc))
session = start(fallback=("local",))
import s0m0
tell(taken=session.choice.taken, reasons=session.choice.reasons)
"""


def test_without_pyzmq_the_error_says_what_to_install_and_a_fallback_serves(bench, tmp_path, run_command):
    node, hidden = bench.node(), tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "zmq.py").write_text("raise ModuleNotFoundError(\"No module named 'zmq'\", name='zmq')\n")
    (hidden / "sitecustomize.py").write_text(zmqnode.NO_LIBRARY)
    path = f"{hidden}:{bench.env(node)['PYTHONPATH']}"
    told = bench.run(HIDDEN, node, PYTHONPATH=path)
    assert 'pip install "collfs[zmq]"' in told["error"]
    assert told["taken"] == "local"
    assert told["reasons"][0][0] == "zmq"
    served = run_command(
        zmqnode.python("-m", "collfs", "serve", "--prefix", str(bench.tree)),
        env={**bench.env(node), "PYTHONPATH": path},
        check=False,
    )
    assert served.rc == 1
    assert 'pip install "collfs[zmq]"' in served.stderr
    assert zmqnode.inside(node) == []


def test_the_steps_of_a_slurm_job_are_served_by_the_server_that_another_step_has_started(bench):
    node = bench.node()
    more = {"COLLFS_JOB": None, "SLURM_JOB_ID": "7"}
    server = bench.serve(node, **more, SLURM_STEP_ID="0")
    code = "session = start()\nopen(f'{TREE}/data0').read()\ntell(trouble=trouble(session))"
    for step in "12":
        assert bench.run(code, node, **more, SLURM_STEP_ID=step)["trouble"] == [[], "", "", ""]
    assert server.wait(30) == 0, server.log()
    assert server.report()["came"] == 2
