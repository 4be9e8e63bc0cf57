"""Cancelling tasks, from the node's side: what has not begun ends here, what has is its worker's to end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .. import messages as m
from ..cancelled import cancelled_error
from ..ids import SCOPE_BYTES, child_scope
from .leases import ASSIGNED, Task

if TYPE_CHECKING:
    from .daemon import Daemon


class CancelDesk:
    """See the module's essay."""

    def __init__(self, node: Daemon) -> None:
        self._node = node

    def on_cancel(self, sender: str, message: m.Cancel) -> None:
        self._cancel(message.task, message.force)
        if message.recursive:
            for task in self._below(message.task):
                self._cancel(task, message.force)

    def _below(self, root: bytes) -> list[bytes]:
        """Unfinished tasks that a task submitted, and those they submitted."""
        by_scope: dict[bytes, list[bytes]] = {}
        for task in self._node.tasks.tasks:
            by_scope.setdefault(task[:SCOPE_BYTES], []).append(task)
        found: list[bytes] = []
        stack = [root]
        while stack:
            children = by_scope.get(child_scope(stack.pop()), [])
            found += children
            stack += children
        return found

    def _cancel(self, task_id: bytes, force: bool) -> None:
        task = self._node.tasks.tasks.get(task_id)
        if task is None or task.exclusive:
            return
        task.cancelled = True
        if task.state == ASSIGNED:
            self._node.post(task.worker, m.CancelTask(task_id, force))
        else:
            self.end(task)

    def end(self, task: Task) -> None:
        """It was cancelled and does not run."""
        self._node.objects.directory.forget(task.id)
        self._node.tasks.fail(task, cancelled_error(task.payload.spec), m.CANCELLED, task.worker)

    def end_returned(self, tasks: Iterable[bytes]) -> None:
        """A worker gave these back: those that were cancelled meanwhile are not handed out again."""
        for task_id in tasks:
            task = self._node.tasks.tasks.get(task_id)
            if task is not None and task.cancelled:
                self.end(task)
