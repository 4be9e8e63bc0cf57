"""What a workload is, and the list of all of them in the order of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import ModuleType

Step = Callable[[], float]
"""Does one portion of work and returns how much it was, in the workload's unit."""


@dataclass(frozen=True)
class Workload:
    """A program for one engine. Opening ``prepare(api)`` gives the step to be repeated and timed."""

    name: str
    group: str
    """Workloads of one group share a process and an engine; every group starts with fresh ones."""
    unit: str
    prepare: Callable[[ModuleType], AbstractContextManager[Step]]
    latency: bool = False
    """A step is one round trip: its median and 99th percentile are recorded too."""
    once: bool = False
    """Timed on its very first step, without a warm-up."""


WORKLOADS: dict[str, Workload] = {}
GROUPS = ("tasks", "actors", "asyncio actors", "objects", "cold put", "rollouts")
"""In the order of the report."""


def workload(
    name: str, *, group: str, unit: str, latency: bool = False, once: bool = False
) -> Callable[[Callable[[ModuleType], Iterator[Step]]], Callable[[ModuleType], AbstractContextManager[Step]]]:
    """Registers a generator function that prepares, yields the step, and cleans up after it."""

    def register(
        prepare: Callable[[ModuleType], Iterator[Step]],
    ) -> Callable[[ModuleType], AbstractContextManager[Step]]:
        if name in WORKLOADS:
            raise ValueError(f"two workloads are named {name!r}")
        if group not in GROUPS:
            raise ValueError(f"workload {name!r} is in an unknown group {group!r}")
        managed = contextmanager(prepare)
        WORKLOADS[name] = Workload(name, group, unit, managed, latency, once)
        return managed

    return register


def select(patterns: Sequence[str]) -> list[Workload]:
    """The workloads whose name contains one of ``patterns``; all of them when there is none.

    Raises:
        ValueError: a pattern that no name contains.
    """
    for pattern in patterns:
        if not any(pattern.lower() in name.lower() for name in WORKLOADS):
            raise ValueError(f"no workload is named like {pattern!r}; there are: {', '.join(WORKLOADS)}")
    return [
        w for name, w in WORKLOADS.items()
        if not patterns or any(p.lower() in name.lower() for p in patterns)
    ]


def in_groups(workloads: Sequence[Workload]) -> dict[str, list[Workload]]:
    """Workloads by group; groups that none is in are left out."""
    groups = {group: [w for w in workloads if w.group == group] for group in GROUPS}
    return {group: members for group, members in groups.items() if members}
