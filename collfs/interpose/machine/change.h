/* Calls that change the file system: what they touch is forgotten first, then they go on natively.
 *
 * Forgotten means K_WRITTEN: native for the rest of the job, in every process of the node, because the table is shared
 * (also from a forked child). The directory that holds the name loses its listing and its recorded mtime with it. A name
 * without an entry leaves a bit in table.written, because a descriptor may go on changing the file. */
#ifndef COLLFS_CHANGE_H
#define COLLFS_CHANGE_H
#include "path.h"

/* A writer compares the epoch before its read with the one at publishing, and drops what the ring names in between. */
static void note_epoch(struct table *t, u32 h) {
  u64 at = __atomic_fetch_add(&t->epoch, 1, __ATOMIC_ACQ_REL);
  __atomic_exchange_n(&t->ring[at % RING], h, __ATOMIC_SEQ_CST); /* seen by a writer before the table is read here */
}

/* Other entries of the same file or directory: links to it, names below a linked directory, hard links. Each known file
 * is looked for once, because what was changed stays K_WRITTEN. */
static COLD void forget_tree(struct table *t, const char *k, u32 n);

static COLD void forget_aliases(struct table *t, const struct entry *e, int tree) {
  u64 s = __atomic_load_n(&t->slots, __ATOMIC_ACQUIRE), len = 1UL << (s & 63);
  u32 w;
  u64 *slot = (u64 *)AT(t, s & ~63UL);
  const u64 *st = (const u64 *)AT8(t, e->st); /* st_dev, st_ino */
  for (u64 i = 0; i < len; i++) {
    u64 v = __atomic_load_n(&slot[i], __ATOMIC_ACQUIRE);
    struct entry *x = (struct entry *)AT8(t, (u32)v);
    if (!v || x == e || !x->st || ((w = __atomic_load_n(&x->word, __ATOMIC_ACQUIRE) & 0xff) == K_WRITTEN && !tree)) continue;
    const u64 *xst = (const u64 *)AT8(t, x->st);
    if (xst[0] != st[0] || xst[1] != st[1]) continue;
    note_epoch(t, x->hash);
    set_written(x);
    if (tree) forget_tree(t, x->key, x->key_len);
  }
}

static COLD void forget_tree(struct table *t, const char *k, u32 n) {
  note_epoch(t, 0); /* 0: anything */
  u64 s = __atomic_load_n(&t->slots, __ATOMIC_ACQUIRE), len = 1UL << (s & 63);
  u64 *slot = (u64 *)AT(t, s & ~63UL);
  for (u64 i = 0; i < len; i++) {
    u64 v = __atomic_load_n(&slot[i], __ATOMIC_ACQUIRE);
    if (!v) continue;
    struct entry *x = (struct entry *)AT8(t, (u32)v);
    if (x->key_len > n && x->key[n] == '/' && same(x->key, k, n)) set_written(x);
  }
}

/* one name: everything below it too if tree (a file has nothing below) */
static COLD void forget_entry(struct table *t, struct entry *e, const char *k, u32 n, int tree) {
  u32 kind = e ? __atomic_load_n(&e->word, __ATOMIC_ACQUIRE) & 0xff : K_UNKNOWN;
  if (kind == K_FILE || kind == K_REG) tree = 0;
  if (e) set_written(e);
  if (tree) forget_tree(t, k, n);
  if (e && e->st && (kind != K_WRITTEN || tree)) forget_aliases(t, e, tree);
}

/* the name of an open directory, or of the current one; -1 if it has none */
static i64 directory_name(i64 fd, char *b) {
  if (fd == CWD) {
    i64 n = sys2(NR_getcwd, b, PATH_BUF - 2); /* counts the NUL */
    return n < 2 || b[0] != '/' ? -1 : n == 2 ? 0 : n - 1;
  }
  if (fd < 0) return -1;
  char f[32] = "/proc/self/fd/";
  int i = 14;
  u64 k = 1;
  while ((u64)fd / k >= 10) k *= 10;
  for (; k; k /= 10) f[i++] = (char)('0' + (u64)fd / k % 10);
  f[i] = 0;
  i64 n = sys3(NR_readlink, f, b, PATH_BUF - 2);
  return n < 1 || b[0] != '/' ? -1 : n == 1 ? 0 : n;
}

/* with_parent: the directory that holds the name changes too; tree: so does everything below the name (of a link to a
 * directory, when it is unlinked). What a link is known to lead to is forgotten with it. */
static COLD void invalidate(struct table *t, i64 dirfd, const char *p, int with_parent, int tree) {
  char b[PATH_BUF];
  i64 n = 0;
  int slash;
  if ((u64)p < 4096) return;
  if (*p != '/' && (n = directory_name((int)dirfd, b)) < 0) return;
  for (int hops = 0; hops < 8; hops++) {
    n = normalise(t, b, n, p, &slash, 0);
    if (n <= 0) return;
    int inside = under(t, b);
    if (!inside && !(tree && above(t, b, (u32)n))) return;
    if (!hops) counted(OP_CHANGE, O_NATIVE, 0);
    struct entry *e = inside ? find(t, b, (u32)n) : 0, *dir;
    u32 h = hash(b, (u32)n), link = e && (__atomic_load_n(&e->word, __ATOMIC_ACQUIRE) & F_LINK) ? e->link : 0;
    __atomic_fetch_or(&t->written[h >> 5 & (WRITTEN - 1)], 1u << (h & 31), __ATOMIC_SEQ_CST);
    note_epoch(t, h);
    forget_entry(t, e, b, (u32)n, tree);
    n = parent(b, (u32)n);
    if (with_parent && n > 0) {
      note_epoch(t, hash(b, (u32)n));
      if ((dir = find(t, b, (u32)n))) forget_entry(t, dir, b, (u32)n, 0);
    }
    if (!link) return;
    p = ((struct link *)AT8(t, link))->target;
    if (*p == '/') n = 0;
    tree = 0;
  }
}

/* which arguments of a call are (dirfd, path) pairs, for calls that change something; dirfd -1: none, the cwd counts */
struct change {
  u16 nr;
  signed char dirfd, path, dirfd2, path2;
  u8 with_parent, tree;
};
static const struct change changes[] = {
    /* clang-format off */
    {NR_creat, -1, 0, 0, -1, 1, 0},      {NR_mkdir, -1, 0, 0, -1, 1, 0},       {NR_mknod, -1, 0, 0, -1, 1, 0},
    {NR_unlink, -1, 0, 0, -1, 1, 1},     {NR_rmdir, -1, 0, 0, -1, 1, 1},       {NR_truncate, -1, 0, 0, -1, 0, 0},
    {NR_chmod, -1, 0, 0, -1, 0, 0},      {NR_chown, -1, 0, 0, -1, 0, 0},       {NR_lchown, -1, 0, 0, -1, 0, 0},
    {NR_utime, -1, 0, 0, -1, 0, 0},      {NR_utimes, -1, 0, 0, -1, 0, 0},      {NR_setxattr, -1, 0, 0, -1, 0, 0},
    {NR_lsetxattr, -1, 0, 0, -1, 0, 0},  {NR_removexattr, -1, 0, 0, -1, 0, 0}, {NR_lremovexattr, -1, 0, 0, -1, 0, 0},
    {NR_rename, -1, 0, -1, 1, 1, 1},     {NR_link, -1, 0, -1, 1, 1, 0},        {NR_symlink, 0, -1, -1, 1, 1, 0},
    {NR_mkdirat, 0, 1, 0, -1, 1, 0},     {NR_mknodat, 0, 1, 0, -1, 1, 0},      {NR_unlinkat, 0, 1, 0, -1, 1, 1},
    {NR_fchmodat, 0, 1, 0, -1, 0, 0},    {NR_fchmodat2, 0, 1, 0, -1, 0, 0},    {NR_fchownat, 0, 1, 0, -1, 0, 0},
    {NR_utimensat, 0, 1, 0, -1, 0, 0},   {NR_futimesat, 0, 1, 0, -1, 0, 0},    {NR_renameat, 0, 1, 2, 3, 1, 1},
    {NR_renameat2, 0, 1, 2, 3, 1, 1},    {NR_linkat, 0, 1, 2, 3, 1, 0},        {NR_symlinkat, 0, -1, 1, 2, 1, 0},
    /* clang-format on */
};

static COLD const struct change *find_change(u64 nr) {
  for (u32 i = 0; i < sizeof changes / sizeof *changes; i++)
    if (changes[i].nr == nr) return &changes[i];
  return 0;
}

static void apply_change(struct table *t, const struct change *c, const u64 *a) {
  if (c->path >= 0) invalidate(t, c->dirfd < 0 ? CWD : (i64)a[c->dirfd], (const char *)a[c->path], c->with_parent, c->tree);
  if (c->path2 >= 0)
    invalidate(t, c->dirfd2 < 0 ? CWD : (i64)a[c->dirfd2], (const char *)a[c->path2], c->with_parent, c->tree);
}

/* A call relative to a mirror descriptor means the original directory. If fd is one, its original name + "/" goes to
 * b and its length is returned, else 0. The bit in the cell is a hint (descriptors are closed and reused), and so is
 * the device, for copies (dup, F_DUPFD, received by a socket); the kernel's own name for the descriptor decides:
 * "<store>/m/<entry in hex>.<sequence>". */
static COLD i64 mirror_origin(struct table *t, i64 fd, char *b) {
  if (fd < 0 || !__atomic_load_n(&cell.mirrors, __ATOMIC_RELAXED)) return 0;
  u64 *word = fd < MAX_FD ? &cell.mirror_fds[fd >> 6] : 0, bit = 1UL << (fd & 63);
  if (!word || !(__atomic_load_n(word, __ATOMIC_RELAXED) & bit)) {
    u64 st[STAT_SIZE / 8]; /* st_dev comes first */
    if (sys2(NR_fstat, fd, st) < 0 || st[0] != t->mirror_dev) return 0;
    word = 0;
  }
  i64 n = directory_name(fd, b), i = t->mirror_len;
  if (n <= i || !same(b, AT(t, t->mirror_off), (u32)i)) {
    if (word) __atomic_fetch_and(word, ~bit, __ATOMIC_RELAXED);
    return 0;
  }
  u64 off = 0;
  for (; i < n && b[i] != '.'; i++) off = off * 16 + (u64)(b[i] <= '9' ? b[i] - '0' : b[i] - 'a' + 10);
  if (off * 8 < sizeof *t || off * 8 + sizeof(struct entry) > t->allocated) return 0;
  struct entry *e = (struct entry *)AT8(t, off);
  if (e->key_len + 2 > PATH_BUF) return 0;
  for (u32 k = 0; k < e->key_len; k++) b[k] = e->key[k];
  b[e->key_len] = '/';
  b[e->key_len + 1] = 0;
  return e->key_len + 1;
}

#endif
