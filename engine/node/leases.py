"""What the scheduler decides about: tasks, shapes of tasks, and the leases under which workers run them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from .accelerators import Share

WAITING, QUEUED, ASSIGNED, GONE = range(4)


class Task(msgspec.Struct, eq=False, gc=False):
    """A task as the node sees it. ``payload`` is the daemon's and not looked at here.

    A struct of msgspec's is made in a quarter of the time that a class takes.
    """

    id: bytes
    function: bytes
    demand: dict[str, int]
    prefer: str = ""
    exclusive: bool = False
    """The creation of an actor: alone on its worker."""
    payload: Any = None
    environment: str = ""
    """Of its worker: one forked for it, or any of the engine's own."""
    attempt: int = 0
    seq: int = 0
    state: int = WAITING
    worker: str = ""
    nested: bool = False
    """Handed out to run on top of a blocked task."""
    lacked: frozenset[str] = frozenset()
    """Resources that were not there when it was the oldest."""
    cancelled: bool = False
    crashes: int = 0
    """Workers that died while they ran it."""


class Shape:
    """All queued tasks that ask for the same amounts and the same environment (actor creations apart)."""

    __slots__ = ("choosy", "demand", "environment", "exclusive", "feasible", "gpus", "queue", "workers")

    def __init__(self, demand: dict[str, int], exclusive: bool, environment: str, feasible: bool) -> None:
        self.demand = demand
        self.gpus = demand.get("GPU", 0)
        self.exclusive = exclusive
        self.environment = environment
        self.choosy = bool(environment or self.gpus)  # not any idle worker will do
        self.feasible = feasible
        self.queue: deque[Task] = deque()  # by age
        self.workers: dict[str, Worker] = {}

    def head(self) -> Task | None:
        while self.queue and self.queue[0].state != QUEUED:  # taken out of order by a nested dispatch
            self.queue.popleft()
        return self.queue[0] if self.queue else None


class Lease:
    """A shape's amounts in the hands of a worker, with the tasks it runs under them."""

    __slots__ = ("awaits", "backlog", "blocked", "gpus", "shape", "tasks")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.tasks: dict[bytes, Task] = {}
        self.backlog = 0.0
        self.blocked = False
        self.awaits: deque[Task] = deque()
        self.gpus: Share = {}


class Worker:
    """A worker process; its leases form a stack, the top one runs and those below are blocked in ``get``."""

    __slots__ = ("actor", "environment", "id", "leases", "revoking", "seen_in", "used")

    def __init__(self, worker_id: str, environment: str = "") -> None:
        self.id = worker_id
        self.environment = environment
        self.leases: list[Lease] = []
        self.actor: Task | None = None
        self.revoking = False
        self.seen_in = b""
        """The task it ran when the node last looked for those that are held up."""
        self.used = False
        """It has had a lease."""


@dataclass
class Held:
    """A task that a worker says it has."""

    task: Task
    begun: bool = True
    """False: it is in the worker's queue."""
    blocked: bool = False
    awaits: list[Task] = field(default_factory=list)


class Plan:
    """What the daemon shall do now. What few plans have is not made for each."""

    start_workers = 0
    start_elsewhere: Mapping[str, int] = MappingProxyType({})
    """Workers to be forked for environments, by environment."""
    gpus: Mapping[str, list[int]] = MappingProxyType({})
    """Devices of workers that are handed a task with GPUs."""

    def __init__(self) -> None:
        self.dispatch: dict[str, list[Task]] = {}
        self.stop_workers: list[str] = []
