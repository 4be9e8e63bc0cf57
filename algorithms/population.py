"""Members of a population, each with parameters of its own, playing whole episodes side by side.

P networks of one shape are one network with stacked weights: a layer is a batched matrix product, so that P members
cost little more to ask than one. A member that has finished is no longer stepped, as far as its environments can be
stepped one by one.

A vector environment that steps all of its copies at once takes hardly longer for 500 than for 64 of them. So it pays to
have many members in a task, and to cut the episodes that outlast the others. To give the place of a member that has
finished to the next one was tried: fewer copies idle, but each change costs more than that saves.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from .envs import Bools, Rows, VectorStepper, worker_name
from .errors import TrainingDivergedError
from .normalization import Moments, Normaliser
from .policies.heads import Head
from .policies.mlp import Floats, MlpSpec

ROWS_AT_ONCE = 8192
"""Observations whose moments are taken together: few enough to stay in a cache, many enough to cost little."""


@dataclass(frozen=True)
class Played:
    """What P members got for one episode each."""

    returns: NDArray[np.float64]
    """[P], undiscounted."""
    lengths: NDArray[np.int64]
    """[P]"""
    moments: Moments
    """Of all observations that a member acted on."""
    env_seconds: float
    """Time spent in the environments."""


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
    count, clock = stepper.num_envs, time.perf_counter
    began = clock()
    observations = stepper.reset(list(seeds))
    env_seconds = clock() - began
    returns, lengths = np.zeros(count), np.zeros(count, np.int64)
    playing, steps = np.ones(count, np.bool_), 0
    seen = _Seen(observations.shape[1])
    while playing.any() and (longest is None or steps < longest):
        seen.add(observations[playing])
        actions = head.to_env(head.mode(networks.forward(normaliser(observations))))
        began = clock()
        observations, rewards, done = _step(stepper, actions, playing, observations)
        env_seconds += clock() - began
        returns += rewards * playing
        lengths += playing
        playing = playing & ~done
        steps += 1
    moments = seen.moments()
    if not np.isfinite(moments.squares).all():
        raise TrainingDivergedError(
            f"{stepper.env_id} gave an observation that is not finite, on {worker_name()}, in an episode that began "
            f"with one of the seeds {list(seeds)}"
        )
    return Played(returns, lengths, moments, env_seconds)


class _Seen:
    """Moments of observations that come in small pieces, with a bound on what is kept of them."""

    def __init__(self, size: int) -> None:
        self._moments = Moments.none(size)
        self._pieces: list[Floats] = []
        self._rows = 0

    def add(self, observations: Floats) -> None:
        """[N, O]"""
        self._pieces.append(observations)
        self._rows += len(observations)
        if self._rows >= ROWS_AT_ONCE:
            self._fold()

    def moments(self) -> Moments:
        self._fold()
        return self._moments

    def _fold(self) -> None:
        if self._pieces:
            self._moments = self._moments.merged([Moments.of(np.concatenate(self._pieces))])
        self._pieces, self._rows = [], 0


def _step(
    stepper: VectorStepper, actions: NDArray[Any], playing: Bools, observations: Rows
) -> tuple[Rows, NDArray[np.float64], Bools]:
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
