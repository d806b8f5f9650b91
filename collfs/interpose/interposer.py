"""Install, verify, uninstall: the interposer as its users see it.

One per process: a second interpreter or a second import of the module finds the text already patched, recognises no
site there, and refuses. After a fork the child has the same redirects and its own counters.

What is patched follows from two parties: the session (libc's sites, and ld.so's for the rows of its table), and a
client of the C interface (``collfs/c_api.py``), whose rows decide about ld.so alone while it is there.

Rules of the file: gate, then patch, then verify, else undo; the memory of an installation is never given back.
"""

from __future__ import annotations

import _thread
import os
from ctypes import c_uint64

from ..errors import InterposeRefused
from . import patch
from .api import LibcCollfsApi, default_api
from .image import objects
from .machine.code import CODE_NAME, Code
from .machine.layout import OPERATIONS, OUTCOMES, ROW_NAMES
from .sites import CALLS, LDSO, find
from .trampoline import SPACING, Builder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from .image import Image
    from .sites import Site

_TEMPLATE = {nr: template for _, nr, template, _ in CALLS}
_ROWS = {nr: rows.split() for _, nr, _, rows in CALLS}
# What an object must have at least, as call numbers: one of each group. Else it isn't the glibc that was surveyed.
_NEEDED: dict[str, tuple[set[int | None], ...]] = {
    "ld.so": ({2, 257}, {4, 262}),
    "libc": ({2, 257, None}, {4, 262}),
}


def _why_no_site(image: Image, group: set[int | None]) -> str:
    try:
        with open("/proc/self/maps", "rb") as maps:
            if b"/memfd:" + CODE_NAME in maps.read():
                return "another copy of collfs has been at work in this process: one interposer, one interpreter"
    except OSError:
        pass
    return f"{image.path}: no known site of a call numbered {sorted(str(nr) for nr in group)}"


PATIENCE = 10.0  # seconds for another thread's transaction

_exported: list[Interposer] = []  # the one that the C interface is bound to


def of_process() -> Interposer:
    """The interposer that the C interface of this process is bound to; without one, a new interposer.

    :raises InterposeRefused: as :class:`Interposer`
    """
    return _exported[0] if _exported else Interposer()


class Interposer:
    """The patched state of this process."""

    def __init__(self) -> None:
        """Look at the process; nothing is changed yet.

        :raises InterposeRefused: if anything about it is not as expected
        """
        self.patches: list[patch.Patch] = []
        self.installed: list[Site] = []
        self.api = LibcCollfsApi()
        self._session: frozenset[str] | None = None  # rows of its table; None: there is no session
        self._client: frozenset[str] | None = None  # rows of ld.so that the C interface wants; None: it isn't in use
        self._lock = _thread.allocate_lock()
        try:
            self._look()
        except InterposeRefused:
            raise
        except OSError as exc:  # no descriptor, no memory, no memfd_create
            raise InterposeRefused(exc.errno, f"no place for the machine code: {exc.strerror or exc}") from exc

    def _look(self) -> None:
        self.images: dict[str, Image] = objects()
        self.sites: list[Site] = []
        for image in self.images.values():
            found = find(image)
            for group in _NEEDED.get(image.name, ()):
                if not any(site.nr in group for site in found):
                    raise InterposeRefused(_why_no_site(image, group))
            self.sites += found
        near = [span for image in self.images.values() for span in image.text]
        self.code = Code(near, SPACING * len(self.sites))
        # Every site has its trampoline in the same place, whatever is installed: a thread may still be inside one of
        # an installation before this one.
        builder = Builder(self.code)
        self._ways = [
            (site, builder.add(site, template, self.images[site.object]))
            for site in self.sites
            for template in [self._template(site, set(ROW_NAMES))]
            if template
        ]
        #: site, address, size and place of the call's rel32 of each trampoline
        self.trampolines = builder.made
        self.code.map(bytes(builder.image))

    def install(self, api: LibcCollfsApi | None = None) -> None:
        """Patch all sites: libc's to the path table, ld.so's to the rows of *api* that aren't NULL.

        :param api: None: the look-ups for open and xstat64

        :raises InterposeRefused: and nothing is changed
        """
        assert self._session is None, "installed already"
        self.api = default_api(self.code) if api is None else api
        rows = frozenset(name for name, address in zip(ROW_NAMES, self.api.addresses()) if address)
        self.code.cell.floor = 0  # of a session before this one
        self.api.install(self.code.cell)
        try:
            self._change(rows, self._client)
        finally:
            if self._session is None:
                self.api.stop()

    def give(self, rows: AbstractSet[str] | None) -> None:
        """Patch exactly those sites of ld.so that belong to *rows*; the others get their own bytes back.

        :param rows: None: those of the session's table again, or none
        :raises InterposeRefused: and nothing is changed
        """
        self._change(self._session, None if rows is None else frozenset(rows))

    def export(self, address: int) -> None:
        """Take the rows from the structure at *address*, where it isn't NULL; for good.

        Sessions and exports that come later in this process share this interposer.
        """
        self.code.cell.rows = address
        _exported[:] = [self]

    def _change(self, session: frozenset[str] | None, client: frozenset[str] | None) -> None:
        """Bring the text in line with what is wanted, in one transaction."""
        if not self._lock.acquire(timeout=PATIENCE):
            raise InterposeRefused(16, "another thread is patching the text")  # EBUSY
        try:
            rows = client if client is not None else session if session is not None else frozenset()
            ways = [
                (site, patches)
                for site, patches in self._ways
                if (site.object == LDSO or session is not None) and self._template(site, rows)
            ]
            for site, patches in ways:
                if not patches:
                    raise InterposeRefused(f"no padding near {site}")
            old = self.patches, self.installed, self._session, self._client
            wanted = [one for _, patches in ways for one in patches]
            steps = [one.reversed() for one in reversed(self.patches) if one not in wanted]
            steps += [one for one in wanted if one not in self.patches]
            self.patches, self.installed = wanted, [site for site, _ in ways]
            self._session, self._client = session, client
            try:
                patch.apply(steps, self.code)
            except BaseException as exc:
                if not patch.written(steps):  # else a signal's exception came when all was done
                    self.patches, self.installed, self._session, self._client = old
                if isinstance(exc, OSError) and not isinstance(exc, InterposeRefused):
                    raise InterposeRefused(exc.errno, f"the text can't be written: {exc.strerror or exc}") from exc
                raise
        finally:
            self._lock.release()

    @staticmethod
    def _template(site: Site, rows: AbstractSet[str]) -> str:
        if site.nr is None:
            return "cancel"
        if site.object != LDSO:
            return _TEMPLATE[site.nr]
        wanted = _ROWS[site.nr]
        if site.name == "pread64":  # it becomes lseek + read, so it needs both
            return "plain" if {"read", "lseek"} <= rows else ""
        return "" if rows.isdisjoint(wanted) else "plain"

    def uninstall(self) -> None:
        """Restore every byte. Threads that are inside a trampoline finish there: its memory stays.

        :raises InterposeRefused: if the text can't be written, or somebody else has changed the patched bytes; then
            they stay as they are, harmless, because the tables are taken away
        """
        self.code.cell.table = 0
        try:
            self._change(None, self._client)
        finally:
            self.api.stop()

    def row(self, name: str) -> int:
        """Address of the function that gets the calls of a row now; 0: the original call."""
        i, cell = ROW_NAMES.index(name), self.code.cell
        return c_uint64.from_address(cell.rows + 8 * i).value or c_uint64.from_address(cell.under + 8 * i).value

    def verify(self, canary: str, size: int) -> None:
        """Call through both objects.

        :param canary: a name that exists only in the path table, for a copy of *size* bytes that is no ELF file
        :raises InterposeRefused: if it isn't seen; the caller must uninstall
        """
        try:
            seen = os.stat(canary).st_size
        except OSError as exc:
            raise InterposeRefused(f"the C library doesn't see the canary: {exc}") from None
        if seen != size:
            raise InterposeRefused(f"the C library sees {seen} bytes in the canary instead of {size}")
        if self.row("open") != self.code.base + self.code.header.api_open:
            return  # somebody else's function decides what ld.so sees
        import _ctypes

        try:
            _ctypes.dlopen(canary, 0)
        except OSError as exc:
            if "cannot open" in str(exc):  # elf/dl-load.c: what a missing file gives; a short one: "file too short"
                raise InterposeRefused(f"the dynamic linker doesn't see the canary: {exc}") from None
        else:
            raise InterposeRefused("the dynamic linker loaded the canary, which is no library")

    def set_table(self, address: int) -> None:
        """The path table at *address* answers from now on; 0: none."""
        self.code.cell.table = address

    def counts(self) -> dict[str, dict[str, int]]:
        """Calls so far, by operation and outcome, of this process."""
        cell = self.code.cell
        return {op: {out: int(cell.count[i][k]) for k, out in enumerate(OUTCOMES)} for i, op in enumerate(OPERATIONS)}

    def row_calls(self) -> dict[str, int]:
        """Calls that went through each row of the function-pointer table."""
        return {name: int(self.code.cell.row_calls[i]) for i, name in enumerate(ROW_NAMES)}

    def sites_by_object(self) -> dict[str, dict[str, int]]:
        """How many sites of each call are installed, by object."""
        out: dict[str, dict[str, int]] = {}
        for site in self.installed:
            calls = out.setdefault(site.object, {})
            calls[site.name] = calls.get(site.name, 0) + 1
        return out

    @property
    def off(self) -> bool:
        """Whether this process switched itself off (chroot, a new mount namespace)."""
        return bool(self.code.cell.off)
