/* The C interface of collfs: file calls of the dynamic linker (ld.so), given to functions of yours.
 *
 * The functions below are exported by libcollfs.so.1, which collfs.export_c_api() makes in the running process; until
 * then dlsym(RTLD_DEFAULT, "collfsinitialize") finds nothing. A program or library that is linked against them takes
 * the library that `python -m collfs stub -o libcollfs.so` writes; that one may also be loaded itself, and works from
 * the moment of collfs.export_c_api().
 *
 * What a function of the table may do: docs/c-interface.md. In short: system calls, memory of its own, messages to
 * other processes; never Python, dlopen or dlsym.
 */
#ifndef COLLFS_H
#define COLLFS_H

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct stat64;

/* As the C library's functions of these names: -1 (mmap: MAP_FAILED) and errno if they fail; failed without an errno is
 * EIO. A NULL member stands for the original call, whose instructions in ld.so then stay as they are on disk.
 *
 * fxstat64, xstat64: vers is 1 on x86-64, the only layout of struct stat64 (= struct stat) there.
 * open: also for openat(2); a name is given as ld.so has it, absolute or relative to the working directory.
 * read, lseek: pread64(2) becomes lseek(SEEK_SET) + read, if neither is NULL.
 * mmap: also without a descriptor (-1), for the memory behind a segment's file part; MAP_FIXED is obeyed.
 * close, munmap: also for what mmap and open of others gave; pass on what isn't yours. */
struct libc_collfs_api {
  int (*fxstat64)(int vers, int fd, struct stat64 *buf);
  int (*xstat64)(int vers, const char *file, struct stat64 *buf);
  int (*open)(const char *pathname, int flags, mode_t mode);
  int (*close)(int fd);
  ssize_t (*read)(int fd, void *buf, size_t count);
  off_t (*lseek)(int fildes, off_t offset, int whence);
  void *(*mmap)(void *addr, size_t len, int prot, int flags, int fildes, off_t off);
  int (*munmap)(void *addr, size_t len);
};

/* Copies *api into _dl_collfs_api and routes the calls of its members that aren't NULL; those of the others become the
 * original instructions again, even those that collfs.export_c_api() had rerouted. May be called again, with another table.
 *
 * 0, or -1 and errno, with nothing changed:
 *   EINVAL   api is NULL
 *   EDEADLK  called by a function of the table
 *   EBUSY    a function of the table runs in another thread
 *   ENOSYS   Python has ended (without collfs.export_c_api(), a library that was linked with leaves errno alone)
 *   EPERM    the text can't be written, see the warning of logger "collfs"; any other errno says why */
int collfsinitialize(const struct libc_collfs_api *api);

/* The original instructions are back, or, in a session of collfs (collfs.initialize), those of the session, and
 * _dl_collfs_api is NULL everywhere. Where collfsinitialize fails with EDEADLK or EBUSY this changes nothing, sets errno, and says so
 * once on standard error. Without a client it does nothing. */
void collfsfinalize(void);

/* The table in use. From collfs.export_c_api() until the first collfsinitialize or collfsfinalize all calls are routed,
 * and a pointer that is stored here takes part from that moment on; NULL is the original call, or the session's. */
extern struct libc_collfs_api _dl_collfs_api;

#ifdef __cplusplus
}
#endif
#endif
