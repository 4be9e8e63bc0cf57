"""What a run has learned, as a plain function of observations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np

if TYPE_CHECKING:
    from rlflow.algorithms.evaluation import TrainedPolicy


class RunPolicy:
    """Observations in, actions out. Needs no engine.

    Example::

        policy = run.policy
        observation, _ = env.reset()
        observation, reward, *_ = env.step(policy(observation))
    """

    def __init__(self, trained: TrainedPolicy, observation_space: gymnasium.Space[Any]) -> None:
        from rlflow.algorithms.normalization import Normaliser

        self.trained = trained
        self.observation_space = observation_space
        layout = trained.policy.layout
        self._normalise = None if trained.moments is None else Normaliser(trained.moments, layout)
        self.reset()

    def reset(self) -> None:
        """Forgets the episodes so far; at their start, of policies that remember."""
        self._bound = self.trained.policy.bind(self.trained.weights)

    def __call__(self, observations: Any, random: np.random.Generator | None = None) -> Any:
        """The action for one observation, or the actions [N, ...] for a batch of N.

        Args:
            observations: as the environment gives them, one environment's or a vector's.
            random: draws actions from the policy's distribution; without it they are the most likely ones.

        Raises:
            ValueError: the observations are of another environment.
        """
        count = self._count(observations)
        rows = self.trained.policy.layout.encode(observations, 1 if count is None else count)
        if self._normalise is not None:
            rows = self._normalise(rows)
        actions = self._bound.act(rows, random)
        return actions[0] if count is None else actions

    def _count(self, observations: Any) -> int | None:
        """How many there are; ``None``: it is one, and no batch."""
        space, part = self.observation_space, observations
        while isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple):
            key = next(iter(space.spaces)) if isinstance(space, gymnasium.spaces.Dict) else 0
            space, part = space[key], part[key]
        found, one = np.shape(part), space.shape or ()
        if found == one:
            return None
        if found[1:] != one or not found:
            raise ValueError(f"an observation has the shape {one}, a batch of N has {('N', *one)}; got {found}")
        return int(found[0])

    def __repr__(self) -> str:
        return f"RunPolicy({len(self.trained.weights):,} parameters, for observations {self.observation_space})"
