/* The machine: how to make a system call, and its numbers.
 * Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux. */
#ifndef COLLFS_ARCH_H
#define COLLFS_ARCH_H
#include "layout.h"

#define HIDDEN __attribute__((visibility("hidden")))
#define COLD __attribute__((noinline, cold))

#if defined(__x86_64__)
enum {
  NR_read = 0, NR_write = 1, NR_open = 2, NR_close = 3, NR_stat = 4, NR_fstat = 5, NR_lstat = 6, NR_lseek = 8, NR_mmap = 9, NR_munmap = 11,
  NR_pread64 = 17, NR_access = 21, NR_getpid = 39, NR_truncate = 76, NR_getcwd = 79, NR_chdir = 80, NR_fchdir = 81, NR_rename = 82,
  NR_mkdir = 83, NR_rmdir = 84, NR_creat = 85, NR_link = 86, NR_unlink = 87, NR_symlink = 88, NR_readlink = 89,
  NR_chmod = 90, NR_chown = 92, NR_lchown = 94, NR_utime = 132, NR_mknod = 133, NR_pivot_root = 155, NR_chroot = 161,
  NR_setxattr = 188, NR_lsetxattr = 189, NR_removexattr = 197, NR_lremovexattr = 198, NR_futex = 202, NR_clock_gettime = 228, NR_utimes = 235, NR_openat = 257,
  NR_mkdirat = 258, NR_mknodat = 259, NR_fchownat = 260, NR_futimesat = 261, NR_newfstatat = 262, NR_unlinkat = 263,
  NR_renameat = 264, NR_linkat = 265, NR_symlinkat = 266, NR_readlinkat = 267, NR_fchmodat = 268, NR_faccessat = 269,
  NR_unshare = 272, NR_utimensat = 280, NR_setns = 308, NR_renameat2 = 316, NR_membarrier = 324, NR_statx = 332,
  NR_faccessat2 = 439, NR_fchmodat2 = 452,
};
/* arch/x86/include/uapi/asm/fcntl.h takes asm-generic's values */
enum { F_O_DIRECTORY = 0200000, F_O_NOFOLLOW = 0400000, F_O_LARGEFILE = 0100000 };
static inline i64 sys(u64 nr, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f) {
  i64 r;
  register u64 r10 __asm__("r10") = d;
  register u64 r8 __asm__("r8") = e;
  register u64 r9 __asm__("r9") = f;
  __asm__ volatile("syscall" : "=a"(r) : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return r;
}
/* tells threads apart (System V ABI for x86-64, 3.4.2: the word at %fs:0 is its own address) */
static inline u64 thread_pointer(void) {
  u64 r;
  __asm__("movq %%fs:0, %0" : "=r"(r));
  return r;
}
#else
#error "no system-call numbers for this machine"
#endif

#define sys0(nr) sys(nr, 0, 0, 0, 0, 0, 0)
#define sys2(nr, a, b) sys(nr, (u64)(a), (u64)(b), 0, 0, 0, 0)
#define sys3(nr, a, b, c) sys(nr, (u64)(a), (u64)(b), (u64)(c), 0, 0, 0)
#define sys4(nr, a, b, c, d) sys(nr, (u64)(a), (u64)(b), (u64)(c), (u64)(d), 0, 0)
#define sys5(nr, a, b, c, d, e) sys(nr, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), 0)

/* asm-generic/fcntl.h, linux/fcntl.h */
enum {
  F_O_ACCMODE = 3, F_O_CREAT = 0100, F_O_NOCTTY = 0400, F_O_TRUNC = 01000, F_O_NONBLOCK = 04000, F_O_CLOEXEC = 02000000,
  F_O_NOATIME = 01000000, CWD = -100, F_AT_SYMLINK_NOFOLLOW = 0x100, F_AT_EMPTY_PATH = 0x1000, F_AT_NO_AUTOMOUNT = 0x800,
  F_AT_EACCESS = 0x200, F_AT_STATX_SYNC_TYPE = 0x6000, CLONE_NEWNS_ = 0x20000, W_OK_ = 2,
};
/* asm-generic/errno-base.h, errno.h */
enum {
  E_NOENT = 2, E_INTR = 4, E_IO = 5, E_NOMEM = 12, E_FAULT = 14, E_BUSY = 16, E_NOTDIR = 20, E_INVAL = 22, E_NFILE = 23, E_MFILE = 24,
  E_DEADLK = 35, E_NAMETOOLONG = 36, E_NOSYS = 38,
};

/* "make the original call": no errno, the kernel's stop at -4095 */
#define NATIVE (-4096L)

/* 2 pages below the code: Python maps them together and the linker script fixes the distance */
extern struct cell cell HIDDEN;

#endif
