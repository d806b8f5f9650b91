"""libzmq through ctypes: contexts, sockets, a poller, keys; as much of them as a server needs.

pyzmq brings the library. Its own interface would read 190 more paths of the shared file system (pickle, json, random
and typing among them), on each node before anything serves it. The C interface is documented, and compatible since 4.0
(zmq.h, man 7 zmq).

::

    pyzmq.libs/libzmq-*.so       of the wheels: found by one look into the directory
    zmq/backend/cython/_zmq.so   else: the extension module, which is linked with the library, wherever that is

Rules of the file: nothing waits but :meth:`Poller.poll` and :meth:`Context.destroy`; what libzmq refuses is a
:class:`ZMQError`. A socket belongs to one thread (man 3 zmq_socket).
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_long, c_short, c_size_t, c_ubyte, c_uint64, c_void_p
from errno import EAGAIN, EINTR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Union

    from collfs.record import Buffer

    Source = Union["Socket", int]  # a file descriptor

# zmq.h
PAIR, REP, DEALER, ROUTER = 0, 4, 5, 6
DONTWAIT, SNDMORE = 1, 2
POLLIN = 1
LINGER, RCVMORE, MAXMSGSIZE, SNDHWM, LAST_ENDPOINT, ROUTER_MANDATORY = 17, 13, 22, 23, 32, 33
CURVE_SERVER, CURVE_PUBLICKEY, CURVE_SECRETKEY, CURVE_SERVERKEY, ZAP_DOMAIN, ROUTER_HANDOVER = 47, 48, 49, 50, 55, 56
HANDSHAKE_IVL, HEARTBEAT_IVL, HEARTBEAT_TIMEOUT = 66, 75, 77
EVENT_HANDSHAKE_FAILED_NO_DETAIL, EVENT_HANDSHAKE_FAILED_PROTOCOL = 0x0800, 0x2000
EVENT_HANDSHAKE_FAILED_AUTH = 0x4000
Z85_KEY = 40  # characters of a key (RFC 32/Z85: five for each four bytes)

_LONG = (MAXMSGSIZE,)  # options that are an int64_t; the other numbers are an int (man 3 zmq_setsockopt)
_SMALL = 65536  # bytes; up to here, a copy costs less than to keep the message
_OF_SYSTEM = ("libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libgcc_s.so.1")  # wheels leave these out (PEP 600)
_Bytes = c_ubyte * (1 << 31)  # a type for all sizes: ctypes would make one for each, and views are cut to size
_Message = c_uint64 * 8  # zmq_msg_t


class _Item(ctypes.Structure):
    """``zmq_pollitem_t`` (man 3 zmq_poll)."""

    _fields_ = (("socket", c_void_p), ("fd", c_int), ("events", c_short), ("revents", c_short))


class ZMQError(OSError):
    """What libzmq says."""


class Again(ZMQError):
    """Nothing has come, or nothing can be sent now (EAGAIN)."""


def _find() -> ctypes.CDLL:
    """The library that pyzmq uses.

    :raises ModuleNotFoundError: without pyzmq
    :raises OSError: if it can't be loaded, or has no zmq_poll
    """
    for folder in sys.path:
        if folder.endswith("-packages"):
            try:
                return _of_wheel(f"{folder}/pyzmq.libs")
            except OSError:
                pass  # none there, or of another machine
    from zmq.backend.cython import _zmq

    return _load(_zmq.__file__)


def _of_wheel(folder: str) -> ctypes.CDLL:
    """libzmq from the directory in which a wheel brings it (auditwheel), after the libraries that it needs.

    ld.so would look for each of those there, in ten folders for special processors, too (man ld.so: RPATH, hwcaps);
    for what is loaded already under its name, it doesn't look.

    :raises OSError: if there is none, or it can't be loaded
    """
    names = sorted(name for name in os.listdir(folder) if name.startswith("lib"))
    own = [name for name in names if name.startswith("libzmq")]
    if not own:
        raise FileNotFoundError(2, "no libzmq", folder)
    for name in _OF_SYSTEM:
        try:
            ctypes.CDLL(name)
        except OSError:
            pass  # ld.so will say it if it is needed
    for name in names:
        if name not in own:
            ctypes.CDLL(f"{folder}/{name}")
    return _load(f"{folder}/{own[-1]}")


def _load(path: str) -> ctypes.CDLL:
    lib = ctypes.CDLL(path, use_errno=True)
    try:
        for name, result, *arguments in _FUNCTIONS:
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as exc:
        raise OSError(f"{path}: {exc}") from exc
    if not lib.zmq_has(b"curve"):
        raise OSError(f"{path}: made without CURVE, which the servers of several nodes need")
    return lib


_FUNCTIONS = (
    ("zmq_ctx_new", c_void_p),
    ("zmq_ctx_term", c_int, c_void_p),
    ("zmq_socket", c_void_p, c_void_p, c_int),
    ("zmq_close", c_int, c_void_p),
    ("zmq_setsockopt", c_int, c_void_p, c_int, c_void_p, c_size_t),
    ("zmq_getsockopt", c_int, c_void_p, c_int, c_void_p, POINTER(c_size_t)),
    ("zmq_bind", c_int, c_void_p, c_char_p),
    ("zmq_connect", c_int, c_void_p, c_char_p),
    ("zmq_send", c_int, c_void_p, c_void_p, c_size_t, c_int),
    ("zmq_msg_init", c_int, c_void_p),
    ("zmq_msg_recv", c_int, c_void_p, c_void_p, c_int),
    ("zmq_msg_data", c_void_p, c_void_p),
    ("zmq_msg_more", c_int, c_void_p),
    ("zmq_msg_close", c_int, c_void_p),
    ("zmq_poll", c_int, c_void_p, c_int, c_long),
    ("zmq_socket_monitor", c_int, c_void_p, c_char_p, c_int),
    ("zmq_curve_public", c_int, c_void_p, c_char_p),
    ("zmq_z85_encode", c_void_p, c_void_p, c_char_p, c_size_t),
    ("zmq_z85_decode", c_void_p, c_void_p, c_char_p),
    ("zmq_strerror", c_char_p, c_int),
    ("zmq_has", c_int, c_char_p),
)
_lib = _find()


def _refused() -> ZMQError:
    number = ctypes.get_errno()
    if number == EAGAIN:
        return Again(EAGAIN, "not now")
    return ZMQError(number, (_lib.zmq_strerror(number) or b"").decode("utf-8", "replace"))


class _Held:
    """A message that has come. It is given back when nobody refers to its bytes any more."""

    __slots__ = ("raw", "size")

    def __init__(self, socket: int) -> None:
        self.raw = _Message()
        self.size = -1
        _lib.zmq_msg_init(self.raw)
        self.size = int(_lib.zmq_msg_recv(self.raw, socket, DONTWAIT))
        if self.size < 0:
            raise _refused()

    def __del__(self) -> None:
        _lib.zmq_msg_close(self.raw)

    @property
    def more(self) -> bool:
        """Whether it is a frame that another one follows."""
        return bool(_lib.zmq_msg_more(self.raw))

    def bytes(self) -> bytes:
        """A copy."""
        return ctypes.string_at(_lib.zmq_msg_data(self.raw), self.size) if self.size else b""

    def view(self) -> memoryview:
        """Its bytes where they are, or a copy of few."""
        if self.size <= _SMALL:
            return memoryview(self.bytes())
        inside = _Bytes.from_address(_lib.zmq_msg_data(self.raw))
        inside.held = self  # type: ignore[attr-defined]  # as long as there is a view of it
        return memoryview(inside).cast("B")[: self.size]


class Socket:
    """One socket, made by :meth:`Context.socket`."""

    __slots__ = ("_context", "_monitored", "handle")

    def __init__(self, context: Context, kind: int) -> None:
        self.handle: int = _lib.zmq_socket(context.handle, kind) or 0
        if not self.handle:
            raise _refused()
        self._context = context
        self._monitored = False
        context.sockets.add(self)

    def set(self, option: int, value: int | bytes) -> None:
        """``zmq_setsockopt``.

        :raises ZMQError: if libzmq refuses the option or the value
        """
        if isinstance(value, int):
            value = value.to_bytes(8 if option in _LONG else 4, sys.byteorder, signed=True)
        if _lib.zmq_setsockopt(self.handle, option, value, len(value)):
            raise _refused()

    @property
    def endpoint(self) -> str:
        """The address that :meth:`bind` has bound last, with its port."""
        found = ctypes.create_string_buffer(1024)
        size = c_size_t(len(found))
        if _lib.zmq_getsockopt(self.handle, LAST_ENDPOINT, found, byref(size)):
            raise _refused()
        return found.value.decode()

    def bind(self, address: str) -> None:
        """:raises ZMQError: if the address is in use, or none"""
        if _lib.zmq_bind(self.handle, address.encode()):
            raise ZMQError(*_refused().args[:2], address)

    def connect(self, address: str) -> None:
        """:raises ZMQError: if that is no address; whether somebody is there is not known yet"""
        if _lib.zmq_connect(self.handle, address.encode()):
            raise ZMQError(*_refused().args[:2], address)

    def send(self, frames: Sequence[Buffer]) -> None:
        """Send *frames* as one message, all or nothing; they are copied.

        :raises Again: if it can't be queued now
        :raises ZMQError: EHOSTUNREACH, if the peer of a ROUTER socket has gone
        """
        left = len(frames)
        for frame in frames:
            left -= 1
            size = len(frame)
            start: bytes | object = frame
            if not isinstance(frame, bytes):
                try:
                    start = byref(c_char.from_buffer(frame)) if size else b""
                except TypeError:  # read-only
                    start = bytes(frame)
            if _lib.zmq_send(self.handle, start, size, DONTWAIT | (SNDMORE if left else 0)) < 0:
                raise _refused()

    def _receive(self) -> list[_Held]:
        found = [_Held(self.handle)]
        while found[-1].more:  # the frames of a message come together (man 3 zmq_msg_recv)
            found.append(_Held(self.handle))
        return found

    def receive(self) -> list[bytes]:
        """The frames of the next message.

        :raises Again: if none has come
        """
        return [held.bytes() for held in self._receive()]

    def receive_views(self) -> list[memoryview]:
        """The same, without a copy of large ones: what is kept of them keeps the whole frame."""
        return [held.view() for held in self._receive()]

    def monitor(self, events: int) -> Socket:
        """A socket that gets a message for each of *events* (man 3 zmq_socket_monitor)."""
        address = f"inproc://monitor-{self.handle:x}"
        if _lib.zmq_socket_monitor(self.handle, address.encode(), events) < 0:
            raise _refused()
        self._monitored = True
        found = self._context.socket(PAIR)
        found.set(LINGER, 0)
        found.connect(address)
        return found

    def close(self, linger: int) -> None:
        """Close it; what isn't sent yet has *linger* milliseconds. Once is enough, twice is allowed."""
        if self not in self._context.sockets:
            return
        self._context.sockets.discard(self)
        if self._monitored:
            _lib.zmq_socket_monitor(self.handle, None, 0)
        self.set(LINGER, linger)
        _lib.zmq_close(self.handle)


class Context:
    """One context, with a thread of its own for input and output, as libzmq makes it."""

    def __init__(self) -> None:
        self.handle: int = _lib.zmq_ctx_new() or 0
        if not self.handle:
            raise _refused()
        self.sockets: set[Socket] = set()

    def socket(self, kind: int) -> Socket:
        """A socket of this context.

        :raises ZMQError: EMFILE, if no more are allowed
        """
        return Socket(self, kind)

    def destroy(self, linger: int) -> None:
        """Close all sockets that are left, and the context; it waits until all have lingered."""
        for socket in list(self.sockets):
            socket.close(linger)
        while _lib.zmq_ctx_term(self.handle) and ctypes.get_errno() == EINTR:
            pass


class Poller:
    """Sockets and file descriptors that something may come from."""

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._items = (_Item * 0)()

    def register(self, source: Source) -> None:
        """Look at *source*, too."""
        self._sources.append(source)
        self._arrange()

    def unregister(self, source: Source) -> None:
        """Don't look at *source* any more.

        :raises ValueError: if it isn't registered
        """
        self._sources.remove(source)
        self._arrange()

    def _arrange(self) -> None:
        self._items = (_Item * len(self._sources))(
            *(_Item(0, one, POLLIN) if isinstance(one, int) else _Item(one.handle, 0, POLLIN) for one in self._sources)
        )

    def poll(self, milliseconds: int) -> list[Source]:
        """Wait until something has come or the time is over; a signal ends it, too. What it has come from."""
        if _lib.zmq_poll(self._items, len(self._items), milliseconds) < 0:
            if ctypes.get_errno() == EINTR:
                return []
            raise _refused()
        return [source for source, item in zip(self._sources, self._items) if item.revents]


def curve_public(secret: bytes) -> bytes:
    """The public key to a *secret* one, both as Z85 texts of 40 characters (man 3 zmq_curve_public).

    :raises ZMQError: if *secret* isn't one
    """
    found = ctypes.create_string_buffer(Z85_KEY + 1)
    if _lib.zmq_curve_public(found, secret):
        raise _refused()
    return found.value


def z85_encode(raw: bytes) -> bytes:
    """*raw* as a Z85 text (RFC 32/Z85).

    :raises ZMQError: if its length isn't a multiple of four
    """
    found = ctypes.create_string_buffer(len(raw) * 5 // 4 + 1)
    if not _lib.zmq_z85_encode(found, raw, len(raw)):
        raise _refused()
    return found.value


def z85_decode(text: bytes) -> bytes:
    """The bytes of a Z85 *text*.

    :raises ZMQError: if its length isn't a multiple of five
    """
    found = ctypes.create_string_buffer(len(text) * 4 // 5 + 1)
    if not _lib.zmq_z85_decode(found, text):
        raise _refused()
    return found.raw[: len(text) * 4 // 5]
