"""What a process has submitted and not heard the end of: the measure of its back-pressure (guarantee 5).

A program that submits in a loop is faster than anything that runs its tasks, and each task that waits costs memory
here and at the node. Past either bound submission waits until results have come. Entries are removed by task id, so
a result that is reported twice, or handled again after an interrupt, counts once.
"""

from __future__ import annotations

import threading

MAX_TASKS = 500_000
MAX_BYTES = 256 << 20
"""Of specs with inline arguments; larger arguments are in shared memory, which has a bound of its own."""

SMALL = 1024
"""Bytes up to which a spec counts as one of many only: the number bounds those, and they take no lock."""


class Unfinished:
    """Tasks and calls by id, with the bytes of their specs. Thread-safe."""

    def __init__(self) -> None:
        self._sizes: dict[bytes, int] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def submitted(self, task: bytes, size: int) -> None:
        self._sizes[task] = size
        if size > SMALL:
            with self._lock:
                self._bytes += size

    def ended(self, task: bytes) -> bool:
        """Whether this is the first time that its end is heard."""
        size = self._sizes.pop(task, -1)
        if size > SMALL:
            with self._lock:
                self._bytes -= size
        return size >= 0

    def too_much(self) -> bool:
        return len(self._sizes) > MAX_TASKS or self._bytes > MAX_BYTES

    def tasks(self) -> list[bytes]:
        return list(self._sizes)
