/* Trampolines: from a system-call site into the machine code and back. x86-64, AT&T syntax, for clang and gas.
 *
 *   ld.so / libc.so.6, text                      code page (memfd, read and execute)
 *   site:  jmp T  (was: mov $NR,%eax)   ----->   T:      head: mov $NR,%eax and what stood before the syscall
 *          [mid]                                         filter: not ours at first sight -> back to `syscall`
 *   back:  syscall   <-----------------------+           save, call libc_entry / ldso_entry, restore
 *   ret:   cmp $-4096,%rax  <----------------|-----------je back          (NATIVE)
 *          ja  error                         +-----------jmp ret          (answered; %rax is the result or -errno)
 *
 *   cave:  a 2-byte `syscall` becomes `jmp rel8` to nop padding that holds `jmp T`; "back" is then in the trampoline.
 *
 * Rules
 *  - Before `call` only rax, rcx, r11 may change: the kernel clobbers them as well (arch/x86/entry/entry_64.S). All others
 *    come back as they were: r8, r10, rdx are live behind some sites.
 *  - ld.so uses the red zone at its sites (128 bytes below rsp): step over it first; enter and leave by jmp.
 *  - Vector registers are not touched: the C code is built with -mgeneral-regs-only. A row that calls a C function may
 *    change them; they are dead at ld.so's file calls, each of which is a function of its own (System V ABI, 3.2.1).
 *  - A template is copied for each site and its holes are filled by trampoline.py, which reads their offsets here.
 */
        .text
        .globl  blob
blob:
        .ascii  "collfs03"
        .long   end - blob                      /* size of all */
        .long   0
/* functions, as offsets from blob */
        .long   libc_entry - blob
        .long   ldso_entry - blob
        .long   api_open - blob
        .long   api_xstat64 - blob
        .long   api_fxstat64 - blob
        .long   probe - blob
        .long   swap_word - blob
        .long   store_word - blob
        .long   forget - blob
        .long   poke - blob
        .long   put - blob
        .long   sum64 - blob
        .long   c_initialize - blob
        .long   c_finalize - blob
        .long   py_probe - blob
        .long   py_seek - blob
        .long   py_audit - blob
        .long   wait_for - blob
        .long   ring - blob
        .long   0
/* templates: start, size, then the holes, relative to start (each the place of a rel32) */
.macro ROW name
        .long   \name - blob, \name\()_end - \name
        .long   \name\()_call - \name, \name\()_ret - \name, \name\()_back - \name
.endm
        ROW     t_plain
        ROW     t_path_rdi
        ROW     t_path_rsi
        ROW     t_cancel
        ROW     t_cave

.macro SAVE_AND_CALL name
        leaq    -128(%rsp), %rsp
        pushq   %r9
        pushq   %r8
        pushq   %r10
        pushq   %rdx
        pushq   %rsi
        pushq   %rdi
        pushq   %rax
        pushq   %rbp
        movq    %rsp, %rbp
        leaq    16(%rbp), %rdi                  /* the six arguments of the system call */
        movl    %eax, %esi                      /* its number */
        andq    $-16, %rsp
        .byte   0xe8                            /* call libc_entry or ldso_entry */
\name\()_call:
        .long   0
        cmpq    $-4096, %rax
        cmoveq  8(%rbp), %rax                   /* NATIVE: the number again */
        movq    %rbp, %rsp
        popq    %rbp                            /* pop, lea and mov leave the flags of the comparison alone */
        leaq    8(%rsp), %rsp
        popq    %rdi
        popq    %rsi
        popq    %rdx
        popq    %r10
        popq    %r8
        popq    %r9
        leaq    128(%rsp), %rsp
.endm

/* ZF is still that of `cmpq` in SAVE_AND_CALL */
.macro LEAVE name
        je      \name\()_native
        .byte   0xe9                            /* jmp ret */
\name\()_ret:
        .long   0
\name\()_native:
        .byte   0xe9                            /* jmp back */
\name\()_back:
        .long   0
\name\()_end:
        .balign 16, 0xcc
.endm

.macro HEAD
        .fill   16, 1, 0x90                     /* the displaced instructions; the rest stays nops */
.endm

        .balign 16, 0xcc
t_plain:                                        /* calls that change something, and the rows of ld.so */
        HEAD
        SAVE_AND_CALL t_plain
        LEAVE   t_plain

t_path_rdi:                                     /* path in rdi: NULL, empty and relative names are not ours */
        HEAD
        testq   %rdi, %rdi
        je      t_path_rdi_native
        cmpb    $0x2f, (%rdi)
        jne     t_path_rdi_native
        SAVE_AND_CALL t_path_rdi
        LEAVE   t_path_rdi

t_path_rsi:                                     /* descriptor in edi, path in rsi; relative to a descriptor: may be a mirror */
        HEAD
        testq   %rsi, %rsi
        je      t_path_rsi_native
        cmpb    $0x2f, (%rsi)
        je      1f
        cmpl    $-100, %edi                     /* AT_FDCWD */
        je      t_path_rsi_native
        cmpb    $0, (%rsi)                      /* AT_EMPTY_PATH: fstat of glibc 2.33 to 2.38 */
        je      t_path_rsi_native
1:
        SAVE_AND_CALL t_path_rsi
        LEAVE   t_path_rsi

t_cancel:                                       /* number in eax: openat and creat by __syscall_cancel, glibc >= 2.41 */
        HEAD
        cmpl    $257, %eax
        je      1f
        cmpl    $85, %eax
        jne     t_cancel_native
1:
        SAVE_AND_CALL t_cancel
        LEAVE   t_cancel

t_cave:                                         /* the syscall itself was displaced; HEAD is `cmp $NR,%eax` */
        HEAD
        jne     t_cave_native                   /* restart_syscall(2) after a signal has another number */
        SAVE_AND_CALL t_cave
        je      t_cave_native
        .byte   0xe9                            /* jmp ret */
t_cave_ret:
        .long   0
t_cave_native:
        syscall
        .byte   0xe9                            /* jmp ret */
t_cave_back:
        .long   0
t_cave_end:
        .balign 16, 0xcc
