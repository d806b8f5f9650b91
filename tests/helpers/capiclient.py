"""A C client of the C interface that does things inside a hook, and the head of the programs that use it."""

from __future__ import annotations

from patchstate import PRELUDE

# A client that finds the interface by dlsym(RTLD_DEFAULT), does things inside a hook, and lets a thread stay there
CLIENT = r"""
#define _GNU_SOURCE
#include <collfs.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>
long opened, closed, inside_result = 77, inside_errno;
int inside, stay[2], stayed[2]; /* what a hook does: 1 initialize, 2 finalize, 3 waits for a byte in stay[0] */
void *stay_initialize, *stay_finalize; /* the addresses of the two: a hook can't ask for them */
typedef int initialize(const struct libc_collfs_api *);
typedef void finalize(void);
static int my_open(const char *path, int flags, mode_t mode);
static int my_close(int fd) { closed++; return (int)syscall(SYS_close, fd); }
const struct libc_collfs_api opener = {.open = my_open}, both = {.open = my_open, .close = my_close};
int is_known(void) {
  return !!dlsym(RTLD_DEFAULT, "collfsinitialize") + !!dlsym(RTLD_DEFAULT, "collfsfinalize") +
         !!dlsym(RTLD_DEFAULT, "_dl_collfs_api");
}
struct libc_collfs_api *table(void) { return dlsym(RTLD_DEFAULT, "_dl_collfs_api"); }
int start(const struct libc_collfs_api *api) {
  initialize *function = (initialize *)dlsym(RTLD_DEFAULT, "collfsinitialize");
  errno = 0;
  return function(api) == 0 ? 0 : -errno;
}
int end(void) {
  finalize *function = (finalize *)dlsym(RTLD_DEFAULT, "collfsfinalize");
  errno = 0;
  function();
  return -errno;
}
void store(void) { table()->open = my_open; }
void take_away(void) { table()->open = NULL; }
static int my_open(const char *path, int flags, mode_t mode) {
  int what = inside;
  char byte = 'x';
  opened++;
  inside = 0;
  errno = 0;
  /* no dlsym: the loader's lock is held */
  if (what == 1) inside_result = ((initialize *)stay_initialize)(&both), inside_errno = errno;
  if (what == 2) ((finalize *)stay_finalize)(), inside_result = 0, inside_errno = errno;
  if (what == 3 && write(stayed[1], &byte, 1) == 1 && read(stay[0], &byte, 1) != 1) return -1;
  return (int)syscall(SYS_openat, -100, path, flags, mode);
}
static void *load(void *name) { return dlopen(name, RTLD_NOW); }
static pthread_t thread;
/* a thread that is inside my_open when this returns */
int begin(const char *name) {
  char byte;
  if (pipe(stay) || pipe(stayed)) return -1;
  inside = 3;
  if (pthread_create(&thread, NULL, load, (void *)name)) return -1;
  return read(stayed[0], &byte, 1) == 1 ? 0 : -1;
}
static volatile int going;
static long loads;
static void *reload(void *name) {
  while (going) {
    void *handle = dlopen(name, RTLD_NOW);
    if (!handle || dlclose(handle)) return NULL;
    loads++;
  }
  return &loads;
}
/* a thread that loads and unloads until stop_loading */
int start_loading(const char *name) {
  going = 1;
  return pthread_create(&thread, NULL, reload, (void *)name);
}
long stop_loading(void) {
  void *result = NULL;
  going = 0;
  return pthread_join(thread, &result) || !result ? -1 : loads;
}
int let_go(void) {
  void *handle = NULL;
  if (write(stay[1], "x", 1) != 1 || pthread_join(thread, &handle)) return -1;
  return handle != NULL;
}
"""

HEAD = (
    PRELUDE
    + """
import ctypes, errno, os, shutil, sys
import _ctypes
import collfs
here = sys.argv[1]
client = ctypes.CDLL(here + "/client.so")
def number(name, type=ctypes.c_long):
    return type.in_dll(client, name)
opened, closed = number("opened"), number("closed")
opener = ctypes.addressof(number("opener", ctypes.c_char))
both = ctypes.addressof(number("both", ctypes.c_char))
client.start.argtypes = [ctypes.c_void_p]
names = [0]
def load():
    names[0] += 1
    path = f"{here}/lib{os.getpid()}.{names[0]}.so"
    shutil.copyfile(here + "/answer.so", path)
    count = opened.value
    handle = _ctypes.dlopen(path, os.RTLD_NOW)
    assert ctypes.PyDLL(None, handle=handle).answer() == 42
    _ctypes.dlclose(handle)
    return opened.value - count
before, maps = texts(), protections()
def untouched():
    return not changed(before) and protections() == maps
"""
)
