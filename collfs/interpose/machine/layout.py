"""The structures of ``layout.h``, in the same order, by the same names. tests/abi compares them with the C compiler.

Rules of the file: no field without its twin in ``layout.h``; ``TABLE_VERSION`` changes with every change of meaning.
"""

from __future__ import annotations

from ctypes import Structure, c_char_p, c_uint8, c_uint32, c_uint64, sizeof

TABLE_MAGIC, TABLE_VERSION = 0x464C4C43, 3
MAX_PREFIX, RING, SEEN, WRITTEN, MISS_LOG, MAX_FD = 64, 128, 4096, 4096, 1 << 18, 4096

K_UNKNOWN, K_FILE, K_REG, K_DIR, K_ABSENT, K_NATIVE, K_WRITTEN = range(7)
F_COMPLETE, F_MIRROR, F_LINK, F_STAT = 1 << 8, 1 << 9, 1 << 10, 1 << 11
SEEK_ASK, SEEK_HERE, SEEK_ELSEWHERE = range(3)
WAIT_DONE, WAIT_RUNG, WAIT_OVER, WAIT_FAILED = range(4)

OPERATIONS = ("open", "stat", "access", "readlink", "opendir", "change")
OUTCOMES = ("redirected", "absent", "native", "fallback")
ROW_NAMES = ("fxstat64", "xstat64", "open", "close", "read", "lseek", "mmap", "munmap")

#: events of the audit hook, EV_OPEN and so on
EVENTS = ("open", "import", "ctypes.dlopen", "os.listdir", "os.scandir")
#: what the machine code calls, PY_AsUTF8AndSize and so on
PYTHON_FUNCTIONS = (
    "PyUnicode_AsUTF8AndSize",
    "PyUnicode_GetLength",
    "PyUnicode_EncodeFSDefault",
    "PyBytes_AsString",
    "Py_DecRef",
    "PyErr_Clear",
    "PyErr_Occurred",
    "PyLong_AsVoidPtr",
    "PyLong_FromUnsignedLongLong",
    "PyLong_AsLong",
    "PyTuple_GetItem",
    "PyObject_CallFunctionObjArgs",
    "PyInterpreterState_Get",
)

STAT_SIZE = 144  # struct stat on x86-64: arch/x86/include/uapi/asm/stat.h
#: struct stat on x86-64, as struct.pack format: st_dev, st_ino, st_nlink, st_mode, st_uid, st_gid, padding, st_rdev,
#: st_size, st_blksize, st_blocks, st_atim, st_mtim, st_ctim (seconds and nanoseconds), unused
STAT_FORMAT = "<QQQIII4xQqqqqqqqqq24x"


class Cell(Structure):
    """``struct cell``: private to the process."""

    _fields_ = [
        ("table", c_uint64),
        ("off", c_uint64),
        ("floor", c_uint64),
        ("errno_location", c_uint64),
        ("api", c_uint64 * len(ROW_NAMES)),
        ("rows", c_uint64),
        ("under", c_uint64),
        ("busy", c_uint64),
        ("thread", c_uint64),
        ("pid", c_uint64),
        ("on_initialize", c_uint64),
        ("on_finalize", c_uint64),
        ("warned", c_uint64),
        ("copy_fd", c_uint64),
        ("copy_dev", c_uint64),
        ("copy_ino", c_uint64),
        ("row_calls", c_uint64 * len(ROW_NAMES)),
        ("count", (c_uint64 * len(OUTCOMES)) * len(OPERATIONS)),
        ("mirrors", c_uint64),
        ("mirror_fds", c_uint64 * (MAX_FD // 64)),
        ("python", c_uint64 * len(PYTHON_FUNCTIONS)),
    ]


class Prefix(Structure):
    """``struct prefix``."""

    _fields_ = [("off", c_uint32), ("len", c_uint32)]


class TableHeader(Structure):
    """``struct table``: the head of the shared-memory file."""

    _fields_ = [
        ("magic", c_uint32),
        ("version", c_uint32),
        ("size", c_uint64),
        ("slots", c_uint64),
        ("heap", c_uint64),
        ("allocated", c_uint64),
        ("entries", c_uint64),
        ("sequence", c_uint64),
        ("epoch", c_uint64),
        ("used", c_uint64),
        ("staged_bytes", c_uint64),
        ("staged_files", c_uint64),
        ("overflow", c_uint64),
        ("saved", c_uint64),
        ("miss_pos", c_uint64),
        ("misses", c_uint64),
        ("nprefix", c_uint32),
        ("mirror_len", c_uint32),
        ("mirror_off", c_uint32),
        ("pad", c_uint32),
        ("mirror_dev", c_uint64),
        ("prefix", Prefix * MAX_PREFIX),
        ("ring", c_uint32 * RING),
        ("seen", c_uint32 * SEEN),
        ("written", c_uint32 * WRITTEN),
        ("miss", c_uint8 * MISS_LOG),
    ]


class Entry(Structure):
    """``struct entry``, without its key."""

    _fields_ = [
        ("hash", c_uint32),
        ("key_len", c_uint32),
        ("word", c_uint64),
        ("st", c_uint32),
        ("link", c_uint32),
        ("seq", c_uint32),
        ("used", c_uint32),
    ]


class Search(Structure):
    """``struct search``: how modules are called."""

    _fields_ = [("table", c_uint64), ("suffixes", c_char_p), ("bytecode", c_char_p)]


class Events(Structure):
    """``struct events``: what the audit hook knows."""

    _fields_ = [
        ("table", c_uint64),
        ("interpreter", c_uint64),
        ("none", c_uint64),
        ("all", c_uint64),
        ("probe", c_uint64),
        ("handlers", c_uint64 * len(EVENTS)),
    ]


class Waiting(Structure):
    """``struct waiting``: a thread that waits for a request of MPI."""

    _fields_ = [
        ("test", c_uint64),
        ("request", c_uint64),
        ("since", c_uint64),
        ("least", c_uint64),
        ("most", c_uint64),
        ("limit", c_uint64),
        ("bell", c_uint32),
        ("heard", c_uint32),
        ("status", c_uint64 * 16),
    ]


class News(Structure):
    """``struct news`` of ``writer.h``."""

    _fields_ = [
        ("key", c_char_p),
        ("key_len", c_uint64),
        ("word", c_uint64),
        ("copy", c_char_p),
        ("copy_len", c_uint64),
        ("st", c_char_p),
        ("lst", c_char_p),
        ("target", c_char_p),
        ("target_len", c_uint64),
        ("seq", c_uint64),
        ("epoch", c_uint64),
    ]


PUT_DONE, PUT_STALE, PUT_FULL = 0, 1, -28


class BlobHeader(Structure):
    """The head of the machine code (``trampoline.S``): where its functions and templates are, as offsets."""

    _fields_ = [("magic", c_uint64), ("size", c_uint32), ("pad", c_uint32)] + [
        (name, c_uint32)
        for name in (
            "libc_entry",
            "ldso_entry",
            "api_open",
            "api_xstat64",
            "api_fxstat64",
            "probe",
            "swap_word",
            "store_word",
            "forget",
            "poke",
            "put",
            "sum64",
            "c_initialize",
            "c_finalize",
            "py_probe",
            "py_seek",
            "py_audit",
            "wait_for",
            "ring",
            "even",
        )
    ]


TEMPLATES = ("plain", "path_rdi", "path_rsi", "cancel", "cave")
#: per template, behind the header: start, size, and the holes call, ret, back (relative to start)
TEMPLATE_ROW = c_uint32 * 5
HEAD_SIZE = 16  # bytes for displaced instructions at the start of a template
CELL_SIZE = 0x2000  # distance from the cell to the code: machine.ld

assert sizeof(Entry) == 32
assert sizeof(Cell) <= CELL_SIZE
