"""The shared table of noise, and sums over it.

A perturbation is a slice of one large table of normal numbers, so it travels as the number where it begins (Salimans
et al. 2017, section 2.1). The table is made once, by a task; workers read it in shared memory without a copy, and when
it is lost the task makes the same one again.

Sums are bits, too: floating-point addition depends on its order. So slices are added one after the other in groups of
fixed size, and those by a tree of fixed shape, whoever computes which part: the driver itself while there is only one
group, actors when there are many. A matrix product would be quicker, but a BLAS chooses its order by the number of its
threads, which differs between a driver and a worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import rlflow.engine as engine

from .policies.mlp import Floats
from .seeding import Role, generator

SLICES_PER_SUM = 256
SUMS_PER_SUM = 8


def make_table(seed: int, size: int) -> Floats:
    """[size] normal numbers."""
    return generator(seed, Role.NOISE_TABLE).standard_normal(size, dtype=np.float32)


class Aggregator:
    """Adds slices of the table. As an actor it has no state of its own: one that dies is started again."""

    def __init__(self, table: Floats) -> None:
        self._table = table

    def weighted_sum(self, starts: NDArray[np.int64], weights: Floats, length: int) -> Floats:
        """Σ weights[i] · table[starts[i] : starts[i] + length], from the first to the last → [length]."""
        total, scaled = np.zeros(length, np.float32), np.empty(length, np.float32)
        for start, weight in zip(starts, weights, strict=True):
            np.multiply(self._table[start:start + length], weight, out=scaled)
            total += scaled
        return total

    def sum(self, *parts: Floats) -> Floats:
        """Of [length] each, added in their order → [length]."""
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        return total


class AggregatorTree:
    """Sums whose parts several aggregators share.

    Args:
        table: the shared noise.
        size: how many actors; with none of them, this process adds. The sum does not depend on it.
    """

    def __init__(self, table: engine.ObjectRef, size: int) -> None:
        self._table = table
        cls = engine.remote(max_restarts=-1, max_task_retries=-1)(Aggregator)
        self._actors = [cls.remote(table) for _ in range(size)]
        self._own: Aggregator | None = None

    @staticmethod
    def size_for(slices: int, cpus: float) -> int:
        """Actors that pay: none while there is one group of slices, then at most one for two CPUs."""
        groups = -(-slices // SLICES_PER_SUM)
        return 0 if groups == 1 else min(groups, max(1, int(cpus) // 2))

    def weighted_sum(self, starts: NDArray[np.int64], weights: Floats, length: int) -> Floats:
        """See :meth:`Aggregator.weighted_sum` → [length]; added in groups, and those by a tree."""
        parts: list[Any] = [
            self._call(
                i, "weighted_sum", starts[first:first + SLICES_PER_SUM], weights[first:first + SLICES_PER_SUM], length
            )
            for i, first in enumerate(range(0, len(starts), SLICES_PER_SUM))
        ]
        while len(parts) > 1:
            parts = [
                self._call(i, "sum", *parts[first:first + SUMS_PER_SUM])
                for i, first in enumerate(range(0, len(parts), SUMS_PER_SUM))
            ]
        total: Floats = engine.get(parts[0]) if self._actors else parts[0]
        return total

    def _call(self, i: int, method: str, *args: Any) -> Any:
        """A part of the sum, or the ref of one that an actor computes."""
        if self._actors:
            return getattr(self._actors[i % len(self._actors)], method).remote(*args)
        if self._own is None:
            self._own = Aggregator(engine.get(self._table))
        return getattr(self._own, method)(*args)

    def close(self) -> None:
        for actor in self._actors:
            engine.kill(actor)
        self._actors = []


def centred_ranks(scores: Sequence[float] | NDArray[Any]) -> Floats:
    """Ranks spread evenly over [−½, ½], in the shape of ``scores``; equal scores share the mean of their ranks.

    Salimans et al. 2017, section 2.1 ("fitness shaping").
    """
    flat = np.asarray(scores, np.float64).ravel()
    order = flat.argsort(kind="stable")
    ranks = np.empty(len(flat))
    ranks[order] = np.arange(len(flat))
    _, group, sizes = np.unique(flat, return_inverse=True, return_counts=True)
    shared = np.bincount(group, ranks) / sizes
    centred = shared[group] / max(1, len(flat) - 1) - 0.5
    return centred.astype(np.float32).reshape(np.shape(scores))
