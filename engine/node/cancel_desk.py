"""Cancelling tasks, from the node's side: what has not begun ends here, what has is its worker's to end.

With a task goes what it submitted. To find that, unfinished tasks are sorted by who submitted them, those of drivers
left out, when somebody asks: an index kept up to date would cost every task, and few programs cancel. It serves as long
as no batch of tasks arrives, so that cancelling many tasks costs one pass over all.
"""

from __future__ import annotations

import time
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
        self._by_scope: dict[bytes, list[bytes]] = {}
        self._indexed = -1
        """How many batches had arrived when it was made."""

    def on_cancel(self, sender: str, message: m.Cancel) -> None:
        task = self._node.tasks.tasks.get(message.task)
        never_ran = task is not None and task.state != ASSIGNED and not task.attempt
        self._cancel(message.task, message.force, message.recursive)
        if message.recursive and not never_ran:
            for below in self._below(message.task):
                self._cancel(below, message.force, True)

    def _below(self, root: bytes) -> list[bytes]:
        """Unfinished tasks that a task submitted, and those they submitted."""
        desk = self._node.tasks
        if self._indexed != desk.batches:
            self._indexed = desk.batches
            self._by_scope = {}
            driver = self._node.session.driver
            for task in desk.tasks.values():
                if task.payload.spec.owner != driver:
                    self._by_scope.setdefault(task.id[:SCOPE_BYTES], []).append(task.id)
        found: list[bytes] = []
        stack = [root]
        while stack and self._by_scope:
            children = self._by_scope.get(child_scope(stack.pop()), [])
            found += children
            stack += children
        return found

    def _cancel(self, task_id: bytes, force: bool, recursive: bool) -> None:
        task = self._node.tasks.tasks.get(task_id)
        if task is None or task.exclusive:
            return
        task.cancelled = True
        if task.state == ASSIGNED:
            self._node.post(task.worker, m.CancelTask(task_id, force, recursive))
            if force:
                self._node.watchman.forced(task, time.monotonic())
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
