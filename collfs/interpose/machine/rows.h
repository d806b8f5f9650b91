/* The function-pointer table: the calls of ld.so, given to C functions with the prototypes of struct libc_collfs_api.
 *
 * glibc's ld.so makes today's system calls; the table speaks of 2011's functions. The errors of a C function come by
 * errno, those of a system call as -errno: the caller's errno is kept, because the system call would not touch it. */
#ifndef COLLFS_ROWS_H
#define COLLFS_ROWS_H
#include "answer.h"

/* _STAT_VER_LINUX of <bits/stat.h>: the version argument that __xstat64 took (glibc <= 2.32) */
#if defined(__x86_64__)
enum { STAT_VER = 1 };
#else
enum { STAT_VER = 0 };
#endif

typedef i64 function(u64, u64, u64, u64, u64, u64);

/* What counts for a row; 0: the original call. A client may store another pointer at any time. */
static inline u64 row_of(int row) {
  u64 fn = __atomic_load_n((u64 *)cell.rows + row, __ATOMIC_ACQUIRE);
  return fn ? fn : __atomic_load_n((u64 *)cell.under + row, __ATOMIC_ACQUIRE);
}

static inline int *errno_of_caller(void) { return ((int *(*)(void))cell.errno_location)(); }

static i64 call_row(int row, int is_int, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
  function *fn = (function *)row_of(row);
  if (!fn) return NATIVE;
  __atomic_fetch_add(&cell.row_calls[row], 1, __ATOMIC_RELAXED);
  int *err = errno_of_caller(), kept = *err;
  u64 outer = cell.thread; /* a function that makes ld.so call another one: not forbidden as long as nothing is loaded */
  __atomic_fetch_add(&cell.busy, 1, __ATOMIC_RELAXED);
  cell.thread = thread_pointer();
  i64 r = fn(a, b, c, d, e, f);
  cell.thread = outer;
  __atomic_fetch_sub(&cell.busy, 1, __ATOMIC_RELAXED);
  if (is_int) r = (int)r;
  if (r == -1) r = *err > 0 && *err < 4096 ? -(i64)*err : -E_IO; /* failed without saying why */
  *err = kept;
  return r;
}

/* pread64 = lseek + read where the table has no pread; a NULL row: the original call */
static i64 pread_rows(u64 fd, u64 buf, u64 count, u64 offset) {
  if (!row_of(R_READ) || !row_of(R_LSEEK)) return NATIVE;
  i64 r = call_row(R_LSEEK, 0, fd, offset, 0, 0, 0, 0);
  return r < 0 ? r : call_row(R_READ, 0, fd, buf, count, 0, 0, 0);
}

static i64 route(const u64 *a, u64 nr) {
  switch (nr) {
  case NR_openat:
    if ((int)a[0] != CWD && *(const char *)a[1] != '/') return NATIVE;
    return call_row(R_OPEN, 1, a[1], a[2], a[3], 0, 0, 0);
  case NR_newfstatat:
    if ((a[3] & F_AT_EMPTY_PATH) && !*(const char *)a[1]) return call_row(R_FXSTAT64, 1, STAT_VER, a[0], a[2], 0, 0, 0);
    if (((int)a[0] != CWD && *(const char *)a[1] != '/') || (a[3] & F_AT_SYMLINK_NOFOLLOW)) return NATIVE;
    return call_row(R_XSTAT64, 1, STAT_VER, a[1], a[2], 0, 0, 0);
#if defined(__x86_64__)
  case NR_open: return call_row(R_OPEN, 1, a[0], a[1], a[2], 0, 0, 0);
  case NR_stat: return call_row(R_XSTAT64, 1, STAT_VER, a[0], a[1], 0, 0, 0);
#endif
  case NR_fstat: return call_row(R_FXSTAT64, 1, STAT_VER, a[0], a[1], 0, 0, 0);
  case NR_close: return call_row(R_CLOSE, 1, a[0], 0, 0, 0, 0, 0);
  case NR_read: return call_row(R_READ, 0, a[0], a[1], a[2], 0, 0, 0);
  case NR_pread64: return pread_rows(a[0], a[1], a[2], a[3]);
  case NR_lseek: return call_row(R_LSEEK, 0, a[0], a[1], a[2], 0, 0, 0);
  case NR_mmap: return call_row(R_MMAP, 0, a[0], a[1], a[2], a[3], a[4], a[5]);
  case NR_munmap: return call_row(R_MUNMAP, 1, a[0], a[1], 0, 0, 0, 0);
  default: return NATIVE;
  }
}

/* The default rows: look-ups in the path table, as C functions that set errno like any other. */
static int c_result(i64 r) {
  if (r >= 0) return (int)r;
  *errno_of_caller() = (int)-r;
  return -1;
}

HIDDEN int api_open(const char *path, int flags, u32 mode) {
  struct table *t = (struct table *)cell.table;
  struct call c = {.op = OP_OPEN, .flags = (u32)flags, .nofollow = !!(flags & F_O_NOFOLLOW)};
  i64 r = t && !cell.off && !(flags & (F_O_ACCMODE | F_O_CREAT | F_O_TRUNC)) ? answer_path(t, &c, path) : NATIVE;
  cell.copy_fd = r >= 0 && c.st ? (u64)r + 1 : 0;
  if (cell.copy_fd) cell.copy_dev = c.st[0], cell.copy_ino = c.st[1];
  return c_result(r == NATIVE ? sys4(NR_openat, CWD, path, flags, mode) : r);
}

/* ld.so knows a file that it has loaded by st_dev and st_ino (elf/dl-load.c, _dl_map_object_from_fd), and a copy must be
 * one with an original that it has opened itself. It asks at once behind the open, with its lock held. */
HIDDEN int api_fxstat64(int vers, int fd, u64 *buf) {
  i64 r = sys2(NR_fstat, fd, buf);
  if (r == 0 && cell.copy_fd == (u64)fd + 1) buf[0] = cell.copy_dev, buf[1] = cell.copy_ino;
  (void)vers;
  return c_result(r);
}

HIDDEN int api_xstat64(int vers, const char *path, void *buf) {
  struct table *t = (struct table *)cell.table;
  struct call c = {.op = OP_STAT, .buf = buf};
  i64 r = t && !cell.off ? answer_path(t, &c, path) : NATIVE;
  (void)vers; /* a 64-bit struct stat has one layout only */
  return c_result(r == NATIVE ? sys4(NR_newfstatat, CWD, path, buf, 0) : r);
}

#endif
