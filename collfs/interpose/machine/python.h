/* Functions that CPython calls itself, without ctypes in between: an audit hook and two built-in functions.
 *
 * Most of what the triggers are asked is known already, and then nothing is to be done. Python code that finds this out
 * is cold in every process of a crowded node (a find 30 us, hot 5); here it costs some look-ups.
 *
 * Rules of the file
 *  - Called with the GIL; CPython's own functions come from cell.python, all of them in the stable ABI since 3.2 or 3.10
 *    and exported before.
 *  - What isn't plain is left to the Python code: that is asked, not anticipated.
 *  - An exception of CPython's is passed on, or cleared before the Python code is asked.
 */
#ifndef COLLFS_PYTHON_H
#define COLLFS_PYTHON_H
#include "answer.h"

typedef void object; /* PyObject */

#define PY(name, result, ...) ((result(*)(__VA_ARGS__))cell.python[PY_##name])

/* A name as the file system spells it, written behind b[0..n); the new length, -1: too long, or no str (exception set) */
static i64 spell(char *b, i64 n, object *str) {
  i64 size, length = PY(GetLength, i64, object *)(str); /* looks at the type, as PyUnicode_EncodeFSDefault may not */
  if (length < 0) return -1;
  object *encoded = 0;
  const char *s = PY(AsUTF8AndSize, const char *, object *, i64 *)(str, &size);
  if (!s || size != length) { /* not ASCII alone: the file system's encoding counts */
    if (!s) PY(Clear, void, void)();
    encoded = PY(EncodeFSDefault, object *, object *)(str);
    if (!encoded) return -1;
    s = PY(AsString, const char *, object *)(encoded);
    size = 0;
    while (s[size]) size++;
  }
  i64 end = -1;
  if (n + size + 1 < PATH_BUF) {
    for (i64 i = 0; i < size; i++) b[n + i] = s[i];
    end = n + size;
    b[end] = 0;
  }
  if (encoded) PY(DecRef, void, object *)(encoded);
  return end;
}

/* Table.probe(path: str) -> int: entry.word as `probe` gives it, with F_STAT. self: the table's address, an int */
HIDDEN object *py_probe(object *self, object *path) {
  char b[PATH_BUF];
  struct table *t = PY(AsVoidPtr, struct table *, object *)(self);
  u64 word = K_UNKNOWN;
  u32 where;
  if (spell(b, 0, path) >= 0) {
    word = probe(t, b, &where);
    u64 kind = word & 0xff;
    if ((kind == K_FILE || kind == K_REG || kind == K_DIR) && ((struct entry *)AT8(t, where))->st) word |= F_STAT;
  } else if (PY(Occurred, object *, void)()) {
    return 0;
  }
  return PY(FromUnsignedLongLong, object *, u64)(word);
}

/* ---- the finder's question ------------------------------------------------------------------------------------- */

static inline i64 append(char *b, i64 n, const char *s) {
  while (*s && n + 1 < PATH_BUF) b[n++] = *s++;
  b[n] = 0;
  return *s ? PATH_BUF : n;
}

static inline int text_is(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

/* the word of a normal name below a complete directory: nothing found means absent */
static u64 word_of(struct table *t, const char *b, i64 n, u32 *st) {
  struct entry *e = n < PATH_BUF ? find(t, b, (u32)n) : 0;
  *st = e ? e->st : 0;
  if (!e) return n < PATH_BUF ? K_ABSENT : K_UNKNOWN;
  u64 w = __atomic_load_n(&e->word, __ATOMIC_ACQUIRE);
  if (((w & 0xff) == K_DIR || (w & 0xff) == K_ABSENT) && e->seq <= cell.floor) return K_UNKNOWN;
  return w;
}

/* Is a module called b[d+1..n) in the complete directory b[0..d), and is all that importlib will look at known? */
static int module(struct table *t, const struct search *how, char *b, i64 d, i64 n) {
  u32 st;
  for (const char *suffix = (const char *)how->suffixes; *suffix;) {
    i64 end = append(b, n, suffix);
    u64 kind = word_of(t, b, end, &st) & 0xff;
    if (kind == K_FILE || kind == K_REG) { /* importlib wants a regular file (_path_isfile) */
      if (text_is(suffix, ".pyc")) return kind == K_FILE ? SEEK_HERE : SEEK_ASK;
      if (kind == K_REG && !st) return SEEK_ASK;
      if (!text_is(suffix, ".py")) return SEEK_HERE;
      /* d/stem.py -> d/__pycache__/stem.cpython-311.pyc */
      char c[PATH_BUF];
      b[n] = 0, b[d] = 0;
      i64 m = append(c, append(c, append(c, append(c, 0, b), "/__pycache__/"), b + d + 1), (const char *)how->bytecode);
      b[d] = '/';
      u32 where;
      kind = m < PATH_BUF ? probe(t, c, &where) & 0xff : K_UNKNOWN;
      return kind == K_UNKNOWN || kind == K_REG ? SEEK_ASK : SEEK_HERE;
    }
    while (*suffix++) {}
  }
  b[n] = 0;
  return SEEK_ELSEWHERE;
}

static int seek(struct table *t, const struct search *how, char *b, i64 d, i64 n) {
  u32 where, st;
  b[d] = 0;
  u64 w = probe(t, b, &where);
  b[d] = '/';
  switch (w & 0xff) {
  case K_DIR:
    if (!(w & F_COMPLETE)) return SEEK_ASK;
    break;
  case K_UNKNOWN:
  case K_WRITTEN: return SEEK_ASK;
  default: return SEEK_ELSEWHERE; /* absent, or no directory: a zip archive */
  }
  w = word_of(t, b, n, &st);
  if ((w & 0xff) == K_DIR) { /* a package comes before a module */
    if (!(w & F_COMPLETE)) return SEEK_ASK;
    i64 end = append(b, n, "/__init__");
    int r = module(t, how, b, n, end);
    if (r != SEEK_ELSEWHERE) return r;
    b[n] = 0;
  }
  return module(t, how, b, d, n);
}

/* Table.seek(directory: str, name: str) -> int, one of SEEK_...: importlib is going to look for a module *name* there.
 * self: the address of a struct search, an int */
HIDDEN object *py_seek(object *self, object *const *args, i64 count) {
  char b[PATH_BUF], c[PATH_BUF];
  const struct search *how = PY(AsVoidPtr, const struct search *, object *)(self);
  struct table *t = (struct table *)how->table;
  int slash, r = SEEK_ASK;
  i64 d = -1, n = -1;
  if (count == 2 && spell(c, 0, args[0]) > 0) {
    d = normalise(t, b, 0, c, &slash, 0);
    if (d > 0 && d + 1 < PATH_BUF) {
      b[d] = '/';
      n = spell(b, d + 1, args[1]);
    }
  }
  if (n > d + 1) {
    i64 i = d + 1;
    while (b[i] && b[i] != '/') i++;
    if (!b[i]) r = seek(t, how, b, d, n);
  } else if (PY(Occurred, object *, void)()) {
    PY(Clear, void, void)();
  }
  return PY(FromUnsignedLongLong, object *, u64)((u64)r);
}

/* ---- the audit hook -------------------------------------------------------------------------------------------- */

static inline int event_number(const char *event) {
  switch (*event) {
  case 'o':
    return text_is(event, "open") ? EV_OPEN : text_is(event, "os.listdir") ? EV_LISTDIR : text_is(event, "os.scandir") ? EV_SCANDIR : -1;
  case 'i': return text_is(event, "import") ? EV_IMPORT : -1;
  case 'c': return text_is(event, "ctypes.dlopen") ? EV_DLOPEN : -1;
  default: return -1;
  }
}

/* the number argument i; -1 if it is none */
static inline i64 number(object *args, i64 i) {
  object *o = PY(GetItem, object *, object *, i64)(args, i);
  i64 r = o ? PY(AsLong, i64, object *)(o) : -1;
  if (r == -1) PY(Clear, void, void)();
  return r;
}

/* Would the handler do nothing? */
static int in_vain(const struct events *x, int event, object *args) {
  char b[PATH_BUF];
  struct table *t = (struct table *)x->table;
  u32 where;
  if (event == EV_DLOPEN) return 0;
  object *path = PY(GetItem, object *, object *, i64)(args, event == EV_IMPORT ? 1 : 0);
  if (!path) {
    PY(Clear, void, void)();
    return 0;
  }
  if (event == EV_IMPORT) return (u64)path == x->none; /* not yet found */
  if (spell(b, 0, path) < 0) { /* bytes, a descriptor, or too long */
    PY(Clear, void, void)();
    return 0;
  }
  if (*b != '/' || !under(t, b)) return 1;
  if (x->all) return 0;
  u64 w = ((u64(*)(struct table *, const char *, u32 *))x->probe)(t, b, &where), kind = w & 0xff;
  if (event == EV_OPEN) {
    i64 flags = number(args, 2);
    if (flags != -1 && flags & (F_O_ACCMODE | F_O_CREAT | F_O_TRUNC)) return 1;
    return kind != K_UNKNOWN && kind != K_REG;
  }
  return kind == K_DIR ? !!(w & F_COMPLETE) : kind != K_UNKNOWN && kind != K_WRITTEN;
}

/* int (*Py_AuditHookFunction)(const char *event, PyObject *args, void *userData) */
HIDDEN int py_audit(const char *event, object *args, const struct events *x) {
  int number = event_number(event);
  if (number < 0) return 0;
  object *handler = (object *)x->handlers[number];
  if (!handler || !args || (u64)PY(Get, void *, void)() != x->interpreter) return 0;
  if (in_vain(x, number, args)) return 0;
  object *result = PY(CallFunctionObjArgs, object *, object *, ...)(handler, args, (object *)0);
  if (!result) return -1;
  PY(DecRef, void, object *)(result);
  return 0;
}

#endif
