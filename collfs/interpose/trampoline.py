"""Trampolines: one copy of a template for each site, its holes filled (``machine/trampoline.S`` has the drawing).

Rules of the file: direct jumps only; a displacement that doesn't fit in 32 bits is refused, not truncated.
"""

from __future__ import annotations

import struct

from ..errors import InterposeRefused
from .machine.layout import HEAD_SIZE
from .patch import Patch
from .sites import LDSO, NAMES, SYSCALL, caves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .image import Image
    from .machine.code import Code
    from .sites import Site

SPACING = 256  # no template is larger; checked when it is copied


def rel32(target: int, behind: int) -> bytes:
    """The displacement to *target* from the instruction that ends at *behind*."""
    distance = target - behind
    if not -(1 << 31) <= distance < 1 << 31:
        raise InterposeRefused(f"{target:#x} is out of reach of {behind:#x}")
    return struct.pack("<i", distance)


def jump(at: int, target: int) -> bytes:
    """``jmp rel32``."""
    return b"\xe9" + rel32(target, at + 5)


class Builder:
    """Collects trampolines, and makes the patches that lead to them."""

    def __init__(self, code: Code) -> None:
        self.code = code
        self.image = bytearray()
        #: site, address, size, and where in it the rel32 of the call is
        self.made: list[tuple[Site, int, int, int]] = []
        self._caves: set[int] = set()

    def add(self, site: Site, template: str, image: Image) -> list[Patch]:
        """Make a trampoline for *site*; the patches that lead there. Empty: it needs a cave and has none near."""
        cave = 0
        if site.needs_cave:
            template = "cave"
            cave = next((at for at in caves(image, site) if at not in self._caves), 0)
            if not cave:
                return []
            self._caves.add(cave)
        at = self.code.base + self.code.tail_offset + len(self.image)
        body = self._copy(site, template, at)
        self.made.append((site, at, len(body), self.code.templates[template][2]))
        self.image += body
        self.image += b"\xcc" * (-len(self.image) % 16)
        if not cave:
            return [Patch(site.address, site.displaced, jump(site.address, at))]
        near = b"\xeb" + struct.pack("<b", cave - (site.syscall + 2))
        return [Patch(cave, image.read(cave, 5), jump(cave, at)), Patch(site.syscall, SYSCALL, near)]

    def _copy(self, site: Site, template: str, at: int) -> bytes:
        start, size, call, ret, back = self.code.templates[template]
        body = bytearray(self.code.bytes[start : start + size])
        if size > SPACING:
            raise InterposeRefused(f"template {template} has {size} bytes")
        behind = site.syscall + 2
        if template == "cave":
            assert site.nr in NAMES
            head = b"\x3d" + struct.pack("<I", site.nr)  # cmp $NR,%eax
        else:
            head = site.displaced + site.mid
        assert len(head) <= HEAD_SIZE, head
        body[: len(head)] = head
        entry = self.code.header.ldso_entry if site.object == LDSO else self.code.header.libc_entry
        for hole, target in (
            (call, self.code.base + entry),
            (ret, behind),
            (back, behind if template == "cave" else site.syscall),
        ):
            body[hole : hole + 4] = rel32(target, at + hole + 4)
        return bytes(body)
