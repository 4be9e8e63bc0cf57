"""Action distributions in NumPy, for rollouts: the policy network's outputs → actions, log-probabilities.

Sampling takes the noise from outside, so a rollout draws all of it at once and a step adds it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedSpaceError
from .mlp import Floats, as_float32

LOG_2PI = float(np.log(2.0 * np.pi))


class Categorical:
    """Over a Discrete space of n actions; the network's outputs are logits [..., n]."""

    kind = "categorical"
    has_log_std = False

    def __init__(self, space: gymnasium.spaces.Discrete) -> None:
        self.num_outputs = int(space.n)
        self._start = int(space.start)

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Gumbel noise [*shape, n]: argmax(logits + noise) is a draw from softmax(logits)."""
        return rng.gumbel(size=(*shape, self.num_outputs)).astype(np.float32)

    def sample(self, outputs: Floats, log_std: Floats | None, noise: Floats) -> NDArray[np.int64]:
        """[N, n] logits → [N] actions, counted from 0."""
        actions: NDArray[np.int64] = (outputs + noise).argmax(axis=1)
        return actions

    def mode(self, outputs: Floats) -> NDArray[np.int64]:
        actions: NDArray[np.int64] = outputs.argmax(axis=1)
        return actions

    def log_prob(self, outputs: Floats, log_std: Floats | None, actions: NDArray[Any]) -> Floats:
        """[N, n] logits and [N] actions → [N]."""
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        chosen = shifted[np.arange(len(actions)), actions]
        result: Floats = chosen - np.log(np.exp(shifted).sum(axis=1))
        return result

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """What the environment is given for these actions."""
        return actions + self._start if self._start else actions


class DiagonalGaussian:
    """Over a Box of A dimensions; outputs are means [..., A], log standard deviations free parameters [A].

    Actions are trained on as drawn and clipped to the space only on their way to the environment.
    """

    kind = "gaussian"
    has_log_std = True

    def __init__(self, space: gymnasium.spaces.Box) -> None:
        self.num_outputs = int(np.prod(space.shape))
        self._shape = space.shape
        self._dtype = space.dtype
        self._low, self._high = space.low, space.high

    def noise(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        return rng.standard_normal((*shape, self.num_outputs), dtype=np.float32)

    def sample(self, outputs: Floats, log_std: Floats | None, noise: Floats) -> Floats:
        """[N, A] means → [N, A]."""
        assert log_std is not None
        return as_float32(outputs + np.exp(log_std) * noise)

    def mode(self, outputs: Floats) -> Floats:
        return outputs.copy()

    def log_prob(self, outputs: Floats, log_std: Floats | None, actions: NDArray[Any]) -> Floats:
        """[N, A] means and actions → [N], summed over dimensions."""
        assert log_std is not None
        scaled = (actions - outputs) * np.exp(-log_std)
        constant = np.float32(log_std.sum() + 0.5 * LOG_2PI * self.num_outputs)
        result: Floats = -0.5 * np.einsum("na,na->n", scaled, scaled) - constant
        return result

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        shaped = actions.reshape(len(actions), *self._shape)
        clipped: NDArray[Any] = np.clip(shaped, self._low, self._high).astype(self._dtype, copy=False)
        return clipped


Head = Categorical | DiagonalGaussian


def head_for(space: gymnasium.Space[Any]) -> Head:
    """The distribution for an action space.

    Raises:
        UnsupportedSpaceError: neither Discrete nor a Box of floats.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return Categorical(space)
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return DiagonalGaussian(space)
    raise UnsupportedSpaceError(f"action space {space} is not supported yet: Discrete and Box (float) are")


def observation_size(space: gymnasium.Space[Any]) -> int:
    """How many numbers an observation has once flattened.

    Raises:
        UnsupportedSpaceError: not a Box of numbers, or an image.
    """
    if not isinstance(space, gymnasium.spaces.Box):
        raise UnsupportedSpaceError(
            f"observation space {space} is not supported yet: Box is. gymnasium.wrappers.FlattenObservation "
            "turns Discrete, Tuple and Dict observations into one"
        )
    if len(space.shape) >= 3:
        raise UnsupportedSpaceError(
            f"observation space {space}: images need a convolutional policy, which is not there yet"
        )
    return int(np.prod(space.shape))
