/* The writer's side of the path table: called from Python by the one process that holds the write lock.
 *
 * Knowledge only grows: news that say less than the table knows change nothing, unless the metadata contradicts it.
 * What was written during the job stays K_WRITTEN. */
#ifndef COLLFS_WRITER_H
#define COLLFS_WRITER_H
#include "path.h"

struct news {
  const char *key; /* normal name */
  u64 key_len;
  u64 word;        /* kind and flags; the copy comes by name */
  const char *copy;
  u64 copy_len;
  const u64 *st, *lst; /* struct stat or 0 */
  const char *target;
  u64 target_len;
  u64 seq;
  u64 epoch; /* table.epoch before the file was read */
};
enum { PUT_DONE = 0, PUT_STALE = 1, PUT_FULL = -28 };

/* n bytes at the end of the heap, zeroed memory as the file system gave it; 0 if there are none */
static u64 take(struct table *t, u64 n) {
  u64 at = (t->heap + 7) & ~7UL;
  if (at + n > t->allocated) return 0;
  t->heap = at + n;
  return at;
}

static u32 keep_bytes(struct table *t, const void *head, u64 head_len, const char *s, u64 n) {
  u64 at = take(t, head_len + n + 1);
  if (!at) return 0;
  char *d = AT(t, at);
  for (u64 i = 0; i < head_len; i++) d[i] = ((const char *)head)[i];
  for (u64 i = 0; i < n; i++) d[head_len + i] = s[i];
  return (u32)(at / 8);
}

/* has any name with this hash been invalidated since? */
static int invalidated_since(const struct table *t, u64 since, u32 h) {
  u64 now = __atomic_load_n(&t->epoch, __ATOMIC_ACQUIRE);
  if (now - since > RING) return 1;
  for (u64 i = since; i != now; i++) {
    u32 r = __atomic_load_n(&t->ring[i % RING], __ATOMIC_ACQUIRE);
    if (!r || r == h) return 1;
  }
  return 0;
}

/* same inode, size, mtime and ctime? (indices into struct stat, x86-64) */
static int same_file(const u64 *a, const u64 *b) {
  return a[1] == b[1] && a[6] == b[6] && a[11] == b[11] && a[12] == b[12] && a[13] == b[13] && a[14] == b[14];
}

static u64 *free_slot(u64 *slot, u64 mask, u32 h) {
  u64 i = h & mask;
  while (slot[i]) i = (i + 1) & mask;
  return &slot[i];
}

/* twice the slots, before half of them are used; the old array stays for readers that have it */
static int grow(struct table *t) {
  u64 s = t->slots, bits = s & 63, len = 1UL << bits;
  if (2 * t->entries < len) return 1;
  u64 at = (t->heap + 63) & ~63UL, size = 8UL << (bits + 1);
  if (at + size > t->allocated) return 0;
  t->heap = at + size;
  u64 *old = (u64 *)AT(t, s & ~63UL), *new = (u64 *)AT(t, at);
  for (u64 i = 0; i < len; i++)
    if (old[i]) *free_slot(new, 2 * len - 1, (u32)(old[i] >> 32)) = old[i];
  __atomic_store_n(&t->slots, at | (bits + 1), __ATOMIC_RELEASE);
  return 1;
}

static struct entry *new_entry(struct table *t, const char *k, u32 n) {
  if (!grow(t)) return 0;
  u64 at = take(t, sizeof(struct entry) + n + 8); /* + 8: keys are compared by words */
  if (!at) return 0;
  struct entry *e = (struct entry *)AT(t, at);
  e->hash = hash(k, n);
  e->key_len = n;
  for (u32 i = 0; i < n; i++) e->key[i] = k[i];
  u64 s = t->slots;
  u64 *slot = free_slot((u64 *)AT(t, s & ~63UL), (1UL << (s & 63)) - 1, e->hash);
  __atomic_store_n(slot, (u64)e->hash << 32 | at / 8, __ATOMIC_RELEASE);
  t->entries++;
  return e;
}

/* would these news take knowledge away that is still right? */
static int says_less(struct table *t, const struct entry *e, u64 old, const struct news *x) {
  u32 was = old & 0xff, is = x->word & 0xff;
  if ((was == K_FILE && is == K_REG) || (was == is && (was == K_REG || was == K_FILE)) ||
      (was == K_DIR && is == K_DIR && !(x->word & F_COMPLETE))) {
    if (is == K_FILE) return 0;
    if (!x->st) return 1;
    if (!e->st) return was == K_FILE;
    return (was == K_FILE || (old & F_COMPLETE)) && same_file((const u64 *)AT8(t, e->st), x->st);
  }
  return 0;
}

HIDDEN i64 put(struct table *t, const struct news *x) {
  u32 n = (u32)x->key_len, st = 0, link = 0;
  u64 copy = 0;
  if (n > MAX_KEY || invalidated_since(t, x->epoch, hash(x->key, n))) return PUT_STALE;
  struct entry *e = find(t, x->key, n);
  if (!e) {
    if (!(e = new_entry(t, x->key, n))) return PUT_FULL;
    if (__atomic_load_n(&t->written[e->hash >> 5 & (WRITTEN - 1)], __ATOMIC_SEQ_CST) >> (e->hash & 31) & 1) set_written(e);
  }
  u64 old = __atomic_load_n(&e->word, __ATOMIC_ACQUIRE);
  if ((old & 0xff) == K_WRITTEN) return PUT_STALE;
  if (says_less(t, e, old, x)) {
    if (x->st || (old & 0xff) != K_DIR) e->seq = (u32)x->seq; /* a listing is believed on its mtime, not on its name */
    return PUT_DONE;
  }
  if (x->copy && !(copy = keep_bytes(t, 0, 0, x->copy, x->copy_len))) return PUT_FULL;
  if (x->st && !(st = keep_bytes(t, x->st, STAT_SIZE, 0, 0))) return PUT_FULL;
  if (x->lst) {
    struct link l;
    for (u32 i = 0; i < STAT_SIZE / 8; i++) l.lst[i] = x->lst[i];
    l.target_len = (u32)x->target_len;
    if (!(link = keep_bytes(t, &l, __builtin_offsetof(struct link, target), x->target, x->target_len))) return PUT_FULL;
  }
  if (st) __atomic_store_n(&e->st, st, __ATOMIC_RELEASE);
  if (link) __atomic_store_n(&e->link, link, __ATOMIC_RELEASE);
  __atomic_store_n(&e->seq, (u32)x->seq, __ATOMIC_RELEASE);
  if (!__atomic_compare_exchange_n(&e->word, &old, x->word | copy << 32, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    return PUT_STALE;
  return invalidated_since(t, x->epoch, e->hash) ? (set_written(e), PUT_STALE) : PUT_DONE;
}

#endif
