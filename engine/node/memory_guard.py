"""Watches memory while tasks run, and kills a worker before the kernel kills anybody (see ``memory_policy.py``).

There are two limits: a share of the machine's memory (or of its control group's), and what ``init(memory=...)`` allows
all workers together. One victim at a time: the next is chosen when the last one is gone and memory is short still.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import machine
from ..options import UNITS
from .leases import Worker
from .memory_policy import Candidate, seconds_to_next_look, victim

if TYPE_CHECKING:
    from .daemon import Daemon

PAGE = os.sysconf("SC_PAGE_SIZE")


class MemoryGuard:
    """See the module's essay."""

    def __init__(self, node: Daemon) -> None:
        self._node = node
        self._allowed = node.session.worker_memory
        self._threshold = node.session.memory_threshold
        self._cpus = node.session.capacity.get("CPU", 0) / UNITS
        self._killed: dict[str, str] = {}
        self.next_look = 0.0
        """On the monotonic clock."""

    def look(self, now: float) -> None:
        """Kills a worker if memory is short, and says when to look again."""
        total, used = machine.memory_in_use()
        headroom = total * self._threshold - used if self._threshold < 1 else float(total)
        why = f"{_size(used)} of {_size(total)} are in use on this machine (limit: {self._threshold:.0%})"
        sizes: dict[str, int] = {}
        if self._allowed or headroom <= 0:
            sizes = {process.id: own_memory(process.pid) for process in self._node.pool.processes.values()}
        if self._allowed and self._allowed - sum(sizes.values()) < headroom:
            workers = sum(sizes.values())
            headroom = self._allowed - workers
            why = f"the workers use {_size(workers)} together and init(memory=...) allows {_size(self._allowed)}"
        if headroom <= 0 and not self._killed:
            self._kill_one(sizes, why)
        self.next_look = now + seconds_to_next_look(headroom, self._cpus)

    def _kill_one(self, sizes: dict[str, int], why: str) -> None:
        workers = self._node.scheduler.workers()
        chosen = victim(
            self._candidate(worker, sizes[worker.id]) for worker in workers if sizes.get(worker.id)
        )
        if chosen is None:
            return
        self._killed[chosen.worker] = (
            f"worker {chosen.worker}, which had {_size(chosen.rss)} of memory, was killed: {why}. Let the task use "
            f"less, run fewer at a time (num_cpus=, memory=), or raise the limit"
        )
        self._node.pool.kill(chosen.worker)

    def _candidate(self, worker: Worker, rss: int) -> Candidate:
        if worker.actor is not None:
            actor = self._node.actors.table.get(worker.actor.id)
            return Candidate(worker.id, rss, worker.actor.seq, retriable=actor is not None and actor.restarts_left != 0)
        if not worker.leases:
            return Candidate(worker.id, rss, 0, idle=True)
        task = next(iter(worker.leases[-1].tasks.values()), None)
        if task is None:
            return Candidate(worker.id, rss, 0)
        retries = task.payload.spec.recipe.max_retries
        return Candidate(worker.id, rss, task.seq, retriable=retries < 0 or task.crashes < retries)

    def ended(self, worker: str) -> str:
        """Why a worker that has ended was killed here; empty if it was not."""
        why = self._killed.pop(worker, "")
        if why:
            self.next_look = time.monotonic()
        return why


def own_memory(pid: int) -> int:
    """Bytes in memory that a process shares with nobody; 0 when it has ended."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(resident) - int(shared)) * PAGE


def _size(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
