/* collfsinitialize and collfsfinalize, as far as they need no Python: refused inside a function of the table, where the
 * loader's lock is held and Python must not run (it may wait for a thread that waits for that lock), and after its end. */
#ifndef COLLFS_CLIENT_H
#define COLLFS_CLIENT_H
#include "rows.h"

/* 0, or what forbids a change now. */
static i64 refused(void) {
  u64 pid = (u64)sys0(NR_getpid);
  if (cell.pid != pid) { /* forked: the functions that other threads of the parent were in have no thread here */
    cell.pid = pid;
    if (cell.thread != thread_pointer()) cell.busy = 0;
  }
  if ((i64)__atomic_load_n(&cell.busy, __ATOMIC_ACQUIRE) <= 0) return 0;
  return cell.thread == thread_pointer() ? E_DEADLK : E_BUSY;
}

static i64 refuse(i64 code, const char *what, u64 size) {
  if (!__atomic_exchange_n(&cell.warned, 1, __ATOMIC_RELAXED)) sys3(NR_write, 2, what, size);
  *errno_of_caller() = (int)code;
  return -1;
}

#define WHERE " was called while a file call of the dynamic linker runs: refused\n"
#define REFUSE(code, name) refuse(code, "collfs: " name WHERE, sizeof("collfs: " name WHERE) - 1)

HIDDEN int c_initialize(const void *api) {
  i64 code = refused();
  if (code) return (int)REFUSE(code, "collfsinitialize");
  int (*function)(const void *) = (int (*)(const void *))cell.on_initialize;
  if (function && api) return function(api);
  *errno_of_caller() = api ? E_NOSYS : E_INVAL;
  return -1;
}

/* Without Python: no row counts any more, though the sites stay rerouted. */
HIDDEN void c_finalize(void) {
  i64 code = refused();
  if (code) {
    REFUSE(code, "collfsfinalize");
    return;
  }
  void (*function)(void) = (void (*)(void))cell.on_finalize;
  if (function) {
    function();
    return;
  }
  for (int i = 0; i < ROWS; i++) __atomic_store_n((u64 *)cell.rows + i, 0, __ATOMIC_RELEASE);
}

#endif
