"""A tree of servers: four nodes on one machine, of which only the root's server ever touches the managed directory."""

from __future__ import annotations

import json
import os
import random

import pytest

import stracecount
import zmqnode

NODES, EACH = 4, 2

WORK = """
import mpitree
session = start(**json.loads(sys.argv[1]))
for index in range(mpitree.MODULES):
    mpitree.work(TREE, 0, "module", index)
for index in range(len(mpitree.LIBRARIES)):
    mpitree.work(TREE, 0, "library", index)
seen = look(TREE)
tell(pid=os.getpid(), first=session.transport.is_root, native=native(), trouble=trouble(session),
     device=os.stat(TREE).st_dev, store=session.store.path)
tell(seen=seen)
"""
PLAIN = "tell(seen=look(TREE))"


@pytest.fixture
def tree(bench):
    """Start a tree: (fanout, words before the command of node n's server) -> (nodes, servers), root first."""

    def start(fanout, before=lambda node: [], count=NODES, **more):
        nodes = [bench.node() for _ in range(count)]
        words = ("--fanout", str(fanout))
        servers = [bench.serve(nodes[0], "--bind", "tcp://127.0.0.1:0", *words, before=before(0), **more)]
        for n in range(1, count):
            servers.append(below(bench, nodes[n], servers[0], *words, before=before(n), **more))
        return nodes, servers

    return start


def below(bench, node, root, *words, **more):
    """A server that joins *root*."""
    return bench.serve(node, "--bind", "tcp://127.0.0.1:0", "--root", root.address, *words, **more)


def ended(servers, now=False):
    """The reports of the servers when they have ended: by themselves, or *now* by a signal."""
    for server in servers:
        if now:
            server.process.terminate()
        assert server.wait(30) == 0, server.log()
    return [server.report() for server in servers]


@pytest.mark.parametrize("fanout", [1, 16])
def test_only_the_server_of_the_root_touches_the_directory_on_four_nodes(bench, tree, tmp_path, fanout):
    if stracecount.why_not():
        pytest.skip(stracecount.why_not())

    def traced(name):
        return [*stracecount.STRACE, "-o", str(tmp_path / f"{name}.trace")]

    plain = bench.run(PLAIN, bench.node())["seen"]
    nodes, servers = tree(fanout, lambda node: traced(f"server{node}"))
    programs = [bench.start(WORK, nodes[n // EACH], "{}", before=traced(f"program{n}")) for n in range(NODES * EACH)]
    for n, program in enumerate(programs):
        told = program.end(60)
        assert told["seen"] == plain, n
        assert told["trouble"] == [[], "", "", ""], n
        assert told["native"].keys() <= {"stat"}, n
        assert told["device"] == bench.tree.stat().st_dev, n
    reports = ended(servers)
    assert [zmqnode.inside(node) for node in nodes] == [[]] * NODES

    def ops(name):
        text = (tmp_path / f"{name}.trace").read_text(errors="surrogateescape")
        return stracecount.parse(text, str(tmp_path))

    for n in range(NODES * EACH):
        assert list(zmqnode.live_ops(ops(f"program{n}"), bench.tree).values()) == [[]], n
    for n in range(1, NODES):  # a server looks at the directory itself when it starts, and at nothing in it
        touched = ops(f"server{n}").below(bench.tree)
        assert {op.path for op in touched.ops} <= {str(bench.tree)}, n
        assert touched.total <= 5, n
    opens = [op.path for op in ops("server0").below(bench.tree).ops if op.kind == "open" and os.path.isfile(op.path)]
    assert sorted(opens) == sorted(str(path) for path in bench.tree.rglob("*") if path.is_file())
    print(f"fanout {fanout}: root {ops('server0').below(bench.tree).total} operations, {reports}")
    assert all("ops" in report if n == 0 else report["joins"] >= 1 for n, report in enumerate(reports))


def test_different_programs_on_different_nodes_at_the_same_time_get_what_they_want(bench, tree):
    nodes, servers = tree(2)
    code = """
import mpitree
session = start()
tell(ready=1)
hear()
for what, index in json.loads(sys.argv[1]):
    mpitree.work(TREE, 0, what, index)
tell(trouble=trouble(session), native=native(), fetched=session.transport.answered)
"""
    dice = random.Random(4)
    programs = []
    for n in range(NODES * EACH):
        work = [("module", k) for k in range(8)] + [("file", k) for k in range(4)] + [("library", k) for k in range(3)]
        dice.shuffle(work)
        programs.append(bench.start(code, nodes[n // EACH], json.dumps(work[: dice.randint(1, len(work))])))
    for program in programs:
        program.told("ready")
    for program in programs:
        program.say()
    for program in programs:
        told = program.end()
        assert told["trouble"] == [[], "", "", ""]
        assert told["native"].keys() <= {"stat"}
    ended(servers)


PLANNED = """
import mpitree
session = start(manifest=sys.argv[1], program=sys.argv[2])
tell(first=session.transport.is_root, store=session.store.path)
before = session.transport.asked
hear()
names = [f"{TREE}/data{index}" for index in range(mpitree.FILES)]
tell(staged=[name for name in names if session.fetcher.copy_of(name)])
for index in range(mpitree.FILES):
    mpitree.work(TREE, 0, "file", index)
tell(asked=session.transport.asked - before, trouble=trouble(session))
import collfs
collfs.finalize()
"""
WATCHES = """
import mpitree, time
session = start(manifest="none")
tell(ready=1)
hear()
names = [f"{TREE}/data{index}" for index in range(mpitree.FILES)]
end = time.monotonic() + 20
while time.monotonic() < end and not all(session.fetcher.copy_of(name) for name in names):
    time.sleep(0.01)
tell(staged=[name for name in names if session.fetcher.copy_of(name)])
"""
SEES = WATCHES.replace("while time.monotonic() < end and", "while False and")


def test_the_plan_of_a_second_run_is_pulled_by_the_nodes_that_run_the_program_and_by_no_other(bench, tree, tmp_path):
    manifest, program = str(tmp_path / "manifest"), "prog"
    nodes, servers = tree(16)
    once = bench.start(PLANNED, nodes[1], manifest, program)
    assert once.told("first") is True
    once.say()
    assert once.told("staged") == []
    assert once.told("asked") > 0
    once.end()
    ended(servers, now=True)

    nodes, servers = tree(16, count=5)
    names = [f"{bench.tree}/data{index}" for index in range(4)]
    # some that aren't of this program look on, on the nodes of the program and on one without it
    lookers = [bench.start(WATCHES, nodes[n], "") for n in (1, 2, 3)]
    elsewhere = bench.start(SEES, nodes[4], "")
    for looker in (*lookers, elsewhere):
        looker.told("ready")
    runs = [bench.start(PLANNED, nodes[n], manifest, program) for n in (2, 1, 3)]
    assert sorted(run.told("first") for run in runs) == [False, False, True]
    # another program with a manifest of its own
    other = bench.start(PLANNED, nodes[4], str(tmp_path / "other"), "another")
    assert other.told("first") is True
    for looker in lookers:  # the programs haven't asked yet
        looker.say()
    for looker in lookers:
        assert looker.end()["staged"] == names
    for run in runs:
        run.say()
    for run in runs:
        told = run.end()
        assert told["trouble"] == [[], "", "", ""]
    elsewhere.say()
    assert elsewhere.end()["staged"] == []  # the plan has come there, and nobody wants it
    other.say()
    other.end()
    ended(servers)


def test_a_node_that_comes_late_gets_what_the_others_have_without_another_read(bench, tree, tmp_path):
    if stracecount.why_not():
        pytest.skip(stracecount.why_not())
    trace = tmp_path / "trace"
    plain = bench.run(PLAIN, bench.node())["seen"]
    nodes, servers = tree(1, lambda node: [] if node else [*stracecount.STRACE, "-o", str(trace)], count=3)
    stays = bench.start(WORK + "\nhear()\n", nodes[2], "{}")
    assert stays.told("seen") == plain
    late = bench.node()
    servers.append(below(bench, late, servers[0], "--fanout", "1"))
    told = bench.run(WORK, late, "{}")
    assert told["seen"] == plain
    assert "open" not in told["native"]
    stays.say()
    stays.end()
    reports = ended(servers)
    assert reports[0]["upstream"] < sum(report["upstream"] for report in reports[2:])
    files = sorted(str(path) for path in bench.tree.rglob("*") if path.is_file())
    ops = stracecount.parse(trace.read_text(errors="surrogateescape"), str(tmp_path)).below(bench.tree).ops
    assert sorted(op.path for op in ops if op.kind == "open" and op.path in files) == files


BIG = """
import hashlib
session = start()
sums = {}
for name in sys.argv[1:]:
    with open(f"{TREE}/{name}", "rb") as file:
        sums[name] = hashlib.sha256(file.read()).hexdigest()
tell(sums=sums, native=native(), trouble=trouble(session),
     copies=[bool(session.fetcher.copy_of(f"{TREE}/{name}")) for name in sys.argv[1:]])
"""


def test_big_files_come_through_two_levels_as_they_are(bench, tree):
    import hashlib

    sizes = {"small": 1 << 20, "more": 9 << 20, "much": 70 << 20, "odd": (8 << 20) + 1, "empty": 0}
    sums = {}
    for name, size in sizes.items():
        content = random.Random(size).randbytes(size) if size else b""
        (bench.tree / name).write_bytes(content)
        sums[name] = hashlib.sha256(content).hexdigest()
    nodes, servers = tree(1, count=3)
    programs = [bench.start(BIG, node, *sizes) for node in nodes for _ in range(2)]
    for program in programs:
        told = program.end(90)
        assert told["sums"] == sums
        assert told["native"].keys() <= {"stat"}
        assert told["copies"] == [True] * len(sizes)
        assert told["trouble"] == [[], "", "", ""]
    ended(servers)


CHANGES = """
import collfs, importlib, mpitree
session = start()
name = f"{TREE}/data0"
old = open(name).read()
import s0m0
tell(old=old, known=os.path.exists(f"{TREE}/s0late.py"), store=session.store.path)
hear()
if sys.argv[1] == "invalidate":
    assert open(name).read() == old
    collfs.invalidate(name)
    collfs.invalidate(TREE)
tell(new=open(name).read())
importlib.invalidate_caches()
import s0late
tell(late=s0late.VALUE, file=s0late.__file__, trouble=trouble(session))
"""


@pytest.mark.parametrize("how", ["invalidate", "invalidate_caches"])
def test_what_has_changed_is_seen_after_the_process_says_so(bench, tree, how):
    nodes, servers = tree(1, count=3)
    others = bench.start(CHANGES, nodes[1], "nothing")
    others.told("old")
    program = bench.start(CHANGES, nodes[2], how)
    old = program.told("old")
    # as an editor does it: a new file under the name
    (bench.tree / "data0.new").write_text("new " + old)
    (bench.tree / "data0.new").rename(bench.tree / "data0")
    (bench.tree / "s0late.py").write_text("VALUE = 7\n")
    program.say()
    assert program.told("new") == ("new " + old if how == "invalidate" else old)
    told = program.end()
    assert (told["late"], told["file"]) == (7, f"{bench.tree}/s0late.py")
    assert told["trouble"] == [[], "", "", ""]
    others.say()
    # that process has said nothing; but what its node hands on to the node below is the new one, and one is enough
    assert others.told("new") in (old, "new " + old)
    assert others.end()["late"] == 7
    ended(servers)
