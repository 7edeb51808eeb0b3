"""Stops one thread of a process and lets the others go on, which no signal does: as a debugger would, by ptrace(2).

    hold_thread.py hold PID NAME     stops the thread, says `held`, and lets it go at the end of standard input
    hold_thread.py allow PROGRAM ..  runs a program that this may be done to, also where only children may be traced
"""

import ctypes
import os
import pathlib
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
LIBC.ptrace.restype = ctypes.c_long
SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
# prctl(2): any process of this user may trace this one, where that is restricted at all.
SET_PTRACER, ANY = 0x59616D61, ctypes.c_ulong(-1)
# waitpid(2): threads too.
WALL = 0x40000000


def ptrace(request, thread):
    if LIBC.ptrace(request, thread, None, None) != 0:
        sys.exit(f"ptrace: {os.strerror(ctypes.get_errno())}")


def hold(pid, name):
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    (thread,) = [int(task.name) for task in tasks if (task / "comm").read_text().strip() == name]
    ptrace(SEIZE, thread)
    ptrace(INTERRUPT, thread)
    os.waitpid(thread, WALL)
    print("held", flush=True)
    sys.stdin.read()
    ptrace(DETACH, thread)


if sys.argv[1] == "hold":
    hold(int(sys.argv[2]), sys.argv[3])
else:
    LIBC.prctl(SET_PTRACER, ANY, 0, 0, 0)
    os.execvp(sys.argv[2], sys.argv[2:])
