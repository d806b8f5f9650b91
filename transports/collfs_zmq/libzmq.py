"""libzmq through ctypes: the library, its numbers and errors, its keys. What is done with it: sockets.py.

pyzmq brings the library. Its own interface would read 190 more paths of the shared file system (pickle, json, random
and typing among them), on each node before anything serves it. The C interface is documented, and compatible since 4.0
(zmq.h, man 7 zmq).

::

    pyzmq.libs/libzmq-*.so       of the wheels: found by one look into the directory
    zmq/backend/cython/*.so      else: an extension module, which is linked with the library, wherever that is

Rules of the file: what libzmq refuses is a :class:`ZMQError`; a function that isn't in the table below isn't called.
"""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, c_char_p, c_int, c_long, c_size_t, c_void_p
from errno import EAGAIN

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

_EXTENSIONS = ("zmq.backend.cython._zmq", "zmq.backend.cython.socket")  # since pyzmq 26, before
_OF_SYSTEM = ("libpthread.so.0", "librt.so.1", "libstdc++.so.6", "libgcc_s.so.1")  # wheels leave these out (PEP 600)


class ZMQError(OSError):
    """What libzmq says."""


class Again(ZMQError):
    """Nothing has come, or nothing can be sent now (EAGAIN)."""


def _find() -> ctypes.CDLL:
    """The library that pyzmq uses.

    :raises ModuleNotFoundError: without pyzmq
    :raises OSError: if it can't be loaded, or is of another kind
    """
    for folder in sys.path:
        if folder.endswith("-packages"):
            try:
                return _of_wheel(f"{folder}/pyzmq.libs")
            except OSError:
                pass  # none there, or of another machine
    import zmq  # noqa: F401  its modules are what counts

    for name in _EXTENSIONS:
        module = sys.modules.get(name)
        if module is not None and module.__file__:
            return _load(module.__file__)
    raise OSError("pyzmq has no extension module that is linked with libzmq")


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
    found = ctypes.CDLL(path, use_errno=True)
    try:
        for name, result, *arguments in _FUNCTIONS:
            function = getattr(found, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as exc:
        raise OSError(f"{path}: {exc}") from exc
    return found


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
lib = _find()


def refused() -> ZMQError:
    """What the last call was refused for."""
    number = ctypes.get_errno()
    if number == EAGAIN:
        return Again(EAGAIN, "not now")
    return ZMQError(number, (lib.zmq_strerror(number) or b"").decode("utf-8", "replace"))


def has(capability: str) -> bool:
    """Whether the library was made with it, such as ``curve`` (man 3 zmq_has)."""
    return bool(lib.zmq_has(capability.encode()))


def curve_public(secret: bytes) -> bytes:
    """The public key to a *secret* one, both as Z85 texts of 40 characters (man 3 zmq_curve_public).

    :raises ZMQError: if *secret* isn't one
    """
    found = ctypes.create_string_buffer(Z85_KEY + 1)
    if lib.zmq_curve_public(found, secret):
        raise refused()
    return found.value


def z85_encode(raw: bytes) -> bytes:
    """*raw* as a Z85 text (RFC 32/Z85).

    :raises ZMQError: if its length isn't a multiple of four
    """
    found = ctypes.create_string_buffer(len(raw) * 5 // 4 + 1)
    if not lib.zmq_z85_encode(found, raw, len(raw)):
        raise refused()
    return found.value


def z85_decode(text: bytes) -> bytes:
    """The bytes of a Z85 *text*.

    :raises ZMQError: if its length isn't a multiple of five
    """
    found = ctypes.create_string_buffer(len(text) * 4 // 5 + 1)
    if not lib.zmq_z85_decode(found, text):
        raise refused()
    return found.raw[: len(text) * 4 // 5]
