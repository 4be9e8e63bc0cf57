"""Who submits: the driver's program, or one task that a worker runs. The ids of what it submits count up in it."""

from __future__ import annotations

from contextvars import ContextVar
from itertools import count

from .. import messages as m
from ..ids import child_scope, task_id


class TaskScope:
    """The program that submits right now: the driver, or the task that a worker runs."""

    __slots__ = ("_name", "actor", "adopted", "attempt", "indices", "spec", "task")

    def __init__(
        self, task: bytes | None, actor: bytes | None, attempt: int, name: bytes | None = None,
        spec: m.Spec | None = None,
    ) -> None:
        self.spec = spec
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
        if self._name is None:
            assert self.task is not None
            self._name = child_scope(self.task)
        return task_id(self._name, next(self.indices))


current_scope: ContextVar[TaskScope | None] = ContextVar("current_scope", default=None)
"""In actors that run several calls at a time: the one that this thread or coroutine runs."""
