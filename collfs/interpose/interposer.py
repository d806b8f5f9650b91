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
from .machine.code import Code
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


class Interposer:
    """The patched state of this process."""

    def __init__(self) -> None:
        """Look at the process; nothing is changed yet.

        :raises InterposeRefused: if anything about it is not as expected
        """
        self.images: dict[str, Image] = objects()
        self.sites: list[Site] = []
        for image in self.images.values():
            found = find(image)
            for group in _NEEDED.get(image.name, ()):
                if not any(site.nr in group for site in found):
                    raise InterposeRefused(
                        f"{image.path}: no known site of a call numbered {sorted(str(nr) for nr in group)}"
                    )
            self.sites += found
        near = [span for image in self.images.values() for span in image.text]
        self.code = Code(near, SPACING * len(self.sites))
        self.patches: list[patch.Patch] = []
        self.installed: list[Site] = []
        self.api = LibcCollfsApi()
        self._before: list[tuple[int, bytes]] = []

    def install(self, api: LibcCollfsApi | None = None) -> None:
        """Patch all sites: libc's to the path table, ld.so's to the rows of *api* that aren't NULL.

        :param api: None: the look-ups for open and xstat64

        :raises InterposeRefused: and nothing is changed
        """
        assert not self.patches, "installed already"
        self.api = default_api(self.code) if api is None else api
        addresses = self.api.addresses()
        rows = {name for name, address in zip(ROW_NAMES, addresses) if address}
        builder, installed = Builder(self.code), []
        for site in self.sites:
            template = self._template(site, rows)
            if template:
                builder.add(site, template, self.images[site.object])
                installed.append(site)
        self.code.map(bytes(builder.image))
        for i, address in enumerate(addresses):
            self.code.cell.api[i] = address
        patch.apply(builder.patches, self.code)
        self.patches, self.installed = builder.patches, installed

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

        :raises InterposeRefused: if somebody else has changed the patched bytes; then they stay as they are, harmless,
            because the table is taken away
        """
        self.code.cell.table = 0
        patches, self.patches, self.installed = self.patches, [], []
        patch.undo(patches, self.code)
        for i in range(len(ROW_NAMES)):
            self.code.cell.api[i] = 0

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
