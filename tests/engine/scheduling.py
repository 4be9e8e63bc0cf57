"""Short names for events of the scheduler, and the check of its books, for the tests that feed it by hand."""

from rlflow.engine.node.scheduler import Plan, Scheduler, Task

SHORT = 20e-6
"""Duration of a function whose tasks may be queued behind each other."""

LONG = 1.0


def granted(scheduler: Scheduler) -> dict[str, int]:
    """What all leases together hold; those blocked in ``get`` have given their CPUs back."""
    total = dict.fromkeys(scheduler.capacity, 0)
    for worker in scheduler._workers.values():
        for lease in worker.leases:
            for name, amount in lease.shape.demand.items():
                if not (lease.blocked and name == "CPU"):
                    total[name] += amount
    return total


def assert_books_balance(scheduler: Scheduler) -> None:
    held = granted(scheduler)
    assert {name: scheduler.free[name] + held[name] for name in held} == scheduler.capacity


def everything(handed: dict[str, list[str]]) -> list[str]:
    """What was handed out, no matter to whom."""
    return sorted(name for names in handed.values() for name in names)


class Feed:
    """A scheduler with named tasks and workers, and what it said last."""

    def __init__(self, prestart: int = 8, **capacity: int) -> None:
        self.scheduler = Scheduler(capacity, prestart)
        self.tasks: dict[str, Task] = {}
        self.last = Plan()

    def workers(self, *names: str) -> None:
        for name in names:
            self.scheduler.worker_started(name)

    def submit(
        self, *names: str, function: str = "f", prefer: str = "", exclusive: bool = False, **demand: int
    ) -> None:
        """Tasks of one CPU unless ``demand`` says otherwise."""
        for name in names:
            task = self.tasks[name] = Task(name.encode(), function.encode(), demand or {"CPU": 1}, prefer, exclusive)
            self.scheduler.submit(task)

    def plan(self) -> dict[str, list[str]]:
        """Ids of the tasks handed out now, by worker."""
        self.last = self.scheduler.plan()
        assert_books_balance(self.scheduler)
        return {worker: [task.id.decode() for task in tasks] for worker, tasks in self.last.dispatch.items()}

    def finish(self, worker: str, *names: str, duration: float = LONG) -> None:
        for name in names:
            assert self.scheduler.finished(worker, name.encode(), duration) is self.tasks[name]

    def block(self, worker: str, *awaits: str, returned: tuple[str, ...] = ()) -> None:
        self.scheduler.blocked(worker, [self.tasks[name] for name in awaits], [name.encode() for name in returned])

    def give_back(self, worker: str, *names: str) -> None:
        self.scheduler.returned(worker, [name.encode() for name in names])

    def die(self, worker: str) -> tuple[list[str], list[str]]:
        running, requeued = self.scheduler.worker_died(worker)
        assert_books_balance(self.scheduler)
        return [task.id.decode() for task in running], [task.id.decode() for task in requeued]

    def learn(self, function: str, duration: float, worker: str) -> None:
        """Lets an idle worker run one task of ``function``, so that its duration is known."""
        name = f"first-{function}"
        self.submit(name, function=function)
        assert self.plan() == {worker: [name]}
        self.finish(worker, name, duration=duration)
