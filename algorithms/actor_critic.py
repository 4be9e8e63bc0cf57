"""What algorithms with a policy and a value network share: the networks' part of the config, and how it is read."""

from __future__ import annotations

from typing import Any

import gymnasium
from pydantic import Field, model_validator

from .base import Algorithm
from .config import RolloutConfig
from .errors import UnsupportedSpaceError
from .observations import ObservationLayout
from .policies.actor_critic import MlpActorCritic
from .policies.mlp import Activation
from .policies.protocol import Policy
from .policies.torch_actor_critic import Kind, NetworkSpec, TorchActorCritic, network_for


class ActorCriticConfig(RolloutConfig):
    """Shape and first weights of the networks."""

    network: Kind | None = Field(
        default=None,
        description="mlp, or for images nature or impala, which convolve; null: by what the observations are",
    )
    lstm_size: int = Field(
        default=0, ge=0, description="cells of an LSTM behind the network, which remembers through an episode; 0: none"
    )
    policy_hidden: tuple[int, ...] = Field(
        default=(64, 64), strict=False, description="mlp's layers; with an LSTM or images the value network's, too"
    )
    value_hidden: tuple[int, ...] = Field(default=(64, 64), strict=False, description="layers of mlp's value network")
    activation: Activation = Field(default="tanh", description="after mlp's hidden layers: tanh or relu")
    log_std_init: float = Field(default=0.0, description="first log standard deviation of Box actions")
    use_sde: bool = Field(
        default=False, description="exploration of Box actions by noise that depends on the state and stays for a while"
    )
    sde_sample_freq: int = Field(
        default=-1, ge=-1, description="with use_sde: steps after which noise is drawn anew; -1: once a rollout"
    )
    orthogonal_init: bool = Field(
        default=True, description="first weights: orthogonal; false: uniform within ±1/√inputs, as torch's own"
    )

    @model_validator(mode="after")
    def _sde_sample_freq(self) -> ActorCriticConfig:
        if self.sde_sample_freq == 0:
            raise ValueError("sde_sample_freq (0) must be a number of steps, or -1 for once a rollout")
        return self


class ActorCriticAlgorithm(Algorithm):
    """An algorithm that trains a policy and a value network."""

    config: ActorCriticConfig

    def make_policy(
        self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
    ) -> Policy:
        """The networks' shape for these spaces. Override for another one."""
        c = self.config
        layout = ObservationLayout(observation_space)
        network = c.network or network_for(layout)
        sde = c.sde_sample_freq if c.use_sde else None
        if network != "mlp" and not layout.has_images:
            raise UnsupportedSpaceError(
                f"network: {network} is for images; observation space {observation_space} has none: take mlp, or leave "
                "it out"
            )
        if layout.has_images or c.lstm_size:
            build = NetworkSpec(network, c.policy_hidden, c.activation, c.lstm_size, c.orthogonal_init)
            return TorchActorCritic(
                observation_space, action_space, build, log_std_init=c.log_std_init, sde_sample_freq=sde
            )
        return MlpActorCritic(
            observation_space, action_space, policy_hidden=c.policy_hidden, value_hidden=c.value_hidden,
            activation=c.activation, log_std_init=c.log_std_init, orthogonal=c.orthogonal_init,
            sde_sample_freq=sde,
        )
