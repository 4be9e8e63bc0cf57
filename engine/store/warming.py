"""Pages for a process's first large values, taken while nobody needs them.

The problem: the system clears a page of shared memory as it hands it out, so the first values of a program are
written at a fifth of the speed of later ones, which reuse pages. Those of the driver's first value of some size are
waited for: data that is put once, weights.

So when the driver's engine has started, a thread of the lowest priority has the driver's first segment get its pages,
a few at a time, until there are some, somebody lacks memory, or the process ends. A value that comes meanwhile is
written as ever. A small part of the store is taken, which is given back with the pages of all free blocks when
memory gets short.

Rejected: to do so in every worker, each of which would take as much; and huge pages, which a value would get in one
go: few systems allow them for shared memory.
"""

from __future__ import annotations

import contextlib
import os
import threading

from .arena import Arena

SHARE = 64
"""The part of the store that is taken: one over this."""

MOST = 128 << 20
STEP = 2 << 20
"""As much at a time."""

LOWEST_PRIORITY = 19


def warm_up(arena: Arena, capacity: int) -> None:
    """Starts a thread that has pages taken for the first values of an arena, and ends by itself."""
    size = min(capacity // SHARE, MOST) & -STEP
    if size:
        threading.Thread(target=_take_pages, args=(arena, size), name="rlflow-pages", daemon=True).start()


def _take_pages(arena: Arena, size: int) -> None:
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)
    segment = arena.first_segment(size)
    start = 0
    with contextlib.suppress(ValueError):  # it was closed in this moment
        while segment is not None and start < size and arena.take_pages(segment, start, start + STEP):
            start += STEP
