"""What transport zmq costs, as ratios of alternated runs, with the promise beside each.

::

    python tests/bench/servers.py [--rounds N] [--json FILE]

Needs pyzmq and collfs. Nodes are stores of their own on this machine. Raw ZeroMQ has CURVE, too.

Rule of the file: every process that is started has a time limit.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import zmq
from bench import Line, run  # type: ignore[import-not-found]
from mpi import LARGE, MIB, make  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK = 4 * MIB
LIMIT = 120  # seconds for any process
ASKED = 200  # misses

CLIENT = """
import collfs, json, os, sys, time
from collfs.record import CONTENT, Want
tree, store, how = sys.argv[1:]
session = collfs.initialize("zmq", prefixes=[tree], job="bench", store=store, manifest="none", patience=60,
                            max_store_bytes="4G", quiet=True)
wants = [Want(f"{tree}/{name}", CONTENT) for name in sorted(os.listdir("/" + tree))]
begun = time.perf_counter()
if how == "bulk":
    session.fetcher.want(wants)
else:
    for want in wants:
        session.fetcher.want([want])
took = time.perf_counter() - begun
assert not any(session.fetcher.missing(want) for want in wants), session.fetcher.silences
print(json.dumps(took))
"""


@contextmanager
def server(tree: Path, store: Path, *words: str, env: dict[str, str]) -> Iterator[str]:
    """A server; its address."""
    store.mkdir()
    command = [sys.executable, "-m", "collfs", "serve", "--prefix", str(tree), "--job", "bench", "--store", str(store)]
    command += ["--host", "127.0.0.1", "--max-store-bytes", "4G", "--quiet", *words]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(store)


def ours(tree: Path, depth: int, how: str) -> float:
    """Seconds in which a process gets all of *tree* from a server *depth* levels below the root."""
    env = {**os.environ, "COLLFS_SECRET": secrets.token_hex(32)}
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="collfs-bench-") as name, ExitStack() as stack:
        stores = [Path(name) / f"n{level}" for level in range(depth + 1)]
        root = stack.enter_context(server(tree, stores[0], "--bind", "tcp://127.0.0.1:0", env=env))
        for store in stores[1:]:  # fanout 1: each is one level below the one before
            stack.enter_context(server(tree, store, "--root", root, "--fanout", "1", env=env))
        words = [sys.executable, "-c", CLIENT, str(tree), str(stores[-1]), how]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=LIMIT, check=True)
    return float(json.loads(done.stdout))


def curve(socket: zmq.Socket[bytes], server: tuple[bytes, bytes] | None, peer: bytes = b"") -> None:
    """Set the keys of a socket."""
    if server is not None:
        socket.curve_server = True
        socket.curve_secretkey = server[1]
    else:
        socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
        socket.curve_serverkey = peer


def take(port: int, key: bytes, size: int, queue: multiprocessing.Queue[float]) -> None:
    """Receive *size* bytes and write them into memory."""
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        curve(socket, None, key)
        socket.connect(f"tcp://127.0.0.1:{port}")
        socket.recv()
        queue.put(0.0)
        begun, got = time.perf_counter(), 0
        path = f"/dev/shm/collfs-bench-{os.getpid()}"
        with open(path, "wb", buffering=0) as file:
            while got < size:
                piece = socket.recv(copy=False).buffer
                got += len(piece)
                file.write(piece)
        queue.put(time.perf_counter() - begun)
        os.unlink(path)


def raw_bulk(size: int) -> float:
    """Seconds for *size* bytes through a socket and one write."""
    keys = zmq.curve_keypair()
    queue: multiprocessing.Queue[float] = multiprocessing.Queue()
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        curve(socket, keys)
        socket.sndhwm = 4
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        process = multiprocessing.Process(target=take, args=(port, keys[0], size, queue))
        process.start()
        piece = os.urandom(CHUNK)
        socket.send(b"begin")
        queue.get(timeout=LIMIT)
        for _ in range(size // CHUNK):
            socket.send(piece, copy=False)
        took = queue.get(timeout=LIMIT)
        process.join(LIMIT)
    return took


def hop(port: int, key: bytes, queue: multiprocessing.Queue[int], own: tuple[bytes, bytes], count: int) -> None:
    """Answer *count* requests by asking the next one."""
    with zmq.Context() as context, context.socket(zmq.REP) as below, context.socket(zmq.REQ) as above:
        curve(below, own)
        queue.put(below.bind_to_random_port("tcp://127.0.0.1"))
        if port:
            curve(above, None, key)
            above.connect(f"tcp://127.0.0.1:{port}")
        for _ in range(count):
            asked = below.recv()
            if port:
                above.send(asked)
                asked = above.recv()
            below.send(asked)


def raw_miss(depth: int, size: int) -> float:
    """Seconds for :data:`ASKED` requests that go *depth* levels up and come back with *size* bytes."""
    queue: multiprocessing.Queue[int] = multiprocessing.Queue()
    port, key, processes = 0, b"", []
    for _ in range(depth + 1):
        own = zmq.curve_keypair()
        process = multiprocessing.Process(target=hop, args=(port, key, queue, own, ASKED))
        process.start()
        processes.append(process)
        port, key = queue.get(timeout=LIMIT), own[0]
    with zmq.Context() as context, context.socket(zmq.REQ) as socket:
        curve(socket, None, key)
        socket.connect(f"tcp://127.0.0.1:{port}")
        begun = time.perf_counter()
        for _ in range(ASKED):
            socket.send(b"x" * size)
            socket.recv()
        took = time.perf_counter() - begun
    for process in processes:
        process.join(LIMIT)
    return took


def everything(rounds: int, tmp: Path) -> list[Line]:
    """All of this file."""
    tree = make(tmp / "large", 512 * MIB, LARGE)
    bulk = [ours(tree, 1, "bulk") / raw_bulk(512 * MIB) for _ in range(rounds)]
    small = make(tmp / "small", ASKED * 1000, [1000])
    misses = [ours(small, 2, "one by one") / raw_miss(2, 1000) for _ in range(rounds)]
    return [
        Line("staging 512 MiB to another node / (ZeroMQ + a write)", bulk, "", 1.5),
        Line("a miss through 2 levels / REQ and REP of that depth", misses, "", 3.0),
    ]


if __name__ == "__main__":
    raise SystemExit(run(__doc__, everything, 5))
