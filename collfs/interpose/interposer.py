"""Install, verify, uninstall: the interposer as its users see it.

One per process: a second interpreter or a second import of the module finds the text already patched, recognises no
site there, and refuses. After a fork the child has the same redirects and its own counters.

Rules of the file: gate, then patch, then verify, else undo; the memory of an installation is never given back.
"""

from __future__ import annotations

import os

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


class Interposer:
    """The patched state of this process."""

    def __init__(self) -> None:
        """Look at the process; nothing is changed yet.

        :raises InterposeRefused: if anything about it is not as expected
        """
        self.patches: list[patch.Patch] = []
        self.installed: list[Site] = []
        self.api = LibcCollfsApi()
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
        self.code.map(bytes(builder.image))

    def install(self, api: LibcCollfsApi | None = None) -> None:
        """Patch all sites: libc's to the path table, ld.so's to the rows of *api* that aren't NULL.

        :param api: None: the look-ups for open and xstat64

        :raises InterposeRefused: and nothing is changed
        """
        assert not self.patches, "installed already"
        self.api = default_api(self.code) if api is None else api
        rows = {name for name, address in zip(ROW_NAMES, self.api.addresses()) if address}
        ways = [(site, patches) for site, patches in self._ways if self._template(site, rows)]
        for site, patches in ways:
            if not patches:
                raise InterposeRefused(f"no padding near {site}")
        self.api.install(self.code.cell)
        self.installed = [site for site, _ in ways]
        self.patches = [one for _, patches in ways for one in patches]
        try:
            patch.apply(self.patches, self.code)
        except BaseException as exc:
            if not patch.written(self.patches):  # else a signal's exception came when all was done
                self._forget()
            if isinstance(exc, OSError) and not isinstance(exc, InterposeRefused):
                raise InterposeRefused(exc.errno, f"the text can't be written: {exc.strerror or exc}") from exc
            raise

    @staticmethod
    def _template(site: Site, rows: set[str]) -> str:
        if site.nr is None:
            return "cancel"
        if site.object != LDSO:
            return _TEMPLATE[site.nr]
        wanted = _ROWS[site.nr]
        if site.name == "pread64":  # it becomes lseek + read, so it needs both
            return "plain" if {"read", "lseek"} <= rows else ""
        return "plain" if rows.intersection(wanted) else ""

    def uninstall(self) -> None:
        """Restore every byte. Threads that are inside a trampoline finish there: its memory stays.

        :raises InterposeRefused: if the text can't be written, or somebody else has changed the patched bytes; then
            they stay as they are, harmless, because the tables are taken away
        """
        self.code.cell.table = 0
        try:
            patch.undo(self.patches, self.code)
        except OSError as exc:
            if isinstance(exc, InterposeRefused):
                raise
            raise InterposeRefused(exc.errno, f"the text can't be written: {exc.strerror or exc}") from exc
        finally:
            self.api.stop()
        self._forget()

    def _forget(self) -> None:
        self.patches, self.installed = [], []

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
        if self.api.addresses()[ROW_NAMES.index("open")] != self.code.base + self.code.header.api_open:
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
