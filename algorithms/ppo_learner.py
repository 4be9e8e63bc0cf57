"""PPO's learner, an actor: trajectories in, new weights and statistics out.

It saves itself every few updates and is replayed when it dies (``checkpoint_every`` of the engine): the trajectories
since are kept for that long, so the numbers are those of a learner that never died.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

import rlflow.engine as engine

from .advantages import flatten
from .errors import TrainingDivergedError
from .policies.mlp import Floats
from .policies.protocol import Policy
from .rollout import Trajectory
from .schedules import value_at
from .seeding import Role, generator

if TYPE_CHECKING:  # torch is imported by the learner's process only
    import torch

    from .ppo import PPO, PPOConfig

LEARNER = {"max_restarts": 10, "checkpoint_every": 10}
"""A learner that is killed goes on from its last checkpoint, with the updates since done once more from the same
trajectories; they are kept for that long."""


@dataclass
class Batch:
    """N transitions for one gradient step, as tensors, and the coefficients of this iteration."""

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


class PPOLearner:
    """The learner's side, an actor: trajectories in, new weights and statistics out.

    Its state is the networks' shape, the weights and the optimiser's; random numbers are named by the iteration. So an
    update that is done once more, after a checkpoint was loaded, gives the same bits.
    """

    _policy: Policy | None = None

    def __init__(self, algorithm: type[PPO], config: PPOConfig, total_env_steps: int) -> None:
        import torch

        torch.set_num_threads(1)  # at these sizes a second thread only waits for the first
        self._loss = algorithm(config, total_env_steps).loss
        self._config = config
        self._from_numpy = torch.from_numpy

    def start(self, policy: Policy, weights: Floats) -> None:
        """Apart from ``__init__``, so that torch is imported while the driver asks for the spaces."""
        self._policy = policy
        self._learner = policy.learner(weights)

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
        """``epochs`` passes over the trajectories of all groups (in group order) → (weights, statistics)."""
        c = self._config
        learning_rate = value_at(c.learning_rate, progress)
        data = flatten(trajectories, c.gamma, c.gae_lambda)
        count = len(data["advantages"])
        shuffles = generator(c.seed, Role.MINIBATCHES, 0, iteration)
        parts = max(1, round(count / c.minibatch_size))
        # One minibatch is all there is: nothing to shuffle, and its tensors serve every epoch.
        whole = [self._minibatch(data, None, progress)] if parts == 1 else []

        reported: list[dict[str, torch.Tensor]] = []
        accept, near = self._is_near if c.target_kl else None, True
        for epoch in range(c.epochs):
            report = epoch == c.epochs - 1 or c.target_kl is not None
            rows = [] if whole else np.array_split(shuffles.permutation(count), parts)
            for observations, batch in whole or (self._minibatch(data, part, progress) for part in rows):
                batch.report = report
                statistics, near = self._learner.step(
                    observations, batch, self._loss, learning_rate, c.max_grad_norm, accept
                )
                if not near:
                    break
                if report:
                    reported.append(statistics)
            if not near:
                break
        weights = self._learner.parameters.copy()
        if not np.isfinite(weights).all():
            raise TrainingDivergedError(
                f"the weights are not finite after iteration {iteration}: try a smaller learning_rate, or look "
                "for observations and rewards of the environment that are not finite"
            )
        names = reported[0] if reported else ()
        metrics = {name: float(np.mean([each[name].item() for each in reported])) for name in names}
        metrics["learning_rate"] = learning_rate
        spread = float(data["returns"].var())
        if spread > 0:
            metrics["explained_variance"] = 1.0 - float((data["returns"] - data["old_values"]).var()) / spread
        return weights, metrics

    def _minibatch(
        self, data: dict[str, NDArray[Any]], rows: NDArray[np.int64] | None, progress: float
    ) -> tuple[Floats, Batch]:
        """(observations [N, O], the rest as a Batch) of these rows; of all when ``None``."""
        c = self._config
        picked = data if rows is None else {key: values[rows] for key, values in data.items()}
        advantages = picked["advantages"]
        if c.normalize_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std(ddof=1) + 1e-8)
        clip, t = value_at(c.clip_range, progress), self._from_numpy
        negative = advantages < 0
        return picked["observations"], Batch(
            actions=t(picked["actions"]),
            old_log_probs=t(picked["old_log_probs"]),
            advantages=t(advantages),
            returns=t(picked["returns"]),
            old_values=t(picked["old_values"]),
            ratio_low=t(np.where(negative, np.float32(1.0 - clip), np.float32(-np.inf))),
            ratio_high=t(np.where(negative, np.float32(np.inf), np.float32(1.0 + clip))),
            clip_range=clip,
            clip_range_value=None if c.clip_range_value is None else value_at(c.clip_range_value, progress),
            entropy_coef=value_at(c.entropy_coef, progress),
            report=False,
        )

    def _is_near(self, statistics: dict[str, torch.Tensor]) -> bool:
        """Whether the policy is still near the one that acted."""
        assert self._config.target_kl is not None
        return statistics["kl"].item() <= 1.5 * self._config.target_kl

    def state(self) -> dict[str, Any]:
        return self._learner.state()

    def load_state(self, state: dict[str, Any]) -> Floats:
        """Returns the weights."""
        self._learner.load_state(state)
        return self._learner.parameters.copy()
