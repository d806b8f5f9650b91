"""A crowd on one node: 64 processes ask for the same 1,000 files at the same time, and each file is read once."""

from __future__ import annotations

import fcntl
import hashlib
import json

import pytest

import stracecount

CLIENTS, FILES = 64, 1000

CLIENT = """
import fcntl, hashlib, random
session = start(patience=60)
names = [f"{TREE}/many/{index:04}" for index in range(int(sys.argv[1]))]
random.Random(int(sys.argv[2])).shuffle(names)
gate = os.open(sys.argv[3], os.O_RDONLY)
tell(ready=1)
fcntl.flock(gate, fcntl.LOCK_SH)
if int(sys.argv[2]) % 2:  # all at once; the others one by one
    import collfs
    collfs.prefetch([f"{TREE}/many"])
contents = {}
for name in names:
    with open(name, "rb", buffering=0) as file:
        contents[name] = file.read()
digest = hashlib.sha256(b"".join([contents[name] for name in sorted(names)])).hexdigest()
tell(digest=digest, native=native(), trouble=trouble(session), asked=session.transport.asked)
"""


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.timeout(200)
def test_64_processes_that_want_the_same_1000_files_at_once_have_each_file_read_once(bench, tmp_path):
    if stracecount.why_not():
        pytest.skip(stracecount.why_not())
    many, whole = bench.tree / "many", hashlib.sha256()
    many.mkdir()
    for index in range(FILES):
        content = b"%d " % index * (index + 1)
        (many / f"{index:04}").write_bytes(content)
        whole.update(content)
    node, trace = bench.node(), tmp_path / "trace"
    server = bench.serve(node, before=[*stracecount.STRACE, "-o", str(trace)])
    gate = tmp_path / "gate"
    with open(gate, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        clients = [bench.start(CLIENT, node, str(FILES), str(number), str(gate)) for number in range(CLIENTS)]
        for client in clients:
            client.told("ready", 100)
    asked = 0
    for number, client in enumerate(clients):
        told = client.end(100)
        assert told["digest"] == whole.hexdigest(), number
        assert told["native"].keys() <= {"stat"}, number
        assert told["trouble"] == [[], "", "", ""], number
        asked += told["asked"]
    assert server.wait(30) == 0, server.log()
    report = server.report()
    ops = stracecount.parse(trace.read_text(errors="surrogateescape"), str(tmp_path)).below(many).ops
    opened = sorted(op.path for op in ops if op.kind == "open")
    print(json.dumps({"asked": asked, "operations below the folder": len(ops), **report}))
    assert opened == sorted(str(path) for path in many.iterdir())
    assert report["came"] == CLIENTS
    assert report["upstream"] <= 2 * FILES + 20  # contents, and the names that an open looks for first
    assert asked > 5 * FILES  # there was a crowd
