"""What PPO and A3C share: groups of environments that play rollouts, what those tell, and how far they are.

How rollouts are sent out and learned from is each algorithm's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from pydantic import Field

import rlflow.engine as engine

from .actor_critic import ActorCriticAlgorithm, ActorCriticConfig
from .config import AlgorithmConfig
from .envs import spaces_of
from .episodes import EpisodeLog
from .normalization import Moments, Statistics
from .rollout import Normalisation, RolloutReport, RolloutSpec, RolloutState, forget
from .states import pack_rollout_state, unpack_groups


class OnPolicyConfig(ActorCriticConfig):
    """What rollouts are made with."""

    rollout_length: int = Field(ge=1, description="T, steps of each environment in a rollout")
    gamma: float = Field(default=0.99, ge=0, le=1, description="discount γ")
    normalize_observations: bool = Field(
        default=False, description="zero mean, unit variance, by what was seen before the iteration"
    )
    normalize_rewards: bool = Field(
        default=False, description="unit variance of discounted returns, by what was seen before the iteration"
    )


class OnPolicyAlgorithm(ActorCriticAlgorithm):
    """An algorithm that learns from rollouts of its newest policies.

    Attributes:
        episodes: of all groups, the last hundred.
        policy: made by :meth:`make_policy`, after :meth:`_make_policy`.
    """

    config: OnPolicyConfig

    def __init__(self, config: AlgorithmConfig, total_env_steps: int) -> None:
        super().__init__(config, total_env_steps)
        self.episodes = EpisodeLog()
        self._run = ""
        self._states: list[engine.ObjectRef] = []
        """By group: where it stands, a :class:`RolloutState`."""

    def _make_policy(self) -> None:
        """For the environment's spaces, with statistics of nothing yet."""
        c = self.config
        spaces = engine.get(engine.remote(spaces_of).remote(c.env, c.env_arguments))
        self.policy = self.make_policy(*spaces)
        self._statistics = Statistics.none(self.policy.layout.size)

    def _rollouts_from(self, states: Sequence[RolloutState], successors: bool = False) -> RolloutSpec:
        """The groups begin in ``states``; returns what their rollouts are from here on."""
        c = self.config
        self._run = uuid4().hex  # a new name: no environment kept in a worker belongs to these states
        self._states = [engine.put(state) for state in states]
        return RolloutSpec(
            self._run, c.env, c.env_arguments, c.seed, c.num_envs // c.env_groups, c.rollout_length, self.policy,
            c.gamma, successors, c.episode_info,
        )

    @property
    def _normalises(self) -> bool:
        return self.config.normalize_observations or self.config.normalize_rewards

    def _normalisation(self) -> engine.ObjectRef | None:
        """By what was seen so far; ``None``: nothing is normalised."""
        c = self.config
        if not self._normalises:
            return None
        return engine.put(Normalisation(self._statistics, c.normalize_observations, c.normalize_rewards))

    def _note(self, reports: Sequence[RolloutReport]) -> None:
        """Takes in what rollouts tell."""
        self.env_steps += sum(report.steps for report in reports)
        for report in reports:
            self.episodes.add(report.episode_returns, report.episode_lengths, report.episode_info)
        seen = [report.statistics for report in reports if report.statistics is not None]
        self._statistics = self._statistics.merged(seen)

    @property
    def _moments(self) -> Moments | None:
        """That the policy's observations are normalised by."""
        return self._statistics.observations if self.config.normalize_observations else None

    def _collected_state(self, states: Sequence[engine.ObjectRef]) -> dict[str, Any]:
        """The part of :meth:`state` that is about collecting; ``states``: by group, where it is to go on."""
        found: list[RolloutState] = engine.get(list(states))
        return {
            "algorithm": self.name,
            "env_steps": self.env_steps, "iteration": self.iteration, "episodes": self.episodes.state(),
            "statistics": self._statistics.state(), "groups": [pack_rollout_state(state) for state in found],
        }

    def _load_collected_state(self, state: dict[str, Any]) -> list[RolloutState]:
        """Takes in what :meth:`_collected_state` gave; returns where the groups stood.

        Raises:
            StateError: it is of another algorithm, or of another number of groups.
        """
        groups = unpack_groups(state, self.name, self.config.env_groups)
        self.env_steps, self.iteration = state["env_steps"], state["iteration"]
        self.episodes.load_state(state["episodes"])
        if "statistics" in state:  # A3C's first checkpoints had none
            self._statistics = Statistics.from_state(state["statistics"])
        return groups

    def close(self) -> None:
        forget(self._run)  # the inline engine has them in this process
