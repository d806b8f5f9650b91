/* The loops that bench.py times: calls of the C library, without Python around them. */
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* nanoseconds per call */
double loop_stat(const char *path, long n) {
  struct stat st;
  double start = now();
  for (long i = 0; i < n; i++) stat(path, &st);
  return (now() - start) / (double)n;
}

double loop_read(const char *path, long n) {
  static char buffer[1 << 16];
  struct stat st;
  double start = now();
  for (long i = 0; i < n; i++) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || read(fd, buffer, sizeof buffer) != st.st_size || close(fd)) return -1;
  }
  return (now() - start) / (double)n;
}
