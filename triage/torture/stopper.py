"""`python -m triage.torture.stopper THREAD`: stop one thread of another process, as nothing but a debugger can.

Says `{"event": "stopped"}` and stays until the thread is gone. Source: ptrace(2), PTRACE_SEIZE and PTRACE_INTERRUPT.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from pathlib import Path

SEIZE, INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000


def stop(thread: int) -> None:
    """Stop it for good. Raises OSError if that is not allowed."""
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.argtypes, call.restype = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p], ctypes.c_long
    for request in (SEIZE, INTERRUPT):
        if call(request, thread, None, None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"thread {thread}")


def state(thread: int) -> str:
    """Return the letter of a thread's state, of ps(1); empty where there is none."""
    try:
        return Path(f"/proc/{thread}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def main() -> None:
    """Stop the thread of the command line; take note of its end, which nobody else can while it is watched."""
    thread = int(sys.argv[1])
    try:
        stop(thread)
    except OSError as error:
        sys.stdout.write(json.dumps({"event": "refused", "text": str(error)}) + "\n")
        return
    while state(thread) not in ("t", "Z", ""):
        time.sleep(0.01)
    sys.stdout.write(json.dumps({"event": "stopped"}) + "\n")
    sys.stdout.flush()
    while True:
        try:
            ended, status = os.waitpid(thread, WALL)
        except ChildProcessError:
            return
        if ended == thread and not os.WIFSTOPPED(status):
            return


if __name__ == "__main__":
    main()
