"""A policy network and a value network with nothing shared, over one flat parameter vector.

Layout of the vector: policy network, value network, log standard deviations (Gaussian heads only).
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from .heads import Head, head_for, observation_size
from .mlp import Activation, Floats, Mlp, MlpSpec


class MlpActorCritic:
    """The shape of a policy; holds no parameters, travels to workers.

    Args:
        observation_space: of one environment; flattened.
        action_space: of one environment.
        policy_hidden, value_hidden: sizes of hidden layers.
        activation: after each hidden layer.
        log_std_init: where log standard deviations start (Gaussian heads).
        orthogonal: how weights start; else uniformly, as torch's do.

    Raises:
        UnsupportedSpaceError: a space this policy cannot work with.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
        *,
        policy_hidden: tuple[int, ...] = (64, 64),
        value_hidden: tuple[int, ...] = (64, 64),
        activation: Activation = "tanh",
        log_std_init: float = 0.0,
        orthogonal: bool = True,
    ) -> None:
        self.observation_size = observation_size(observation_space)
        self.head: Head = head_for(action_space)
        self.policy_spec = MlpSpec((self.observation_size, *policy_hidden, self.head.num_outputs), activation)
        self.value_spec = MlpSpec((self.observation_size, *value_hidden, 1), activation)
        self.log_std_init = log_std_init
        self.orthogonal = orthogonal
        self.log_std_size = self.head.num_outputs if self.head.has_log_std else 0

    @property
    def num_parameters(self) -> int:
        return self.policy_spec.num_parameters + self.value_spec.num_parameters + self.log_std_size

    def initial_parameters(self, rng: np.random.Generator) -> Floats:
        """[num_parameters]; orthogonal ones with last gain 0.01 (policy: nearly uniform actions) and 1 (value)."""
        specs = ((self.policy_spec, 0.01), (self.value_spec, 1.0))
        return np.concatenate([
            *(
                spec.initialise(rng, gain) if self.orthogonal else spec.initialise_uniform(rng)
                for spec, gain in specs
            ),
            np.full(self.log_std_size, self.log_std_init, np.float32),
        ])

    def split(self, flat: Floats) -> tuple[Floats, Floats, Floats]:
        """Views into [num_parameters]: policy network, value network, log standard deviations, if any."""
        policy_end = self.policy_spec.num_parameters
        value_end = policy_end + self.value_spec.num_parameters
        return flat[:policy_end], flat[policy_end:value_end], flat[value_end:]

    def bind(self, weights: Floats) -> BoundActorCritic:
        """With parameters [num_parameters]."""
        return BoundActorCritic(self, weights)


class BoundActorCritic:
    """An :class:`MlpActorCritic` with parameters (and a gradient, to be trained), all views of flat vectors.

    Attributes:
        policy: observations [N, O] → outputs of the head [N, num_outputs].
        value: observations [N, O] → [N, 1].
        log_std: [A], or ``None`` for heads without.
    """

    def __init__(self, shape: MlpActorCritic, parameters: Floats, gradient: Floats | None = None) -> None:
        self.shape = shape
        self.head = shape.head
        gradients = (None, None, None) if gradient is None else shape.split(gradient)
        policy, value, log_std = shape.split(parameters)
        self.policy = Mlp(shape.policy_spec, policy, gradients[0])
        self.value = Mlp(shape.value_spec, value, gradients[1])
        self.log_std = log_std if shape.head.has_log_std else None
        self.log_std_gradient = gradients[2] if shape.head.has_log_std else None

    def act(self, observations: Floats, random: np.random.Generator | None) -> Any:
        """[N, O] → N actions for the environment: the most likely ones, or drawn with ``random``."""
        outputs = self.policy.forward(observations)
        if random is None:
            return self.head.to_env(self.head.mode(outputs))
        return self.head.to_env(self.head.sample(outputs, self.log_std, self.head.noise(random, (len(outputs),))))
