/* What a call on a name gets: the copy, the recorded metadata, "not there", or NATIVE. ARCHITECTURE: states of a path. */
#ifndef COLLFS_ANSWER_H
#define COLLFS_ANSWER_H
#include "path.h"

/* one decoded call; buf and size are the caller's result buffer, flags the call's own */
struct call {
  int op, nofollow, statx;
  u64 flags, mask, size;
  void *buf;
  const u64 *st; /* struct stat of the original of the copy that was given */
};

/* Notes a name that went native although it lies under a prefix: the manifest of the next run. Each name once (SEEN may
 * forget one that shares its place with another: then it is noted twice). A full log drops and counts. */
static COLD void note_miss(struct table *t, int op, const char *p, u32 n) {
  u32 h = hash(p, n) | 1, *s = &t->seen[h >> 20];
  if (__atomic_exchange_n(s, h, __ATOMIC_RELAXED) == h) return;
  __atomic_fetch_add(&t->misses, 1, __ATOMIC_RELAXED);
  u64 need = (n + 4 + 7) & ~7UL, at = __atomic_load_n(&t->miss_pos, __ATOMIC_RELAXED);
  do {
    if (at + need > MISS_LOG || n > 4000) return;
  } while (!__atomic_compare_exchange_n(&t->miss_pos, &at, at + need, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  u8 *m = t->miss + at;
  m[2] = (u8)op;
  for (u32 i = 0; i < n; i++) m[4 + i] = (u8)p[i];
  __atomic_store_n((u16 *)m, (u16)n, __ATOMIC_RELEASE); /* a reader stops at a length of 0 */
}

static inline void mark_used(struct table *t, struct entry *e, int op) {
  u32 bit = 1u << op;
  if (__atomic_load_n(&e->used, __ATOMIC_RELAXED) & bit) return;
  if (!(__atomic_fetch_or(&e->used, bit, __ATOMIC_RELAXED) & bit)) __atomic_fetch_add(&t->used, 1, __ATOMIC_RELAXED);
}

/* Nothing is known of p itself: what does the nearest known ancestor say? -errno, or 0 for "unknown" */
static i64 from_ancestor(struct table *t, const char *p, u32 n) {
  for (u32 end = n; (n = parent(p, n)) > 0; end = n) {
    if (end - n > 256) return 0; /* ENAMETOOLONG */
    struct entry *e = find(t, p, n);
    if (!e) continue;
    u64 w = __atomic_load_n(&e->word, __ATOMIC_ACQUIRE);
    switch (w & 0xff) {
    case K_DIR: return (w & F_COMPLETE) && e->seq > cell.floor ? -E_NOENT : 0;
    case K_ABSENT: return e->seq > cell.floor ? -E_NOENT : 0;
    case K_FILE:
    case K_REG: return -E_NOTDIR;
    default: return 0;
    }
  }
  return 0;
}

/* Was something made, or put, where the nearest known ancestor of an absent name is? Then the name may have come with it. */
static int came_since(struct table *t, const char *p, u32 n) {
  struct entry *e = 0;
  while (!e && (n = parent(p, n)) > 0) e = find(t, p, n);
  return e && (__atomic_load_n(&e->word, __ATOMIC_ACQUIRE) & 0xff) == K_WRITTEN;
}

/* struct statx (linux/stat.h) out of struct stat: the basic fields, which is all that stx_mask then claims */
static COLD void to_statx(u64 *x, const u64 *s) {
  u32 *w = (u32 *)x;
  for (int i = 0; i < 32; i++) x[i] = 0;
#if defined(__x86_64__)
  u64 dev = s[0], ino = s[1], nlink = s[2], rdev = s[5], size = s[6], blksize = s[7], blocks = s[8];
  u32 mode = ((u32 *)s)[6], uid = ((u32 *)s)[7], gid = ((u32 *)s)[8];
  const u64 *times = s + 9;
#endif
  w[0] = 0x7ff; /* STATX_BASIC_STATS */
  w[1] = (u32)blksize;
  w[4] = (u32)nlink;
  w[5] = uid;
  w[6] = gid;
  ((u16 *)x)[14] = (u16)mode;
  x[4] = ino;
  x[5] = size;
  x[6] = blocks;
  x[8] = times[0], w[18] = (u32)times[1];   /* stx_atime */
  x[12] = times[4], w[26] = (u32)times[5];  /* stx_ctime */
  x[14] = times[2], w[30] = (u32)times[3];  /* stx_mtime */
  /* dev_t of the kernel's "new" encoding (include/linux/kdev_t.h) -> major, minor */
  w[32] = (u32)((rdev >> 8) & 0xfff), w[33] = (u32)((rdev & 0xff) | ((rdev >> 12) & ~0xffUL));
  w[34] = (u32)((dev >> 8) & 0xfff), w[35] = (u32)((dev & 0xff) | ((dev >> 12) & ~0xffUL));
}

static i64 give_stat(struct table *t, u32 off, const struct call *c) {
  const u64 *s = (const u64 *)AT8(t, off);
  u64 *d = c->buf;
  if ((u64)d < 4096) return NATIVE; /* let the kernel say EFAULT */
  if (c->statx)
    to_statx(d, s);
  else
    for (u32 i = 0; i < STAT_SIZE / 8; i++) d[i] = s[i];
  return 0;
}

/* The same call on the copy. A copy that is missing or unreadable is only slow: native. Errors that are the caller's
 * own (out of descriptors, interrupted, bad buffer) are its answer. */
static i64 on_copy(const struct call *c, const char *copy) {
  i64 r;
  switch (c->op) {
  case OP_OPEN: r = sys4(NR_openat, CWD, copy, c->flags & ~(u64)F_O_NOFOLLOW, 0); break;
  case OP_STAT:
    r = c->statx ? sys5(NR_statx, CWD, copy, c->flags, c->mask, c->buf) : sys4(NR_newfstatat, CWD, copy, c->buf, 0);
    break;
  default: r = sys3(NR_faccessat, CWD, copy, c->flags); break;
  }
  if (r >= 0 || r == -E_MFILE || r == -E_NFILE || r == -E_INTR || r == -E_FAULT || r == -E_NOMEM)
    return counted(c->op, O_REDIRECTED, r);
  return counted(c->op, O_FALLBACK, NATIVE);
}

/* opendir(3) opens with exactly these (sysdeps/unix/sysv/linux/opendir.c, 2.17 to 2.44); any other open of a directory is native */
enum { OPENDIR_FLAGS = F_O_NONBLOCK | F_O_DIRECTORY | F_O_CLOEXEC };

static i64 on_mirror(const char *mirror) {
  i64 fd = sys4(NR_openat, CWD, mirror, OPENDIR_FLAGS, 0);
  if (fd >= MAX_FD) { /* could not be remembered as a mirror */
    sys2(NR_close, fd, 0);
    return counted(OP_OPENDIR, O_FALLBACK, NATIVE);
  }
  if (fd >= 0) {
    __atomic_fetch_or(&cell.mirror_fds[fd >> 6], 1UL << (fd & 63), __ATOMIC_RELAXED);
    __atomic_store_n(&cell.mirrors, 1, __ATOMIC_RELAXED);
    return counted(OP_OPENDIR, O_REDIRECTED, fd);
  }
  if (fd == -E_MFILE || fd == -E_NFILE || fd == -E_INTR) return counted(OP_OPENDIR, O_REDIRECTED, fd);
  return counted(OP_OPENDIR, O_FALLBACK, NATIVE);
}

static i64 on_link(struct table *t, struct entry *e, const struct call *c) {
  struct link *l = (struct link *)AT8(t, e->link);
  if (c->op == OP_STAT) return give_stat(t, e->link, c);
  if (c->op != OP_READLINK || (u64)c->buf < 4096 || (i64)c->size <= 0) return NATIVE;
  u64 n = l->target_len < c->size ? l->target_len : c->size;
  for (u64 i = 0; i < n; i++) ((char *)c->buf)[i] = l->target[i];
  return (i64)n;
}

/* p[0..n) is normal and under a prefix; slash: it was spelled as a directory. May change c->op to OP_OPENDIR. */
static i64 answer(struct table *t, struct call *c, const char *p, u32 n, int slash) {
  if (c->op == OP_OPEN && (c->flags & ~(u64)F_O_LARGEFILE) == OPENDIR_FLAGS) c->op = OP_OPENDIR;
  if (n > MAX_KEY) return counted(c->op, O_NATIVE, NATIVE);
  struct entry *e = find(t, p, n);
  u64 w = e ? __atomic_load_n(&e->word, __ATOMIC_ACQUIRE) : K_UNKNOWN;
  u32 kind = w & 0xff;
  if (kind == K_UNKNOWN) {
    i64 r = from_ancestor(t, p, n);
    if (r) return counted(c->op, O_ABSENT, r);
    goto miss;
  }
  mark_used(t, e, c->op);
  if (kind == K_NATIVE || kind == K_WRITTEN) return counted(c->op, O_NATIVE, NATIVE);
  if (kind == K_ABSENT) {
    if (e->seq > cell.floor && !came_since(t, p, n)) return counted(c->op, O_ABSENT, -E_NOENT);
    goto miss;
  }
  if ((w & F_LINK) && !slash && (c->nofollow || c->op == OP_READLINK)) {
    i64 r = e->link ? on_link(t, e, c) : NATIVE;
    return counted(c->op, r == NATIVE ? O_NATIVE : O_REDIRECTED, r);
  }
  if (c->op == OP_READLINK) {
    if (slash && kind != K_DIR) return counted(c->op, O_ABSENT, -E_NOTDIR);
    return (w & F_LINK) ? counted(c->op, O_NATIVE, NATIVE) : counted(c->op, O_REDIRECTED, -E_INVAL);
  }
  if (kind == K_DIR) {
    /* a directory's mtime tells importlib whether its listing is still right: not believed after invalidate_caches */
    if (e->seq <= cell.floor) goto miss;
    switch (c->op) {
    case OP_STAT:
      if (!e->st) goto miss;
      i64 r = give_stat(t, e->st, c);
      return counted(OP_STAT, r ? O_NATIVE : O_REDIRECTED, r);
    case OP_ACCESS:
      if (!(w & F_COMPLETE) || (c->flags & W_OK_)) goto miss;
      return counted(OP_ACCESS, O_REDIRECTED, 0);
    case OP_OPENDIR:
      if (!(w & F_MIRROR)) goto miss;
      return on_mirror(AT8(t, w >> 32));
    default: return counted(c->op, O_NATIVE, NATIVE);
    }
  }
  /* K_FILE, K_REG */
  if (slash || c->op == OP_OPENDIR || (c->op == OP_OPEN && (c->flags & F_O_DIRECTORY)))
    return counted(c->op, O_ABSENT, -E_NOTDIR);
  if (c->op == OP_ACCESS && (c->flags & W_OK_)) return counted(OP_ACCESS, O_NATIVE, NATIVE);
  if (kind == K_FILE) {
    /* O_PATH, O_DIRECT and the like mean the original */
    if (c->op == OP_OPEN &&
        (c->flags & ~(u64)(F_O_CLOEXEC | F_O_NOFOLLOW | F_O_NOCTTY | F_O_NONBLOCK | F_O_LARGEFILE)))
      return counted(OP_OPEN, O_NATIVE, NATIVE);
    if (e->st) c->st = (const u64 *)AT8(t, e->st);
    return on_copy(c, AT8(t, w >> 32));
  }
  if (c->op == OP_STAT && e->st) {
    i64 r = give_stat(t, e->st, c);
    return counted(OP_STAT, r ? O_NATIVE : O_REDIRECTED, r);
  }
  if (c->op == OP_ACCESS && !c->flags) return counted(OP_ACCESS, O_REDIRECTED, 0);
miss:
  note_miss(t, c->op, p, n);
  return counted(c->op, O_NATIVE, NATIVE);
}

static COLD i64 answer_odd(struct table *t, struct call *c, const char *p) {
  char b[PATH_BUF];
  int slash;
  i64 n = normalise(t, b, 0, p, &slash, 1);
  if (n <= 0 || !under(t, b)) return counted(c->op, O_NATIVE, NATIVE);
  return answer(t, c, b, (u32)n, slash);
}

static inline i64 answer_path(struct table *t, struct call *c, const char *p) {
  if ((u64)p < 4096 || *p != '/' || !under(t, p)) return NATIVE;
  i64 n = normal_length(p);
  return n > 0 ? answer(t, c, p, (u32)n, 0) : answer_odd(t, c, p);
}

#endif
