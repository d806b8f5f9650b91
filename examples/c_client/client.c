/* A client of collfs' C interface: opens of the dynamic linker below one folder are MPI-collective.
 *
 *   rank 0                                        the other ranks
 *   open, fstat, read, close (the real file)
 *   answer: error, struct stat, size  --Bcast-->  the same answer
 *   content                           --Bcast-->  the same image in memory
 *   a descriptor that no kernel knows             the same descriptor
 *
 * read, lseek, fxstat64 and mmap of such a descriptor are answered from the image. xstat64 of a name below the folder is
 * one more broadcast. All else (other names, other descriptors, other threads) is passed on to the kernel.
 *
 * Between client_start and client_stop all ranks must load and unload the same libraries below the folder in the same
 * order, each from the thread that called client_start: open and stat are collective there.
 *
 * Rules of the file: a row takes part in every collective call that the other ranks make, whatever fails here; nothing
 * that it calls is bound lazily (linked with -z now); while MPI works, whatever the linker asks is passed on.
 */
#define _GNU_SOURCE
#include <collfs.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mpi.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FXSTAT64, XSTAT64, OPEN, CLOSE, READ, LSEEK, MMAP, MUNMAP, ROWS };
enum { IMAGES = 64, FIRST = 1 << 28, CHUNK = 1 << 30 }; /* FIRST: far above any RLIMIT_NOFILE */

/* For the loader: calls of each row, how many of them were answered here, and how often a name below the folder was
 * looked up in the real file system */
long client_calls[ROWS], client_answered[ROWS], client_lookups;

struct answer {
  int error;      /* errno of open or stat */
  int read_error; /* errno of read: a directory can be opened */
  off_t size;
  struct stat64 st;
};

static struct image {
  char *data;
  off_t at;
  int used;
  struct answer answer;
} images[IMAGES];

static MPI_Comm comm = MPI_COMM_NULL;
static int rank;
static pid_t thread;
static int busy; /* only the thread that started it looks at it */
static char folder[PATH_MAX];
static size_t folder_len;

static int fail(int error) {
  errno = error;
  return -1;
}

static struct image *image_of(int fd) {
  return fd >= FIRST && fd < FIRST + IMAGES && images[fd - FIRST].used ? &images[fd - FIRST] : NULL;
}

/* Whether this call is one that all ranks make */
static int collective(const char *path) {
  return (pid_t)syscall(SYS_gettid) == thread && !busy && !strncmp(path, folder, folder_len) && path[folder_len] == '/';
}

static char *memory(off_t size) {
  void *p = mmap(NULL, size ? (size_t)size : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

/* The real file, on rank 0 only */
static char *read_file(const char *path, int flags, struct answer *a) {
  client_lookups++;
  int fd = open(path, flags | O_CLOEXEC);
  if (fd < 0) {
    a->error = errno;
    return NULL;
  }
  char *data = NULL;
  if (fstat64(fd, &a->st) != 0) {
    a->error = errno;
  } else if (!S_ISREG(a->st.st_mode)) {
    a->read_error = S_ISDIR(a->st.st_mode) ? EISDIR : EIO;
  } else if (!(data = memory(a->st.st_size))) {
    a->error = ENOMEM;
  } else {
    ssize_t n = 1;
    for (; a->size < a->st.st_size && n > 0; a->size += n > 0 ? n : 0)
      n = read(fd, data + a->size, (size_t)(a->st.st_size - a->size));
    if (n < 0) a->read_error = errno;
  }
  close(fd);
  return data;
}

static int collective_open(const char *path, int flags) {
  int slot = 0, ready;
  while (slot < IMAGES && images[slot].used) slot++; /* the same on all ranks */
  if (slot == IMAGES) return fail(EMFILE);
  struct image *im = &images[slot];
  memset(im, 0, sizeof *im);
  busy = 1;
  if (rank == 0) im->data = read_file(path, flags, &im->answer);
  MPI_Bcast(&im->answer, sizeof im->answer, MPI_BYTE, 0, comm);
  if (!im->answer.error) {
    if (rank != 0) im->data = memory(im->answer.size);
    ready = im->data || im->answer.read_error;
    MPI_Allreduce(MPI_IN_PLACE, &ready, 1, MPI_INT, MPI_MIN, comm);
    if (!ready) im->answer.error = ENOMEM;
  }
  if (!im->answer.error) {
    for (off_t at = 0; at < im->answer.size; at += CHUNK) {
      off_t rest = im->answer.size - at;
      MPI_Bcast(im->data + at, rest < CHUNK ? (int)rest : CHUNK, MPI_BYTE, 0, comm);
    }
    im->used = 1;
  } else if (im->data) {
    munmap(im->data, im->answer.st.st_size ? (size_t)im->answer.st.st_size : 1);
  }
  busy = 0;
  return im->used ? FIRST + slot : fail(im->answer.error);
}

static int row_open(const char *path, int flags, mode_t mode) {
  client_calls[OPEN]++;
  if (!collective(path) || (flags & O_ACCMODE) != O_RDONLY) return (int)syscall(SYS_open, path, flags, mode);
  client_answered[OPEN]++;
  return collective_open(path, flags);
}

static int row_xstat64(int vers, const char *path, struct stat64 *buf) {
  client_calls[XSTAT64]++;
  (void)vers;
  if (!collective(path)) return stat64(path, buf);
  client_answered[XSTAT64]++;
  struct answer a = {0};
  busy = 1;
  if (rank == 0) {
    client_lookups++;
    if (stat64(path, &a.st) != 0) a.error = errno;
  }
  MPI_Bcast(&a, sizeof a, MPI_BYTE, 0, comm);
  busy = 0;
  if (a.error) return fail(a.error);
  *buf = a.st;
  return 0;
}

static int row_fxstat64(int vers, int fd, struct stat64 *buf) {
  struct image *im = image_of(fd);
  client_calls[FXSTAT64]++;
  (void)vers;
  if (!im) return fstat64(fd, buf);
  client_answered[FXSTAT64]++;
  *buf = im->answer.st; /* st_dev and st_ino of rank 0: by them the linker knows a file that it has loaded */
  return 0;
}

static int row_close(int fd) {
  struct image *im = image_of(fd);
  client_calls[CLOSE]++;
  if (!im) return close(fd);
  client_answered[CLOSE]++;
  if (im->data) munmap(im->data, im->answer.size ? (size_t)im->answer.size : 1);
  im->used = 0;
  return 0;
}

static ssize_t row_read(int fd, void *buf, size_t count) {
  struct image *im = image_of(fd);
  client_calls[READ]++;
  if (!im) return read(fd, buf, count);
  client_answered[READ]++;
  if (im->answer.read_error) return fail(im->answer.read_error);
  size_t left = im->at < im->answer.size ? (size_t)(im->answer.size - im->at) : 0;
  if (count > left) count = left;
  if (count) memcpy(buf, im->data + im->at, count);
  im->at += (off_t)count;
  return (ssize_t)count;
}

static off_t row_lseek(int fd, off_t offset, int whence) {
  struct image *im = image_of(fd);
  client_calls[LSEEK]++;
  if (!im) return lseek(fd, offset, whence);
  client_answered[LSEEK]++;
  if (whence == SEEK_CUR) offset += im->at;
  else if (whence == SEEK_END) offset += im->answer.size;
  else if (whence != SEEK_SET) return fail(EINVAL);
  return offset < 0 ? fail(EINVAL) : (im->at = offset);
}

/* A private copy of a part of the image: what a private mapping of the file would be */
static void *row_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off) {
  struct image *im = flags & MAP_ANONYMOUS ? NULL : image_of(fd);
  client_calls[MMAP]++;
  if (!im) return mmap(addr, len, prot, flags, fd, off);
  client_answered[MMAP]++;
  if (off < 0 || off % sysconf(_SC_PAGESIZE) || (flags & MAP_TYPE) != MAP_PRIVATE || !im->data) {
    errno = im->data ? EINVAL : ENODEV;
    return MAP_FAILED;
  }
  char *to = mmap(addr, len, PROT_READ | PROT_WRITE, (flags & ~MAP_DENYWRITE) | MAP_ANONYMOUS, -1, 0);
  if (to == MAP_FAILED) return to;
  size_t left = off < im->answer.size ? (size_t)(im->answer.size - off) : 0;
  memcpy(to, im->data + off, len < left ? len : left);
  if (mprotect(to, len, prot) != 0) {
    int error = errno;
    munmap(to, len);
    errno = error;
    return MAP_FAILED;
  }
  return to;
}

static int row_munmap(void *addr, size_t len) {
  client_calls[MUNMAP]++;
  return munmap(addr, len);
}

/* Collective over the communicator: opens below *path are collective from now on. 0, or -1 and errno. */
int client_start(MPI_Fint communicator, const char *path) {
  static const struct libc_collfs_api api = {
      .fxstat64 = row_fxstat64, .xstat64 = row_xstat64, .open = row_open,   .close = row_close,
      .read = row_read,         .lseek = row_lseek,     .mmap = row_mmap, .munmap = row_munmap,
  };
  if (comm != MPI_COMM_NULL) return fail(EBUSY);
  folder_len = strlen(path);
  if (path[0] != '/' || folder_len < 2 || path[folder_len - 1] == '/' || folder_len >= sizeof folder) return fail(EINVAL);
  memcpy(folder, path, folder_len + 1);
  thread = (pid_t)syscall(SYS_gettid);
  MPI_Comm_dup(MPI_Comm_f2c(communicator), &comm);
  MPI_Comm_rank(comm, &rank);
  /* MPI loads and binds what it needs when it is first used: not inside the linker */
  int ready = 1;
  MPI_Bcast(&ready, sizeof ready, MPI_BYTE, 0, comm);
  MPI_Allreduce(MPI_IN_PLACE, &ready, 1, MPI_INT, MPI_MIN, comm);
  ready = collfsinitialize(&api) == 0;
  int error = ready ? 0 : errno, all = ready;
  MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, comm);
  if (all) return 0;
  if (ready) collfsfinalize();
  MPI_Comm_free(&comm);
  return fail(error ? error : ECANCELED); /* another rank couldn't */
}

/* Collective: the linker's own calls again. */
void client_stop(void) {
  if (comm == MPI_COMM_NULL) return;
  collfsfinalize();
  MPI_Comm_free(&comm);
}
