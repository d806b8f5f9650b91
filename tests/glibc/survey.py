"""The sites of other glibcs: fetch Debian's builds, read them without loading them, print what would be found.

::

    python tests/glibc/survey.py CACHE_DIR [release ...]

Packages come from the mirror that this machine's apt is set up for, through apt itself, so signatures are checked; what
lies in CACHE_DIR already isn't fetched again. Nothing is installed.

Rules of the file: every step says why it can't be done (:class:`Unavailable`); a new release is one row in RELEASES.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

from collfs.interpose.image import PT_LOAD, Image
from collfs.interpose.sites import SYSCALL, find, match

# Debian release -> packages: glibc, and a Python where the one that runs this was built for a newer glibc
RELEASES: dict[str, tuple[str, ...]] = {
    "bullseye": (
        *("libc6", "python3.9-minimal", "libpython3.9-minimal", "libpython3.9-stdlib"),
        *("libffi7", "zlib1g", "libexpat1", "libgcc-s1"),
    ),
    "bookworm": ("libc6",),
    "trixie": ("libc6",),
    "sid": ("libc6",),
    "experimental": ("libc6",),
}
BASE = 0x10000000  # any address: where a file's memory is said to lie
OBJECTS = (
    ("ld.so", ("ld-linux-x86-64.so.2", "ld-2.*.so")),
    ("libc", ("libc.so.6", "libc-2.*.so")),
    ("libpthread", ("libpthread-2.*.so",)),
)


class Unavailable(Exception):
    """This machine can't give what was asked for; the message says why."""


def load(name: str, path: Path) -> Image:
    """The object at *path* as it would lie in memory before relocation.

    :param name: ``ld.so``, ``libc`` or ``libpthread``
    """
    data = path.read_bytes()
    phoff, phentsize, phnum = struct.unpack_from("<Q14xHH", data, 32)
    memory = bytearray()
    for i in range(phnum):
        p_type, _, offset, vaddr, _, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", data, phoff + phentsize * i)
        if p_type == PT_LOAD:
            memory += bytes(max(0, vaddr + memsz - len(memory)))
            memory[vaddr : vaddr + filesz] = data[offset : offset + filesz]
    content = bytes(memory)
    return Image(name, str(path), BASE, lambda address, size: content[address - BASE : address - BASE + size])


def stray_matches(image: Image) -> list[int]:
    """Addresses whose context matches although they lie in no function: false matches."""
    functions, out = image.functions(), []
    for start, end in image.text:
        text = image.read(start, end - start)
        at = text.find(SYSCALL)
        while at >= 0:
            if match(text, at, image.name, start) is not None and functions.containing(start + at) is None:
                out.append(start + at)
            at = text.find(SYSCALL, at + 1)
    return out


def objects(root: Path) -> dict[str, Image]:
    """The objects of an unpacked libc6."""
    found = {}
    for name, patterns in OBJECTS:
        for pattern in patterns:
            files = [p for p in sorted(root.rglob(pattern)) if p.is_file() and not p.is_symlink()]
            if files and name not in found:
                found[name] = load(name, files[0])
    return found


def library_path(root: Path) -> str:
    """Where the libraries of an unpacked release lie, for ``ld.so --library-path``."""
    return ":".join(sorted({str(p.parent) for p in root.rglob("*.so*") if p.parent.name.endswith("-gnu")}))


def linker(root: Path) -> Path:
    """Its dynamic linker, as a program."""
    return Path(objects(root)["ld.so"].path)


def _run(*args: str, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            args, cwd=cwd, capture_output=True, text=True, timeout=240, check=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as exc:
        raise Unavailable(f"{args[0]} is not installed") from exc
    except subprocess.TimeoutExpired as exc:
        raise Unavailable(f"{args[0]} took longer than {exc.timeout} s") from exc
    except subprocess.CalledProcessError as exc:
        raise Unavailable(f"{' '.join(args[:1] + args[-2:])}: {exc.stderr.strip()[-500:]}") from exc
    return done.stdout


def _mirror() -> str:
    """The Debian mirror of this machine's own apt configuration."""
    text = _run("apt-get", "indextargets", "--format", "$(CREATED_BY)|$(COMPONENT)|$(CODENAME)|$(SITE)")
    rows = [line.split("|") for line in text.splitlines()]
    for kind, component, codename, site in rows:
        if kind == "Packages" and component == "main" and codename in RELEASES:
            return site
    raise Unavailable("no Debian mirror in the apt configuration")


def fetch(cache: Path, release: str) -> Path:
    """The directory with the unpacked packages of *release*, fetched if it isn't there.

    :raises Unavailable: no apt, no network, or no such release
    """
    root = cache / release
    if (root / "complete").exists():
        return root
    if os.uname().machine != "x86_64":
        raise Unavailable(f"machine {os.uname().machine}")
    shutil.rmtree(root, ignore_errors=True)
    lists, packages = root / "lists", root / "packages"
    for folder in (lists / "partial", packages):
        folder.mkdir(parents=True)
    (root / "sources.list").write_text(f"deb [arch=amd64] {_mirror()} {release} main\n")
    (root / "status").touch()
    options = [
        *("-q", "-o", f"Dir::Etc::sourcelist={root}/sources.list", "-o", "Dir::Etc::sourceparts=-"),
        *("-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={root}/apt-cache"),
        *("-o", f"Dir::State::status={root}/status"),  # else the versions installed here are wanted
        *("-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=30"),
    ]
    (root / "apt-cache" / "archives" / "partial").mkdir(parents=True)
    _run("apt-get", *options, "update")
    _run("apt-get", *options, "download", *RELEASES[release], cwd=packages)
    debs = sorted(packages.glob("*.deb"))
    if len(debs) != len(RELEASES[release]):
        raise Unavailable(f"{release}: {len(debs)} of {len(RELEASES[release])} packages came")
    for deb in debs:
        _run("dpkg-deb", "--extract", str(deb), str(root / "root"))
    for folder in (lists, root / "apt-cache"):
        shutil.rmtree(folder)
    (root / "complete").touch()
    return root


def version(release: Path) -> str:
    """The version of the fetched libc6."""
    return next((release / "packages").glob("libc6_*.deb")).name.split("_")[1]


def count(image: Image) -> Counter[str]:
    """Sites by call."""
    return Counter(site.name for site in find(image))


def main(arguments: list[str]) -> int:
    """Print one table per release; exit code 1 if one of them has a false match or is unavailable."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    status, cache = 0, Path(arguments[0]).resolve()
    for release in arguments[1:] or RELEASES:
        try:
            root = fetch(cache, release)
        except Unavailable as exc:
            print(f"{release}: {exc}")
            status = 1
            continue
        print(f"{release}: glibc {version(root)}")
        for name, image in objects(root / "root").items():
            counts, stray = count(image), stray_matches(image)
            listing = " ".join(f"{call}:{n}" for call, n in sorted(counts.items()))
            print(f"  {name:10} {sum(counts.values()):3} sites, {len(stray)} outside of a function: {listing}")
            status |= bool(stray)
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
