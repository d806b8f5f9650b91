/* The machine code of collfs: one translation unit, freestanding, position independent, no relocations, general
 * registers only (-mgeneral-regs-only), so that a trampoline saves little. build.py makes x86_64.bin and x86_64.sym out
 * of it and trampoline.S.
 *
 * Rules of the file
 *  - No allocation, no lock, no call into libc but errno's address (wait.h: and into MPI); no Python in what programs call (python.h is called by Python).
 *  - No writes but counters, marks and invalidations; all shared words by atomics. (At Python's end: the client's table.)
 *  - Only an entry point returns NATIVE to a trampoline; everything unexpected ends there.
 */
#include "change.h"
#include "client.h"
#include "rows.h"
#include "sum.h"
#include "wait.h"
#include "writer.h"

static COLD i64 libc_relative(struct table *t, u64 *a, u64 nr, int fd);
static COLD i64 libc_change(struct table *t, u64 *a, u64 nr);

/* may (dirfd, path) be relative to a mirror? */
static inline int relative(const u64 *a) { return (int)a[0] >= 0 && a[1] >= 4096 && *(const char *)a[1] != '/'; }

/* A path call of libc.so.6 (libpthread.so.0). a: rdi rsi rdx r10 r8 r9 as the system call would get them. */
HIDDEN i64 libc_entry(u64 *a, u64 nr) {
  struct table *t = (struct table *)cell.table;
  struct call c = {0};
  u32 path = 1;
  if (!t || cell.off) return NATIVE;
  switch (nr) {
  case NR_openat: c.op = OP_OPEN, c.flags = (u32)a[2]; break;
  case NR_newfstatat:
    c.op = OP_STAT, c.buf = (void *)a[2], c.nofollow = !!(a[3] & F_AT_SYMLINK_NOFOLLOW);
    if (a[3] & ~(u64)(F_AT_SYMLINK_NOFOLLOW | F_AT_NO_AUTOMOUNT | F_AT_EMPTY_PATH)) return NATIVE;
    break;
  case NR_statx:
    c.op = OP_STAT, c.statx = 1, c.flags = a[2], c.mask = a[3], c.buf = (void *)a[4];
    c.nofollow = !!(a[2] & F_AT_SYMLINK_NOFOLLOW);
    if (a[2] & ~(u64)(F_AT_SYMLINK_NOFOLLOW | F_AT_NO_AUTOMOUNT | F_AT_EMPTY_PATH | F_AT_STATX_SYNC_TYPE)) return NATIVE;
    break;
  case NR_faccessat2:
    c.nofollow = !!(a[3] & F_AT_SYMLINK_NOFOLLOW); /* fall through */
  case NR_faccessat: c.op = OP_ACCESS, c.flags = (u32)a[2]; break;
  case NR_readlinkat: c.op = OP_READLINK, c.buf = (void *)a[2], c.size = a[3]; break;
#if defined(__x86_64__)
  case NR_open: c.op = OP_OPEN, c.flags = (u32)a[1], path = 0; break;
  case NR_stat: c.op = OP_STAT, c.buf = (void *)a[1], path = 0; break;
  case NR_lstat: c.op = OP_STAT, c.buf = (void *)a[1], path = 0, c.nofollow = 1; break;
  case NR_access: c.op = OP_ACCESS, c.flags = (u32)a[1], path = 0; break;
  case NR_readlink: c.op = OP_READLINK, c.buf = (void *)a[1], c.size = a[2], path = 0; break;
#endif
  default: return libc_change(t, a, nr);
  }
  if (path && relative(a)) {
    i64 r = libc_relative(t, a, nr, 0);
    if (r != NATIVE || c.op != OP_OPEN) return r;
  }
  if (c.op == OP_OPEN) {
    c.nofollow = !!(c.flags & F_O_NOFOLLOW);
    if (c.flags & (F_O_ACCMODE | F_O_CREAT | F_O_TRUNC)) {
      invalidate(t, path ? (i64)a[0] : CWD, (const char *)a[path], 1, 0);
      return NATIVE;
    }
  }
  return answer_path(t, &c, (const char *)a[path]);
}

/* A call relative to the descriptor a[fd], its path in a[fd + 1]: if that is a mirror, the same call with the absolute original name, made here. */
static COLD i64 libc_relative(struct table *t, u64 *a, u64 nr, int fd) {
  char b[PATH_BUF];
  i64 n = mirror_origin(t, (int)a[fd], b);
  if (!n) return NATIVE;
  for (const char *s = (const char *)a[fd + 1]; *s; s++) {
    if (n + 1 >= PATH_BUF) return -E_NAMETOOLONG;
    b[n++] = *s;
  }
  b[n] = 0;
  u64 y[6] = {a[0], a[1], a[2], a[3], a[4], a[5]};
  y[fd] = (u64)(i64)CWD, y[fd + 1] = (u64)b;
  i64 r = libc_entry(y, nr);
  return r == NATIVE ? sys(nr, y[0], y[1], y[2], y[3], y[4], y[5]) : r;
}

static COLD i64 libc_change(struct table *t, u64 *a, u64 nr) {
  const struct change *x = find_change(nr);
  if (x) {
    const signed char pairs[2][2] = {{x->dirfd, x->path}, {x->dirfd2, x->path2}};
    for (int i = 0; i < 2; i++) {
      int fd = pairs[i][0];
      if (fd < 0 || pairs[i][1] != fd + 1 || !relative(a + fd)) continue;
      i64 r = libc_relative(t, a, nr, fd);
      if (r != NATIVE) return r;
    }
    apply_change(t, x, a);
    return NATIVE;
  }
  switch (nr) {
  case NR_fchdir: {
    char b[PATH_BUF];
    return mirror_origin(t, (int)a[0], b) ? sys2(NR_chdir, b, 0) : NATIVE;
  }
  case NR_unshare:
    if (!(a[0] & CLONE_NEWNS_)) return NATIVE; /* fall through */
  case NR_chroot:
  case NR_setns:
  case NR_pivot_root: {
    /* names mean something else from here on; made here, because it counts only if it succeeds */
    i64 r = sys2(nr, a[0], a[1]);
    if (r >= 0) cell.off = 1;
    return r;
  }
  default: return NATIVE;
  }
}

/* A file call of ld.so, for which the function-pointer table decides. */
HIDDEN i64 ldso_entry(const u64 *a, u64 nr) { return route(a, nr); }

/* ---- for Python, called with the GIL kept ---------------------------------------------------------------------- */

/* What is known of a name, spelled anyhow: entry.word, and the offset of the entry / 8 in *where (0: no entry). The
 * ancestors' knowledge is given as K_ABSENT. */
HIDDEN u64 probe(struct table *t, const char *p, u32 *where) {
  char b[PATH_BUF];
  int slash;
  *where = 0;
  i64 n = normalise(t, b, 0, p, &slash, 0);
  if (n <= 0) return K_UNKNOWN;
  struct entry *e = find(t, b, (u32)n);
  if (!e) return from_ancestor(t, b, (u32)n) ? K_ABSENT : K_UNKNOWN;
  *where = (u32)(((char *)e - (char *)t) / 8);
  u64 w = __atomic_load_n(&e->word, __ATOMIC_ACQUIRE);
  if ((w & 0xff) == K_UNKNOWN && from_ancestor(t, b, (u32)n)) return K_ABSENT;
  if (((w & 0xff) == K_DIR || (w & 0xff) == K_ABSENT) && e->seq <= cell.floor) return K_UNKNOWN;
  if ((w & 0xff) == K_ABSENT && came_since(t, b, (u32)n)) return K_WRITTEN;
  return w;
}

#include "python.h"

HIDDEN u64 swap_word(u64 *at, u64 expected, u64 desired) {
  __atomic_compare_exchange_n(at, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
  return expected;
}

HIDDEN void store_word(u64 *at, u64 value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

HIDDEN void forget(struct table *t, const char *p, u64 with_parent, u64 tree) { invalidate(t, CWD, p, (int)with_parent, (int)tree); }

/* Writes n <= 5 bytes of code at `at` while other threads may run it. One aligned store where that is possible; else the
 * three steps of text patching: a jump to itself, the rest, the start, with every core serialised in between
 * (membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE = 32). alone: no other thread exists.
 * Returns 0, or -errno without having changed anything. */
HIDDEN i64 poke(u8 *at, const u8 *bytes, u64 n, u64 alone) {
  u64 word = (u64)at & ~7UL, in = (u64)at & 7;
  if (in + n <= 8) {
    u64 v = *(volatile u64 *)word;
    for (u64 i = 0; i < n; i++) v = (v & ~(0xffUL << 8 * (in + i))) | (u64)bytes[i] << 8 * (in + i);
    __atomic_store_n((u64 *)word, v, __ATOMIC_SEQ_CST);
  } else if (alone) {
    for (u64 i = 0; i < n; i++) ((volatile u8 *)at)[i] = bytes[i];
  } else {
    if (((u64)at & 63) == 63) return -E_INVAL; /* its first two bytes lie in two cache lines: no atomic store there */
    i64 r = sys2(NR_membarrier, 32, 0);
    if (r < 0) return r;
    *(volatile u16 *)at = 0xfeeb;
    sys2(NR_membarrier, 32, 0);
    for (u64 i = 2; i < n; i++) ((volatile u8 *)at)[i] = bytes[i];
    sys2(NR_membarrier, 32, 0);
    *(volatile u16 *)at = (u16)(bytes[0] | bytes[1] << 8);
  }
  if (!alone) sys2(NR_membarrier, 32, 0);
  return 0;
}
