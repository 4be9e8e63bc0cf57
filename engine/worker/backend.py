"""The backend inside a worker: like the driver's, and it never blocks what others wait for.

Before a task blocks in ``get`` the worker gives back the tasks it had queued and its CPUs, and while it waits it may
run, on top, tasks that it waits for (depth first; see ``node/scheduler.py``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from .. import messages as m
from ..explanation import RUNNING, seconds
from ..ids import TASK_BYTES, child_scope, task_of
from ..refs import ObjectRef
from ..runtime.process import ProcessBackend
from ..runtime.scope import TaskScope
from ..session import Session
from .cancellation import Cancellation

NO_TASK = bytes(TASK_BYTES)
"""In place of a task's id, while there is none."""


class WorkerBackend(ProcessBackend):
    """See the module's essay. ``executor`` is set by ``main.run`` before anything arrives."""

    role = "worker"

    def __init__(self, session: Session, process: str, node_inbox: str) -> None:
        self.queue: Any = None
        self.is_set_up = True
        """It has its environment."""
        self.cancellation = Cancellation()
        self.running: list[m.Running] = []
        """From the task at the bottom to the one on top, which the others wait for."""
        self._waits: list[Sequence[ObjectRef]] = []
        """What the tasks in ``running`` wait for in ``get``, in the same order; or what an actor's call waits for."""
        self.taking = threading.Lock()
        """Held while a task moves from the queue to those that run."""
        self._main = threading.get_ident()
        self.run_one: Callable[[], None]
        self.give_back: Callable[[], list[bytes]]
        self.give_back_late: Callable[[], None]
        super().__init__(session, process, TaskScope(NO_TASK, None, 0), node_inbox=node_inbox)

    def explain_running(self, task: bytes, index: int) -> m.Reason:
        """What is to be said of a task, the one at ``index`` in ``running``, or of an actor's call."""
        scope = self.program_scope
        lasts = "it has begun"
        if scope.task == task:
            lasts = f"it has been running for {seconds(time.time() - scope.started)}"
        waits = self._waits[index: index + 1]
        if not waits:
            return m.Reason(RUNNING, lasts)
        refs = [ref.binary() for ref in waits[0]]
        return m.Reason(RUNNING, f"{lasts} and waits in get() for:" if refs else f"{lasts} and waits", "", refs)

    def pong(self) -> m.Pong:
        scope = self.program_scope
        spec = scope.spec
        if spec is None or spec.recipe.kind != m.CALL or self._waits:
            return m.Pong()
        return m.Pong(spec.task, spec.recipe.method, time.time() - scope.started)

    def cancel_below(self, task: bytes) -> None:
        """Ends what a task or call has submitted from here."""
        self.calls.cancel_all_of([child_scope(task)])
        self.resuming.cancel(m.Cancel(task, False, True))

    def wait_until(self, ready: Callable[[], bool], timeout: float | None, refs: Sequence[ObjectRef]) -> bool:
        endpoint = self.endpoint
        if self.scope.actor is not None or threading.get_ident() != self._main or self.scope.task is None:
            return self._blocked_actor(ready, timeout, refs)
        may_nest = timeout is None and bool(refs)
        awaits = list({task_of(ref.binary()) for ref in refs}) if may_nest else []
        with self.endpoint.out.lock:
            running = self.running[-1]
            running.blocked, running.awaits = True, awaits
            self.post_node(m.Blocked(awaits, self.give_back()))
        queue = self.queue
        scope = self.scope
        self.cancellation.beneath.append(scope.task or b"")
        self._waits.append(refs)
        try:
            while True:
                done = endpoint.wait_until(lambda: ready() or bool(queue), timeout)
                if not queue or ready():
                    return done and ready()
                self.give_back_late()
                if queue:
                    self.run_one()
                    self.cancellation.check(scope.task)
        finally:
            self._waits.pop()
            self.cancellation.beneath.pop()
            self.program_scope = scope
            with self.endpoint.out.lock:
                running.blocked = False
                self.post_node(m.Unblocked())

    def _blocked_actor(self, ready: Callable[[], bool], timeout: float | None, refs: Sequence[ObjectRef]) -> bool:
        """An actor's process runs nothing but the actor's calls, and those in order."""
        if threading.get_ident() != self._main:
            return self.endpoint.wait_until(ready, timeout)
        running = self.running[0]  # its creation
        with self.endpoint.out.lock:
            running.blocked = True
            self.post_node(m.Blocked([], []))
        self._waits.append(refs)
        try:
            return self.endpoint.wait_until(ready, timeout)
        finally:
            self._waits.pop()
            with self.endpoint.out.lock:
                running.blocked = False
                self.post_node(m.Unblocked())
