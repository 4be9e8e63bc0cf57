"""Who submits: the driver's program, or the task or call that a worker runs."""

from __future__ import annotations

from contextvars import ContextVar
from itertools import count

from .. import messages as m
from ..ids import INDEX_BYTES, child_scope


class TaskScope:
    """The program that submits right now; its operations take their ids from here (see ``ids.py``)."""

    spec: m.Spec | None = None
    started = 0.0
    """When a task began; on the clock of the wall."""

    def __init__(self, task: bytes | None, actor: bytes | None, attempt: int, name: bytes | None = None) -> None:
        self.task = task
        self.actor = actor
        self.attempt = attempt
        self.indices = count()
        self.adopted: set[bytes] = set()
        self._name = name

    @property
    def has_submitted(self) -> bool:
        """Whether a task has submitted or put anything (a driver's scope has its name from the beginning)."""
        return self._name is not None

    def next_task(self) -> bytes:
        name = self._name
        if name is None:
            assert self.task is not None
            name = self._name = child_scope(self.task)
        return name + next(self.indices).to_bytes(INDEX_BYTES, "big")


current_scope: ContextVar[TaskScope | None] = ContextVar("current_scope", default=None)
"""In actors that run several calls at a time: the one that this thread or coroutine runs."""
