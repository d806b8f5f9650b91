"""libzmq's contexts, sockets and poller, as much of them as a server needs.

Rules of the file: nothing waits but :meth:`Poller.poll` and :meth:`Context.destroy`; what libzmq refuses is a
:class:`~collfs_zmq.libzmq.ZMQError`. A socket belongs to one thread (man 3 zmq_socket).
"""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_char, c_int, c_short, c_size_t, c_ubyte, c_uint64, c_void_p
from errno import EINTR

from .libzmq import DONTWAIT, LAST_ENDPOINT, LINGER, MAXMSGSIZE, PAIR, POLLIN, SNDMORE, ZMQError, lib, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Union

    from collfs.record import Buffer

    Source = Union["Socket", int]  # a file descriptor

_LONG = (MAXMSGSIZE,)  # options that are an int64_t; the other numbers are an int (man 3 zmq_setsockopt)
_SMALL = 65536  # bytes; up to here, a copy costs less than to keep the message
_Bytes = c_ubyte * (1 << 31)  # a type for all sizes: ctypes would make one for each, and views are cut to size
_Message = c_uint64 * 8  # zmq_msg_t


class _Item(ctypes.Structure):
    """``zmq_pollitem_t`` (man 3 zmq_poll)."""

    _fields_ = (("socket", c_void_p), ("fd", c_int), ("events", c_short), ("revents", c_short))


class _Held:
    """A message that has come. It is given back when nobody refers to its bytes any more."""

    __slots__ = ("raw", "size")

    def __init__(self, socket: int) -> None:
        self.raw = _Message()
        self.size = -1
        lib.zmq_msg_init(self.raw)
        self.size = int(lib.zmq_msg_recv(self.raw, socket, DONTWAIT))
        if self.size < 0:
            raise refused()

    def __del__(self) -> None:
        lib.zmq_msg_close(self.raw)

    @property
    def more(self) -> bool:
        """Whether it is a frame that another one follows."""
        return bool(lib.zmq_msg_more(self.raw))

    def bytes(self) -> bytes:
        """A copy."""
        return ctypes.string_at(lib.zmq_msg_data(self.raw), self.size) if self.size else b""

    def view(self) -> memoryview:
        """Its bytes where they are, or a copy of few."""
        if self.size <= _SMALL:
            return memoryview(self.bytes())
        inside = _Bytes.from_address(lib.zmq_msg_data(self.raw))
        inside.held = self  # type: ignore[attr-defined]  # as long as there is a view of it
        return memoryview(inside).cast("B")[: self.size]


class Socket:
    """One socket, made by :meth:`Context.socket`."""

    __slots__ = ("_context", "_monitored", "handle")

    def __init__(self, context: Context, kind: int) -> None:
        self.handle: int = lib.zmq_socket(context.handle, kind) or 0
        if not self.handle:
            raise refused()
        self._context = context
        self._monitored = False
        context.sockets.add(self)

    def set(self, option: int, value: int | bytes) -> None:
        """``zmq_setsockopt``.

        :raises ZMQError: if libzmq refuses the option or the value
        """
        if isinstance(value, int):
            value = value.to_bytes(8 if option in _LONG else 4, sys.byteorder, signed=True)
        if lib.zmq_setsockopt(self.handle, option, value, len(value)):
            raise refused()

    @property
    def endpoint(self) -> str:
        """The address that :meth:`bind` has bound last, with its port."""
        found = ctypes.create_string_buffer(1024)
        size = c_size_t(len(found))
        if lib.zmq_getsockopt(self.handle, LAST_ENDPOINT, found, byref(size)):
            raise refused()
        return found.value.decode()

    def bind(self, address: str) -> None:
        """:raises ZMQError: if the address is in use, or none"""
        if lib.zmq_bind(self.handle, address.encode()):
            raise ZMQError(*refused().args[:2], address)

    def connect(self, address: str) -> None:
        """:raises ZMQError: if that is no address; whether somebody is there is not known yet"""
        if lib.zmq_connect(self.handle, address.encode()):
            raise ZMQError(*refused().args[:2], address)

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
            if lib.zmq_send(self.handle, start, size, DONTWAIT | (SNDMORE if left else 0)) < 0:
                raise refused()

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
        if lib.zmq_socket_monitor(self.handle, address.encode(), events) < 0:
            raise refused()
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
            lib.zmq_socket_monitor(self.handle, None, 0)
        self.set(LINGER, linger)
        lib.zmq_close(self.handle)


class Context:
    """One context, with a thread of its own for input and output, as libzmq makes it."""

    def __init__(self) -> None:
        self.handle: int = lib.zmq_ctx_new() or 0
        if not self.handle:
            raise refused()
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
        while lib.zmq_ctx_term(self.handle) and ctypes.get_errno() == EINTR:
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
        if lib.zmq_poll(self._items, len(self._items), milliseconds) < 0:
            if ctypes.get_errno() == EINTR:
                return []
            raise refused()
        return [source for source, item in zip(self._sources, self._items) if item.revents]
