/* Names: scanning, hashing and finding them where they lie, without a buffer.
 *
 * A name is looked up in its literal spelling when it is normal (absolute, no "//", "/./", "/../", no slash at the end).
 * Others are rewritten first, into a buffer on the stack of a separate function, so that the common case needs little
 * stack (a 2 kB signal stack must survive). ".." is taken back only across directories that are known to be real ones:
 * behind a symbolic link it means something else (path_resolution(7)). */
#ifndef COLLFS_PATH_H
#define COLLFS_PATH_H
#include "arch.h"

enum {
  PATH_BUF = 1024,
  MAX_KEY = PATH_BUF - 2, /* longer names are native: an invalidation could not spell them */
};

#define AT(t, off) ((char *)(t) + (off))
#define AT8(t, off) ((char *)(t) + (u64)(off) * 8)

static inline i64 counted(int op, int outcome, i64 r) {
  __atomic_fetch_add(&cell.count[op][outcome], 1, __ATOMIC_RELAXED);
  return r;
}

static inline u64 load8(const char *p) {
  u64 v;
  __builtin_memcpy(&v, p, 8);
  return v;
}

/* 64-bit multiply-xor over words (the constant is 2^64 / golden ratio) */
static u32 hash(const char *k, u32 n) {
  const u64 m = 0x9E3779B97F4A7C15UL;
  u64 h = n;
  u32 i = 0;
  for (; i + 8 <= n; i += 8) {
    h = (h ^ load8(k + i)) * m;
    h ^= h >> 29;
  }
  u64 w = 0;
  for (u32 j = 0; i + j < n; j++) w |= (u64)(u8)k[i + j] << (8 * j);
  h = (h ^ w) * m;
  return (u32)(h >> 32);
}

static inline int same(const char *a, const char *b, u32 n) {
  u32 i = 0;
  for (; i + 8 <= n; i += 8)
    if (load8(a + i) != load8(b + i)) return 0;
  for (; i < n; i++)
    if (a[i] != b[i]) return 0;
  return 1;
}

static struct entry *find(struct table *t, const char *k, u32 n) {
  u32 h = hash(k, n);
  u64 s = __atomic_load_n(&t->slots, __ATOMIC_ACQUIRE);
  u64 mask = (1UL << (s & 63)) - 1;
  u64 *slot = (u64 *)AT(t, s & ~63UL);
  for (u64 i = h & mask;; i = (i + 1) & mask) {
    u64 v = __atomic_load_n(&slot[i], __ATOMIC_ACQUIRE);
    if (!v) return 0;
    if ((u32)(v >> 32) != h) continue;
    struct entry *e = (struct entry *)AT8(t, (u32)v);
    if (e->key_len == n && same(e->key, k, n)) return e;
  }
}

/* is p, or its ancestor, a managed prefix? Ends at the first '/' or NUL after the prefix. */
static inline int under(const struct table *t, const char *p) {
  u32 np = __atomic_load_n(&t->nprefix, __ATOMIC_ACQUIRE);
  for (u32 k = 0; k < np; k++) {
    const char *q = AT(t, t->prefix[k].off);
    u32 n = t->prefix[k].len, i = 0;
    while (i < n && p[i] == q[i]) i++;
    if (i == n && (p[n] == '/' || !p[n])) return 1;
  }
  return 0;
}

/* is the name p[0..n) a proper ancestor of a managed prefix? */
static int above(const struct table *t, const char *p, u32 n) {
  for (u32 k = 0; k < t->nprefix; k++) {
    const char *q = AT(t, t->prefix[k].off);
    if (n < t->prefix[k].len && q[n] == '/' && same(p, q, n)) return 1;
  }
  return 0;
}

/* length of a normal name, or -1 */
static inline i64 normal_length(const char *s) {
  u32 i = 1;
  if (s[0] != '/') return -1;
  for (;; i++) {
    char c = s[i];
    if (s[i - 1] == '/') {
      if (c == '/' || !c) return -1;
      if (c == '.') {
        char d = s[i + 1];
        if (!d || d == '/' || (d == '.' && (!s[i + 2] || s[i + 2] == '/'))) return -1;
      }
    }
    if (!c) return i;
    if (i >= 4095) return -1; /* PATH_MAX counts the NUL */
  }
}

/* Appends the absolute or relative name s to the normal name b[0..n) (no slash at the end). *slash: s names a directory.
 * strict: give up on a ".." that is not known to be right. Returns the new length, or -1. */
static i64 normalise(struct table *t, char *b, i64 n, const char *s, int *slash, int strict) {
  const char *start = s;
  *slash = 0;
  for (;;) {
    while (*s == '/') s++, *slash = 1;
    if (s - start > 4095) return -1; /* PATH_MAX counts the NUL */
    if (!*s) break;
    *slash = 0;
    const char *c = s;
    while (*s && *s != '/') s++;
    i64 l = s - c;
    if (l == 1 && c[0] == '.') {
      *slash = 1;
      continue;
    }
    if (l == 2 && c[0] == '.' && c[1] == '.') {
      if (strict) {
        struct entry *e = n > 0 ? find(t, b, (u32)n) : 0;
        u64 w = e ? __atomic_load_n(&e->word, __ATOMIC_ACQUIRE) : 0;
        if ((w & 0xff) != K_DIR || (w & F_LINK)) return -1;
      }
      while (n > 0 && b[--n] != '/') {}
      *slash = 1;
      continue;
    }
    if (l > 255 || n + l + 2 > PATH_BUF) return -1;
    b[n++] = '/';
    for (i64 i = 0; i < l; i++) b[n + i] = c[i];
    n += l;
  }
  b[n] = 0;
  return n;
}

static void set_written(struct entry *e) {
  u64 w = __atomic_load_n(&e->word, __ATOMIC_ACQUIRE);
  while (!__atomic_compare_exchange_n(&e->word, &w, K_WRITTEN, 0, __ATOMIC_RELEASE, __ATOMIC_ACQUIRE)) {}
}

/* length of the directory part of p[0..n), 0 at the top */
static inline u32 parent(const char *p, u32 n) {
  while (n > 0 && p[--n] != '/') {}
  return n;
}

#endif
