"""Action distributions in NumPy, for rollouts: the policy network's outputs → actions, log-probabilities.

Sampling takes the noise from outside, so a rollout draws all of it at once and a step adds it.
"""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

from ..errors import UnsupportedSpaceError
from .mlp import Floats, as_float32

LOG_2PI = float(np.log(2.0 * np.pi))
FORBIDDEN = np.float32(-1e8)
"""Added to the logits of actions that a mask forbids: their probability is 0 to the last bit."""


SMALL_VARIANCE = np.float32(1e-6)
"""Added to a variance that features, all of them zero, could make vanish."""


def forbid(logits: Floats, masks: NDArray[Any]) -> Floats:
    """Logits [N, n] under masks [N, n], 0 where an action is forbidden."""
    return logits + np.where(masks, np.float32(0), FORBIDDEN)


class Noise(Protocol):
    """Of a rollout: ``noise[t]`` is what step t's actions are drawn with."""

    def __getitem__(self, step: int, /) -> Any: ...


class Head:
    """What all distributions have. A *row* is what a distribution is made of, for one observation.

    Attributes:
        num_outputs: of the policy network.
        row_size: the network's outputs and, for some heads, what follows them in a row.
        maskable: whether rows are logits, one an action.
    """

    num_outputs: int
    row_size: int
    maskable = False

    @property
    def log_std_shape(self) -> tuple[int, ...] | None:
        """Of the free parameters beside the networks; ``None``: there are none."""
        return None

    def noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> Noise:
        """For ``shape`` = (T, B) actions."""
        raise NotImplementedError

    def sample(self, rows: Floats, log_std: Floats | None, noise: Any) -> NDArray[Any]:
        """[N, row_size] → N actions, as they are trained on."""
        raise NotImplementedError

    def mode(self, rows: Floats) -> NDArray[Any]:
        """The most likely actions of [N, row_size]."""
        raise NotImplementedError

    def log_prob(self, rows: Floats, log_std: Floats | None, actions: NDArray[Any]) -> Floats:
        """[N, row_size] and N actions → [N]."""
        raise NotImplementedError

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """What the environment is given for N actions, N of them."""
        raise NotImplementedError


class Categorical(Head):
    """Over a Discrete space of n actions; rows are logits [..., n], actions [...] count from 0."""

    maskable = True

    def __init__(self, space: gymnasium.spaces.Discrete) -> None:
        self.num_outputs = self.row_size = int(space.n)
        self._start = int(space.start)

    def noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        """Gumbel noise [T, B, n]: argmax(logits + noise) is a draw from softmax(logits)."""
        return rng.gumbel(size=(*shape, self.num_outputs)).astype(np.float32)

    def sample(self, rows: Floats, log_std: Floats | None, noise: Floats) -> NDArray[np.int64]:
        actions: NDArray[np.int64] = (rows + noise).argmax(axis=1)
        return actions

    def mode(self, rows: Floats) -> NDArray[np.int64]:
        actions: NDArray[np.int64] = rows.argmax(axis=1)
        return actions

    def log_prob(self, rows: Floats, log_std: Floats | None, actions: NDArray[Any]) -> Floats:
        return _log_softmax_at(rows, actions)

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        return actions + self._start if self._start else actions


class MultiCategorical(Head):
    """Over a MultiDiscrete space of k choices, independent; rows are their logits in turn, actions [..., k]."""

    maskable = True

    def __init__(self, space: gymnasium.spaces.MultiDiscrete) -> None:
        sizes = space.nvec.reshape(-1)
        self.sizes: list[int] = sizes.tolist()
        self.num_outputs = self.row_size = int(sizes.sum())
        self._bounds = np.cumsum([0, *sizes])
        self._shape, self._dtype, self._start = space.shape, space.dtype, space.start

    def noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        return rng.gumbel(size=(*shape, self.num_outputs)).astype(np.float32)

    def sample(self, rows: Floats, log_std: Floats | None, noise: Floats) -> NDArray[np.int64]:
        return self.mode(rows + noise)

    def mode(self, rows: Floats) -> NDArray[np.int64]:
        return np.stack([choice.argmax(axis=1) for choice in self._choices(rows)], axis=1)

    def log_prob(self, rows: Floats, log_std: Floats | None, actions: NDArray[Any]) -> Floats:
        parts = [_log_softmax_at(choice, actions[:, i]) for i, choice in enumerate(self._choices(rows))]
        total: Floats = np.sum(parts, axis=0)
        return total

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        shaped: NDArray[Any] = actions.reshape(len(actions), *self._shape) + self._start
        return shaped.astype(self._dtype, copy=False)

    def _choices(self, rows: Floats) -> list[Floats]:
        return [rows[:, a:b] for a, b in zip(self._bounds, self._bounds[1:], strict=False)]


class Bernoulli(Head):
    """Over a MultiBinary space of n bits, independent; rows are their log-odds, actions [..., n] float32 0 or 1."""

    def __init__(self, space: gymnasium.spaces.MultiBinary) -> None:
        self.num_outputs = self.row_size = int(np.prod(space.shape))
        self._shape, self._dtype = space.shape, space.dtype

    def noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
        """Logistic noise [T, B, n]: a bit is set with probability σ(log-odds) if log-odds + noise > 0."""
        return rng.logistic(size=(*shape, self.num_outputs)).astype(np.float32)

    def sample(self, rows: Floats, log_std: Floats | None, noise: Floats) -> Floats:
        return as_float32(rows + noise > 0)

    def mode(self, rows: Floats) -> Floats:
        return as_float32(rows > 0)

    def log_prob(self, rows: Floats, log_std: Floats | None, actions: NDArray[Any]) -> Floats:
        signed = np.where(actions > 0, rows, -rows)
        result: Floats = -np.logaddexp(np.float32(0), -signed).sum(axis=1)
        return result

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        return actions.reshape(len(actions), *self._shape).astype(self._dtype)


class DiagonalGaussian(Head):
    """Over a Box of A dimensions; rows are means [..., A], log standard deviations free parameters [A].

    Actions are trained on as drawn and clipped to the space only on their way to the environment.
    """

    def __init__(self, space: gymnasium.spaces.Box) -> None:
        self.num_outputs = self.row_size = int(np.prod(space.shape))
        self._shape = space.shape
        self._dtype = space.dtype
        self._low, self._high = space.low, space.high

    @property
    def log_std_shape(self) -> tuple[int, ...]:
        return (self.num_outputs,)

    def noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> Noise:
        normal: Floats = rng.standard_normal((*shape, self.num_outputs), dtype=np.float32)
        return normal

    def sample(self, rows: Floats, log_std: Floats | None, noise: Floats) -> Floats:
        assert log_std is not None
        return as_float32(rows + np.exp(log_std) * noise)

    def mode(self, rows: Floats) -> Floats:
        return rows[:, :self.num_outputs].copy()

    def log_prob(self, rows: Floats, log_std: Floats | None, actions: NDArray[Any]) -> Floats:
        """Summed over dimensions."""
        assert log_std is not None
        scaled = (actions - rows) * np.exp(-log_std)
        constant = np.float32(log_std.sum() + 0.5 * LOG_2PI * self.num_outputs)
        result: Floats = -0.5 * np.einsum("na,na->n", scaled, scaled) - constant
        return result

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        shaped = actions.reshape(len(actions), *self._shape)
        clipped: NDArray[Any] = np.clip(shaped, self._low, self._high).astype(self._dtype, copy=False)
        return clipped


class StateDependentGaussian(DiagonalGaussian):
    """Generalised state-dependent exploration (Raffin et al. 2021, arXiv:2005.05719) over a Box of A dimensions.

    The noise on an action is ``features @ exploration``: a function of the state, which stays the same for a while
    instead of being drawn anew in each step. Over all matrices it is normal with a deviation that depends on the state.

    Rows are means and features, [..., A + F]; log standard deviations, [F, A], are those of the matrix.

    Args:
        features: F, the width of the policy network's last hidden layer.
        sample_freq: steps after which a new matrix is drawn; −1: each rollout has one.
    """

    def __init__(self, space: gymnasium.spaces.Box, features: int, sample_freq: int) -> None:
        super().__init__(space)
        self.features = features
        self.row_size = self.num_outputs + features
        self._sample_freq = sample_freq

    @property
    def log_std_shape(self) -> tuple[int, ...]:
        return (self.features, self.num_outputs)

    def noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> Noise:
        """A matrix [F, A] for each of B environments and each period of the T steps."""
        length, count = shape
        period = length if self._sample_freq == -1 else self._sample_freq
        matrices = rng.standard_normal((-(-length // period), count, *self.log_std_shape), dtype=np.float32)
        return HeldNoise(matrices, period)

    def sample(self, rows: Floats, log_std: Floats | None, noise: Floats) -> Floats:
        """With matrices [N, F, A] of standard normals."""
        assert log_std is not None
        mean, features = rows[:, :self.num_outputs], rows[:, self.num_outputs:]
        return as_float32(mean + np.einsum("nf,nfa->na", features, np.exp(log_std) * noise))

    def log_prob(self, rows: Floats, log_std: Floats | None, actions: NDArray[Any]) -> Floats:
        """Summed over dimensions."""
        assert log_std is not None
        mean, features = rows[:, :self.num_outputs], rows[:, self.num_outputs:]
        variance = np.square(features) @ np.exp(2 * log_std) + SMALL_VARIANCE
        squares = np.square(actions - mean) / variance + np.log(variance) + np.float32(LOG_2PI)
        result: Floats = -0.5 * squares.sum(axis=1)
        return result


class HeldNoise:
    """The same for ``period`` steps at a time."""

    def __init__(self, values: Floats, period: int) -> None:
        self._values, self._period = values, period

    def __getitem__(self, step: int) -> Floats:
        held: Floats = self._values[step // self._period]
        return held


def _log_softmax_at(logits: Floats, chosen: NDArray[Any]) -> Floats:
    """Logits [N, n] and [N] → log-probabilities [N]."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted[np.arange(len(chosen)), chosen] - np.log(np.exp(shifted).sum(axis=1))
    return result


def head_for(space: gymnasium.Space[Any]) -> Head:
    """The distribution for an action space.

    Raises:
        UnsupportedSpaceError: no distribution over it is known.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return Categorical(space)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        return MultiCategorical(space)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return Bernoulli(space)
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return DiagonalGaussian(space)
    raise UnsupportedSpaceError(
        f"action space {space} is not supported: Discrete, MultiDiscrete, MultiBinary and Box (float) are"
    )
