"""Builds the machine code: machine.c and trampoline.S -> x86_64.bin, x86_64.sym. Needed only by who changes it.

::

    pip install ziglang==0.13.0
    python collfs/interpose/machine/build.py            # writes both
    python collfs/interpose/machine/build.py --check    # compares with the one that is shipped

The compiler is pinned, so that the bytes can be compared: ``tox -e machine`` does. Installing collfs needs no compiler.

``x86_64.sym`` is for debuggers: a line "offset size name" for each function, and in the last one, in hexadecimal, the
.eh_frame that the linker put at the offset that stands before it.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ZIG = "0.13.0"
TARGETS = {"x86_64": "x86_64-linux-gnu"}
FLAGS = [
    "-O2",
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-fno-builtin",
    "-fPIC",
    "-fvisibility=hidden",
    "-mgeneral-regs-only",
    "-fno-stack-protector",
    "-fasynchronous-unwind-tables",
    "-fno-jump-tables",  # tables would need relocations
    "-fno-sanitize=all",  # zig turns the undefined-behaviour sanitizer on by itself
    "-fomit-frame-pointer",
    "-fcf-protection=none",
]


def zig(*args: str) -> None:
    """Run the pinned zig.

    :raises subprocess.CalledProcessError: if it fails
    """
    subprocess.run([sys.executable, "-m", "ziglang", *args], check=True, cwd=HERE)


def build(arch: str) -> dict[str, bytes]:
    """The files of *arch* by name, built in a temporary directory."""
    target = TARGETS[arch]
    with tempfile.TemporaryDirectory() as tmp:
        objects = []
        for source in ("trampoline.S", "machine.c"):
            out = str(Path(tmp, Path(source).stem + ".o"))
            zig("cc", "-target", target, *FLAGS, "-c", source, "-o", out)
            objects.append(out)
        elf, binary = Path(tmp, "machine.elf"), Path(tmp, "machine.bin")
        zig("ld.lld", "-T", "machine.ld", "--no-undefined", "-static", "-o", str(elf), *objects)
        zig("objcopy", "-O", "binary", "-j", ".text", str(elf), str(binary))
        return {f"{arch}.bin": binary.read_bytes(), f"{arch}.sym": symbols(elf.read_bytes())}


def symbols(elf: bytes) -> bytes:
    """Functions and .eh_frame of a linked ELF64 file (<elf.h>), as text."""
    shoff, shentsize, shnum, shstrndx = struct.unpack_from("<Q10xHHH", elf, 40)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, shoff + shentsize * i) for i in range(shnum)]

    def text(table: int, at: int) -> str:
        start = headers[table][4] + at
        return elf[start : elf.index(b"\0", start)].decode()

    sections = {text(shstrndx, header[0]): header for header in headers}
    base, lines = sections[".text"][3], []
    _, _, _, _, offset, size, strtab, _, _, _ = sections[".symtab"]
    for at in range(offset, offset + size, 24):
        name, info, _, _, value, length = struct.unpack_from("<IBBHQQ", elf, at)
        if info & 15 == 2:  # STT_FUNC
            lines.append((value - base, length, text(strtab, name)))
    _, _, _, address, offset, size, _, _, _, _ = sections[".eh_frame"]
    lines.sort()
    out = [f"{start} {length} {name}" for start, length, name in lines]
    return "\n".join([*out, f"{address - base} {elf[offset : offset + size].hex()}", ""]).encode()


def main() -> int:
    """Build, or with ``--check`` compare; exit code 1 if the shipped bytes differ."""
    version = subprocess.run(
        [sys.executable, "-m", "ziglang", "version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if version != ZIG:
        print(f"build.py: ziglang {ZIG} is wanted, {version} is installed", file=sys.stderr)
        return 2
    status = 0
    for arch in TARGETS:
        for name, new in build(arch).items():
            path = HERE / name
            if "--check" in sys.argv[1:]:
                same = path.read_bytes() == new
                print(f"{name}: {len(new)} bytes, {'as shipped' if same else 'DIFFERENT from the shipped ones'}")
                status |= not same
            else:
                path.write_bytes(new)
                print(f"{name}: {len(new)} bytes written")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
