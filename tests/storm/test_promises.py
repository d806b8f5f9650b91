"""What collfs promises, as exact counts at the file server that plays the shared one.

Nodes have a mount of their own over the environment of this Python, the Python that it is made from, and a generated
program; caches are cold in every run. Where nothing else is said the kernel believes nothing, the worst case: it asks
again for every component of every path. No time is looked at.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

import pytest

import fileserver
import reasons

NODES = 3
BELIEVED = 600.0  # seconds: each path is asked for once, as strace counts
OF_ONE_PLAIN = 0.6
# Path operations of our own before collfs is active: some 35 if the bundle (collfs/bundle.py) has all that this start
# needs, 120 if the program that has left it needed less.
OURS = 60
# The same of a node's server and libzmq, beside what its processes have just asked for: some 30.
SERVERS = 50

# What sysconfig looks at by stat alone, which nothing announces. Without a manifest it is a matter of time whether the
# listing that answers it has come by then.
UNANNOUNCED = ("/bin", "/bin/Modules", "/bin/Modules/Setup.dist", "/bin/Modules/Setup.local")

JOBS = [name + manifest for name in ("mpi", "zmq", "mpi+zmq") for manifest in ("", "+manifest")]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def paths_of(by_node):
    return [fileserver.paths_only(ops) for ops in by_node]


@pytest.mark.parametrize("label", JOBS)
def test_once_collfs_is_active_no_node_but_the_one_that_reads_asks_for_any_path(lab, label):
    run = lab(label, NODES)
    assert {rank.trouble for rank in run.ranks} == {"[]"}
    after = paths_of(run.after)
    base = "" if label.endswith("manifest") else os.path.realpath(sys.base_prefix)
    late = [op for ops in after[1:] for op in ops if not base or op.path not in [base + end for end in UNANNOUNCED]]
    assert late == []
    if label.startswith("zmq"):  # the server of the root reads, its rank doesn't
        assert [op for op in after[0] if op.process == run.ranks[0].pid] == []


@pytest.mark.parametrize("label", [label for label in JOBS if label.endswith("manifest")])
def test_with_a_manifest_all_nodes_together_ask_less_than_one_plain_node(lab, label):
    plain = paths_of(lab("plain", 1).after)[0]
    assert len(plain) > 1000
    run = lab(label, NODES)
    before, after = paths_of(run.before), paths_of(run.after)
    # the reader reads what the manifest says before its own initialize has returned
    reading = len(before[0]) - min(len(ops) for ops in before[1:])
    together = reading + sum(len(ops) for ops in after)
    print(f"{label}: reading {reading}, afterwards {[len(ops) for ops in after]}, one plain node {len(plain)}")
    # started through zmq, the root's server reads again what MPI doesn't bring in time, which depends on the machine
    assert together <= (1 if "+zmq" in label else OF_ONE_PLAIN) * len(plain)


@pytest.mark.parametrize("label", ["mpi+manifest", "zmq+manifest"])
def test_one_more_node_adds_nothing_once_collfs_is_active(lab, label):
    fewer, more = (paths_of(lab(label, count).after) for count in (NODES - 1, NODES))
    assert sum(len(ops) for ops in more[1:]) == sum(len(ops) for ops in fewer[1:]) == 0


@pytest.mark.parametrize("label", ["plain", "mpi+manifest", "zmq+manifest", "mpi+zmq+manifest"])
def test_every_path_that_a_node_asks_for_before_collfs_is_active_has_a_reason(lab, label):
    run = lab(label, 1 if label == "plain" else NODES, BELIEVED)
    last = fileserver.paths_only(run.before[-1])
    why = reasons.grouped(last, run.places)
    print(label, {reason: len(ops) for reason, ops in why.items()})
    assert sorted({op.path for op in why.get("", [])}) == []
    if label.startswith("mpi+manifest"):
        assert len(why[reasons.COLLFS]) <= OURS
    if "zmq" in label:
        ours = {reason: len(ops) for reason, ops in why.items() if reason not in (reasons.START, reasons.PTH)}
        assert sum(ours.values()) <= OURS + SERVERS, ours
    if label == "plain":
        made_by_virtualenv = {reasons.LIBRARY} if find_spec("_virtualenv") else set()  # a .pth of it imports some
        assert set(why) <= {reasons.START, reasons.PTH, reasons.FOLDERS} | made_by_virtualenv


def test_a_plain_job_asks_anew_on_every_node(lab):
    one, all_of_them = (paths_of(lab("plain", count).after) for count in (1, NODES))
    for ops in all_of_them:
        assert abs(len(ops) - len(one[0])) <= len(one[0]) // 20
    assert len(lab("plain", 1).bytes_read) == 1
    assert min(lab("plain", NODES).bytes_read) > 1 << 20
