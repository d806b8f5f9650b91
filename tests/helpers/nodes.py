"""Nodes of a cluster on one machine: network namespaces, joined by a bridge, in which both MPIs run over TCP.

Each node has its own network, host name, mounts and IPC, and with them its own /dev/shm and its own TMPDIR (at the same
path everywhere). A node is held by one process that reads a pipe of ours: when this process dies, however it dies, the
pipe closes, the holder ends, and the kernel takes the namespaces, links and mounts away.

::

    switch   br0 --- p0 --- eth0  10.77.0.1  cn0     (mpiexec runs here)
                 --- p1 --- eth0  10.77.0.2  cn1
                 ...

Rules of the file: nothing outside the given folder is written, and nothing is seen outside the namespaces, so several
clusters with the same names and addresses live side by side. Only processes that were started here are ended, by pid.
"""

from __future__ import annotations

import functools
import os
import select
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

NETWORK = "10.77.0."
TOOLS = ("unshare", "nsenter", "ip", "mount", "hostname")
STEP = 30.0  # seconds for each of the small steps
_UNSHARE = ("unshare", "--net", "--uts", "--ipc", "--mount", "--propagation", "private")
_TRY = """
ip link add br0 type bridge
ip link add p0 type veth peer name eth0
ip link set p0 master br0
mount -t tmpfs tmpfs /dev/shm
"""

# What mpiexec calls in place of ssh: [options] host command..., the command being one line for a shell, as with ssh.
# Unlike ssh it passes the environment on.
_AGENT = """#!/bin/sh
while case "${1-}" in -*) ;; *) false ;; esac; do shift; done
host=$1
shift
case $host in
@CASES@
*) echo "no such node: $host" >&2; exit 255 ;;
esac
exec nsenter -t "$pid" -n -u -i -m sh -c 'cd "$0" && eval "$1"' @CWD@ "$*"
"""


@functools.cache
def why_not() -> str:
    """Why there can't be nodes here, or an empty string."""
    if os.geteuid():
        return "network namespaces as nodes need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"network namespaces as nodes need {', '.join(missing)}: packages util-linux, iproute2"
    tried = subprocess.run(
        [*_UNSHARE, "sh", "-e", "-c", _TRY], capture_output=True, text=True, timeout=STEP, check=False
    )
    return "" if tried.returncode == 0 else f"no network namespaces here: {tried.stderr.strip()[-200:]}"


class Nodes:
    """*count* nodes, as a context manager. ``names`` are their host names, ``pids`` the processes that hold them."""

    def __init__(self, folder: Path, count: int) -> None:
        """
        :param folder: an existing directory, for this cluster alone
        """
        self.folder, self.names = folder, [f"cn{index}" for index in range(count)]
        self.pids: list[int] = []
        self.agent, self.hosts = folder / "agent", folder / "hosts"
        self.tmp = folder / "tmp"
        self._holders: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Nodes:
        try:
            self._start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End the holders. What still runs in a node keeps that node's namespaces until it ends."""
        while self._holders:
            holder = self._holders.pop()
            holder.kill()
            holder.communicate()

    # -- to be used ----------------------------------------------------------------------------------------------

    def enter(self, node: int, *, cwd: Path | None = None) -> list[str]:
        """Words before a command that make it run in *node*."""
        words = ["nsenter", "-t", str(self.pids[node]), "-n", "-u", "-i", "-m"]
        return [*words, "sh", "-c", 'cd "$0" && exec "$@"', str(cwd or self.folder)]

    def env(self, ranks_each: int) -> dict[str, str]:
        """What mpiexec needs in its environment, in node 0, to start *ranks_each* ranks on every node in order.

        Environment variables since both launchers take all of this from there: HYDRA_... (Hydra's manual, "Environment
        settings"), and an MCA parameter of PRRTE or Open MPI NAME as PRTE_MCA_NAME and OMPI_MCA_NAME. Open MPI 4's own
        launcher has its parameters from the latter, under its own names (ompi_info --all).
        """
        hydra, slots = self.folder / "hosts.hydra", self.folder / "hosts.prte"
        hydra.write_text("".join(f"{name}:{ranks_each}\n" for name in self.names))
        slots.write_text("".join(f"{name} slots={ranks_each}\n" for name in self.names))
        return {
            "TMPDIR": str(self.tmp),
            "HYDRA_LAUNCHER": "rsh",
            "HYDRA_LAUNCHER_EXEC": str(self.agent),
            "HYDRA_HOST_FILE": str(hydra),
            "HYDRA_IFACE": "eth0",
            "PRTE_MCA_plm_ssh_agent": str(self.agent),
            "PRTE_MCA_plm_ssh_no_tree_spawn": "1",
            "PRTE_MCA_prte_default_hostfile": str(slots),
            "PRTE_MCA_prte_if_include": "eth0",
            "OMPI_MCA_btl_tcp_if_include": "eth0",
            "OMPI_MCA_plm_rsh_agent": str(self.agent),
            "OMPI_MCA_plm_rsh_no_tree_spawn": "1",
            "OMPI_MCA_orte_default_hostfile": str(slots),
            "OMPI_MCA_oob_tcp_if_include": "eth0",
        }

    # -- how it is made ------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.tmp.mkdir()
        addresses = [f"{NETWORK}{index + 1}" for index in range(len(self.names))]
        pairs = "".join(f"{address} {name}\n" for address, name in zip(addresses, self.names))
        self.hosts.write_text("127.0.0.1 localhost\n" + pairs)
        switch = self._hold("unshare", "--net")
        self._within(switch, "-n", "ip link add br0 type bridge\nip link set br0 up")
        for index, (address, name) in enumerate(zip(addresses, self.names)):
            pid = self._hold(*_UNSHARE)
            self.pids.append(pid)
            own = self.folder / f"tmp.{name}"
            own.mkdir()
            self._within(
                switch,
                "-n",
                f"ip link add p{index} type veth peer name eth0 netns {pid}\nip link set p{index} master br0 up",
            )
            self._within(
                pid,
                "-nuim",
                f"""hostname {name}
                ip link set lo up
                ip addr add {address}/24 dev eth0
                ip link set eth0 up
                mount -t tmpfs tmpfs /dev/shm
                mount --bind {shlex.quote(str(self.hosts))} /etc/hosts
                mount --bind {shlex.quote(str(own))} {shlex.quote(str(self.tmp))}""",
            )
        cases = "\n".join(f"{name}) pid={pid} ;;" for name, pid in zip(self.names, self.pids))
        self.agent.write_text(_AGENT.replace("@CASES@", cases).replace("@CWD@", shlex.quote(str(self.folder))))
        self.agent.chmod(0o755)

    def _hold(self, *unshare: str) -> int:
        """Start a process that holds new namespaces until our end of its pipe is closed; its pid."""
        holder = subprocess.Popen([*unshare, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._holders.append(holder)
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"!")
        holder.stdin.flush()
        if not select.select([holder.stdout], [], [], STEP)[0] or holder.stdout.read(1) != b"!":
            raise RuntimeError(f"{' '.join(unshare)} gave no namespaces: exit status {holder.poll()}")
        return holder.pid

    @staticmethod
    def _within(pid: int, which: str, script: str) -> None:
        command = ["nsenter", "-t", str(pid), *(f"-{letter}" for letter in which.strip("-")), "sh", "-e", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, timeout=STEP, check=False)
        if done.returncode:
            raise RuntimeError(f"{script}\n{done.stderr}")
