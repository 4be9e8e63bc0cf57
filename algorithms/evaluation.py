"""Evaluation: whole episodes under a fixed policy, as engine tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

import rlflow.engine as engine

from .envs import VectorStepper
from .normalization import Moments, Normaliser
from .observations import ObservationLayout
from .policies.mlp import Floats
from .seeding import Role, generator, integers

EPISODES_PER_TASK = 10
"""Fixed, so that the episodes do not depend on the number of workers."""


class Actor(Protocol):
    """A policy with its weights."""

    def act(self, observations: Floats, random: np.random.Generator | None) -> Any:
        """[N, O] → N actions for the environment: the most likely ones, or drawn with ``random``.

        Called for the steps of N episodes in turn; some remember.
        """


class Policy(Protocol):
    """The shape of a policy, without weights."""

    @property
    def layout(self) -> ObservationLayout: ...

    def bind(self, weights: Floats) -> Actor:
        """With parameters [num_parameters]."""


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of evaluation episodes, in a fixed order."""

    returns: list[float]
    lengths: list[int]

    @property
    def mean_return(self) -> float:
        return float(np.mean(self.returns))

    @property
    def std_return(self) -> float:
        """Of the episodes, not of their mean."""
        return float(np.std(self.returns))

    @property
    def mean_length(self) -> float:
        """In steps."""
        return float(np.mean(self.lengths))

    def as_json(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        return {
            "episodes": len(self.returns), "mean_return": self.mean_return, "std_return": self.std_return,
            "mean_length": self.mean_length, "returns": [float(value) for value in self.returns],
            "lengths": [int(value) for value in self.lengths],
        }


@dataclass(frozen=True)
class TrainedPolicy:
    """All it takes to act as an algorithm would now: to evaluate, film, export or serve it."""

    policy: Policy
    weights: Floats
    """[num_parameters]"""
    moments: Moments | None
    """Of observations, which are normalised by them; ``None``: they are taken as they are."""


def play_episodes(
    env: str, env_kwargs: Mapping[str, Any], policy: Policy, weights: Floats, moments: Moments | None, episodes: int,
    seed: int, chunk: int, deterministic: bool, watch: Callable[[VectorStepper], None] | None = None,
) -> tuple[list[float], list[int]]:
    """The first episode of each of ``episodes`` environments stepped together → (returns, lengths), in their order.

    Counting the first episode of every environment, and not the first episodes to end, keeps long ones in.

    Args:
        weights: [num_parameters].
        moments: of observations [O], which are normalised by them; ``None``: they are not.
        seed, chunk: name the episodes; those of other chunks differ.
        watch: called with the environments before each step, to film them, say.
    """
    stepper = VectorStepper(env, env_kwargs, episodes, first_index=chunk * EPISODES_PER_TASK)
    try:
        bound = policy.bind(weights)
        normalise = None if moments is None else Normaliser(moments, policy.layout)
        random = None if deterministic else generator(seed, Role.EVALUATION_ACTIONS, chunk)
        observations = stepper.reset(integers(seed, Role.EVALUATION_ENVS, chunk, 0, episodes))
        returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
        running = np.ones(episodes, np.bool_)
        while running.any():
            if watch is not None:
                watch(stepper)
            if normalise is not None:
                observations = normalise(observations)
            observations, rewards, terminated, truncated, _ = stepper.step(bound.act(observations, random))
            returns[running] += rewards[running]
            lengths += running
            running &= ~(terminated | truncated)
        return returns.tolist(), lengths.tolist()
    finally:
        stepper.close()


def evaluate(
    env: str, env_kwargs: Mapping[str, Any], policy: Policy, weights: Any, episodes: int,
    seed: int, deterministic: bool = True, moments: Moments | None = None,
) -> Evaluation:
    """``episodes`` whole episodes, :data:`EPISODES_PER_TASK` to a task; ``weights``: a ref
    or a flat vector. ``moments``: of observations, which are normalised by them.

    Raises:
        EnvStepError: an environment raised (as the cause of the engine's TaskError).
    """
    task = engine.remote(play_episodes)
    refs = []
    for chunk, first in enumerate(range(0, episodes, EPISODES_PER_TASK)):
        count = min(EPISODES_PER_TASK, episodes - first)
        refs.append(task.remote(
            env, dict(env_kwargs), policy, weights, moments, count, seed, chunk, deterministic
        ))
    parts = engine.get(refs)
    return Evaluation([r for part in parts for r in part[0]], [n for part in parts for n in part[1]])
