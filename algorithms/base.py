"""What every algorithm is to the code that runs it: set up, step, evaluate, save, restore, close."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import rlflow.engine as engine

from .config import AlgorithmConfig
from .evaluation import Evaluation, TrainedPolicy, evaluate

__all__ = ["Algorithm", "Evaluation", "TrainedPolicy"]


class Algorithm(ABC):
    """One training run of one algorithm.

    Args:
        config: an instance of :attr:`Config`.
        total_env_steps: length of the run; schedules are evaluated at ``env_steps / total_env_steps``.

    Attributes:
        env_steps: environment transitions trained on so far.
        iteration: calls of :meth:`training_step` so far.
    """

    name: ClassVar[str]
    Config: ClassVar[type[AlgorithmConfig]]
    config: AlgorithmConfig

    def __init__(self, config: AlgorithmConfig, total_env_steps: int) -> None:
        if not isinstance(config, self.Config):
            raise TypeError(
                f"{type(self).__name__} takes a {self.Config.__name__}, got {type(config).__name__}"
            )
        if total_env_steps < 1:
            raise ValueError(f"total_env_steps must be at least 1, got {total_env_steps}")
        self.config = config
        self.total_env_steps = total_env_steps
        self.env_steps = 0
        self.iteration = 0

    @property
    def progress(self) -> float:
        """The part of the run that is done, in [0, 1]."""
        return min(self.env_steps / self.total_env_steps, 1.0)

    @abstractmethod
    def setup(self) -> None:
        """Starts actors and makes the first weights. Needs a running engine."""

    @abstractmethod
    def training_step(self) -> dict[str, float]:
        """One iteration: collects experience, learns from it, returns flat metrics.

        A value that does not exist yet (no episode has ended, say) is left out rather than NaN.
        """

    @abstractmethod
    def trained_policy(self) -> TrainedPolicy:
        """What acts now: it is evaluated, filmed and exported."""

    def evaluate(self, episodes: int, seed: int, deterministic: bool = True) -> Evaluation:
        """Whole episodes under the current policy, as engine tasks; does not touch training."""
        c, trained = self.config, self.trained_policy()
        weights = engine.put(trained.weights)
        return evaluate(c.env, c.env_arguments, trained.policy, weights, episodes, seed, deterministic, trained.moments)

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """All it takes to go on bit for bit: nested dicts of arrays, numbers, text, bools, lists, None."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """Continues from what :meth:`state` gave; call it after :meth:`setup`.

        Raises:
            StateError: it is a state of something else.
        """

    def close(self) -> None:  # noqa: B027 - not every algorithm has something to close
        """Ends the run's actors; the engine goes on. Safe to call twice."""
