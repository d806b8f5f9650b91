"""The report: what happened, as JSON, one file for all processes of a job.

Processes add themselves one after the other under a lock on the file, unless their transport has one process write it
for all of them. A report of another job in the same file is replaced.

Rules of the file: only numbers that were counted; loaded at the end only.
"""

from __future__ import annotations

import json
import os
import sys
import time

from . import __version__, _libc
from .store.node import wait_for_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .lifecycle import Session

FORMAT = 1
LOCK_SECONDS = 10.0


def process_report(session: Session) -> dict[str, object]:
    """What this process did: sites by object, calls by operation and outcome, wants, staging, warnings."""
    data: dict[str, object] = {
        "pid": os.getpid(),
        "host": os.uname().nodename,
        "argv": list(sys.argv),
        "state": session.state,
        "idle": session.idle,
        "warnings": list(session.messages.warnings),
    }
    if session.interposer is not None:
        data["sites"] = session.interposer.sites_by_object()
        data["calls"] = session.interposer.counts()
        data["row_calls"] = session.interposer.row_calls()
        data["switched_off"] = session.interposer.off
    if session.choice is not None:
        data["transport"] = {
            "asked": session.choice.asked,
            "taken": session.choice.taken,
            "reasons": [list(reason) for reason in session.choice.reasons],
        }
    counters = getattr(session.transport, "counters", None)
    if callable(counters):
        data["read"] = counters()
    fetcher, stager, store = session.fetcher, session.stager, session.store
    if fetcher is not None and stager is not None:
        data["silences"] = list(fetcher.silences)
        data["wants"] = {
            "wanted": fetcher.wants,
            "staged": fetcher.fetched,
            "failed": fetcher.failed,
            "refused": fetcher.refused,
            "unanswered": fetcher.unanswered,
            "timeouts": fetcher.timeouts,
            "gave_up": fetcher.dead,
        }
        data["staged"] = {
            "files": stager.files,
            "bytes": stager.bytes,
            "listings": stager.listings,
            "over_limit": stager.overflow,
            "failed": stager.failed,
        }
    if store is not None:
        header = store.table.header
        data["store"] = {
            "path": store.path,
            "created": store.created,
            "names": header.entries,
            "files": header.staged_files,
            "bytes": header.staged_bytes,
            "misses": [list(miss) for miss in store.table.misses()],
        }
    if session.bulk is not None and store is not None:
        data["manifest"] = {
            "path": session.bulk.path,
            "wanted": session.bulk.wanted,
            "hits": session.bulk.hits(store),
        }
    return data


def write(session: Session, reports: Sequence[dict[str, object]]) -> None:
    """Add *reports* to the report file.

    :raises OSError: if the file can't be written
    """
    path = session.options.report
    assert path is not None
    where = session.store.path if session.store is not None else os.getpid()
    job = getattr(session.transport, "token", "") or f"{os.uname().nodename} {where}"
    head: dict[str, object] = {
        "format": FORMAT,
        "collfs": __version__,
        "python": sys.version,
        "job": job,
        "written": "",
        "options": session.options.as_dict(),
        "prefixes": session.prefixes,
        "prefix_reasons": session.prefix_reasons,
    }
    if session.transport is not None:
        path = session.transport.hand_over(os.path.abspath(path), {**head, "processes": list(reports)})
        if not path:
            return
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with open(fd, "r+", encoding="utf-8") as file:
        wait_for_lock(fd, _libc.LOCK_EX, LOCK_SECONDS)
        try:
            data = json.load(file)
            if data["format"] != FORMAT or data["job"] != job:
                raise ValueError
        except (ValueError, KeyError, TypeError):
            data = {**head, "processes": []}
        data["processes"] += reports
        data["written"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        file.seek(0)
        json.dump(data, file, indent=1)
        file.truncate()
