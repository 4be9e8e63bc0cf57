"""PPO's learner, an actor: trajectories in, new weights and statistics out.

It saves itself every few updates and is replayed when it dies (``checkpoint_every`` of the engine): the trajectories
since are kept for that long, so the numbers are those of a learner that never died.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import rlflow.engine as engine

from .advantages import flatten
from .devices import Device, usable_device
from .errors import TrainingDivergedError
from .policies.mlp import Floats
from .policies.protocol import Policy
from .ppo_gradient import SurrogateGradient
from .rollout import Trajectory
from .schedules import value_at
from .seeding import Role, generator
from .sequences import Columns, Sequences
from .shared_gradients import SharedGradient

if TYPE_CHECKING:  # torch is imported by learners only, and by those only that need it
    import torch

    from .ppo import PPO, PPOConfig

LEARNER = {"max_restarts": 10, "checkpoint_every": 10}
"""A learner that is killed goes on from its last checkpoint, with the updates since done once more from the same
trajectories; they are kept for that long."""


@dataclass
class Batch:
    """N transitions for one gradient step, as tensors, and the coefficients of this iteration.

    They begin as arrays, and stay arrays where the gradient is written out.
    """

    actions: torch.Tensor
    """N of them as the policy's head has them: [N] int64 (Discrete), [N, A] (Box)."""
    old_log_probs: torch.Tensor
    """[N], under the policy that acted."""
    advantages: torch.Tensor
    """[N], normalised if the config says so."""
    returns: torch.Tensor
    """[N], advantages + old values: the value network's targets."""
    old_values: torch.Tensor
    """[N]"""
    ratio_low: torch.Tensor
    """[N], 1 − clip_range where the advantage is negative, else −∞."""
    ratio_high: torch.Tensor
    """[N], 1 + clip_range where the advantage is positive, else ∞."""
    clip_range: float
    clip_range_value: float | None
    entropy_coef: float
    report: bool
    """Whether statistics are wanted; without, an empty dict saves their time."""

    @classmethod
    def of(cls, data: dict[str, Any], config: PPOConfig, progress: float) -> Batch:
        """All rows of ``data`` but their observations: arrays, or tensors on a learner's device."""
        advantages = data["advantages"]
        if config.normalize_advantage and len(advantages) > 1:
            spread = advantages.std(ddof=1) if isinstance(advantages, np.ndarray) else advantages.std(correction=1)
            advantages = (advantages - advantages.mean()) / (spread + 1e-8)
        clip, limit = value_at(config.clip_range, progress), config.clip_range_value
        negative = advantages < 0
        arrays: dict[str, Any] = {
            "actions": data["actions"], "old_log_probs": data["old_log_probs"], "advantages": advantages,
            "returns": data["returns"], "old_values": data["old_values"],
            "ratio_low": _where(negative, 1.0 - clip, -np.inf),
            "ratio_high": _where(negative, np.inf, 1.0 + clip),
        }
        return cls(
            **arrays, clip_range=clip, clip_range_value=None if limit is None else value_at(limit, progress),
            entropy_coef=value_at(config.entropy_coef, progress), report=False,
        )

    def rows(self, some: slice) -> Batch:
        """Of these rows alone; the advantages stay normalised over all."""
        arrays: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **{name: array[some] for name, array in arrays.items()})

    def for_loss(self, loss: Any) -> Batch:
        """As ``loss`` wants it: arrays where its gradient is written out, else tensors."""
        return self if isinstance(loss, SurrogateGradient) else self.as_tensors()

    def as_tensors(self) -> Batch:
        """The same memory as tensors; what came in a message is read-only and is copied."""
        from torch import from_numpy

        arrays: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        tensors: dict[str, Any] = {
            name: from_numpy(np.require(array, requirements="W")) for name, array in arrays.items()
        }
        return replace(self, **tensors)


class PPOLearner:
    """The learner's side, an actor: trajectories in, new weights and statistics out.

    Its state is the networks' shape, the weights and the optimiser's; random numbers are named by the iteration. So an
    update that is done once more, after a checkpoint was loaded, gives the same bits.
    """

    _policy: Policy | None = None

    def __init__(
        self, algorithm: type[PPO], config: PPOConfig, total_env_steps: int, device: Device = "cpu"
    ) -> None:
        from .ppo import PPO

        self._config = config
        self._device = device
        self._make_loss = partial(loss_for, algorithm, config, total_env_steps)
        if algorithm.loss is not PPO.loss or device != "cpu":
            _import_torch()

    def start(self, policy: Policy, weights: Floats) -> None:
        """Apart from ``__init__``, so that torch is imported while the driver asks for the spaces."""
        device = self._device if self._device == "cpu" else usable_device(self._config.device)
        self._learner = policy.learner(weights, device)
        self._loss = self._make_loss(policy, device)
        self._policy = policy
        learners = self._config.learners
        self._shared = SharedGradient(policy, self._make_loss, learners) if learners > 1 else None

    def save_checkpoint(self) -> tuple[Policy, dict[str, Any]] | None:
        """For the engine."""
        return None if self._policy is None else (self._policy, self._learner.state())

    def load_checkpoint(self, saved: tuple[Policy, dict[str, Any]] | None) -> None:
        if saved is not None:
            policy, state = saved
            self.start(policy, state["parameters"])
            self._learner.load_state(state)

    @engine.method(num_returns=2)
    def update(
        self, progress: float, iteration: int, *trajectories: Trajectory
    ) -> tuple[Floats, dict[str, float]]:
        """``epochs`` passes over the groups' trajectories, in their order → (weights [num_parameters], statistics)."""
        c = self._config
        learning_rate = value_at(c.learning_rate, progress)
        assert self._policy is not None
        current = self._policy.bind(self._learner.weights()) if c.overlap else None
        data = flatten(trajectories, c.gamma, c.gae_lambda, current)
        reported: list[dict[str, Any]] = []
        if trajectories[0].recurrence is None:
            minibatches: Iterator[tuple[Any, Batch]] = self._minibatches(data, progress, iteration)
        else:
            minibatches = self._sequences(data, Columns(trajectories, self._learner.place), progress, iteration)
        for observations, batch in minibatches:
            statistics, near = self._step(observations, batch, learning_rate)
            if not near:
                break
            if batch.report:
                reported.append(statistics)
        weights = self._learner.weights()
        if not np.isfinite(weights).all():
            raise TrainingDivergedError(
                f"the weights are not finite after iteration {iteration}: try a smaller learning_rate, or look "
                "for observations and rewards of the environment that are not finite"
            )
        names = reported[0] if reported else ()
        metrics = {name: float(np.mean([float(each[name]) for each in reported])) for name in names}
        metrics["learning_rate"] = learning_rate
        spread = float(data["returns"].var())
        if spread > 0:
            metrics["explained_variance"] = 1.0 - float((data["returns"] - data["old_values"]).var()) / spread
        return weights, metrics

    def _step(self, observations: Any, batch: Batch, learning_rate: float) -> tuple[dict[str, Any], bool]:
        """One gradient step → statistics, and whether it was taken."""
        c, accept = self._config, self._is_near if self._config.target_kl else None
        if self._shared is None:
            return self._learner.step(observations, batch, self._loss, learning_rate, c.max_grad_norm, accept)
        statistics = self._shared.into(self._learner, self._loss, observations, batch)
        if accept is not None and not accept(statistics):
            return statistics, False
        self._learner.descend(learning_rate, c.max_grad_norm)
        return statistics, True

    def _minibatches(
        self, data: dict[str, NDArray[Any]], progress: float, iteration: int
    ) -> Iterator[tuple[Floats, Batch]]:
        """(observations [N, O], the rest), for every gradient step of an iteration."""
        c, place = self._config, self._learner.place
        data = {key: place(values) for key, values in data.items()}
        count = len(data["advantages"])
        parts = max(1, round(count / c.minibatch_size))
        ends = np.cumsum([len(part) for part in np.array_split(np.arange(count), parts)])
        shuffles = generator(c.seed, Role.MINIBATCHES, 0, iteration)
        made: list[tuple[Floats, Batch]] = []
        for epoch in range(c.epochs):
            if parts > 1 or not made:  # when one minibatch is all there is, there is nothing to shuffle
                shuffled = data
                if parts > 1:
                    order = place(shuffles.permutation(count))
                    shuffled = {key: values[order] for key, values in data.items()}
                made = [self._minibatch(shuffled, slice(start, end), progress) for start, end in pairwise((0, *ends))]
            for observations, batch in made:
                batch.report = epoch == c.epochs - 1 or c.target_kl is not None
                yield observations, batch

    def _sequences(
        self, data: dict[str, NDArray[Any]], columns: Columns, progress: float, iteration: int
    ) -> Iterator[tuple[Sequences, Batch]]:
        """The same for recurrent policies: minibatches of whole columns, an environment's T steps each."""
        c, place = self._config, self._learner.place
        data = {key: place(values) for key, values in data.items() if key != "observations"}
        parts = min(len(columns), max(1, round(len(data["advantages"]) / c.minibatch_size)))
        shuffles = generator(c.seed, Role.MINIBATCHES, 0, iteration)
        for epoch in range(c.epochs):
            for picked in np.array_split(shuffles.permutation(len(columns)), parts):
                sequences, numbers = columns.pick(picked)
                rows = place(numbers)
                batch = Batch.of({key: values[rows] for key, values in data.items()}, c, progress).as_tensors()
                batch.report = epoch == c.epochs - 1 or c.target_kl is not None
                yield sequences, batch

    def _minibatch(self, data: dict[str, Any], rows: slice, progress: float) -> tuple[Floats, Batch]:
        batch = Batch.of({key: values[rows] for key, values in data.items()}, self._config, progress)
        return data["observations"][rows], batch if self._shared else batch.for_loss(self._loss)

    def _is_near(self, statistics: dict[str, Any]) -> bool:
        """Whether the policy is still near the one that acted."""
        assert self._config.target_kl is not None
        return float(statistics["kl"]) <= 1.5 * self._config.target_kl

    def state(self) -> dict[str, Any]:
        return self._learner.state()

    def load_state(self, state: dict[str, Any]) -> Floats:
        """Returns the weights, [num_parameters]."""
        self._learner.load_state(state)
        return self._learner.weights()


def loss_for(
    algorithm: type[PPO], config: PPOConfig, total_env_steps: int, policy: Policy, device: Device = "cpu"
) -> Any:
    """The algorithm's loss, or its gradient written out, where that serves."""
    from .ppo import PPO

    if algorithm.loss is PPO.loss and device == "cpu":
        by_hand = SurrogateGradient.for_policy(policy, config.value_coef)
        if by_hand is not None:
            return by_hand
    _import_torch()
    return algorithm(config, total_env_steps).loss


def _where(condition: Any, yes: float, no: float) -> Any:
    """[N] float32, of an array or a tensor of bools."""
    if isinstance(condition, np.ndarray):
        return np.where(condition, np.float32(yes), np.float32(no))
    import torch

    return torch.where(condition, yes, no)


def _import_torch() -> None:
    import torch

    torch.set_num_threads(1)  # at these sizes a second thread only waits for the first
