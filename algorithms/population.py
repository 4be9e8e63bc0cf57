"""Members of a population, each with parameters of its own, playing whole episodes side by side.

P networks of one shape are one network with stacked weights: a layer is a batched matrix product, so that P members
cost little more to ask than one. A member that has finished is no longer stepped, as far as its environments can be
stepped one by one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from .envs import Bools, VectorStepper
from .normalization import Moments, Normaliser
from .policies.heads import Head
from .policies.mlp import Floats, MlpSpec


@dataclass(frozen=True)
class Played:
    """What P members got for one episode each."""

    returns: NDArray[np.float64]
    """[P], undiscounted."""
    lengths: NDArray[np.int64]
    """[P]"""
    moments: Moments
    """Of all observations that a member acted on."""


class StackedMlps:
    """P networks of one shape.

    Args:
        parameters: [P, num_parameters].
    """

    def __init__(self, spec: MlpSpec, parameters: Floats) -> None:
        self._tanh = spec.activation == "tanh"
        self._layers: list[tuple[Floats, Floats]] = []
        at = 0
        for before, after in zip(spec.sizes, spec.sizes[1:], strict=False):
            weights = parameters[:, at:at + before * after].reshape(-1, before, after)
            at += before * after
            self._layers.append((np.ascontiguousarray(weights), parameters[:, None, at:at + after]))
            at += after

    def forward(self, inputs: Floats) -> Floats:
        """[P, in] → [P, out], each row by its own network."""
        hidden = inputs[:, None, :]
        last = len(self._layers) - 1
        for index, (weights, bias) in enumerate(self._layers):
            hidden = np.matmul(hidden, weights)
            hidden += bias
            if index < last:
                if self._tanh:
                    np.tanh(hidden, out=hidden)
                else:
                    np.maximum(hidden, 0.0, out=hidden)
        return hidden[:, 0, :]


def play(
    stepper: VectorStepper, networks: StackedMlps, head: Head, normaliser: Normaliser, seeds: Sequence[int],
    longest: int | None,
) -> Played:
    """One episode of each of P members, acting without noise.

    Args:
        seeds: [P], of the environments.
        longest: steps after which an episode is cut.
    """
    count = stepper.num_envs
    observations = stepper.reset(list(seeds))
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    playing = np.ones(count, np.bool_)
    seen: list[Floats] = []
    while playing.any() and (longest is None or len(seen) < longest):
        seen.append(observations[playing])
        actions = head.to_env(head.mode(networks.forward(normaliser(observations))))
        observations, rewards, done = _step(stepper, actions, playing, observations)
        returns += rewards * playing
        lengths += playing
        playing = playing & ~done
    return Played(returns, lengths, Moments.of(np.concatenate(seen)))


def _step(
    stepper: VectorStepper, actions: NDArray[Any], playing: Bools, observations: Floats
) -> tuple[Floats, NDArray[np.float64], Bools]:
    """Steps those that play → observations [P, O], rewards [P], done [P]; rows of the others mean nothing."""
    if isinstance(stepper.env, SyncVectorEnv):
        return stepper.step_some(actions, playing, observations)
    stepped, rewards, terminated, truncated, _ = stepper.step(actions)
    return stepped, rewards, terminated | truncated


_KEPT = 4
_kept: OrderedDict[tuple[str, int], VectorStepper] = OrderedDict()
"""By run and number of members: environments are used again, being reset for each episode."""


def environments(run: str, env: str, env_kwargs: Mapping[str, Any], count: int) -> VectorStepper:
    """``count`` environments of this process for a run."""
    stepper = _kept.pop((run, count), None)
    if stepper is None:
        stepper = VectorStepper(env, env_kwargs, count)
    _kept[run, count] = stepper
    while len(_kept) > _KEPT:
        _kept.popitem(last=False)[1].close()
    return stepper


def forget(run: str) -> None:
    """Closes the environments of ``run`` in this process."""
    for key in [key for key in _kept if key[0] == run]:
        _kept.pop(key).close()
