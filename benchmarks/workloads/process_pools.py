"""The standard library's pools of processes, which people would take instead of an engine for plain tasks.

They pickle a function by its name, so it stands here and not inside of a workload. What a pool runs is the same as
the workload of that name: empty tasks, on as many processes as the engines have CPUs.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from .registry import Step
from .tasks import ASYNC, BATCH, ROUND_TRIP

Submit = Callable[[], Any]
Result = Callable[[Any], Any]


def _tiny() -> bytes:
    return b"ok"


@contextmanager
def opened(side: str, processes: int) -> Iterator[tuple[Submit, Result]]:
    """A pool with its defaults: how an empty task is submitted, and how its result is fetched."""
    if side == "pool":
        with multiprocessing.Pool(processes) as pool:
            yield partial(pool.apply_async, _tiny), lambda pending: pending.get()
    else:
        with ProcessPoolExecutor(processes) as executor:
            yield partial(executor.submit, _tiny), lambda pending: pending.result()


@contextmanager
def _tasks_async(submit: Submit, result: Result) -> Iterator[Step]:
    def step() -> float:
        for pending in [submit() for _ in range(BATCH)]:
            result(pending)
        return BATCH

    yield step


@contextmanager
def _round_trip(submit: Submit, result: Result) -> Iterator[Step]:
    def step() -> float:
        result(submit())
        return 1

    yield step


ON_POOLS: dict[str, Callable[[Submit, Result], AbstractContextManager[Step]]] = {
    ASYNC: _tasks_async,
    ROUND_TRIP: _round_trip,
}
"""What pools can run of the workloads, by their names."""
