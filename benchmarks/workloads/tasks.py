"""Tasks that do nothing: what is left is the engine.

Remote functions are defined inside of the workloads, so that they travel by value on both sides and no
engine has to import this folder in its workers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from .registry import Step, workload

ASYNC = "tasks, 1 client, async"
ROUND_TRIP = "task round trip"
BATCH = 1000
CLIENTS = 4


def _tiny_task(api: ModuleType) -> Any:
    @api.remote
    def tiny() -> bytes:
        return b"ok"

    return tiny


@workload(ASYNC, group="tasks", unit="tasks/s")
def tasks_async(api: ModuleType) -> Iterator[Step]:
    tiny = _tiny_task(api)

    def step() -> float:
        api.get([tiny.remote() for _ in range(BATCH)])
        return BATCH

    yield step


@workload(ROUND_TRIP, group="tasks", unit="tasks/s", latency=True)
def task_round_trip(api: ModuleType) -> Iterator[Step]:
    tiny = _tiny_task(api)

    def step() -> float:
        api.get(tiny.remote())
        return 1

    yield step


@workload("task round trip, busy driver", group="tasks", unit="tasks/s", latency=True)
def task_round_trip_busy(api: ModuleType) -> Iterator[Step]:
    """The round trip while another thread of the driver computes in Python, as a learner's does."""
    tiny = _tiny_task(api)
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            sum(range(2000))

    burner = threading.Thread(target=burn, name="busy", daemon=True)
    burner.start()

    def step() -> float:
        api.get(tiny.remote())
        return 1

    try:
        yield step
    finally:
        stop.set()
        burner.join()


@workload(f"tasks, {CLIENTS} clients", group="tasks", unit="tasks/s")
def tasks_from_clients(api: ModuleType) -> Iterator[Step]:
    tiny = _tiny_task(api)

    @api.remote
    class Client:
        def run(self, count: int) -> None:
            api.get([tiny.remote() for _ in range(count)])

    clients = [Client.remote() for _ in range(CLIENTS)]

    def step() -> float:
        api.get([client.run.remote(BATCH) for client in clients])
        return BATCH * CLIENTS

    yield step


@workload("wait on 1000 refs, one by one", group="tasks", unit="rounds/s")
def wait_one_by_one(api: ModuleType) -> Iterator[Step]:
    tiny = _tiny_task(api)

    def step() -> float:
        pending = [tiny.remote() for _ in range(1000)]
        while pending:
            _, pending = api.wait(pending)
        return 1

    yield step
