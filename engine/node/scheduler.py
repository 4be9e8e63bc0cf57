"""The local scheduler: which task goes to which worker. A state machine without I/O and without a clock.

Events go in as method calls, instructions come out of :meth:`Scheduler.plan`; the daemon stands between this and
the sockets, tests feed it by hand.

*Leases.* Tasks that ask for the same amounts form a *shape*. A worker leases a shape's amounts once and then runs
tasks of that shape one after the other, so resources are counted per lease, not per task. Short tasks are
pipelined: a worker's queue is filled up to ``PIPELINE_SECONDS`` of estimated work (by the average duration of each
function), so that the round trip to the node does not bound the rate. A function never timed before counts as
long. What turned out to be queued behind a long task can be revoked for an idle worker.

*Fairness.* Shapes are served by the age of their oldest task. When the oldest does not fit, what it lacks is
reserved: younger shapes that need it get nothing, not even a refill. Once that is there it stays set aside until the
task is handed out, or two resources could be taken from it by turns. Nothing is reserved for a task that would need
what actors hold, or what tasks blocked in ``get`` hold: they may be waiting for one of the younger ones.

*Nesting.* A task blocked in ``get`` gives back its CPUs and its queue. The worker may then run, on top of the
blocked task, a task that this one waits for: depth first, so nesting needs no new process per level. Messages cross:
what was queued at a worker while it blocked is not ``nested`` and comes back, because run on top it might wait for
the task beneath it; a nested task that arrives after the ``get`` has ended waits behind the task that resumed.

Invariants (tested with hypothesis): a lease is granted only from what is free; a task is in exactly one place;
every feasible task is eventually handed out. One exception to the first, as in Ray: a task that resumes after
``get`` takes its CPUs again at once, and until others finish the node may be overdrawn by them.

Rejected: resources per task (a dict subtraction on the hot path, and a queue at a worker would count twice), and
one global FIFO (one shape that does not fit would stop all).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from itertools import count, islice

from .leases import ASSIGNED, GONE, QUEUED, WAITING, Held, Lease, Plan, Shape, Task, Worker
from .ledger import Ledger
from .staff import Staff

__all__ = ["Plan", "Scheduler", "Task"]

PIPELINE_SECONDS = 0.002
PIPELINE_TASKS = 512
"""Tasks queued at one worker at most."""

TASK_OVERHEAD = 5e-6
"""Seconds a task costs a worker beside the function itself."""

SMOOTHING = 0.2
"""Weight of the newest duration in a function's average."""

MAX_FUNCTIONS = 10_000
"""Whose averages are kept; the one first seen goes first."""

NEST_LOOKAHEAD = 64
SHAPES = 256
"""As many are kept whether anybody asks for them or not."""


class Scheduler:
    """See the module's essay. Amounts are integers in ``options.UNITS``."""

    def __init__(self, capacity: dict[str, int], prestart: int) -> None:
        self._ledger = Ledger(capacity)
        self.capacity = self._ledger.capacity
        self.free = self._ledger.free
        self.held_by_actors = self._ledger.held_by_actors
        self._fits = self._ledger.fits
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self._most_shapes = SHAPES
        self._last_shape: Shape | None = None
        self._queued_shapes: dict[int, Shape] = {}
        self._staff = Staff(prestart)
        self._workers = self._staff.workers
        self._blocked: dict[Lease, Worker] = {}  # the last one in was blocked last
        self._averages: dict[bytes, float] = {}
        self._sequence = count()

    # ------------------------------------------------------------ events

    def submit(self, task: Task) -> bool:
        """Queues a task whose arguments are there. False when no amount of waiting can ever make it fit."""
        shape = self.shape_of(task)
        if not shape.feasible:
            return False
        task.seq = next(self._sequence)
        task.state = QUEUED
        shape.queue.append(task)
        self._queued_shapes[id(shape)] = shape
        return True

    def worker_started(self, worker_id: str, environment: str = "") -> None:
        self._staff.started(worker_id, environment)

    def resumed(self, worker_id: str, environment: str, held: list[Held], devices: list[int], used: bool) -> None:
        """A worker that another scheduler had put to work, with what it has: from the bottom up, queued tasks last."""
        self._staff.started(worker_id, environment)
        worker = self._workers[worker_id]
        worker.used = used
        for part in held:
            task = part.task
            shape = self.shape_of(task)
            task.seq = next(self._sequence)
            lease = worker.leases[-1] if worker.leases else None
            if lease is None or lease.blocked or lease.shape is not shape or (part.blocked and lease.tasks):
                lease = Lease(shape)
                self._ledger.granted_before(lease, devices)
                worker.leases.append(lease)
                shape.workers[worker_id] = worker
                self._staff.took_up(worker)
            task.state = ASSIGNED
            task.worker = worker_id
            lease.tasks[task.id] = task
            lease.backlog = PIPELINE_SECONDS  # of unknown length: nothing is queued behind it again
            if part.blocked:
                self.blocked(worker_id, part.awaits, [])

    def start_failed(self, environment: str = "") -> None:
        """A worker that was asked for will not come."""
        self._staff.start_failed(environment)

    def finished(self, worker_id: str, task_id: bytes, duration: float) -> Task | None:
        """A worker reported a task's end; the task, or None when it is not (any more) assigned there."""
        worker = self._workers.get(worker_id)
        if worker is None:
            return None
        for lease in reversed(worker.leases):
            task = lease.tasks.pop(task_id, None)
            if task is None:
                continue
            averages = self._averages
            average = averages.get(task.function)
            if average is not None:
                averages[task.function] = average + SMOOTHING * (duration - average)
            else:
                if len(averages) >= MAX_FUNCTIONS:
                    del averages[next(iter(averages))]
                averages[task.function] = duration
            if lease.tasks:
                backlog = lease.backlog - duration - TASK_OVERHEAD
                lease.backlog = backlog if backlog > 0.0 else 0.0
            elif not lease.blocked and worker.actor is None:
                self._drop_lease(worker, lease)
            task.state = GONE
            return task
        return None

    def became_actor(self, worker_id: str) -> bool:
        """The creation task that ``worker_id`` runs succeeded: the worker and its lease are the actor's now.

        False when the worker has died meanwhile.
        """
        worker = self._workers.get(worker_id)
        if worker is None:
            return False
        (lease,) = worker.leases
        (worker.actor,) = lease.tasks.values()
        self._staff.became_actor(worker)
        self._ledger.actor_holds(lease, 1)
        return True

    def blocked(self, worker_id: str, awaits: list[Task], returned: list[bytes]) -> None:
        """The task on ``worker_id`` waits in ``get``; what it had queued comes back."""
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        self._take_back(worker, returned)
        if not worker.leases or worker.leases[-1].blocked:
            return
        lease = worker.leases[-1]
        lease.blocked = True
        lease.awaits = deque(awaits)
        lease.backlog = PIPELINE_SECONDS  # of unknown length: nothing is queued behind it again
        if cpus := lease.shape.demand.get("CPU"):
            self.free["CPU"] += cpus
        self._blocked[lease] = worker

    def unblocked(self, worker_id: str) -> None:
        """The task that blocked last goes on."""
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        lease = next((lease for lease in reversed(worker.leases) if lease.blocked), None)
        if lease is None:
            return
        lease.blocked = False
        lease.awaits.clear()
        if cpus := lease.shape.demand.get("CPU"):
            self.free["CPU"] -= cpus  # may overdraw: see the essay
        del self._blocked[lease]
        if lease is not worker.leases[-1]:  # what was to run on top came too late and runs after it
            worker.leases.remove(lease)
            worker.leases.append(lease)

    def returned(self, worker_id: str, tasks: list[bytes]) -> None:
        """A worker gave these back unstarted: the answer to a revoke, or they came while it was blocked."""
        worker = self._workers.get(worker_id)
        if worker is not None:
            worker.revoking = False
            self._take_back(worker, tasks)

    def worker_died(self, worker_id: str, last_started: bytes = b"") -> tuple[list[Task], list[Task]]:
        """Frees what it held. Returns (tasks it had started, tasks it had only queued: requeued here).

        Of those that it had started, one is to blame: ``last_started``, or the first on top when that is not known.
        The others waited beneath it, or had ended and their reports are lost.
        """
        worker = self._staff.died(worker_id)
        if worker is None:
            return [], []
        running: list[Task] = []
        requeued: list[Task] = []
        top = worker.leases[-1] if worker.leases else None
        if not last_started and top is not None:
            last_started = next(iter(top.tasks), b"")
        # On top of what ran at last there is what has ended already, or has not begun: nobody can say.
        beneath = any(last_started in lease.tasks for lease in worker.leases[:-1])
        for lease in reversed(worker.leases):
            tasks = list(lease.tasks.values())  # in order of execution
            started = 1 if lease is not top or lease.blocked or lease.shape.exclusive or beneath else 0
            if last_started in lease.tasks:
                started = 1 + list(lease.tasks).index(last_started)
                lease.tasks[last_started].crashes += 1
            running += tasks[:started]
            requeued += tasks[started:]
            lease.shape.workers.pop(worker_id, None)
            if worker.actor is not None:
                self._ledger.actor_holds(lease, -1)
            self._ledger.end(lease)
            self._blocked.pop(lease, None)
        for task in reversed(requeued):
            self._requeue(task)
        for task in running:
            task.state = WAITING
            task.worker = ""
        return running, requeued

    def retry(self, task: Task) -> None:
        """Queues a task again, ahead of younger ones."""
        self._requeue(task)

    def take_out(self, wanted: Callable[[Task], bool]) -> list[Task]:
        """Takes queued tasks out for a while, oldest first within a shape; :meth:`submit` puts them back."""
        taken = []
        for shape in self._queued_shapes.values():
            queued = [task for task in shape.queue if task.state == QUEUED]
            taken += [task for task in queued if wanted(task)]
            shape.queue = deque(task for task in queued if not wanted(task))
        for task in taken:
            task.state = WAITING
        return taken

    def withdraw(self, task: Task) -> None:
        """Takes a task out that has not been handed out."""
        task.state = GONE

    # ------------------------------------------------------------ decisions

    def plan(self) -> Plan:
        """Hands out what fits; asks for workers where they lack."""
        plan = Plan()
        for lease, worker in reversed(self._blocked.items()):
            if lease is worker.leases[-1]:
                self._nest(worker, lease, plan)
        wanted = 0
        elsewhere: dict[str, int] = {}
        reserved: set[str] = set()
        set_aside: list[tuple[str, int]] = []
        if self._queued_shapes:
            shapes = [shape for shape in self._queued_shapes.values() if shape.head() is not None]
            self._queued_shapes = {id(shape): shape for shape in shapes}
            if len(shapes) > 1:
                shapes.sort(key=lambda shape: shape.queue[0].seq)
            for shape in shapes:
                if reserved and not reserved.isdisjoint(shape.demand):
                    continue
                lacking_workers = self._serve(shape, plan)
                if shape.environment:
                    elsewhere[shape.environment] = elsewhere.get(shape.environment, 0) + lacking_workers
                else:
                    wanted += lacking_workers
                if shape.head() is None:
                    del self._queued_shapes[id(shape)]
                elif not self._fits(shape.demand) and self._will_fit(shape.demand):
                    lacking = self._ledger.lacking(shape.demand, shape.queue[0].lacked)
                    reserved |= lacking
                    shape.queue[0].lacked |= lacking
                    for name in shape.queue[0].lacked:
                        self.free[name] -= shape.demand[name]
                        set_aside.append((name, shape.demand[name]))
                elif lacking_workers and shape.choosy:  # nobody else may take what it needs while its worker starts
                    reserved |= {"GPU"} & shape.demand.keys()
                    for name, amount in shape.demand.items():
                        self.free[name] -= amount
                        set_aside.append((name, amount))
        for name, amount in set_aside:
            self.free[name] += amount
        self._staff.complete(plan, wanted, elsewhere)
        return plan

    def overdue(self) -> list[str]:
        """Workers whose queued tasks should be revoked: others are idle and have nothing to do.

        The daemon asks every few ms while :meth:`has_pipelined` (this machine has no clock). Named is who was in the
        same task the last time: a worker that gets on with its queue keeps it, however busy the node is with others.
        """
        if not self._staff.idle and not self._staff.idle_elsewhere:
            return []
        found = []
        for worker in self._workers.values():
            if worker.revoking or worker.actor is not None or not worker.leases:
                continue
            lease = worker.leases[-1]
            if len(lease.tasks) > 1 and self._fits(lease.shape.demand):
                runs = next(iter(lease.tasks))
                if runs == worker.seen_in:
                    worker.revoking = True
                    found.append(worker.id)
                worker.seen_in = runs
        return found

    def has_pipelined(self) -> bool:
        """Whether :meth:`overdue` could name anybody."""
        return bool(self._staff.idle or self._staff.idle_elsewhere) and any(
            worker.leases and len(worker.leases[-1].tasks) > 1 for worker in self._workers.values()
        )

    def shape_of(self, task: Task) -> Shape:
        shape = self._last_shape
        if (
            shape is not None and shape.demand == task.demand and shape.exclusive == task.exclusive
            and shape.environment == task.environment
        ):
            return shape
        key = (task.exclusive, task.environment, *sorted(task.demand.items()))
        shape = self._shapes.get(key)
        if shape is None:
            feasible = self._ledger.feasible(task.demand)
            if len(self._shapes) >= self._most_shapes:
                self._forget_shapes()
            shape = self._shapes[key] = Shape(task.demand, task.exclusive, task.environment, feasible)
        self._last_shape = shape
        return shape

    def usual_duration(self, function: bytes) -> float | None:
        """Average of a function's tasks in seconds; None while none has ended."""
        return self._averages.get(function)

    def workers(self) -> Collection[Worker]:
        return self._workers.values()

    def busy(self) -> bool:
        """Whether anybody holds a lease."""
        return self._staff.busy()

    # ------------------------------------------------------------ inside

    def _forget_shapes(self) -> None:
        """Those that nobody asks for right now: a task may say how many bytes it needs, and the next other ones."""
        self._shapes = {key: shape for key, shape in self._shapes.items() if shape.queue or shape.workers}
        self._most_shapes = max(SHAPES, 2 * len(self._shapes))

    def _requeue(self, task: Task) -> None:
        """Back to its place by age, which is at or near the front."""
        shape = self.shape_of(task)
        queue = shape.queue
        older = next((i for i, other in enumerate(queue) if other.seq >= task.seq), len(queue))
        if older == len(queue) or queue[older] is not task:  # it is still there after a nested dispatch
            queue.insert(older, task)
        task.state = QUEUED
        task.worker = ""
        task.nested = False
        self._queued_shapes[id(shape)] = shape

    def _serve(self, shape: Shape, plan: Plan) -> int:
        """Gives out a shape's tasks: idle workers first, then pipelines. Returns how many workers lack."""
        demand = shape.demand
        lacking = 0
        while (head := shape.head()) is not None and self._fits(demand):
            worker = self._staff.take(shape, head.prefer)
            if worker is None:
                lacking = self._missing_workers(shape)
                break
            worker.used = True
            lease = Lease(shape)
            self._ledger.grant(lease)
            if lease.gpus:
                plan.gpus = {**plan.gpus, worker.id: list(lease.gpus)}
            worker.leases.append(lease)
            shape.workers[worker.id] = worker
            self._assign(worker, lease, shape.queue.popleft(), plan)
        if shape.queue and shape.workers and not shape.exclusive:
            leased = [
                worker for worker in shape.workers.values()
                if len(worker.leases) == 1 and not worker.leases[0].blocked and not worker.revoking
            ]
            for i, worker in enumerate(leased):
                self._refill(worker, shape, len(leased) - i, plan)
        return lacking

    def _refill(self, worker: Worker, shape: Shape, sharers: int, plan: Plan) -> None:
        """Fills a worker's queue; with few tasks left each of the ``sharers`` gets its part of them."""
        lease = worker.leases[-1]
        averages = self._averages
        room = min(PIPELINE_TASKS - len(lease.tasks), -(-len(shape.queue) // sharers))
        while room > 0 and lease.backlog < PIPELINE_SECONDS:
            head = shape.head()
            if head is None or head.function not in averages:
                return
            if head.prefer != worker.id and head.prefer in shape.workers:
                return
            self._assign(worker, lease, shape.queue.popleft(), plan)
            room -= 1

    def _assign(self, worker: Worker, lease: Lease, task: Task, plan: Plan) -> None:
        task.state = ASSIGNED
        task.worker = worker.id
        lease.tasks[task.id] = task
        lease.backlog += self._averages.get(task.function, PIPELINE_SECONDS) + TASK_OVERHEAD
        batch = plan.dispatch.get(worker.id)
        if batch is None:
            plan.dispatch[worker.id] = [task]
        else:
            batch.append(task)

    def _nest(self, worker: Worker, lease: Lease, plan: Plan) -> None:
        """Lets a worker whose top ``lease`` is blocked run one task that it waits for."""
        while lease.awaits and lease.awaits[0].state in (ASSIGNED, GONE):
            lease.awaits.popleft()
        for task in islice(lease.awaits, NEST_LOOKAHEAD):
            if task.state == QUEUED and not task.exclusive and self._may_nest(lease, task):
                nested = Lease(self.shape_of(task))
                self._ledger.grant(nested)
                worker.leases.append(nested)
                task.nested = True
                self._assign(worker, nested, task, plan)
                return

    def _may_nest(self, lease: Lease, task: Task) -> bool:
        """Whether what is needed is free, and the same process will do for both."""
        if lease.gpus or "GPU" in task.demand or task.environment != lease.shape.environment:
            return False
        return self._fits(task.demand)

    def _drop_lease(self, worker: Worker, lease: Lease) -> None:
        worker.leases.remove(lease)
        self._ledger.end(lease)
        if not any(other.shape is lease.shape for other in worker.leases):
            lease.shape.workers.pop(worker.id, None)
        if lease.gpus:
            self._staff.is_spent(worker)
        elif not worker.leases:
            self._staff.rests(worker)

    def _take_back(self, worker: Worker, tasks: list[bytes]) -> None:
        if not tasks:
            return
        given_back = set(tasks)
        for lease in list(worker.leases):
            found = [task for task_id, task in lease.tasks.items() if task_id in given_back]
            for task in reversed(found):
                del lease.tasks[task.id]
                self._requeue(task)
            if not lease.tasks:
                self._drop_lease(worker, lease)
            elif found:
                lease.backlog = PIPELINE_SECONDS  # of unknown length: nothing is queued behind it again

    def _will_fit(self, demand: dict[str, int]) -> bool:
        """Whether it is enough to wait for the tasks that run."""
        blocked = [lease for lease, worker in self._blocked.items() if worker.actor is None]
        kept = [
            lease.gpus for worker in self._workers.values() for lease in worker.leases
            if lease.gpus and (worker.actor is not None or lease.blocked)
        ] if "GPU" in demand else []  # fmt: skip
        return self._ledger.will_fit(demand, blocked, kept)

    def _missing_workers(self, shape: Shape) -> int:
        """How many more workers this shape could use right now."""
        waiting = min(len(shape.queue), max(self._staff.prestart, 1))
        for name, amount in shape.demand.items():
            waiting = min(waiting, self.free[name] // amount)
        return max(1, waiting)
