"""Cancelling tasks, from the node's side: what has not begun ends here, what has is its worker's to end.

With a task goes what it submitted, and what that submitted, whether those in between have ended or not. Ids of
children follow from those of their parents, so what one task ever submitted lies side by side in the control store.
What is not committed yet, and what has not ended, is sorted by who submitted it when somebody asks: an index kept up
to date would cost every task, and few programs cancel. It serves as long as no batch of tasks arrives, so that
cancelling many tasks costs one pass over all.

Calls of actors are on their way between two processes, and the node does not know them. Those that an ended task has
left behind are its worker's to end, and what a borrower cancels is its owner's.
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

MOST_BELOW = 20_000
"""Descendants of a cancelled task that are looked for; so many cost the node a fifth of a second."""


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
        if task is None and message.object_id:
            self._pass_on(message)
        self._cancel(message.task, message.force, message.recursive)
        if message.recursive and not never_ran:
            below = self._below(message.task)
            for each in below:
                self._cancel(each, message.force, True)
            self._cancel_made(below)

    def _pass_on(self, message: m.Cancel) -> None:
        """It may be a call of an actor, which its owner can cancel."""
        owner = self._node.objects.directory.owner(message.object_id)
        if owner in self._node.roles and self._node.store.outcome(message.task) is None:
            self._node.post(owner, m.CancelOwn(message.task, message.recursive))

    def _below(self, root: bytes) -> list[bytes]:
        """What a task or call submitted, and what that submitted; of those that have ended, so many at most."""
        store = self._node.store
        found: dict[bytes, None] = {}
        stack = [root]
        while stack and len(found) < MOST_BELOW:
            scope = child_scope(stack.pop())
            children = [*self._unfinished().get(scope, ()), *store.submitted_in(scope, MOST_BELOW - len(found))]
            stack += [child for child in children if child not in found]
            found.update(dict.fromkeys(children))
        return list(found)

    def _unfinished(self) -> dict[bytes, list[bytes]]:
        """Tasks that have not ended, and what is not committed yet, by the scope in which they were submitted."""
        desk = self._node.tasks
        if self._indexed != desk.batches:
            self._indexed = desk.batches
            self._by_scope = {}
            driver = self._node.session.driver
            for task in desk.tasks.values():
                if task.payload.spec.recipe.owner != driver:
                    self._by_scope.setdefault(task.id[:SCOPE_BYTES], []).append(task.id)
            for task_id in self._node.store.gathered_specs():
                self._by_scope.setdefault(task_id[:SCOPE_BYTES], []).append(task_id)
        return self._by_scope

    def _cancel_made(self, tasks: list[bytes]) -> None:
        """Of those that have ended: the calls that they left behind."""
        by_worker: dict[str, list[bytes]] = {}
        for task in tasks:
            if task not in self._node.tasks.tasks:
                outcome = self._node.store.outcome(task)
                if outcome is not None and outcome.worker in self._node.roles:
                    by_worker.setdefault(outcome.worker, []).append(task)
        for worker, ended in by_worker.items():
            self._node.post(worker, m.CancelMade(ended))

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
