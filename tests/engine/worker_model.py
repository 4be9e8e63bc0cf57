"""A model of the scheduler's surroundings: the node's bookkeeping, and workers that run what they are handed.

Between the node and each worker there is a channel in each direction, from which messages are delivered at any time,
so a task may be on its way to a worker that blocks, dies or has just been asked to give its queue back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from scheduling import LONG, SHORT, assert_books_balance

from rlflow.engine.node.scheduler import Scheduler, Task

MAX_RETRIES = 1
DEPTH = 3
CHILDREN: list[list[dict[str, int]]] = [
    [{"CPU": 1}], [{"CPU": 1}, {"CPU": 1, "slot": 1}], [{"CPU": 2}], [{"GPU": 1}], [{}, {"CPU": 1, "GPU": 1}], [],
]
"""What a task that blocks submits first and then waits for."""


@dataclass(eq=False)
class Attempt:
    """A task as its worker sees it."""

    task: Task
    number: int
    nested: bool
    awaits: list[Task] | None = None
    """While it is blocked: the results it needs."""
    resumed: bool = False


@dataclass(eq=False)
class ModelWorker:
    id: str
    inbox: deque[tuple] = field(default_factory=deque)
    outbox: deque[tuple] = field(default_factory=deque)
    queue: deque[Attempt] = field(default_factory=deque)
    stack: list[Attempt] = field(default_factory=list)
    started: set[Task] = field(default_factory=set)
    last_started: bytes = b""
    """What it leaves behind for the node to read when it dies: what it runs, or ran at last."""
    actor: Attempt | None = None
    dead: bool = False
    leaving: bool = False

    def top(self) -> Attempt | None:
        return self.stack[-1] if self.stack else None


class Cluster:
    """The node's bookkeeping around the scheduler, and its workers."""

    def __init__(self, capacity: dict[str, int], prestart: int) -> None:
        self.scheduler = Scheduler(capacity, prestart)
        self.workers: dict[str, ModelWorker] = {}
        self.buried: list[ModelWorker] = []
        """Their last messages may still arrive."""
        self.starting = 0
        self.tasks: dict[bytes, Task] = {}
        self.at_node: set[Task] = set()
        self.handed: dict[Task, str] = {}
        self.ended: set[Task] = set()
        """Those whose owner has a result."""
        self.depth: dict[Task, int] = {}
        self.modest: set[Task] = set()
        """Below a task that holds more than CPUs, nobody may ask for more than CPUs: parents could block each other."""
        self.count = 0

    # ------------------------------------------------------------ tasks

    def submit(self, demand: dict[str, int], function: str, exclusive: bool, prefer: str, depth: int = 0) -> Task:
        task = Task(self.count.to_bytes(4, "big"), function.encode(), demand, prefer, exclusive)
        self.count += 1
        self.depth[task] = depth
        if self.scheduler.submit(task):
            self.tasks[task.id] = task
            self.at_node.add(task)
        else:
            assert any(self.scheduler.capacity.get(name, 0) < amount for name, amount in demand.items())
            self.ended.add(task)
        return task

    def plan(self) -> None:
        scheduler = self.scheduler
        before = dict(scheduler.free)
        plan = scheduler.plan()
        for name, amount in scheduler.free.items():
            assert amount >= 0 or amount == before[name], "granted more than was free"
        for worker_id, tasks in plan.dispatch.items():
            worker = self.workers[worker_id]
            assert not worker.leaving
            for task in tasks:
                self.at_node.remove(task)  # in one place, and not handed out twice
                self.handed[task] = worker_id
            worker.inbox.append(("execute", [Attempt(task, task.attempt, task.nested) for task in tasks]))
        for worker_id in plan.stop_workers:
            worker = self.workers[worker_id]
            assert worker_id not in self.handed.values() and worker.actor is None
            worker.leaving = True
        assert plan.start_workers >= 0
        self.starting += plan.start_workers
        assert_books_balance(scheduler)

    def deliver(self, worker: ModelWorker) -> None:
        """One message reaches the node."""
        kind, *content = worker.outbox.popleft()
        scheduler = self.scheduler
        if kind == "done":
            attempt, duration = content
            task = scheduler.finished(worker.id, attempt.task.id, duration)
            if task is not None and task.attempt == attempt.number:
                assert self.handed.pop(task) == worker.id
        elif kind == "actor":
            (attempt,) = content
            if self.handed.get(attempt.task) == worker.id:
                assert scheduler.became_actor(worker.id)
            else:
                assert not scheduler.became_actor(worker.id)
        elif kind == "blocked":
            awaits, returned = content
            self.came_back(worker, returned)
            scheduler.blocked(worker.id, [task for task in awaits if task.id in self.tasks], returned)
        elif kind == "unblocked":
            scheduler.unblocked(worker.id)
        else:
            (returned,) = content
            self.came_back(worker, returned)
            scheduler.returned(worker.id, returned)

    def came_back(self, worker: ModelWorker, returned: list[bytes]) -> None:
        for task_id in returned:
            task = self.tasks[task_id]
            if self.handed.get(task) == worker.id:
                del self.handed[task]
                self.at_node.add(task)

    def bury(self, worker: ModelWorker) -> None:
        """The node learns of a death."""
        del self.workers[worker.id]
        self.buried.append(worker)
        mine = {task for task, at in self.handed.items() if at == worker.id}
        running, requeued = self.scheduler.worker_died(worker.id, worker.last_started)
        assert len(running) + len(requeued) == len(mine) and {*running, *requeued} == mine
        assert worker.started.isdisjoint(requeued), "the same attempt would run twice"
        for task in mine:
            del self.handed[task]
        self.at_node.update(requeued)
        for task in running:
            if task.attempt < MAX_RETRIES:
                task.attempt += 1
                self.scheduler.retry(task)
                self.at_node.add(task)
            else:
                self.scheduler.withdraw(task)
                self.ended.add(task)

    # ------------------------------------------------------------ workers

    def start_worker(self) -> None:
        self.starting -= 1
        self.count += 1
        worker = ModelWorker(f"w{self.count}")
        self.workers[worker.id] = worker
        self.scheduler.worker_started(worker.id)

    def receive(self, worker: ModelWorker) -> None:
        kind, *content = worker.inbox.popleft()
        if kind == "execute":
            assert worker.actor is None
            worker.queue.extend(content[0])
        else:
            worker.outbox.append(("returned", self.give_back(worker)))

    def give_back(self, worker: ModelWorker) -> list[bytes]:
        returned = [attempt.task.id for attempt in worker.queue]
        worker.queue.clear()
        return returned

    def start(self, worker: ModelWorker) -> None:
        """The worker turns to its queue, if it may."""
        top = worker.top()
        if top is not None:
            if top.awaits is None:
                return
            late = [attempt for attempt in worker.queue if not attempt.nested]
            if late:
                worker.queue = deque(attempt for attempt in worker.queue if attempt.nested)
                worker.outbox.append(("returned", [attempt.task.id for attempt in late]))
        if worker.queue:
            attempt = worker.queue.popleft()
            assert worker.actor is None and not (attempt.task.exclusive and worker.stack)
            worker.stack.append(attempt)
            worker.started.add(attempt.task)
            worker.last_started = attempt.task.id
            self.assert_machine_is_not_overcommitted()

    def finish(self, worker: ModelWorker, fails: bool = False) -> None:
        """The task that runs ends; its owner knows first, then the node."""
        attempt = worker.top()
        if attempt is None or attempt.awaits is not None or attempt is worker.actor:
            return
        if attempt.task.exclusive and not fails:
            worker.actor = attempt
            worker.outbox.append(("actor", attempt))
        else:
            worker.stack.pop()
            if worker.stack:
                worker.last_started = worker.stack[-1].task.id
            duration = SHORT if attempt.task.function == b"short" else LONG
            worker.outbox.append(("done", attempt, duration))
        self.ended.add(attempt.task)

    def block(self, worker: ModelWorker, awaits: list[Task], may_nest: bool) -> None:
        attempt = worker.top()
        assert attempt is not None and attempt.awaits is None
        attempt.awaits = awaits
        returned = [] if attempt.task.exclusive else self.give_back(worker)
        worker.outbox.append(("blocked", awaits if may_nest and not attempt.task.exclusive else [], returned))

    def unblock(self, worker: ModelWorker) -> None:
        attempt = worker.top()
        if attempt is not None and attempt.awaits is not None and self.ended.issuperset(attempt.awaits):
            attempt.awaits = None
            attempt.resumed = True
            worker.outbox.append(("unblocked",))

    def assert_machine_is_not_overcommitted(self) -> None:
        """What tasks really use, whatever the node has heard of. Excepted: CPUs of tasks that resumed after ``get``."""
        used = dict.fromkeys(self.scheduler.capacity, 0)
        for worker in self.workers.values():
            for attempt in () if worker.dead else worker.stack:
                for name, amount in attempt.task.demand.items():
                    if name != "CPU" or (attempt.awaits is None and not attempt.resumed):
                        used[name] += amount
        assert all(used[name] <= amount for name, amount in self.scheduler.capacity.items()), used

    def block_on_children(self, worker: ModelWorker, choice: int) -> None:
        parent = worker.stack[-1].task
        modest = parent in self.modest or parent.exclusive or bool(parent.demand.keys() - {"CPU"})
        awaits = []
        for demand in CHILDREN[choice % len(CHILDREN)]:
            if modest:
                demand = {name: amount for name, amount in demand.items() if name == "CPU"}
            child = self.submit(demand, "short", False, "", self.depth[parent] + 1)
            awaits.append(child)
            if modest:
                self.modest.add(child)
        self.block(worker, awaits, may_nest=choice % 3 > 0)

    def revoke_overdue(self) -> None:
        overdue = self.scheduler.overdue()
        assert self.scheduler.has_pipelined() or not overdue
        for worker_id in overdue:
            self.workers[worker_id].inbox.append(("revoke",))

    def step(self, choice: int) -> None:
        """One of the things that could happen next."""
        steps: list[Callable[[], None]] = [self.plan, self.revoke_overdue]
        choice = choice * 0x9E3779B1 % 2**32  # small numbers are drawn most often
        detail = choice >> 16
        if self.starting:
            steps += [self.start_worker]
        for worker in (*self.workers.values(), *self.buried):
            top = worker.top()
            if worker.outbox:
                steps += [partial(self.deliver, worker)] * 2
            if worker.dead:
                steps += [partial(self.bury, worker)] * (worker.id in self.workers)
                continue
            if detail % 64 == 63:
                steps += [partial(setattr, worker, "dead", True)]
            if worker.inbox:
                steps += [partial(self.receive, worker)] * 2
            if worker.queue and (top is None or top.awaits is not None):
                steps += [partial(self.start, worker)] * 2
            if top is not None and top.awaits is not None and self.ended.issuperset(top.awaits):
                steps += [partial(self.unblock, worker)]
            if top is not None and top.awaits is None:
                steps += [partial(self.finish, worker, fails=detail % 4 == 3)]
                if self.depth[top.task] < DEPTH:
                    steps += [partial(self.block_on_children, worker, detail)]
        steps[choice % len(steps)]()

    # ------------------------------------------------------------ the end

    def run_until_quiescent(self, actors_end: bool = False) -> None:
        """``actors_end``: creations that come to run now fail, so that nothing is held in the end."""
        for _ in range(3000):
            before = self.progress()
            while self.starting:
                self.start_worker()
            for worker in list(self.workers.values()):
                if worker.dead or (worker.leaving and not worker.outbox):
                    self.bury(worker)
                    continue
                while worker.inbox:
                    self.receive(worker)
                self.start(worker)
                self.finish(worker, fails=actors_end)
                self.unblock(worker)
                while worker.outbox:
                    self.deliver(worker)
            self.plan()
            if self.progress() == before and not self.starting:
                overdue = self.scheduler.overdue() or self.scheduler.overdue()  # whose task stays the same
                if not overdue:
                    return
                for worker_id in overdue:
                    self.workers[worker_id].inbox.append(("revoke",))
        raise AssertionError("it goes round in circles")

    def progress(self) -> tuple[object, ...]:
        return (
            len(self.ended), dict(self.handed), set(self.at_node), [(w.id, w.leaving) for w in self.workers.values()],
            [(len(w.inbox), len(w.queue), [a.awaits is None for a in w.stack]) for w in self.workers.values()],
        )

    def assert_all_is_done(self) -> None:
        """Everything has ended but what needs more than actors, and tasks that wait for such things, leave."""
        left = dict(self.scheduler.capacity)
        holding = [worker for worker in self.workers.values() if worker.stack]
        for worker in holding:
            assert worker.actor is not None or all(attempt.awaits for attempt in worker.stack)
            for attempt in worker.stack:
                for name, amount in attempt.task.demand.items():
                    if name != "CPU" or worker.actor is not None:
                        left[name] -= amount
        for task in self.at_node:
            assert any(left[name] < amount for name, amount in task.demand.items()), "starved"
        assert self.handed.keys() == {attempt.task for worker in holding for attempt in worker.stack}
        assert self.scheduler.free == left or any(w.actor is not None and w.actor.awaits is not None for w in holding)
        assert self.scheduler._staff.idle.keys() == self.workers.keys() - {worker.id for worker in holding}
        assert self.scheduler._staff._starting == self.starting == 0
        assert self.scheduler.held_by_actors == {
            name: sum(w.actor.task.demand.get(name, 0) for w in holding if w.actor is not None) for name in left
        }
