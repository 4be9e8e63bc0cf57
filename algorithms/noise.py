"""The shared table of noise, and sums over it.

A perturbation is a slice of one large table of normal numbers, so it travels as the number where it begins (Salimans
et al. 2017, section 2.1). The table is made once, by a task; workers read it in shared memory without a copy, and when
it is lost the task makes the same one again.

Sums are bits, too: floating-point addition depends on its order. So slices are added in groups of fixed size, and
those by a tree of fixed shape, whoever computes which part.
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
ROWS_AT_ONCE = 32


def make_table(seed: int, size: int) -> Floats:
    """[size] normal numbers."""
    return generator(seed, Role.NOISE_TABLE).standard_normal(size, dtype=np.float32)


class Aggregator:
    """An actor that adds slices of the table. It has no state of its own: one that dies is started again."""

    def __init__(self, table: Floats) -> None:
        self._table = table

    def weighted_sum(self, starts: NDArray[np.int64], weights: Floats, length: int) -> Floats:
        """Σ weights[i] · table[starts[i] : starts[i] + length] → [length]."""
        total = np.zeros(length, np.float32)
        rows = np.empty((ROWS_AT_ONCE, length), np.float32)
        for first in range(0, len(starts), ROWS_AT_ONCE):
            part = starts[first:first + ROWS_AT_ONCE]
            for row, start in zip(rows, part, strict=False):
                row[...] = self._table[start:start + length]
            total += weights[first:first + ROWS_AT_ONCE] @ rows[:len(part)]
        return total

    def sum(self, *parts: Floats) -> Floats:
        """In their order."""
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        return total


class AggregatorTree:
    """Several aggregators that share the work of a sum."""

    def __init__(self, table: engine.ObjectRef, size: int) -> None:
        """``size``: how many aggregators; the sum does not depend on it."""
        cls = engine.remote(max_restarts=-1, max_task_retries=-1)(Aggregator)
        self._actors = [cls.remote(table) for _ in range(size)]

    def weighted_sum(self, starts: NDArray[np.int64], weights: Floats, length: int) -> engine.ObjectRef:
        """See :meth:`Aggregator.weighted_sum`."""
        parts: list[engine.ObjectRef] = [
            self._actor(i).weighted_sum.remote(
                starts[first:first + SLICES_PER_SUM], weights[first:first + SLICES_PER_SUM], length
            )
            for i, first in enumerate(range(0, len(starts), SLICES_PER_SUM))
        ]
        while len(parts) > 1:
            parts = [
                self._actor(i).sum.remote(*parts[first:first + SUMS_PER_SUM])
                for i, first in enumerate(range(0, len(parts), SUMS_PER_SUM))
            ]
        return parts[0]

    def _actor(self, i: int) -> Any:
        return self._actors[i % len(self._actors)]

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
