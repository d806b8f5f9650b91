"""What the cache writes about a copy, so that a copy is never taken for something that it isn't.

::

    sidecar = magic 8s | digest 20s | boot id 36s | key | crc of all before u32
    key     = path as of os.fsencode, NUL, identity
    identity= "mtime ctime size inode mode" of the original (decimal, times in ns)
    digest  = BLAKE2b of identity, NUL, content

A sidecar is named by a hash of its key, and the key is compared whole, so a collision of hashes is a miss. A copy is
named by its digest: all names of one file (symbolic and hard links) share one copy, as ld.so must see one inode
(elf/dl-load.c compares st_dev and st_ino), and no name of a copy ever gets other bytes.

Rules of the file: pure functions of bytes, but for :func:`boot_id`; bytes that aren't exactly as written are nothing.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from hashlib import blake2b

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from collfs.record import Buffer, Stat

MAGIC = b"collfs\x00\x01"
HEAD = struct.Struct("<8s20s36s")
TAIL = struct.Struct("<I")
MAX_BYTES = 1 << 14  #: of a sidecar: PATH_MAX is 4096 (linux/limits.h), the rest is below 256
BOOT_ID = "//proc/sys/kernel/random/boot_id"  # man 5 proc_sys_kernel: 36 characters, new with each boot
NO_BOOT = b"\0" * 36  #: the boot isn't known: every use compares the digest
_DIGEST_BYTES = 20  # 160 bits: 2**80 copies until two are likely to meet


def identity_of(st: Stat) -> bytes:
    """What tells one state of a file from another.

    With the ctime, which nobody can set back: a file that was rewritten in place and given its old mtime is noticed.
    Without st_dev: a network file system has another one with each mount.
    """
    return b"%d %d %d %d %d" % (st.st_mtim, st.st_ctim, st.st_size, st.st_ino, stat.S_IMODE(st.st_mode))


def key_of(path: str, st: Stat) -> bytes:
    """Whose copy it is."""
    return os.fsencode(path) + b"\0" + identity_of(st)


def name_of(key: bytes) -> str:
    """The name of a sidecar."""
    return blake2b(key, digest_size=_DIGEST_BYTES).hexdigest() + ".meta"


def digest_of(st: Stat, parts: Iterable[Buffer]) -> bytes:
    """The digest of a content that comes in *parts*. In hex it is the name of the copy."""
    digest = blake2b(identity_of(st) + b"\0", digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return digest.digest()


def pack(key: bytes, digest: bytes, boot: bytes) -> bytes:
    """The bytes of a sidecar."""
    body = HEAD.pack(MAGIC, digest, boot) + key
    return body + TAIL.pack(zlib.crc32(body))


def unpack(blob: bytes) -> tuple[bytes, bytes, bytes] | None:
    """(key, digest, boot id), or None if *blob* is torn, corrupt or of another format."""
    if len(blob) < HEAD.size + TAIL.size:
        return None
    body, tail = blob[: -TAIL.size], blob[-TAIL.size :]
    magic, digest, boot = HEAD.unpack_from(body)
    if magic != MAGIC or tail != TAIL.pack(zlib.crc32(body)):
        return None
    return body[HEAD.size :], digest, boot


def keepable(st: Stat, size: int, settled_ns: int) -> bool:
    """Whether a copy would be right and could be opened: a regular file with plain permissions.

    :param settled_ns: it must not have changed after this time
    """
    mode = st.st_mode
    plain = stat.S_ISREG(mode) and not mode & 0o7000 and bool(mode & 0o400)
    in_range = abs(st.st_mtim) < 1 << 63  # beyond this os.utime(ns=) fails with OverflowError
    return plain and in_range and size == st.st_size and st.st_ctim <= settled_ns


def boot_id() -> bytes:
    """Which boot this is, or :data:`NO_BOOT`."""
    try:
        with open(BOOT_ID, "rb") as file:
            text = file.read().strip()
    except OSError:
        return NO_BOOT
    return text if len(text) == len(NO_BOOT) else NO_BOOT
