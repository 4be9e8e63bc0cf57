"""Values in the object store, small and large."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np

from .registry import Step, workload

MB = 1_000_000
MANY = 10_000


@workload("get a small object", group="objects", unit="gets/s")
def get_small(api: ModuleType) -> Iterator[Step]:
    ref = api.put(0)

    def step() -> float:
        for _ in range(100):
            api.get(ref)
        return 100

    yield step


@workload("put a small object", group="objects", unit="puts/s")
def put_small(api: ModuleType) -> Iterator[Step]:
    def step() -> float:
        for _ in range(100):
            api.put(0)
        return 100

    yield step


def _put_step(api: ModuleType, megabytes: int) -> Step:
    # Ones, not zeros: untouched zero pages all map to one page, which would read faster than data does.
    array = np.ones(megabytes * MB // 8)

    def step() -> float:
        api.put(array)
        return array.nbytes / 1e9

    return step


@workload("put arrays of 1 MB", group="objects", unit="GB/s")
def put_1_mb(api: ModuleType) -> Iterator[Step]:
    yield _put_step(api, 1)


@workload("put arrays of 8 MB", group="objects", unit="GB/s")
def put_8_mb(api: ModuleType) -> Iterator[Step]:
    yield _put_step(api, 8)


@workload("put arrays of 100 MB", group="objects", unit="GB/s")
def put_100_mb(api: ModuleType) -> Iterator[Step]:
    yield _put_step(api, 100)


@workload("get an array of 100 MB", group="objects", unit="gets/s")
def get_large(api: ModuleType) -> Iterator[Step]:
    ref = api.put(np.ones(100 * MB // 8))

    def step() -> float:
        array = api.get(ref)
        return float(array[0])  # 1.0: touched, so that a lazy engine has to map it

    yield step


@workload("get an object of 10k refs", group="objects", unit="gets/s")
def get_many_refs(api: ModuleType) -> Iterator[Step]:
    @api.remote
    def make() -> list[Any]:
        return [api.put(1) for _ in range(MANY)]

    holder = make.remote()

    def step() -> float:
        refs = api.get(holder)
        if len(refs) != MANY:
            raise AssertionError(f"{len(refs)} refs came back instead of {MANY}")
        return 1

    yield step


@workload("first put of 100 MB, cold", group="cold put", unit="GB/s", once=True)
def first_put(api: ModuleType) -> Iterator[Step]:
    yield _put_step(api, 100)
