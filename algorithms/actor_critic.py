"""What algorithms with a policy and a value network share: the networks' part of the config, and how it is read."""

from __future__ import annotations

from typing import Any

import gymnasium
from pydantic import Field

from .base import Algorithm
from .config import RolloutConfig
from .policies.actor_critic import MlpActorCritic
from .policies.mlp import Activation
from .policies.protocol import Policy


class ActorCriticConfig(RolloutConfig):
    """Shape and first weights of the networks."""

    policy_hidden: tuple[int, ...] = Field(default=(64, 64), strict=False, description="policy network: layers")
    value_hidden: tuple[int, ...] = Field(default=(64, 64), strict=False, description="value network: layers")
    activation: Activation = Field(default="tanh", description="after hidden layers: tanh or relu")
    log_std_init: float = Field(default=0.0, description="first log standard deviation of Box actions")
    orthogonal_init: bool = Field(
        default=True, description="first weights: orthogonal; false: uniform within ±1/√inputs, as torch's own"
    )


class ActorCriticAlgorithm(Algorithm):
    """An algorithm that trains a policy and a value network."""

    config: ActorCriticConfig

    def make_policy(
        self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
    ) -> Policy:
        """The networks' shape for these spaces. Override for another one."""
        c = self.config
        return MlpActorCritic(
            observation_space, action_space, policy_hidden=c.policy_hidden, value_hidden=c.value_hidden,
            activation=c.activation, log_std_init=c.log_std_init, orthogonal=c.orthogonal_init,
        )
