"""Trajectories of recurrent policies, cut into minibatches of whole columns.

A recurrent network is trained on what it saw in order: a minibatch is some environments' rows of a rollout, from the
memory that the rollout began with, and through the ends of episodes, where memory is cleared as it was then. Rows keep
the numbers that ``flatten`` gives them, so that everything else about a transition is found by its row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .policies.mlp import Floats
from .rollout import Trajectory


@dataclass(frozen=True)
class Sequences:
    """T steps of n environments, for a learner in place of observations [N, O]; N are the valid rows, by (t, n)."""

    observations: Any
    """[T, n, O], an array, or a tensor where the learner's is."""
    first: NDArray[np.bool_]
    """[T, n]: memory is cleared before this row."""
    valid: NDArray[np.bool_]
    """[T, n]"""
    memory: Floats
    """[n, M], before the first row."""


class Columns:
    """The environments of all groups, in group order, as columns of T rows.

    Args:
        trajectories: of a recurrent policy, all of the same length.
        place: ``Learner.place``, of the learner that trains on them.
    """

    def __init__(self, trajectories: Sequence[Trajectory], place: Callable[[NDArray[Any]], Any] = np.asarray) -> None:
        recurrences = [t.recurrence for t in trajectories if t.recurrence is not None]
        assert len(recurrences) == len(trajectories)
        self._place = place
        self._observations = place(np.concatenate([t.observations for t in trajectories], axis=1))
        self._first = np.concatenate([each.first for each in recurrences], axis=1)
        self._memory = np.concatenate([each.memory for each in recurrences])
        numbers, so_far = [], 0
        for t in trajectories:
            count = int(t.valid.sum())
            number = np.full(t.valid.shape, -1)
            number[t.valid] = np.arange(so_far, so_far + count)
            numbers.append(number)
            so_far += count
        self._numbers = np.concatenate(numbers, axis=1)

    def __len__(self) -> int:
        return len(self._memory)

    def pick(self, columns: NDArray[np.int64]) -> tuple[Sequences, NDArray[np.int64]]:
        """The sequences of these columns [n], and the numbers of their valid rows [N] in ``flatten``'s arrays."""
        numbers = self._numbers[:, columns]
        valid = numbers >= 0
        sequences = Sequences(
            self._observations[:, self._place(columns)], self._first[:, columns], valid, self._memory[columns]
        )
        return sequences, numbers[valid]
