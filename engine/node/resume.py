"""Who has what, when a node was started anew: out of what all processes report. No I/O, no clock.

The last node knew which task waits, which is queued where and which runs; that died with it. But each worker knows
what it has, each owner which of its tasks have not ended, and the control store has all their specs and outcomes. Put
together this is what the last node knew:

- A task that a worker has (runs, has queued, or has finished with a report that is on its way) stays there.
- One that its owner waits for and that has an outcome had its results lost on the way: they are sent again.
- One that its owner waits for, that has no outcome and that nobody has, is queued again.
- A worker that died meanwhile reports nothing. Its note says which task it was in: that one it has, and then it dies.
  Of what it said to the last node, some frames may be on their way: they count. What it had submitted is found in the
  control store (``orphans``), as are the tasks of those that had died before.
- Attempts are counted in the control store. Whatever speaks of an older one than that is out of date.

Reports are of different moments, so all frames that are older than them have to be there first (:meth:`complete`),
and what came after them is handled after all this.

Rejected: to write assignments into the control store. It would cost each task what so only a restart costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import msgspec

from ..messages import Dep, Report, Spec


@dataclass
class Part:
    """A task at a worker."""

    task: bytes
    attempt: int
    raw: msgspec.Raw | None = None
    """Its spec, if the worker has it."""
    resolved: list[Dep] = field(default_factory=list)
    begun: bool = True
    blocked: bool = False
    awaits: list[bytes] = field(default_factory=list)


class RollCall:
    """Who has been heard; see the module's essay."""

    def __init__(self, processes: Iterable[str]) -> None:
        self._awaited = set(processes)
        self._ended: set[str] = set()
        self.reports: dict[str, Report] = {}

    def heard(self, process: str, report: Report) -> None:
        self._awaited.discard(process)
        self.reports.setdefault(process, report)

    def gone_on_without(self, process: str) -> None:
        """It reports later."""
        self._awaited.discard(process)

    def ended(self, process: str) -> None:
        """It will send nothing any more."""
        self._awaited.discard(process)
        self._ended.add(process)

    def complete(self, arrived: Callable[[str], int]) -> bool:
        """Whether all have reported and, by ``arrived``, all of their older frames are there."""
        return not self._awaited and all(
            arrived(process) >= report.next or process in self._ended for process, report in self.reports.items()
        )

    def missing(self) -> list[str]:
        return sorted(self._awaited)


@dataclass
class Standing:
    """Where everything is."""

    held: dict[str, list[Part]] = field(default_factory=dict)
    """By worker: finished ones, then those that run from the bottom up, then queued ones."""
    lost: list[bytes] = field(default_factory=list)
    """Nobody has them and no outcome tells of their end."""
    untold: list[tuple[str, bytes]] = field(default_factory=list)
    """(owner, task): it ended and the owner may not have heard."""
    adopted: list[tuple[str, bytes]] = field(default_factory=list)
    """(new owner, task): its worker would report to somebody else."""


def standing(
    reports: dict[str, Report], finished: dict[str, list[tuple[bytes, int]]], died_in: dict[str, bytes],
    orphans: Iterable[bytes], attempt: Callable[[bytes], int], spec: Callable[[bytes], Spec | None],
    ended: Callable[[bytes], int],
) -> Standing:
    """Puts the reports together.

    Args:
        reports: by process.
        finished: by worker: (task, attempt) of the outcomes in its frames that are on their way.
        died_in: the task in which a worker died that did not report.
        orphans: tasks that had not ended when their owners died.
        attempt: the number of the attempt of a task that counts.
        spec: of a task or call; None when it was never recorded.
        ended: the attempt whose outcome the control store has, or -1. A later one may run all the same, because what
            the task made was lost.
    """
    result = Standing()
    at: dict[bytes, Part] = {}
    for worker in dict.fromkeys([*reports, *died_in]):
        parts = _parts(reports.get(worker), finished.get(worker, []))
        if last := died_in.get(worker):
            parts.setdefault(last, Part(last, attempt(last)))
        mine = result.held[worker] = []
        for part in parts.values():
            if ended(part.task) >= part.attempt:  # recorded, but for the acknowledgement; or fenced since
                continue
            if part.attempt < attempt(part.task):  # its report was heard: it is to be run again
                continue
            other = at.get(part.task)
            if other is not None and other.attempt >= part.attempt:
                continue
            if other is not None:  # an older attempt, whose report will be ignored
                for parts_of_other in result.held.values():
                    if other in parts_of_other:
                        parts_of_other.remove(other)
            at[part.task] = part
            mine.append(part)
    waiting: set[bytes] = set()
    for process, report in reports.items():
        for task in report.unfinished:
            if ended(task) >= 0:
                result.untold.append((process, task))
                continue
            recorded = spec(task)
            if task in at:
                if recorded is not None and recorded.recipe.owner != process:
                    result.adopted.append((process, task))
            elif recorded is not None and task not in waiting:
                waiting.add(task)
                result.lost.append(task)
                if recorded.recipe.owner != process:
                    result.adopted.append((process, task))
    for task in orphans:
        if task not in at and task not in waiting and ended(task) < 0 and spec(task) is not None:
            waiting.add(task)
            result.lost.append(task)
    return result


def _parts(report: Report | None, finished: list[tuple[bytes, int]]) -> dict[bytes, Part]:
    parts: dict[bytes, Part] = {}
    for task, attempt in finished:
        parts[task] = Part(task, attempt)
    if report is not None:
        for running in report.running:
            task = _task_of(running.task.spec)
            parts.setdefault(task, Part(
                task, running.task.attempt, running.task.spec, list(running.task.resolved), True, running.blocked,
                running.awaits,
            ))
        for queued in report.queued:
            task = _task_of(queued.spec)
            parts.setdefault(task, Part(task, queued.attempt, queued.spec, list(queued.resolved), False))
    return parts


class _Named(msgspec.Struct, array_like=True):
    """A spec, as far as its first field."""

    task: bytes


_named = msgspec.msgpack.Decoder(_Named).decode


def _task_of(spec: msgspec.Raw) -> bytes:
    return _named(spec).task
