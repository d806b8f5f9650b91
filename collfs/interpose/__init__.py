"""The interposer: file calls of ``ld.so`` and ``libc.so.6`` are rerouted inside this process, on an unmodified glibc.

In the order in which an installation goes:

``image``       what lies in memory: the link map, the ELF headers, the functions of ``.eh_frame_hdr``
``sites``       which system-call instructions are whose, by their complete context; the one list of intercepted calls
``machine``     the look-up in machine code, as bytes, with its sources and its build
``trampoline``  the way from a site into the machine code and back; the memory for both
``patch``       a transaction over the text: write, compare, undo
``api``         ``struct libc_collfs_api``: which rows of ``ld.so`` go where
``interposer``  all of it together: install, verify, uninstall

For the C interface, loaded only by who asks for it (``collfs/c_api.py``):

``elf``         how ELF files are written
``libcollfs``   the shared object that exports the names
``debug``       names and frames of the machine code, for GDB and perf
"""
