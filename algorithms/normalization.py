"""Observations and rewards on a common scale, by statistics that are frozen while they are used.

The statistics travel with the weights: a rollout or an episode is played with those of the last iteration, and gives
back the moments of what it has seen. These are merged in a fixed order, so that the numbers do not depend on which
worker saw what. What a policy trains on is what it acted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .observations import ObservationLayout
from .policies.mlp import Floats

CLIP = 10.0
EPSILON = 1e-8


@dataclass(frozen=True)
class Moments:
    """How many observations there were, their mean and their summed squared deviations from it."""

    count: int
    mean: NDArray[np.float64]
    """[O]"""
    squares: NDArray[np.float64]
    """[O], Σ (x − mean)²."""

    @classmethod
    def none(cls, size: int) -> Moments:
        return cls(0, np.zeros(size), np.zeros(size))

    @classmethod
    def of(cls, observations: NDArray[Any]) -> Moments:
        """Of [N, O]."""
        wide = observations.astype(np.float64)
        if not len(wide):
            return cls.none(wide.shape[1])
        mean = wide.mean(axis=0)
        return cls(len(wide), mean, np.square(wide - mean).sum(axis=0))

    def merged(self, others: Iterable[Moments]) -> Moments:
        """With those of others, in their order (Chan et al. 1983, "Algorithms for computing the sample variance")."""
        count, mean, squares = self.count, self.mean, self.squares
        for other in others:
            total = count + other.count
            if not other.count:
                continue
            apart = other.mean - mean
            mean = mean + apart * (other.count / total)
            squares = squares + other.squares + np.square(apart) * (count * other.count / total)
            count = total
        return Moments(count, mean, squares)

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "squares": self.squares}


class Normaliser:
    """What the moments do to observations; before there are two observations, nothing.

    Args:
        layout: of the observations; what it says is not to be normalised stays as it is.

    Raises:
        UnsupportedSpaceError: that is all of it.
    """

    def __init__(self, moments: Moments, layout: ObservationLayout | None = None) -> None:
        self.mean = np.zeros(len(moments.mean), np.float32)
        self.scale = np.ones(len(moments.mean), np.float32)
        columns = np.ones(len(self.mean), np.bool_) if layout is None else layout.normalised_columns()
        if moments.count > 1:
            deviations = np.sqrt(moments.squares / moments.count + EPSILON)
            self.mean[columns] = moments.mean[columns]
            self.scale[columns] = 1.0 / deviations[columns]
        self._limit: Any = CLIP if columns.all() else np.where(columns, np.float32(CLIP), np.float32(np.inf))

    def __call__(self, observations: Floats) -> Floats:
        """[..., O] → [..., O], within ±10 where they are normalised."""
        centred = observations - self.mean
        centred *= self.scale
        return np.clip(centred, -self._limit, self._limit, out=centred)


@dataclass(frozen=True)
class Statistics:
    """What rollouts of a run have seen so far."""

    observations: Moments
    returns: Moments
    """Of discounted returns, [1]: rewards are divided by their standard deviation."""

    @classmethod
    def none(cls, observation_size: int) -> Statistics:
        return cls(Moments.none(observation_size), Moments.none(1))

    def merged(self, others: Sequence[Statistics]) -> Statistics:
        return Statistics(
            self.observations.merged(other.observations for other in others),
            self.returns.merged(other.returns for other in others),
        )

    def state(self) -> dict[str, Any]:
        return {"observations": self.observations.state(), "returns": self.returns.state()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Statistics:
        return cls(Moments(**state["observations"]), Moments(**state["returns"]))


def scaled(rewards: Floats, returns: Moments) -> Floats:
    """Rewards [T, B] over the standard deviation of discounted returns, within ±10; their mean stays what it is.

    As in Huang et al. 2022, "The 37 implementation details of PPO".
    """
    if returns.count < 2:
        return rewards
    deviation = float(np.sqrt(returns.squares[0] / returns.count + EPSILON))
    clipped: Floats = np.clip(rewards / np.float32(deviation), -CLIP, CLIP)
    return clipped
