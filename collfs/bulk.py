"""The bulk start: what earlier runs of this program wanted is staged at once, and the next run's manifest is saved.

Rules of the file: a manifest is a hint; whatever is wrong with it gives one warning and a start without it.
"""

from __future__ import annotations

import os
import sys

from . import _libc
from .errors import CollfsError
from .interpose.machine.layout import F_COMPLETE, K_ABSENT, K_DIR, K_FILE, K_REG
from .record import CONTENT, META, NAMES
from .record.manifest import ABSENT, Manifest, default_path
from .store.node import wait_for_lock
from .transport import Transport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .fetcher import Fetcher
    from .messages import Messages
    from .options import Options
    from .store.node import NodeStore

SAVE_SECONDS = 2.0  # another process is saving or staging then, and will do it


def program() -> str:
    """What this process runs, as a manifest knows it: the path of a script, ``-m module`` or ``-c``."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return f"-m {spec.name}"
    file = getattr(main, "__file__", None)
    return os.path.abspath(file) if file else "-c"


class Bulk:
    """The manifest of one session. ``path`` is empty if there is none."""

    def __init__(self, options: Options, messages: Messages) -> None:
        self.messages, self.path, self.wanted = messages, "", 0
        self.manifest: Manifest | None = None
        try:
            if options.manifest == "auto":
                self.path = default_path(options.program or program(), sys.executable or "")
            else:
                self.path = options.manifest
        except CollfsError as exc:
            messages.warn("manifest", f"no manifest: {exc}")

    def stage(self, fetcher: Fetcher) -> None:
        """Want everything in the manifest that is managed now."""
        transport = fetcher.transport
        # 1,500 paths take a crowded rank 25 ms, and each of its later garbage collections goes over them
        nobody_to_tell = transport.follows and type(transport).plan is Transport.plan
        if not self.path or nobody_to_tell:
            return
        try:
            self.manifest = Manifest.load(self.path)
        except CollfsError as exc:
            self.messages.warn("manifest", f"no manifest: {exc}")
            return
        wants = [want for want in self.manifest.wants() if fetcher.managed(want.path)]
        self.wanted = len(wants)
        if wants and transport.follows:
            transport.plan(wants)
        elif wants:
            fetcher.want(wants)

    def save(self, store: NodeStore, fetcher: Fetcher) -> None:
        """Merge what the node's processes used into the file, unless nothing is new since the last save."""
        header = store.table.header
        if not self.path or header.used + header.misses == header.saved:
            return
        try:
            if not wait_for_lock(store.write, _libc.LOCK_EX, SAVE_SECONDS):
                return
            try:
                if header.used + header.misses == header.saved:
                    return
                try:
                    manifest = Manifest.load(self.path)
                except CollfsError:
                    manifest = Manifest()  # a damaged one heals
                manifest.merge(used(fetcher))
                manifest.save(self.path)
                header.saved = header.used + header.misses
            finally:
                _libc.flock(store.write, _libc.LOCK_UN)
        except (CollfsError, OSError) as exc:
            self.messages.warn("manifest", f"the manifest can't be saved: {exc}")

    def hits(self, store: NodeStore) -> int:
        """How many paths of the manifest were used in this run so far."""
        if self.manifest is None:
            return 0
        entries = (store.table.entry(path) for path in self.manifest.entries)
        return sum(entry is not None and entry.used != 0 for entry in entries)


def used(fetcher: Fetcher) -> list[tuple[str, str]]:
    """(path, aspect) of everything that the node's processes asked for, and of the misses.

    Contents come in the order in which they were staged.
    """
    out: list[tuple[str, str]] = []
    contents: list[tuple[int, str]] = []
    for path, entry in fetcher.table:
        kind = entry.word & 0xFF
        if not entry.used or not fetcher.managed(path):
            continue
        if kind == K_FILE:
            contents.append((entry.word >> 32, path))
        elif kind == K_DIR:
            out.append((path, NAMES if entry.word & F_COMPLETE and entry.used & 16 else META))
            if entry.word & F_COMPLETE and not entry.used & 16:
                out.append((path, NAMES))
        elif kind == K_REG:
            out.append((path, META))
        elif kind == K_ABSENT:
            out.append((path, ABSENT))
    out += [(path, CONTENT) for _, path in sorted(contents)]
    aspects = {"open": CONTENT, "opendir": NAMES}
    out += [(path, aspects.get(op, META)) for path, op in fetcher.table.misses() if fetcher.managed(path)]
    return out
