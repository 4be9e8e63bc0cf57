"""A policy network and a value network with nothing shared, over one flat parameter vector.

Layout of the vector: policy network, value network, log standard deviations (heads of Box actions only).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedSpaceError
from ..observations import ObservationLayout
from .heads import Head, StateDependentGaussian, forbid, head_for
from .mlp import Activation, Floats, Mlp, MlpSpec

if TYPE_CHECKING:  # which imports torch
    from ..learner import Learner


class MlpActorCritic:
    """The shape of a policy; holds no parameters, travels to workers.

    Args:
        observation_space: of one environment.
        action_space: of one environment.
        policy_hidden, value_hidden: sizes of hidden layers.
        activation: after each hidden layer.
        log_std_init: where log standard deviations start (heads of Box actions).
        orthogonal: how weights start; else uniformly, as torch's do.
        sde_sample_freq: for state-dependent exploration, see :class:`StateDependentGaussian`; ``None``: without.

    Raises:
        UnsupportedSpaceError: a space this policy cannot work with.
    """

    memory_size = 0

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
        sde_sample_freq: int | None = None,
    ) -> None:
        self.layout = ObservationLayout(observation_space)
        if self.layout.has_images:
            raise UnsupportedSpaceError(
                f"observation space {observation_space} has images; a network of fully connected layers alone would "
                "need torch for them: TorchActorCritic"
            )
        inputs = self.layout.feature_size
        if sde_sample_freq is None:
            self.head: Head = head_for(action_space)
        else:
            self.head = exploring_head(action_space, (inputs, *policy_hidden)[-1], sde_sample_freq)
        check_mask(self.layout, self.head, action_space)
        self.policy_spec = MlpSpec((inputs, *policy_hidden, self.head.num_outputs), activation)
        self.value_spec = MlpSpec((inputs, *value_hidden, 1), activation)
        self.log_std_init = log_std_init
        self.orthogonal = orthogonal
        self.log_std_size = int(np.prod(self.head.log_std_shape)) if self.head.log_std_shape else 0

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

    def learner(self, weights: Floats, device: str = "cpu") -> Learner:
        """That trains a copy of parameters [num_parameters]; elsewhere than on the processor through torch whole."""
        if device != "cpu":
            from ..module_learner import DeviceLearner

            return DeviceLearner(self, weights, device)
        from ..learner import OutputLearner

        return OutputLearner(self, weights)

    def build(self, layout: ObservationLayout, num_outputs: int) -> Any:
        """The same two networks as a torch module, with parameters in the flat vector's order."""
        from .torch_networks import MlpNetworks

        return MlpNetworks(self.policy_spec, self.value_spec)


class BoundActorCritic:
    """An :class:`MlpActorCritic` with parameters (and a gradient, to be trained), all views of flat vectors.

    Attributes:
        policy: features of observations [N, feature_size] → outputs of the head [N, num_outputs].
        value: features of observations → [N, 1].
        log_std: ``None`` for heads without.
    """

    def __init__(self, shape: MlpActorCritic, parameters: Floats, gradient: Floats | None = None) -> None:
        self.shape = shape
        self.head = shape.head
        self.layout = shape.layout
        gradients = (None, None, None) if gradient is None else shape.split(gradient)
        policy, value, log_std = shape.split(parameters)
        self.policy = Mlp(shape.policy_spec, policy, gradients[0])
        self.value = Mlp(shape.value_spec, value, gradients[1])
        form = shape.head.log_std_shape
        self.log_std = log_std.reshape(form) if form else None
        self.log_std_gradient = gradients[2].reshape(form) if form and gradients[2] is not None else None
        self._plain = not self.layout.mask_size and self.head.row_size == self.head.num_outputs

    def initial_memory(self, count: int) -> None:
        """Nothing is remembered."""

    def step(self, observations: NDArray[Any], memory: Floats | None) -> tuple[Floats, None, None]:
        """See :class:`BoundPolicy`; values are cheaper in one batch."""
        return self.rows(observations), None, None

    def rows(self, observations: NDArray[Any]) -> Floats:
        """[N, O] → the head's rows [N, row_size]."""
        outputs = self.policy.forward(self.layout.features(observations))
        if self._plain:
            return outputs
        if self.head.row_size > self.head.num_outputs:
            return np.concatenate([outputs, self.policy.features], axis=1)
        masks = self.layout.masks(observations)
        return outputs if masks is None else forbid(outputs, masks)

    def values(self, observations: NDArray[Any], memory: Floats | None = None) -> Floats:
        """V: [N, O] → [N], in a buffer that the next call overwrites."""
        return self.value.forward(self.layout.features(observations))[:, 0]

    def act(self, observations: NDArray[Any], random: np.random.Generator | None) -> Any:
        """[N, O] → N actions for the environment: the most likely ones, or drawn with ``random``."""
        return act(self.head, self.rows(observations), self.log_std, random)


def act(head: Head, rows: Floats, log_std: Floats | None, random: np.random.Generator | None) -> Any:
    """The head's rows [N, row_size] → N actions for the environment: the most likely ones, or drawn."""
    if random is None:
        return head.to_env(head.mode(rows))
    return head.to_env(head.sample(rows, log_std, head.noise(random, (1, len(rows)))[0]))


def exploring_head(action_space: gymnasium.Space[Any], features: int, sample_freq: int) -> StateDependentGaussian:
    """For state-dependent exploration.

    Raises:
        UnsupportedSpaceError: actions are no Box of floats.
    """
    if not isinstance(action_space, gymnasium.spaces.Box) or not np.issubdtype(action_space.dtype, np.floating):
        raise UnsupportedSpaceError(f"use_sde is for actions of a Box of floats; {action_space} has none: leave it out")
    return StateDependentGaussian(action_space, features, sample_freq)


def check_mask(layout: ObservationLayout, head: Head, action_space: gymnasium.Space[Any]) -> None:
    """Raises UnsupportedSpaceError when observations have an action mask that does not fit the actions."""
    if layout.mask_size and not (head.maskable and layout.mask_size == head.num_outputs):
        wanted = f"{head.num_outputs} values, one for each choice" if head.maskable else "none"
        raise UnsupportedSpaceError(
            f"observations have an action_mask of {layout.mask_size} values; actions of {action_space} take {wanted}"
        )
