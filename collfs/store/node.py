"""The store's directory: one for each job and node, private, and gone when its job is.

Who finds whom: all stores of a user in one base directory carry his uid and a random name. A start looks at them under
one lock of the user. A store whose ``alive`` lock can be had is dead and is removed; one of the same job is joined;
else a new one is made. Without a job id from the launcher or the user, the job is the POSIX session (getsid(2)), and a
store may be joined only during :data:`JOIN_SECONDS` after it was made: later somebody may have changed the files.

Rules of the file: everything is checked for owner and mode before it is believed; waiting has a limit.
"""

from __future__ import annotations

import os
import stat
import time
from _thread import get_ident

from .. import _libc
from ..errors import StoreError
from ..mounts import network_name
from .table import Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..interpose.machine.code import Code

JOIN_SECONDS = 600.0
LOCK_SECONDS = 20.0
MIN_FREE = 64 << 20
FORMAT = "collfs-store 1"
CANARY = b"collfs canary: this name is in the path table only\n"

# the job as its launcher names it, with the step where there are several; sources: the manuals of srun(1), qsub(1),
# bsub(1), flux-environment(7), PMIx standard 4 (PMIX_NAMESPACE), Open MPI and Hydra (job ids of mpiexec), torchrun
# (whose run id is "none" by default; its workers are sessions of their own)
JOB_VARIABLES = (
    ("SLURM_JOB_ID", "SLURM_STEP_ID"),
    ("FLUX_JOB_ID",),
    ("PBS_JOBID",),
    ("LSB_JOBID", "LSB_JOBINDEX"),
    ("COBALT_JOBID",),
    ("PMIX_NAMESPACE",),
    ("OMPI_MCA_ess_base_jobid",),
    ("PMI_JOBID",),
    ("TORCHELASTIC_RUN_ID", "MASTER_PORT"),
)


STEPS = ("SLURM_STEP_ID",)  # of those, what names a part of a job: one server serves all of them


def job_id(environ: dict[str, str] | os._Environ[str], *, step: bool = True) -> str:
    """The job as the launcher names it, or an empty string.

    :param step: with the step of it that this process belongs to
    """
    for names in JOB_VARIABLES:
        if environ.get(names[0]):
            return "-".join(
                f"{name}={environ[name]}" for name in names if environ.get(name) and (step or name not in STEPS)
            )
    return ""


def candidates(chosen: str | None, environ: dict[str, str] | os._Environ[str]) -> list[str]:
    """Node-local directories that may hold the store, best first."""
    if chosen is not None:
        return [chosen]
    out: list[str] = []
    for path in ("/dev/shm", environ.get("TMPDIR", ""), "/tmp", "/var/tmp"):
        if path.startswith("/") and path not in out:
            out.append(path)
    return out


def unsuitable(base: str, chosen: bool) -> str:
    """Why *base* can't hold a store, or an empty string. What the user chose is held to less."""
    try:
        if not stat.S_ISDIR(os.stat(base).st_mode):
            return "not a directory"
        if not os.access(base, os.W_OK | os.X_OK):
            return "not writable"
        fs = os.statvfs(base)
    except OSError as exc:
        return str(exc.strerror)
    if fs.f_flag & os.ST_NOEXEC:
        return "mounted noexec: libraries could not be loaded from there"
    if not chosen:
        if fs.f_bavail * fs.f_frsize < MIN_FREE:
            return f"less than {MIN_FREE >> 20} MiB free"
        network = network_name(base)
        if network:
            return f"on a shared file system ({network})"
    return ""


def wait_for_lock(fd: int, operation: int, seconds: float, until: Callable[[], bool] | None = None) -> bool:
    """flock with a time limit, politely polling; *until* ends the waiting early. True: the lock is held."""
    pause, deadline = 0.0002, time.monotonic() + seconds
    while not _libc.flock(fd, operation | _libc.LOCK_NB):
        if (until is not None and until()) or time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.005)
    return True


def remove_tree(path: str) -> None:
    """Remove a dead store; what can't be removed stays for the next start. (shutil is a heavy import.)"""
    try:
        with os.scandir(path) as entries:
            for entry in list(entries):
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(entry.path, 0o700)  # directories of a mirror have mode 0
                    remove_tree(entry.path)
                else:
                    os.unlink(entry.path)
        os.rmdir(path)
    except OSError:
        pass


class NodeStore:
    """A store that this process uses. ``created``: it was made by this process, which is the node's first."""

    def __init__(self, path: str, job: str, created: bool, code: Code) -> None:
        """
        :raises StoreError: if it can't be made or joined
        """
        self.path, self.job, self.created = path, job, created
        self._alive: _libc.Handle | None = None
        self._write: _libc.Handle | None = None
        self._table: Table | None = None
        self._heirs: dict[int, _libc.Handle] = {}  # by forking thread
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if created else 0)
        try:
            self._alive = _libc.Handle(os.open(path + "/alive", flags, 0o600))
            _libc.flock(self.alive, _libc.LOCK_SH)
            self._write = _libc.Handle(os.open(path + "/write", flags, 0o600))
            self.table = self._table = Table(path + "/t", code, create=created)
            if created:
                self._fill()
        except OSError as exc:
            self._close()
            raise exc if isinstance(exc, StoreError) else StoreError(exc.errno, f"{path}: {exc.strerror}") from exc

    def _fill(self) -> None:
        from ..interpose.machine.layout import K_FILE

        for name in ("f", "m", "n"):
            os.mkdir(f"{self.path}/{name}", 0o700)
        with open(self.path + "/f/canary", "wb") as file:
            file.write(CANARY)
        self.table.set_mirror_root(os.path.realpath(self.path) + "/m/")
        self.table.add_prefix(self.path + "/c")
        self.table.put(self.canary, K_FILE, copy=self.path + "/f/canary", seq=self.table.next_sequence(), epoch=0)
        text = f"{FORMAT}\n{self.job}\n{time.time():.3f}\n"
        fd = os.open(self.path + "/job.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.write(fd, text.encode())
        os.close(fd)
        os.rename(self.path + "/job.new", self.path + "/job")

    @property
    def alive(self) -> int:
        """The descriptor whose shared lock says that somebody uses the store.

        :raises OSError: if the program has closed it
        """
        return _number(self._alive)

    @property
    def write(self) -> int:
        """The descriptor whose lock a writer holds.

        :raises OSError: if the program has closed it
        """
        return _number(self._write)

    @property
    def canary(self) -> str:
        """A name that exists in the path table only."""
        return self.path + "/c/canary"

    def before_fork(self) -> None:
        """Open the lock that a child will hold the store by: ours ends with us, perhaps before the child runs."""
        try:
            heir = _libc.Handle(os.open(self.path + "/alive", os.O_RDWR | os.O_CLOEXEC))
            _libc.flock(heir.number(), _libc.LOCK_SH | _libc.LOCK_NB)
        except OSError:
            return  # the copies may go away: then they are read natively
        self._heirs[get_ident()] = heir

    def forked(self) -> None:
        """In the parent: the child's lock is the child's."""
        heir = self._heirs.pop(get_ident(), None)
        if heir is not None:
            heir.close()

    def after_fork(self) -> None:
        """In the child: hold the store by its own lock."""
        heir = self._heirs.pop(get_ident(), None)
        # a fork by another thread at the same time has left its heir here, too
        old, self._heirs = (self._alive, self._write, *self._heirs.values()), {}
        self._alive, self._write = heir, None
        for handle in old:
            if handle is not None:
                handle.close()

    def close(self) -> None:
        """Leave the store; the last process of the job removes it."""
        if self._alive is not None:
            try:
                # first the lock of the starts: one that holds it may be joining this store, and wait for `alive`
                with _UserLock(os.path.dirname(self.path)):
                    if _libc.flock(self.alive, _libc.LOCK_EX | _libc.LOCK_NB):
                        remove_tree(self.path)
            except OSError:
                pass  # the next start will
        self._close()

    def _close(self) -> None:
        for handle in (self._alive, self._write, self._table):
            if handle is not None:
                handle.close()
        self._alive = self._write = None


def _number(handle: _libc.Handle | None) -> int:
    if handle is None:
        raise OSError(9, "this process has left the store")
    return handle.number()


class _UserLock:
    """One start at a time looks at the stores of a user in *base*."""

    def __init__(self, base: str) -> None:
        path = f"{base}/collfs-{os.geteuid()}.lock"
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if os.fstat(self.fd).st_uid != os.geteuid():
            os.close(self.fd)
            raise StoreError(1, f"{path} belongs to another user")

    def __enter__(self) -> None:
        if not wait_for_lock(self.fd, _libc.LOCK_EX, LOCK_SECONDS):
            os.close(self.fd)
            raise StoreError(110, f"another start holds the lock of the stores for more than {LOCK_SECONDS:.0f} s")

    def __exit__(self, *exc: object) -> None:
        os.close(self.fd)


def _state(path: str) -> tuple[str, float] | None:
    """(job, time of making) of a store that is alive, None of one that is dead or not ours to judge."""
    try:
        with open(path + "/job", encoding="utf-8", errors="surrogateescape") as file:
            head, job, made = file.read(8192).split("\n")[:3]
        return (job, float(made)) if head == FORMAT else None
    except (OSError, ValueError):
        return None


def _is_dead(path: str) -> bool:
    try:
        fd = os.open(path + "/alive", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return _libc.flock(fd, _libc.LOCK_EX | _libc.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(fd)


def stores(base: str) -> list[str]:
    """Directories in *base* that are stores of this user: owner and mode checked."""
    out, start = [], f"collfs-{os.geteuid()}-"
    for name in os.listdir(base):
        if name.startswith(start):
            try:
                st = os.lstat(f"{base}/{name}")
            except OSError:
                continue
            if stat.S_ISDIR(st.st_mode) and st.st_uid == os.geteuid() and st.st_mode & 0o077 == 0:
                out.append(f"{base}/{name}")
    return out


def _key(job: str | None) -> tuple[str, bool]:
    """What a store of this job says of itself, and whether the job has a name (else it is this POSIX session)."""
    named = job if job is not None else job_id(os.environ)
    return (f"job {named}", True) if named else (f"session {os.getsid(0)}", False)


def _served(job: str | None) -> str:
    """What the store of the whole job's server says, if this process belongs to a step of it."""
    whole = job_id(os.environ, step=False) if job is None else ""
    return f"job {whole}" if whole else ""


def jobs(base: str, only: tuple[str | None] | None) -> list[str]:
    """The living stores of this user in *base*: of all jobs, or of that in *only* (None in it: the current one)."""
    try:
        found = [(path, _state(path)) for path in stores(base)]
    except OSError:
        return []
    wanted = None if only is None else (_key(only[0])[0], _served(only[0]))
    return [path for path, state in found if state is not None and (wanted is None or state[0] in wanted)]


def open_store(job: str | None, bases: Sequence[str], code: Code, *, chosen: bool = False) -> NodeStore:
    """Join the store of this job on this node, or make it; remove the dead ones. A step of a job joins the store of the
    whole job if that has a server.

    :param job: job id; None: that of the launcher, or this POSIX session for :data:`JOIN_SECONDS`
    :param bases: :func:`candidates`
    :raises StoreError: if none of *bases* will do; the message says why for each
    """
    (key, named), served = _key(job), _served(job)
    reasons = []
    for base in bases:
        why = unsuitable(base, chosen)
        if why:
            reasons.append(f"{base}: {why}")
            continue
        try:
            with _UserLock(base):
                whole = ""
                for path in stores(base):
                    if _is_dead(path):
                        remove_tree(path)
                        continue
                    state = _state(path)
                    if state is not None and state[0] == served and os.path.exists(path + "/server"):
                        whole = path
                    if state is None or state[0] != key:
                        continue
                    if named or time.time() - state[1] < JOIN_SECONDS or os.path.exists(path + "/server"):
                        return NodeStore(path, key, False, code)
                if whole:
                    return NodeStore(whole, served, False, code)
                path = f"{base}/collfs-{os.geteuid()}-{os.urandom(6).hex()}"
                os.mkdir(path, 0o700)
                try:
                    return NodeStore(path, key, True, code)
                except BaseException:
                    remove_tree(path)
                    raise
        except OSError as exc:
            reasons.append(f"{base}: {exc.strerror or exc}")
    raise StoreError("no place for a node store: " + "; ".join(reasons))
