"""Builds the machine code: machine.c and trampoline.S -> x86_64.bin. Needed only by who changes it.

::

    pip install ziglang==0.13.0
    python collfs/interpose/machine/build.py            # writes x86_64.bin
    python collfs/interpose/machine/build.py --check    # compares with the one that is shipped

The compiler is pinned, so that the bytes can be compared: ``tox -e machine`` does. Installing collfs needs no compiler.
"""

from __future__ import annotations

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
    "-fno-asynchronous-unwind-tables",
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


def build(arch: str) -> bytes:
    """The bytes of *arch*, built in a temporary directory."""
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
        return binary.read_bytes()


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
        new, path = build(arch), HERE / f"{arch}.bin"
        if "--check" in sys.argv[1:]:
            same = path.read_bytes() == new
            print(f"{path.name}: {len(new)} bytes, {'as shipped' if same else 'DIFFERENT from the shipped ones'}")
            status |= not same
        else:
            path.write_bytes(new)
            print(f"{path.name}: {len(new)} bytes written")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
