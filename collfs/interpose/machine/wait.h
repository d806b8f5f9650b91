/* Waiting for a message without the interpreter: the test of a request, again and again, with pauses in between.
 *
 * MPI has no call that waits without keeping a core busy. A look from Python costs 77 us on a crowded node, half of it the
 * two changes of the GIL's owner; from here 15 (measured, 16 ranks on 2 cores), and the GIL stays where it is.
 *
 * Rules of the file
 *  - Called without the GIL, by one thread for each struct waiting; only `bell` is written by others.
 *  - MPI is called through the address that is given, with addresses only: handles are the library's business.
 */
#ifndef COLLFS_WAIT_H
#define COLLFS_WAIT_H
#include "arch.h"

enum { FUTEX_WAIT_PRIVATE = 128, FUTEX_WAKE_PRIVATE = 129, CLOCK_MONOTONIC_ = 1 }; /* linux/futex.h, linux/time.h */

static inline u64 monotonic(void) {
  u64 t[2] = {0, 0};
  sys2(NR_clock_gettime, CLOCK_MONOTONIC_, t);
  return t[0] * 1000000000UL + t[1];
}

/* Waits until the request is complete, somebody rings, or `limit` is over; one of WAIT_... */
HIDDEN i64 wait_for(struct waiting *w) {
  u64 begun = monotonic();
  for (;;) {
    int flag = 0;
    u64 now, pause;
    if (((int (*)(void *, int *, void *))w->test)((void *)w->request, &flag, w->status)) return WAIT_FAILED;
    if (flag) return WAIT_DONE;
    now = monotonic();
    if (now - begun >= w->limit) return WAIT_OVER;
    pause = (now - w->since) >> 3; /* an eighth of the silence so far */
    if (pause < w->least) pause = w->least;
    if (pause > w->most) pause = w->most;
    u64 timeout[2] = {pause / 1000000000UL, pause % 1000000000UL};
    sys4(NR_futex, &w->bell, FUTEX_WAIT_PRIVATE, w->heard, timeout);
    if (__atomic_load_n(&w->bell, __ATOMIC_ACQUIRE) != w->heard) return WAIT_RUNG;
  }
}

/* Ends the wait that goes on, or the next one. */
HIDDEN void ring(struct waiting *w) {
  __atomic_fetch_add(&w->bell, 1, __ATOMIC_RELEASE);
  sys3(NR_futex, &w->bell, FUTEX_WAKE_PRIVATE, 1);
}

#endif
