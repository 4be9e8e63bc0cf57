"""The workers as the scheduler knows them: who is idle, who is to come, who may go. No I/O.

Most tasks run on any idle worker. Two kinds do not: those with a ``runtime_env`` need a worker that was forked for it,
and those with GPUs one that has run nothing yet (see ``accelerators.py``). Workers of environments are counted apart,
so that ``prestart`` workers of the engine's own are there whatever else is; as many of each kind may stay idle, and
those that were idle longest go.
"""

from __future__ import annotations

from .leases import Plan, Shape, Worker

MAX_WORKERS = 512
"""Actors not counted."""


class Staff:
    """All workers of the node."""

    def __init__(self, prestart: int) -> None:
        self.prestart = prestart
        self.workers: dict[str, Worker] = {}
        self.idle: dict[str, Worker] = {}
        """Of no environment; the last one in was used last."""
        self.idle_elsewhere: dict[str, Worker] = {}
        """Of environments, likewise."""
        self._spent: list[str] = []
        self._actors = 0
        self._elsewhere = 0
        self._starting = 0
        self._starting_elsewhere: dict[str, int] = {}

    def started(self, worker_id: str, environment: str) -> None:
        self.start_failed(environment)  # one less to come
        worker = self.workers[worker_id] = Worker(worker_id, environment)
        if environment:
            self._elsewhere += 1
        self.rests(worker)

    def took_up(self, worker: Worker) -> None:
        """It has a lease that this plan did not give it."""
        worker.used = True
        (self.idle_elsewhere if worker.environment else self.idle).pop(worker.id, None)

    def start_failed(self, environment: str) -> None:
        if environment:
            left = self._starting_elsewhere.pop(environment, 0) - 1
            if left > 0:
                self._starting_elsewhere[environment] = left
        else:
            self._starting = max(0, self._starting - 1)

    def became_actor(self, worker: Worker) -> None:
        if not worker.environment:
            self._actors += 1

    def rests(self, worker: Worker) -> None:
        """It has no lease."""
        (self.idle_elsewhere if worker.environment else self.idle)[worker.id] = worker

    def is_spent(self, worker: Worker) -> None:
        """It had GPUs and goes with the next plan."""
        self._forget(worker)
        self._spent.append(worker.id)

    def died(self, worker_id: str) -> Worker | None:
        """The worker, unless it was on its way out anyway."""
        worker = self.workers.get(worker_id)
        if worker is None:
            if worker_id in self._spent:
                self._spent.remove(worker_id)
            return None
        self._forget(worker)
        (self.idle_elsewhere if worker.environment else self.idle).pop(worker_id, None)
        return worker

    def _forget(self, worker: Worker) -> None:
        del self.workers[worker.id]
        if worker.environment:
            self._elsewhere -= 1
        elif worker.actor is not None:
            self._actors -= 1

    def busy(self) -> bool:
        return len(self.workers) > len(self.idle) + len(self.idle_elsewhere)

    def take(self, shape: Shape, prefer: str) -> Worker | None:
        """An idle worker that may run this shape."""
        idle = self.idle
        if not shape.choosy:
            return (idle.pop(prefer, None) or idle.popitem()[1]) if idle else None
        if shape.environment:
            idle = self.idle_elsewhere
        for worker in reversed(idle.values()):
            if worker.environment == shape.environment and not (shape.gpus and worker.used):
                return idle.pop(worker.id)
        return None

    def complete(self, plan: Plan, wanted: int, wanted_elsewhere: dict[str, int]) -> None:
        """Adds whom to start, for tasks that lack a worker and so that ``prestart`` are no actors, and whom to stop."""
        there = len(self.workers) - self._elsewhere - self._actors + self._starting
        missing = max(wanted - self._starting, self.prestart - there)
        missing = max(0, min(missing, MAX_WORKERS - there))
        self._starting += missing
        plan.start_workers = missing
        if wanted_elsewhere:
            self._start_elsewhere(plan, wanted_elsewhere)
        if self._spent:
            plan.stop_workers, self._spent = self._spent, []
        if len(self.idle) > self.prestart:
            self._stop_surplus(plan, self.idle)
        if len(self.idle_elsewhere) > self.prestart:
            self._stop_surplus(plan, self.idle_elsewhere)

    def _start_elsewhere(self, plan: Plan, wanted: dict[str, int]) -> None:
        missing = {name: count - self._starting_elsewhere.get(name, 0) for name, count in wanted.items()}
        plan.start_elsewhere = {name: count for name, count in missing.items() if count > 0}
        self._starting_elsewhere.update({name: wanted[name] for name in plan.start_elsewhere})

    def _stop_surplus(self, plan: Plan, idle: dict[str, Worker]) -> None:
        for worker_id in list(idle)[: len(idle) - self.prestart]:
            self._forget(idle.pop(worker_id))
            plan.stop_workers.append(worker_id)
