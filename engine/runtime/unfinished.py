"""What a process has submitted and not heard the end of: the measure of its back-pressure (guarantee 5).

A program that submits in a loop is faster than anything that runs its tasks, and each task that waits costs memory
here and at the node. Past either bound submission waits until results have come. Entries are removed by task id, so
a result that is reported twice, or handled again after an interrupt, counts once.

Long before that, past ``PACE_TASKS``, a program is *held to the pace* at which its tasks end: for each batch that it
submits as many have to end first. So memory stays at what this number costs, however many millions of tasks go by. But
tasks may be waiting for what the program does after it has submitted them all, and then none ends: after a second of
silence it goes on, up to the bounds, until it hears of an end again.

Rejected: one low bound for all. It is a deadlock for programs that hold more tasks back than that and then open a gate.
"""

from __future__ import annotations

import threading

PACE_TASKS = 10_000
"""A fifth of a second of the smallest tasks: nobody runs dry, and a process is no faster with more."""

SILENCE_SECONDS = 1.0
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
        self.heard = 0
        """Outcomes that have come so far."""
        self._claimed = 0
        """Up to which of those somebody waits, or has waited, to submit as many."""
        self._silent_at = -1
        """How many had come when a program that was held to the pace waited in vain."""

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

    def has(self, task: bytes) -> bool:
        return task in self._sizes

    def is_ahead(self) -> bool:
        """Whether whoever submits is to be held to the pace."""
        return len(self._sizes) > PACE_TASKS and self.heard != self._silent_at

    def claim(self, count: int) -> int:
        """How many outcomes have to come before the caller submits ``count`` more: some that no other thread claims."""
        with self._lock:
            self._claimed = max(self._claimed, self.heard) + count
            return self._claimed

    def silent(self, heard: int) -> None:
        """Nothing came since ``heard``, in all the time that one waits for something."""
        if self.heard == heard:
            self._silent_at = self._claimed = heard

    def too_much(self) -> bool:
        return len(self._sizes) > MAX_TASKS or self._bytes > MAX_BYTES

    def tasks(self) -> list[bytes]:
        return list(self._sizes)
