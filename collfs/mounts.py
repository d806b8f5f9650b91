"""Which file systems are shared by nodes: by the type that statfs(2) gives.

The numbers are ``f_type`` of man statfs(2) and <linux/magic.h>, and for those that Linux doesn't list, of the file
system's own headers; each is named. FUSE counts as shared: sshfs, CernVM-FS, DAOS, JuiceFS and the like are.
"""

from __future__ import annotations

import ctypes
import os

from ._libc import libc

NETWORK = {
    0x6969: "nfs",
    0xFF534D42: "cifs",
    0xFE534D42: "smb2",
    0x517B: "smb",
    0x564C: "ncp",
    0x5346414F: "afs",
    0x6B414653: "kafs",
    0x73757245: "coda",
    0x01021997: "9p",
    0x65735546: "fuse",
    0x00C36400: "ceph",
    0x0BD00BD0: "lustre",
    0x47504653: "gpfs",
    0x19830326: "beegfs",
    0x20030528: "pvfs2",
    0x7461636F: "ocfs2",
    0x01161970: "gfs2",
    0xAAD7AAEA: "panfs",
    0x013111A8: "ibrix",
    0x786F4256: "vboxsf",
    0xBACBACBC: "vmhgfs",
}

_statfs = libc.statfs
_statfs.argtypes, _statfs.restype = (ctypes.c_char_p, ctypes.c_void_p), ctypes.c_int


def f_type(path: str) -> int:
    """``f_type`` of the file system that holds *path*; 0 if it can't be told."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs has 120 bytes (man statfs(2))
    if _statfs(os.fsencode(path), buffer) != 0:
        return 0
    return int.from_bytes(buffer.raw[:4], "little")


def network_name(path: str) -> str:
    """Name of the network or parallel file system that *path* lies on, or an empty string."""
    return NETWORK.get(f_type(path), "")
