"""A policy network alone, for algorithms that need no values: observations in, actions out."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from ..errors import UnsupportedSpaceError
from ..observations import ObservationLayout
from .heads import Head, head_for
from .mlp import Activation, Floats, Mlp, MlpSpec


class MlpActor:
    """The shape of a policy; holds no parameters, travels to workers.

    Args:
        observation_space: of one environment.
        action_space: of one environment.
        hidden: sizes of hidden layers; none is a linear policy.
        activation: after each hidden layer.

    Raises:
        UnsupportedSpaceError: a space this policy cannot work with.
    """

    def __init__(
        self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any], *,
        hidden: tuple[int, ...] = (64, 64), activation: Activation = "tanh",
    ) -> None:
        self.layout = ObservationLayout(observation_space)
        if self.layout.has_images or self.layout.mask_size:
            what = "an action mask" if self.layout.mask_size else "images"
            raise UnsupportedSpaceError(
                f"observation space {observation_space} has {what}, which populations of networks do not support: "
                "use ppo or a3c"
            )
        self.head: Head = head_for(action_space)
        self.network = MlpSpec((self.layout.size, *hidden, self.head.num_outputs), activation)

    def initial_parameters(self, rng: np.random.Generator) -> Floats:
        """[num_parameters]: orthogonal, last gain 0.01."""
        return self.network.initialise(rng, output_gain=0.01)

    def bind(self, weights: Floats) -> BoundActor:
        """With parameters [num_parameters]."""
        return BoundActor(self, weights)


class BoundActor:
    """An :class:`MlpActor` that can act."""

    def __init__(self, shape: MlpActor, parameters: Floats) -> None:
        self._head = shape.head
        self._network = Mlp(shape.network, parameters)

    def act(self, observations: Floats, random: np.random.Generator | None) -> Any:
        """[N, O] → actions for the environment; there is no noise on them, whether ``random`` is given or not."""
        del random
        return self._head.to_env(self._head.mode(self._network.forward(observations)))
