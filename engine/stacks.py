"""The stacks of a worker that does not answer, from outside and without its help.

A worker may be in C code that keeps the interpreter's lock: then no Python runs in it, in no thread. A signal handler
in C does. ``faulthandler`` has one that writes the Python stacks of all threads to a file descriptor, here the
worker's log. Workers have it from the zygote, before they run any code of their own. A process without such a handler
would be killed by the signal, so it is looked at first: a program that a task has put in its place with ``exec`` has
none.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path

SIGNAL = signal.SIGRTMIN + 4
"""Not one that programs use; the one before it cancels tasks."""

LOG = 2
"""Where the C code of a worker writes; its ``sys.stderr`` goes elsewhere."""


def can_be_asked_for() -> None:
    """In the zygote, and so in what it forks: from now on :func:`ask_for` works."""
    faulthandler.register(SIGNAL, file=LOG, all_threads=True)


def ask_for(pid: int) -> bool:
    """Has a process write its stacks into its log. False when it cannot; a stopped one does it when it is continued."""
    caught = int(_status(pid).get("SigCgt", "0"), 16)
    if not caught >> (SIGNAL - 1) & 1:
        return False
    os.kill(pid, SIGNAL)
    return True


def state(pid: int) -> str:
    """What the kernel says of a process: ``"R (running)"``, ``"T (stopped)"``, ``"D (disk sleep)"``; empty if gone."""
    return _status(pid).get("State", "")


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
