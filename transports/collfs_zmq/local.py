"""Frames between the processes of a node and the node's server, over a Unix socket in the node store.

::

    frame   = payload length u32 | kind u8 | request u32 | payload
    kinds   HELLO    version u16, the program's name        a process has come; answered by WELCOME
            WANT     one frame of wants (record.wire)       to be staged; answered by DONE with the same request
            PLAN     the same                               what earlier runs of the program wanted; answered by DONE
            REPORT   JSON                                   of a process, for the file of the job; answered by REPORTED
            STOP                                            end the server; answered by GOING
            WELCOME  chief u8, token of the job
            DONE                                            all that can be staged is staged
            REPORTED yes u8                                 it is in the file
            REFUSED  text                                   the request was not as it should be
            GOING                                           the server ends

Rules of the file: no zmq, and nothing that a rank doesn't have loaded (``_socket`` instead of socket, which imports
selectors and enum); a length is compared with what is allowed before anything is kept for it.
"""

from __future__ import annotations

import _socket
import os
import struct
from errno import EAGAIN, EINTR, EPIPE, EPROTO, EWOULDBLOCK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = struct.Struct("<IBI")
HELLO, WANT, PLAN, STOP, REPORT = 1, 2, 3, 4, 5
WELCOME, DONE, REFUSED, GOING, REPORTED = 65, 66, 67, 68, 69
VERSION = 1
HELLO_HEAD = struct.Struct("<H")
MOST = 64 << 20  # bytes of a frame: a manifest of some 500,000 paths
LARGEST_REPORT = 1 << 20  # bytes of the report of a process
NAME = "server"  # of the socket, in the node store
_CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid (man 7 unix, SO_PEERCRED)
_TIMEVAL = struct.Struct("@ll")  # struct timeval (man 3 timeval)
_BLOCK = 1 << 16


class Frames:
    """Bytes as they come, to frames.

    :raises ValueError: from :meth:`add`, if a frame claims more than *most* bytes
    """

    def __init__(self, most: int = MOST) -> None:
        self.most = most
        self._bytes = bytearray()

    def add(self, piece: bytes) -> list[tuple[int, int, bytes]]:
        """The frames (kind, request, payload) that are whole with *piece*."""
        self._bytes += piece
        found, at = [], 0
        while len(self._bytes) - at >= HEAD.size:
            length, kind, request = HEAD.unpack_from(self._bytes, at)
            if length > self.most:
                raise ValueError(f"a frame of {length} bytes; at most {self.most} are allowed")
            end = at + HEAD.size + length
            if end > len(self._bytes):
                break
            found.append((kind, request, bytes(self._bytes[at + HEAD.size : end])))
            at = end
        del self._bytes[:at]
        return found

    @property
    def pending(self) -> int:
        """Bytes of a frame that isn't whole yet."""
        return len(self._bytes)


def frame(kind: int, request: int = 0, payload: bytes = b"") -> bytes:
    """One frame."""
    return HEAD.pack(len(payload), kind, request) + payload


def peer(sock: _socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process at the other end, as the kernel says."""
    raw = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


class Link:
    """A process's end of the socket."""

    def __init__(self, path: str, seconds: float) -> None:
        """
        :raises OSError: if nobody listens there, or it is another user's process
        """
        self._frames = Frames()
        self._seconds = seconds
        self.alive = True
        self.sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            # Blocking, with the kernel's own limits: one thread may wait to read while another sends (man 7 socket).
            self._limit(_socket.SO_SNDTIMEO, seconds)
            self._limit(_socket.SO_RCVTIMEO, seconds)
            _at(path, self.sock.connect)
            if peer(self.sock)[1] != os.geteuid():
                raise PermissionError(1, "the server belongs to another user", path)
        except BaseException:
            self.sock.close()
            raise

    def send(self, kind: int, request: int = 0, payload: bytes = b"") -> None:
        """Send one frame, within the time limit of the socket.

        :raises OSError: if the server has gone, or doesn't read
        """
        try:
            self.sock.sendall(frame(kind, request, payload))
        except OSError:
            self.alive = False
            raise

    def receive(self, wait: bool = False) -> list[tuple[int, int, bytes]]:
        """The frames that have come.

        :param wait: until there is something, within the time limit of the socket
        :raises OSError: if the server has gone; what came before has been given
        """
        try:
            if wait:
                self._limit(_socket.SO_RCVTIMEO, self._seconds)
            piece = self.sock.recv(_BLOCK, 0 if wait else _socket.MSG_DONTWAIT)
        except OSError as exc:
            if exc.errno in (EAGAIN, EWOULDBLOCK, EINTR) and not wait:
                return []
            self.alive = False
            raise
        if not piece:
            self.alive = False
            raise OSError(EPIPE, "the server has ended")
        try:
            return self._frames.add(piece)
        except ValueError as exc:
            self.alive = False
            raise OSError(EPROTO, str(exc)) from exc

    def pause(self, seconds: float) -> None:
        """Wait until something has come, for *seconds* at most."""
        try:
            self._limit(_socket.SO_RCVTIMEO, seconds)
            self.sock.recv(1, _socket.MSG_PEEK)
        except OSError:
            pass  # nothing came, or nothing ever will: the next look says which

    def _limit(self, which: int, seconds: float) -> None:
        micros = max(int(seconds * 1e6), 1)  # zero would mean no limit
        self.sock.setsockopt(_socket.SOL_SOCKET, which, _TIMEVAL.pack(*divmod(micros, 10**6)))

    def close(self) -> None:
        """Leave."""
        self.alive = False
        self.sock.close()


def listen(path: str) -> _socket.socket:
    """A listening socket at *path*, for this user alone (it lies in a directory with mode 0700).

    :raises OSError: EADDRINUSE, if there is one
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    try:
        _at(path, sock.bind)
        os.chmod(path, 0o600)
        sock.listen(1024)
    except BaseException:
        sock.close()
        raise
    return sock


def _at(path: str, call: Callable[[str], None]) -> None:
    """*call* (bind or connect) with *path* in a spelling of at most 107 bytes (man 7 unix, ``sun_path``): a store may
    lie deep below a TMPDIR.
    """
    if len(os.fsencode(path)) < 108:
        call(path)
        return
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call(f"/proc/self/fd/{fd}/{name}")
    finally:
        os.close(fd)
