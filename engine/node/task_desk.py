"""What the daemon does about tasks: from their specs to their outcomes, and again when a worker died.

Which task goes to which worker is the scheduler's decision, which waits for what the directory's; this is the clerk
between them and the messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .. import messages as m
from ..exceptions import EngineError
from ..ids import TASK_BYTES, object_id
from ..options import UNITS
from ..owners import Owners
from ..serialization import dump_engine_error
from .doubts import Doubt, Doubts
from .leases import GONE
from .payload import Payload
from .scheduler import Task

if TYPE_CHECKING:
    from .daemon import Daemon


NOTHING_STARTED = bytes(TASK_BYTES)


def tracked_results(outcome: m.Outcome) -> list[bytes]:
    """Those of a task's results that live only as long as somebody needs them."""
    return [
        object_id(outcome.task, index) for index, value in enumerate(outcome.values)
        if isinstance(value, m.Shm) or (isinstance(value, m.Inline) and value.refs)
    ]


class TaskDesk:
    """See the module's essay."""

    def __init__(self, node: Daemon) -> None:
        self._node = node
        self.tasks: dict[bytes, Task] = {}
        """All that have not ended, actor creations included."""
        self.batches = 0
        """Of tasks that have arrived so far."""
        self.owners: Owners[Task] = Owners()
        self.doubts = Doubts()
        self.repeated = False
        """What is being handled may have been handled by an earlier node."""

    def on_submit(self, sender: str, message: m.Submit) -> None:
        tasks = self.tasks
        self.batches += 1
        add_spec = self._node.store.add_spec
        for raw in message.items:
            spec = m.decode_spec(raw)
            heard_of = self.repeated and spec.task not in tasks and self._is_over(spec.task)
            if spec.parent_attempt:
                if self._found_again(spec) or heard_of:
                    continue
            elif spec.task in tasks or heard_of:  # sent twice
                continue
            recipe = spec.recipe
            task = Task(
                spec.task, recipe.function, recipe.demand, spec.prefer, False, Payload(spec, raw), recipe.environment
            )
            tasks[spec.task] = task
            add_spec(spec.task, raw)
            if spec.deps and not self.arguments_there(task):
                continue
            self.enqueue(task)

    def _is_over(self, task_id: bytes) -> bool:
        """Whether a task that an earlier node recorded, and that is not here, has ended.

        Its outcome may have been lost with its worker. But if its owner waited for it, it would be here.
        """
        return self._node.store.spec(task_id) is not None

    def _found_again(self, spec: m.Spec) -> bool:
        """A parent that is re-run submits its children again; those that run or have ended are not run twice."""
        task = self.tasks.get(spec.task)
        if task is not None and self._node.rebuild.is_run_again(spec.task):
            self._node.rebuild.claimed(spec.task, spec.recipe.owner)
            for index in range(spec.recipe.num_returns):
                self._node.objects.directory.wanted_again(object_id(spec.task, index), spec.recipe.owner)
            return True
        if task is not None:
            self._node.journal.no_orphan(spec.task)
            task.payload.spec.change(owner=spec.recipe.owner)
            task.payload.raw = msgspec.Raw(m.encode(task.payload.spec))
            task.payload.adopted = True
            for index in range(spec.recipe.num_returns):
                self._node.objects.directory.wanted_again(object_id(spec.task, index), spec.recipe.owner)
            return True
        outcome = self._node.store.outcome(spec.task)
        if outcome is None:
            return False
        if not self.adopt_results(outcome, spec.recipe.owner):
            self._node.store.drop_outcome(spec.task)  # or a node that takes our place would find that it has ended
            return False
        self._node.post(spec.recipe.owner, m.Results([outcome]))
        return True

    def adopt_results(self, outcome: m.Outcome, owner: str) -> bool:
        """Gives what a task made a new owner; False when it was freed: its owner's last attempt died with its refs."""
        return all(self._node.objects.directory.adopt(oid, owner) for oid in tracked_results(outcome))

    def arguments_there(self, task: Task) -> bool:
        """Looks the task's pending deps up; registers it for those that do not exist yet."""
        missing = []
        for dep in task.payload.spec.deps:
            if dep.value is not None:
                if type(dep.value) is m.Shm:
                    self._node.objects.spilling.used(dep.object_id)
                continue
            value = self._node.objects.value(dep.object_id)
            if value is None:
                missing.append(dep)
            else:
                self._node.objects.directory.resolve_now(task, dep, value)
        if missing:
            self._node.objects.directory.wait_for(task, missing)
        return not missing

    def enqueue(self, task: Task) -> None:
        stalled = self.owners.stalled
        if stalled and task.payload.spec.recipe.owner in stalled:
            stalled[task.payload.spec.recipe.owner].append(task)
        elif not self._node.scheduler.submit(task):
            asked, there = (
                {name: amount / UNITS for name, amount in amounts.items()}
                for amounts in (task.demand, self._node.scheduler.capacity)
            )
            kind = "actor" if task.exclusive else "task"
            self._node.post(self._node.session.driver, m.Warning(
                f"{kind} {task.payload.spec.recipe.name} can never run: it asks for {asked} and the engine has {there}"
            ))

    def on_done(self, sender: str, done: m.Done) -> None:
        node = self._node
        finished = node.scheduler.finished
        roles = node.roles
        add_outcome = node.store.add_outcome
        nobody_waits = node.objects.directory.nobody_waits
        owner, size = "", 0
        for raw in done.items:
            outcome = m.decode_outcome(raw)
            task = finished(sender, outcome.task, outcome.duration)
            if task is None or outcome.attempt != task.attempt:
                continue  # fenced: another attempt has taken its place
            if outcome.status == m.RETRIED:
                self._run_again(task, outcome, sender)
                continue
            del self.tasks[task.id]
            if task.attempt:
                if node.rebuild.is_run_again(task.id):
                    node.rebuild.ended(task, outcome, sender)
                    continue
                node.journal.finished(task)
            spec = task.payload.spec
            its_owner = spec.recipe.owner
            add_outcome(task.id, raw)
            values = outcome.values
            if not nobody_waits() or len(values) != 1 or type(values[0]) is not m.Inline or values[0].refs:
                self._results_exist(outcome, its_owner)
            if its_owner != owner:
                if size:
                    self._sent(owner, size)
                owner, size = its_owner, 0
            size += len(raw)
            if task.payload.adopted:
                node.post(owner, m.Results([outcome]))
            elif owner not in roles:  # it died, and can no longer register what the worker retained
                node.journal.no_orphan(task.id)
                for borrowed in outcome.retained:
                    node.objects.free(node.objects.directory.hold(borrowed, sender.encode(), 1))
            if spec.deps or spec.nested:
                self._let_go(task, outcome)
        if size:
            self._sent(owner, size)

    def _let_go(self, task: Task, outcome: m.Outcome) -> None:
        """A task has ended: of its arguments."""
        spec = task.payload.spec
        directory = self._node.objects.directory
        directory.forget(task.id)
        self._node.lineage.ended(task, outcome)
        needed = [dep.object_id for dep in spec.deps] + spec.nested
        self._node.objects.free(directory.task_ended(task.id, needed))

    def _sent(self, owner: str, size: int) -> None:
        """So many bytes of results are on their way to ``owner``."""
        if owner in self._node.roles and self.owners.sent(owner, size):
            self._look_after(owner)

    def _run_again(self, task: Task, outcome: m.Outcome, worker: str) -> None:
        """It raised an error that it is run again for."""
        for borrowed in outcome.retained:  # its owner hears nothing of this attempt
            self._node.objects.free(self._node.objects.directory.hold(borrowed, worker.encode(), 1))
        task.attempt += 1
        self._node.journal.attempted(task)
        self._node.store.add_event("retried", task.id.hex(), "it raised an exception of its retry_exceptions")
        self._queue_again(task)
        if task.cancelled:
            self._node.cancels.end(task)

    def _queue_again(self, task: Task) -> None:
        """Its arguments have been found before; but if an earlier node had handed it out, they have to be once more."""
        if not self._node.objects.directory.resolved(task.id):
            for dep in task.payload.spec.deps:
                if dep.value is None:
                    if self.arguments_there(task):
                        break
                    return
        self._node.scheduler.retry(task)

    def _look_after(self, owner: str) -> None:
        """Asks an owner whether it takes its results; holds its tasks back when it does not."""
        ask, stalls = self.owners.look(owner)
        if ask:
            self._node.post(owner, m.Ping())
        if stalls:
            self.owners.stalled[owner] += self._node.scheduler.take_out(
                lambda task: task.payload.spec.recipe.owner == owner
            )

    def on_pong(self, sender: str, _: m.Pong) -> None:
        self.release(self.owners.answered(sender))

    def release(self, held: list[Task]) -> None:
        """These were held back for an owner."""
        for task in held:
            if task.state != GONE:
                self.enqueue(task)

    def on_logged(self, sender: str, logged: m.Logged) -> None:
        for raw_spec, raw_outcome in zip(logged.items[::2], logged.items[1::2], strict=True):
            spec = m.decode_spec(raw_spec)
            self._node.store.add_spec(spec.task, raw_spec)
            outcome = m.decode_outcome(raw_outcome)
            self._node.recovery.keep_results(spec.recipe.owner, outcome)
            self._node.watchman.usual_calls.ended(spec.recipe.function, spec.recipe.method, outcome.duration)
            self.record(outcome, raw_outcome, spec.recipe.owner)

    def record(self, outcome: m.Outcome, raw: msgspec.Raw, owner: str) -> None:
        self._node.store.add_outcome(outcome.task, raw)
        self._results_exist(outcome, owner)

    def _results_exist(self, outcome: m.Outcome, owner: str) -> None:
        """Whoever waits for them is told."""
        directory = self._node.objects.directory
        nobody_waits = directory.nobody_waits()
        for index, value in enumerate(outcome.values):
            if nobody_waits and type(value) is m.Inline and not value.refs:
                continue
            oid = object_id(outcome.task, index)
            if directory.concerns(oid, value):
                self._node.objects.exists(oid, value, owner)

    def fail(self, task: Task, error: bytes, status: int, worker: str = "") -> None:
        """Ends a task with an error that no worker can report."""
        self._node.scheduler.withdraw(task)
        self.tasks.pop(task.id, None)
        values: list[m.Value] = [m.Failed(error)] * max(1, task.payload.spec.recipe.num_returns)
        outcome = m.Outcome(task.id, task.attempt, worker, status, 0.0, 0.0, values)
        if self._node.rebuild.is_run_again(task.id):
            self._node.rebuild.ended(task, outcome, worker)
            return
        if task.attempt:
            self._node.journal.finished(task)
        spec = task.payload.spec
        self._node.journal.no_orphan(task.id)
        self.record(outcome, msgspec.Raw(m.encode(outcome)), spec.recipe.owner)
        self._node.post(spec.recipe.owner, m.Results([outcome]))
        if spec.deps or spec.nested:
            self._let_go(task, outcome)

    def worker_died(self, worker: str, reason: str, error_class: type[EngineError]) -> None:
        """Runs again what it had begun, or fails it; what others own, when they have said that it has not ended."""
        started, _ = self._node.scheduler.worker_died(worker, self._node.pool.last_started(worker))
        for task in started:
            owner = task.payload.spec.recipe.owner
            if task.exclusive:
                self._node.actors.lost(task, reason)
            elif owner in self._node.roles and owner != worker:  # it may have heard more than we
                self.doubts.add(owner, worker, Doubt(task, reason, error_class))
            else:
                self._crashed(task, worker, reason, error_class)
        for owner, doubts in self.doubts.asked(worker):
            tasks = [(doubt.task.id, doubt.task.payload.spec.recipe.num_returns) for doubt in doubts]
            self._node.post(owner, m.Recall(worker, tasks))

    def on_recalled(self, sender: str, message: m.Recalled) -> None:
        ended = dict(message.ended)
        for task, reason, error_class in self.doubts.answered(sender, message.worker):
            if task.state == GONE:  # cancelled meanwhile
                continue
            values = ended.get(task.id)
            if values is None:
                self._crashed(task, message.worker, reason, error_class)
            else:
                self._has_ended_for_owner(task, message.worker, values)

    def _has_ended_for_owner(self, task: Task, worker: str, values: list[m.Value]) -> None:
        """The worker told the owner, and died before it told us: when it ran, nobody knows any more."""
        failed = values and all(isinstance(value, m.Failed) for value in values)
        outcome = m.Outcome(task.id, task.attempt, worker, m.FAILED if failed else m.FINISHED, 0.0, 0.0, values)
        self._node.scheduler.withdraw(task)
        del self.tasks[task.id]
        if task.attempt:
            self._node.journal.finished(task)
        spec = task.payload.spec
        self.record(outcome, msgspec.Raw(m.encode(outcome)), spec.recipe.owner)
        if spec.deps or spec.nested:
            self._let_go(task, outcome)

    def owner_ended(self, owner: str) -> None:
        """It takes no results any more, and answers nothing."""
        self.release(self.owners.ended(owner))
        for worker, (task, reason, error_class) in self.doubts.owner_ended(owner):
            if task.state != GONE:
                self._crashed(task, worker, reason, error_class)

    def _crashed(self, task: Task, worker: str, reason: str, error_class: type[Exception]) -> None:
        """Runs a task again whose worker died in it, or fails it."""
        retries = task.payload.spec.recipe.max_retries
        if task.cancelled:
            self._node.cancels.end(task)
        elif retries < 0 or 0 < retries >= task.crashes:
            task.attempt += 1
            self._node.journal.attempted(task)
            self._node.store.add_event("retried", task.id.hex(), reason)
            self._queue_again(task)
        else:  # with max_retries=0 also those that were not to blame: they may not be run twice
            attempts = "1 attempt" if task.crashes <= 1 else f"each of {task.crashes} attempts"
            if self._node.rebuild.is_run_again(task.id):
                attempts = f"attempt {task.attempt + 1}, which was to make again what had been lost"
            error = error_class(
                f"task {task.payload.spec.recipe.name or task.id.hex()}: its worker died in {attempts} "
                f"(max_retries={retries}); the last: {reason}"
            )
            self.fail(task, dump_engine_error(error), m.CRASHED, worker)

    def needed_by_tasks_of(self, owner: str) -> dict[bytes, list[bytes]]:
        """The objects that unfinished tasks of a process need, by task."""
        return {
            task.id: [dep.object_id for dep in task.payload.spec.deps] + task.payload.spec.nested
            for task in self.tasks.values()
            if task.payload.spec.recipe.owner == owner
        }

    def on_blocked(self, sender: str, message: m.Blocked) -> None:
        self._node.scheduler.blocked(sender, self.awaited(message.awaits), message.returned)
        self._node.cancels.end_returned(message.returned)

    def awaited(self, ids: list[bytes]) -> list[Task]:
        """These tasks and those whose results they wait for, as far as they have not ended."""
        awaits: list[Task] = []
        seen: set[bytes] = set()
        stack = list(reversed(ids))
        while stack:
            task_id = stack.pop()
            task = self.tasks.get(task_id)
            if task is None or task_id in seen:
                continue
            seen.add(task_id)
            awaits.append(task)
            stack += [oid[:-2] for oid in self._node.objects.directory.unresolved(task)]
        return awaits

    def on_returned(self, sender: str, message: m.Returned) -> None:
        self._node.scheduler.returned(sender, message.tasks)
        self._node.cancels.end_returned(message.tasks)

    def on_retiring(self, sender: str, message: m.Retiring) -> None:
        """The worker starts nothing any more: what it has is others' to run, and nobody is to blame."""
        self._node.pool.leaves(sender)
        handed, _ = self._node.scheduler.worker_died(sender, NOTHING_STARTED)
        for task in handed:  # the creation of an actor, in this moment
            self._node.scheduler.retry(task)

    def on_reconcile(self, sender: str, message: m.Reconcile) -> None:
        for task_id in message.tasks:
            if task_id not in self.tasks:
                outcome = self._node.store.outcome(task_id)
                if outcome is not None and outcome.worker == message.worker:  # others report by themselves
                    self._node.post(sender, m.Results([outcome]))
        self._node.post(sender, m.Reconciled(message.page))
