"""Who may talk to whom: CURVE keys, derived from one secret of the job.

::

    secret (of the job) --BLAKE2b, person "collfs-server"--> key pair of all servers of the job towards their children
                        --BLAKE2b, person "collfs-client"--> key pair of all servers of the job towards their parent

Whoever knows the secret can ask, and be asked; who doesn't fails in the handshake (RFC 26/CURVEZMQ), before any message
of his is read. Another job has another secret, so nothing of its traffic can be used here again.

Rules of the file: the secret is never logged, never an argument of a command (everybody can read those), and a file
that others could read is refused.
"""

from __future__ import annotations

import os
import stat
from _blake2 import blake2b  # hashlib would load OpenSSL beside it

from collfs.errors import OptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE, FILE_VARIABLE = "COLLFS_SECRET", "COLLFS_SECRET_FILE"
LEAST = 32  # characters: 128 bits in hexadecimal digits


def new_secret() -> str:
    """A new secret: 256 bits from the kernel, as hexadecimal digits."""
    return os.urandom(32).hex()


def find_secret(environ: Mapping[str, str]) -> str:
    """The secret of this job, or an empty string if none is given.

    :raises OptionError: if it is too short, or in a file that isn't private
    """
    path = environ.get(FILE_VARIABLE, "")
    secret = environ.get(VARIABLE, "").strip()
    shown = f"variable {VARIABLE}"
    if path:
        shown = f"variable {FILE_VARIABLE}={path!r}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError as exc:
            raise OptionError(f"{shown}: {exc.strerror}. Make one: collfs secret > FILE") from exc
        try:
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode) or st.st_uid != os.geteuid() or st.st_mode & 0o077:
                raise OptionError(f"{shown}: has to be a file of yours that only you can read: chmod 600 {path}")
            secret = os.read(fd, 4096).decode("ascii", "replace").strip()
        finally:
            os.close(fd)
    if (secret or path) and len(secret) < LEAST:
        raise OptionError(f"{shown}: {len(secret)} characters are too few; at least {LEAST}. Make one: collfs secret")
    return secret


class Keys:
    """The two key pairs, as Z85 texts for ``ZMQ_CURVE_...`` options (RFC 32/Z85)."""

    def __init__(self, secret: str) -> None:
        """
        :raises OptionError: if libzmq was made without CURVE
        """
        from .libzmq import curve_public, has, z85_decode, z85_encode

        if not has("curve"):
            raise OptionError(
                "servers of several nodes need CURVE, and the libzmq of this pyzmq has none. Install another"
            )

        def private(person: bytes) -> bytes:
            return z85_encode(blake2b(secret.encode(), digest_size=32, person=person).digest())

        self.server_secret = private(b"collfs-server")
        self.client_secret = private(b"collfs-client")
        self.server = curve_public(self.server_secret)
        self.client = curve_public(self.client_secret)
        self.client_bytes = z85_decode(self.client)  # as it comes in a handshake
