/* What lies in memory between Python and the machine code: the private cell of a process and the shared path table.
 *
 *   cell (private, 2 pages before the code)        table (one shared-memory file, mapped by every rank of the node)
 *   +----------------------+                       +--------+------------+---------------------------------------+
 *   | table  --------------+---------------------->| header | miss log   | heap: slots, entries, stats, strings  |
 *   | off, floor           |                       +--------+------------+---------------------------------------+
 *   | rows, under --> api  |                           |                     ^         ^        ^
 *   | mirror_fds, python   |                           +--- slots -----------+  slot --+ entry -+- st, link, copy
 *   +----------------------+
 *
 * Rules of the file
 *  - Offsets, never pointers, inside the table: every process maps it where it likes. An offset in a u32 counts 8 bytes.
 *  - One writer at a time (a file lock) appends to the heap and publishes by single aligned 8-byte stores; readers take
 *    no lock. Nothing that was published is ever moved or freed, so a reader's pointer stays good.
 *  - entry.word is the only thing that readers change (invalidation), by compare-and-swap, because writers change it too.
 *  - machine/layout.py holds the same structures; tests/abi compares them field by field with the C compiler.
 */
#ifndef COLLFS_LAYOUT_H
#define COLLFS_LAYOUT_H

typedef unsigned long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef long i64;

enum {
  TABLE_MAGIC = 0x464c4c43, /* "CLLF" */
  TABLE_VERSION = 3,
  MAX_PREFIX = 64,
  RING = 128,      /* hashes of the last invalidated paths */
  SEEN = 4096,     /* hashes of misses already noted */
  WRITTEN = 4096,  /* words of 32 bits: names changed by this job, by hash; bits are only set */
  MISS_LOG = 1 << 18, /* bytes */
  MAX_FD = 4096,   /* descriptors that opendir may give for a mirror */
};

/* kinds of an entry: bits 0..7 of entry.word */
enum {
  K_UNKNOWN = 0, /* forgotten; may be staged again */
  K_FILE = 1,    /* regular file, content staged: the copy answers */
  K_REG = 2,     /* regular file, metadata only (st may be 0: not even that) */
  K_DIR = 3,
  K_ABSENT = 4,
  K_NATIVE = 5,  /* exists, but is the plain file system's business: special files, broken links, refused files */
  K_WRITTEN = 6, /* changed during this job: native for the rest of it */
};
/* flags: bits 8..31 of entry.word; bits 32..63 are the offset of the copy's path */
enum {
  F_COMPLETE = 1 << 8, /* directory: every child has an entry */
  F_MIRROR = 1 << 9,   /* directory: the copy's path is a mirror directory */
  F_LINK = 1 << 10,    /* the last component of this name is a symbolic link */
  F_STAT = 1 << 11,    /* given to Python only: st is recorded */
};

enum { OP_OPEN, OP_STAT, OP_ACCESS, OP_READLINK, OP_OPENDIR, OP_CHANGE, OPS };
enum { O_REDIRECTED, O_ABSENT, O_NATIVE, O_FALLBACK, OUTCOMES };
enum { WAIT_DONE, WAIT_RUNG, WAIT_OVER, WAIT_FAILED };
enum { SEEK_ASK, SEEK_HERE, SEEK_ELSEWHERE };
enum { EV_OPEN, EV_IMPORT, EV_DLOPEN, EV_LISTDIR, EV_SCANDIR, EVENTS };
/* CPython's functions: PyUnicode_AsUTF8AndSize, ... (machine/code.py has their whole names in this order) */
enum {
  PY_AsUTF8AndSize, PY_GetLength, PY_EncodeFSDefault, PY_AsString, PY_DecRef, PY_Clear, PY_Occurred, PY_AsVoidPtr,
  PY_FromUnsignedLongLong, PY_AsLong, PY_GetItem, PY_CallFunctionObjArgs, PY_Get, PY_FUNCTIONS
};
enum { R_FXSTAT64, R_XSTAT64, R_OPEN, R_CLOSE, R_READ, R_LSEEK, R_MMAP, R_MUNMAP, ROWS };

struct cell {
  u64 table;          /* address of the table; 0: nothing is managed */
  u64 off;            /* != 0: this process is switched off (chroot, a new mount namespace) */
  u64 floor;          /* listings with seq <= floor are no longer believed (importlib.invalidate_caches) */
  u64 errno_location; /* address of libc's int *__errno_location(void) */
  u64 api[ROWS];      /* struct libc_collfs_api of the session */
  u64 rows;           /* address of the struct libc_collfs_api that counts: api, or _dl_collfs_api of the C interface */
  u64 under;          /* address of the one that counts where that has a NULL: api; rows: then it is the original call */
  u64 busy;           /* functions of the table that are running */
  u64 thread;         /* the thread pointer of the last one's thread */
  u64 pid;            /* the process whose busy this is */
  u64 on_initialize;  /* int (*)(const struct libc_collfs_api *), 0: none; called by collfsinitialize */
  u64 on_finalize;    /* void (*)(void) */
  u64 warned;         /* what was refused has been said */
  u64 copy_fd;        /* 1 + the descriptor of the copy that ld.so has opened last; 0: that was no copy */
  u64 copy_dev, copy_ino; /* st_dev and st_ino of its original */
  u64 row_calls[ROWS];
  u64 count[OPS][OUTCOMES];
  u64 mirrors;        /* != 0: opendir has given a mirror in this process */
  u64 mirror_fds[MAX_FD / 64];
  u64 python[PY_FUNCTIONS]; /* addresses of CPython's functions */
};

/* behind py_seek's self: how modules are called, in importlib's order */
struct search {
  u64 table;    /* address of the table */
  u64 suffixes; /* of modules, one behind the other, each ending with a NUL; an empty one ends them */
  u64 bytecode; /* how names in __pycache__ end: ".cpython-311.pyc" */
};

/* what PySys_AddAuditHook gives back to its hook (Doc/c-api/sys.rst, PEP 578) */
struct events {
  u64 table;
  u64 interpreter;      /* PyInterpreterState * of the session: other interpreters have another `sys` */
  u64 none;             /* Py_None */
  u64 all;              /* what is known isn't left out */
  u64 probe;            /* address of `probe` in the code of the session: this hook's may be of one before it */
  u64 handlers[EVENTS]; /* Python functions that take the event's arguments; 0: it is ignored */
};

/* a thread that waits for a request of MPI */
struct waiting {
  u64 test;        /* int (*)(MPI_Request *, int *flag, MPI_Status *) */
  u64 request;     /* its first argument */
  u64 since;       /* CLOCK_MONOTONIC, as all times in nanoseconds: when the silence began */
  u64 least, most; /* of a pause */
  u64 limit;       /* of the wait */
  u32 bell, heard; /* different: somebody has rung */
  u64 status[16];  /* more than an MPI_Status has in any library that we know (20 to 40 bytes) */
};

struct prefix {
  u32 off, len;
};

struct table {
  u32 magic, version;
  u64 size;      /* of the mapping */
  u64 slots;     /* offset of the slot array | log2 of its length; the offset is a multiple of 64 */
  u64 heap;      /* writer: first free byte */
  u64 allocated; /* writer: backed by real memory up to here */
  u64 entries;   /* writer */
  u64 sequence;  /* writer: listings published */
  u64 epoch;     /* invalidations so far */
  u64 used;      /* entries that were asked for at least once, by kind of call */
  u64 staged_bytes, staged_files, overflow;
  u64 saved;     /* value of used + misses when the manifest was last written */
  u64 miss_pos, misses;
  u32 nprefix, mirror_len;
  u32 mirror_off, pad; /* "<store>/m/": where mirror directories lie, links resolved */
  u64 mirror_dev;      /* st_dev of that directory */
  struct prefix prefix[MAX_PREFIX];
  u32 ring[RING];
  u32 seen[SEEN];
  u32 written[WRITTEN];
  u8 miss[MISS_LOG];
};

struct entry {
  u32 hash, key_len;
  u64 word;
  u32 st;   /* struct stat, links followed; 0: not recorded */
  u32 link; /* struct link; 0: not a link, or not recorded */
  u32 seq;  /* table.sequence when this became known */
  u32 used; /* 1 << OP_... */
  char key[]; /* NUL terminated */
};

/* struct stat of the machine, as the kernel fills it: 144 bytes on x86-64 (arch/x86/include/uapi/asm/stat.h),
 * 128 on aarch64 (include/uapi/asm-generic/stat.h) */
#if defined(__x86_64__)
enum { STAT_SIZE = 144 };
#else
enum { STAT_SIZE = 128 };
#endif

struct link {
  u64 lst[STAT_SIZE / 8];
  u32 target_len;
  char target[];
};

#endif
