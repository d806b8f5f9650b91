"""Who may connect: ZeroMQ asks, in the course of each CURVE handshake (RFC 27/ZAP), and the server's own loop answers.

::

    request   version, request id, domain, address, identity, mechanism, the peer's public key
    reply     version, request id, status, text, user id, metadata

The one key that may come in is the one that the job's secret gives; that the peer has the private half of it is proven
by the handshake itself (RFC 26/CURVEZMQ).

Rules of the file: whatever isn't exactly what is expected is refused; never waits, never raises for what came.
"""

from __future__ import annotations

from .libzmq import LINGER, REP, Again

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .sockets import Context, Socket

ENDPOINT = "inproc://zeromq.zap.01"  # RFC 27
VERSION = b"1.0"


class Admission:
    """The ZAP handler of one context. Bound before any socket that takes connections, or these would be open."""

    def __init__(self, context: Context, domain: str, key: bytes) -> None:
        """
        :param domain: ``ZAP_DOMAIN`` of the sockets that are meant; all others are refused
        :param key: the public key, 32 bytes
        """
        self.domain, self.key = domain.encode(), key
        self.admitted = self.refused = 0
        self.socket: Socket = context.socket(REP)
        self.socket.set(LINGER, 0)
        self.socket.bind(ENDPOINT)

    def answer(self) -> None:
        """Answer all that has been asked."""
        while True:
            try:
                frames = self.socket.receive()
                good = self._is_good(frames)
                self.admitted += good
                self.refused += not good
                verdict = [b"200", b"OK"] if good else [b"400", b"No access"]
                request = frames[1] if len(frames) > 1 else b""
                self.socket.send([VERSION, request, *verdict, b"", b""])
            except Again:
                return

    def _is_good(self, frames: list[bytes]) -> bool:
        return (
            len(frames) == 7
            and frames[0] == VERSION
            and (frames[2], frames[5], frames[6]) == (self.domain, b"CURVE", self.key)
        )

    def close(self) -> None:
        """Close the socket: nobody comes in any more."""
        self.socket.close(0)
