"""Makes system calls that a sandbox has not, and says what the kernel answered."""

import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == "x86_64"


def call(name, number, *arguments):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    said = "allowed" if result >= 0 else errno.errorcode[ctypes.get_errno()]
    print(f"{name}: {said}", flush=True)


NEW_USER = 0x10000000
SIGCHLD = 17

call("io_uring_setup", 425, 1, 0)
call("clone3", 435, 0, 0)
call("a call from the future", 470)
call("a call of the x32 interface", 0x40000000 + 101)
call("bpf", 321 if x86 else 280, 0, 0, 0)
call("userfaultfd", 323 if x86 else 282, 1)
call("keyctl", 250 if x86 else 219, 0, -3, 0)
call("add_key", 248 if x86 else 217, 0, 0, 0, 0, 0)
call("ptrace", 101 if x86 else 117, 0, 0, 0, 0)
call("process_vm_readv", 310 if x86 else 270, 1, 0, 0, 0, 0, 0)
call("perf_event_open", 298 if x86 else 241, 0, 0, -1, -1, 0)
call("mount", 165 if x86 else 40, 0, 0, 0, 0, 0)
call("umount2", 166 if x86 else 39, 0, 0)
call("open_tree", 428, -100, 0, 0)
call("fsopen", 430, 0, 0)
call("unshare", 272 if x86 else 97, NEW_USER)
call("setns", 308 if x86 else 268, 0, 0)
call("clone with a user namespace", 56 if x86 else 220, NEW_USER | SIGCHLD, 0, 0, 0, 0)
call("open_by_handle_at", 304 if x86 else 265, -1, 0, 0)
call("TIOCSTI", 16 if x86 else 29, 0, 0x5412, 0)
call("TIOCSTI behind upper bits", 16 if x86 else 29, 0, (1 << 32) | 0x5412, 0)
