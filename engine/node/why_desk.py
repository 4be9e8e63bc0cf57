"""What the node can say of an object that somebody waits for, or of one that is an error (see ``explanation.py``).

Everything here is looked up when it is asked for; the daemon's tables are as they are for its own purposes.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, takewhile
from typing import TYPE_CHECKING

from .. import messages as m
from ..explanation import FAILED, NEVER, QUEUED, READY, RUNNING, WAITING, amount, amounts, first_line, short, where
from ..ids import object_id, task_of
from .leases import ASSIGNED, Lease, Task, Worker
from .leases import QUEUED as IN_QUEUE

if TYPE_CHECKING:
    from .daemon import Daemon

MOST_HOLDERS = 8
MOST_COUNTED = 10_000
"""Tasks ahead in the queue: a program may ask again and again, while the node has other things to do."""

EVENTS_LOOKED_THROUGH = 20_000
"""The last ones, for those of one task."""


class WhyDesk:
    """See the module's essay."""

    def __init__(self, node: Daemon) -> None:
        self._node = node

    def on_ask(self, sender: str, message: m.AskWhy) -> None:
        self._node.post(sender, m.Because(message.token, self.explain(message.object_id)))

    def explain(self, oid: bytes) -> m.Reason | None:
        task_id = task_of(oid)
        task = self._node.tasks.tasks.get(task_id)
        if task is not None:
            return self._unfinished(task)
        directory = self._node.objects.directory  # not the desk: it would have what was lost made again
        if directory.is_lost(oid):
            return m.Reason(WAITING, f"{short(task_id)} was there and is lost; it is made again when somebody needs it")
        outcome = self._node.store.outcome(task_id)
        value = directory.known(oid)
        if value is not None and not isinstance(value, m.Failed):
            by = "" if outcome is None else f", made on {outcome.worker}{self._before(task_id, outcome.attempt)}"
            return m.Reason(READY, where(oid, value) + by)
        if outcome is not None:
            return self._ended(outcome)
        owner = directory.owner(oid)
        return m.Reason(WAITING, f"{short(task_id)} is {owner}'s", owner) if owner else None

    # ------------------------------------------------------------ what has not ended

    def _unfinished(self, task: Task) -> m.Reason:
        label = self.label(task) + self._before(task.id, task.attempt)
        if task.state == ASSIGNED:
            return self._assigned(task, label)
        if task.state == IN_QUEUE:
            return m.Reason(QUEUED, f"{label} is queued: {self._lacks(task)}")
        missing = self._node.objects.directory.unresolved(task)
        if missing:
            return m.Reason(WAITING, f"{label} waits for {_count(len(missing), 'argument')}:", "", missing)
        shape = self._node.scheduler.shape_of(task)
        if not shape.feasible:
            capacity = self._node.scheduler.capacity
            there = amounts({name: capacity.get(name, 0) for name in task.demand})
            return m.Reason(NEVER, f"{label} can never run: it asks for {amounts(task.demand)}, the engine has {there}")
        owner = task.payload.spec.recipe.owner
        dead = self._node.tasks.doubts.about(task)
        if dead:
            return m.Reason(
                WAITING, f"{label} was begun by {dead}, which died; {owner} has not said yet whether it has a result"
            )
        return m.Reason(QUEUED, f"{label} is held back: {owner} does not take the results that are sent to it")

    def _assigned(self, task: Task, label: str) -> m.Reason:
        worker, lease = self._place(task)
        where = self._process(task.worker)
        if lease is None or worker is None:
            return m.Reason(RUNNING, f"{label} was handed to {where}", task.worker)
        ahead = list(lease.tasks.values())
        ahead = ahead[: ahead.index(task)]
        if ahead:
            return m.Reason(
                QUEUED, f"{label} is queued at {where} behind {_count(len(ahead), 'task')}:", "",
                [object_id(ahead[0].id, 0)],
            )
        if lease is not worker.leases[-1] and not lease.blocked:
            return m.Reason(QUEUED, f"{label} is at {where}, beneath another task", task.worker)
        return m.Reason(RUNNING, f"{label} runs on {where}", task.worker)

    def _place(self, task: Task) -> tuple[Worker | None, Lease | None]:
        for worker in self._node.scheduler.workers():
            if worker.id == task.worker:
                return worker, next((lease for lease in worker.leases if task.id in lease.tasks), None)
        return None, None

    def _lacks(self, task: Task) -> str:
        scheduler = self._node.scheduler
        lacking = [name for name, wanted in task.demand.items() if scheduler.free[name] < wanted]
        shape = scheduler.shape_of(task)
        older = sum(1 for _ in takewhile(lambda other: other is not task, islice(shape.queue, MOST_COUNTED)))
        more = "more than " if older == MOST_COUNTED else ""
        behind = f"; {more}{_count(older, 'task')} like it were there before" if older else ""
        if not lacking:
            starting = len(self._node.pool.starting)
            what = f"{_count(starting, 'worker')} being started" if starting else "an older task needs what is free"
            return f"what it asks for ({amounts(task.demand)}) is there, {what}{behind}"
        free = ", ".join(
            f"{amount(name, max(0, scheduler.free[name]))} of {amount(name, scheduler.capacity[name])} {name}"
            for name in lacking
        )
        held = list(self._holders(lacking))
        holders = ", ".join(held[:MOST_HOLDERS]) or "nobody any more"
        more = f" and {len(held) - MOST_HOLDERS} more" if len(held) > MOST_HOLDERS else ""
        return f"it asks for {amounts(task.demand)}, free: {free}{behind}. Taken by {holders}{more}"

    def _holders(self, names: list[str]) -> Iterator[str]:
        """Who has some of these resources, with how much."""
        for worker in self._node.scheduler.workers():
            for lease in worker.leases:
                held = {
                    name: count for name, count in lease.shape.demand.items()
                    if name in names and not (lease.blocked and name == "CPU")
                }
                if held:
                    task = worker.actor or next(iter(lease.tasks.values()), None)
                    yield f"{self.label(task) if task else 'a task'} on {worker.id} ({amounts(held)})"

    # ------------------------------------------------------------ what has ended

    def _ended(self, outcome: m.Outcome) -> m.Reason:
        attempts = self._before(outcome.task, outcome.attempt)
        if outcome.status == m.FINISHED:
            on = f" on {outcome.worker}" if outcome.worker else ""
            return m.Reason(READY, f"{short(outcome.task)} finished{on}{attempts}")
        status = m.OUTCOME_NAMES[outcome.status]
        return m.Reason(FAILED, f"{status}{attempts or ', in its only attempt'}")

    # ------------------------------------------------------------ words

    def _before(self, task_id: bytes, attempt: int) -> str:
        """Why there were attempts before this one."""
        if not attempt:
            return ""
        subject = task_id.hex()
        wanted = ("retried", "rebuilt", "actor restarted")
        reasons = [
            first_line(event.detail) for event in self._node.store.last_events(EVENTS_LOOKED_THROUGH)
            if event.subject == subject and event.kind in wanted
        ]
        return f" (attempt {attempt + 1}; before: {'; '.join(reasons) or 'unknown'})"

    def label(self, task: Task) -> str:
        """A task or the creation of an actor, for people."""
        actor = self._node.actors.table.get(task.id) if task.exclusive else None
        if actor is not None:
            name = f" {actor.request.name!r}" if actor.request.name else ""
            return f"actor {actor.request.class_name}{name} ({short(task.id)})"
        return f"{'actor' if task.exclusive else 'task'} {task.payload.spec.recipe.name} ({short(task.id)})"

    def _process(self, worker: str) -> str:
        process = self._node.pool.processes.get(worker)
        return worker if process is None else f"{worker} (pid {process.pid})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
