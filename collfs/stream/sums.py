"""The checksum of contents that pass in pieces: XXH64, by the machine code that this process has anyway.

Measured for 64 MiB: 5 ms, where binascii.crc32 takes 16. The GIL is free meanwhile.

Rule of the file: one algorithm on all machines; a machine without it has no interposer, and so nothing to send.
"""

from __future__ import annotations

import ctypes

from ..interpose.machine.code import Code, latest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..record import Buffer


class _PyBuffer(ctypes.Structure):
    """``Py_buffer`` (Include/cpython/object.h, since 3.12 Include/pybuffer.h; part of the stable ABI since 3.11)."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


_get = ctypes.pythonapi.PyObject_GetBuffer
_get.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = (ctypes.POINTER(_PyBuffer),)
_release.restype = None
_SIMPLE = 0  # PyBUF_SIMPLE: contiguous bytes, read only is enough


def checksum(buffer: Buffer, start: int = 0) -> int:
    """XXH64 of *buffer*, 64 bits; *start* is its seed: give the sum of what came before.

    :raises InterposeRefused: if there is no machine code for this machine
    :raises BufferError: if the bytes aren't contiguous
    """
    code = latest[0] if latest else Code([], 0)
    view = _PyBuffer()
    _get(buffer, ctypes.byref(view), _SIMPLE)
    try:
        return int(code.sum64(view.buf, view.len, start))
    finally:
        _release(ctypes.byref(view))
