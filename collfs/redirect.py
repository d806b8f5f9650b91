"""Hooks live: the interposer installed over a store that was just joined or made.

Rules of the file: as few modules as possible, because none of them comes from the node yet; all or nothing.
"""

from __future__ import annotations

import os

from . import _libc
from .errors import StoreError
from .interpose.interposer import Interposer, of_process
from .store.node import CANARY, LOCK_SECONDS, candidates, open_store, wait_for_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .messages import Messages
    from .options import Options
    from .store.node import NodeStore


def redirect(options: Options, prefixes: Sequence[str], messages: Messages) -> tuple[Interposer, NodeStore | None]:
    """Install the redirects for *prefixes*; without any, only the rows of ``options.api``.

    :raises InterposeRefused: if this process isn't as expected
    :raises StoreError: if there is no place for a store
    """
    interposer = of_process()
    store = None
    try:
        if prefixes:
            store = open_store(
                options.job, candidates(options.store, os.environ), interposer.code, chosen=options.store is not None
            )
            _add_prefixes(store, prefixes, options.patience, messages)
            interposer.set_table(store.table.address)
        interposer.install(options.api)
        if store is not None:
            interposer.verify(store.canary, len(CANARY))
    except BaseException:
        if interposer.patches:
            interposer.uninstall()
        if store is not None:
            store.close()
        raise
    return interposer, store


def _add_prefixes(store: NodeStore, prefixes: Sequence[str], patience: float, messages: Messages) -> None:
    known = store.table.prefixes()
    missing = [path for path in prefixes if path not in known]
    if not missing:
        return
    if not wait_for_lock(store.write, _libc.LOCK_EX, min(LOCK_SECONDS, patience)):
        raise StoreError(110, "the node store is locked by another process")
    try:
        for path in missing:
            if not store.table.add_prefix(path):
                messages.warn("prefixes", f"too many prefixes: {path} is not managed")
    finally:
        _libc.flock(store.write, _libc.LOCK_UN)
