"""Tasks of which nobody here knows whether they have ended: their worker died, and its last reports with it. No I/O.

A small result goes straight to its owner, and to the node as well. When the worker dies between the two, the owner has
a result and the node has none. Run again at once, the task would have two results: one that its owner has seen, and
one for whoever asks the node (guarantee 2). So the owner is asked first. What it has is the result; what it has not
heard of by then it will not hear from the dead worker any more, and that is run again, or fails.

An owner that does not answer, being stopped, holds up its own tasks. One that dies can no longer be contradicted: what
it was asked about is run again.

Rejected: to send results by way of the node, which every task would pay for; and to ask in any case, before the node
hands out a second attempt. Most of those follow an error or a lost object, about which the node knows all.
"""

from __future__ import annotations

from typing import NamedTuple

from .leases import Task


class Doubt(NamedTuple):
    """A task that a dead worker had begun."""

    task: Task
    reason: str
    """Of the worker's death."""
    error: type[Exception]
    """What the task fails with if it may not be run again."""


class Doubts:
    """See the module's essay."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, str], list[Doubt]] = {}
        """By owner and dead worker."""

    def add(self, owner: str, worker: str, doubt: Doubt) -> None:
        self._asked.setdefault((owner, worker), []).append(doubt)

    def asked(self, worker: str) -> list[tuple[str, list[Doubt]]]:
        """What the owners are to be asked about one dead worker."""
        return [(owner, doubts) for (owner, dead), doubts in self._asked.items() if dead == worker]

    def about(self, task: Task) -> str:
        """The dead worker because of which the task is in doubt; empty if it is not."""
        return next((worker for (_, worker), doubts in self._asked.items() if any(d.task is task for d in doubts)), "")

    def answered(self, owner: str, worker: str) -> list[Doubt]:
        return self._asked.pop((owner, worker), [])

    def owner_ended(self, owner: str) -> list[tuple[str, Doubt]]:
        """What it will not answer, with the worker it is about."""
        mine = [key for key in self._asked if key[0] == owner]
        return [(worker, doubt) for _, worker in mine for doubt in self._asked.pop((owner, worker))]
