"""PPO: proximal policy optimisation with a clipped surrogate (Schulman et al. 2017, arXiv:1707.06347).

Reads from top to bottom: the config; the loss; one iteration as the driver sees it. What the learner does with the
trajectories is in ``ppo_learner.py``. A variant overrides ``loss``, ``make_policy``, ``collect`` or
``training_step`` and nothing else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

import rlflow.engine as engine

from .config import AlgorithmConfig
from .devices import Device, DeviceChoice, chosen_device, device_at_once
from .errors import UnfitConfigError
from .evaluation import TrainedPolicy
from .on_policy import OnPolicyAlgorithm, OnPolicyConfig
from .ppo_learner import LEARNER, PPOLearner
from .rollout import RolloutReport, RolloutState, initial_state, rollout
from .schedules import Schedule
from .seeding import Role, generator

if TYPE_CHECKING:  # torch is imported by the learner's process only
    import torch

    from .learner import Outputs
    from .ppo_learner import Batch


class PPOConfig(OnPolicyConfig):
    """Hyperparameters; the defaults are the customary ones, for 8 environments."""

    rollout_length: int = Field(default=256, ge=1, description="T, steps of each environment an iteration")
    minibatch_size: int = Field(
        default=64, ge=1, description="transitions a gradient step, about: an iteration is cut into equal parts"
    )
    epochs: int = Field(default=10, ge=1, description="passes over an iteration's transitions")
    gae_lambda: float = Field(default=0.95, ge=0, le=1, description="λ of generalised advantage estimation")
    clip_range: Schedule = Field(default=0.2, description="ε, how far the probability ratio may leave 1")
    clip_range_value: Schedule | None = Field(
        default=None, description="how far a value may move from its old one; null: as far as it likes"
    )
    learning_rate: Schedule = Field(default=3e-4, description="Adam's step size")
    entropy_coef: Schedule = Field(default=0.0, description="weight of the entropy bonus")
    value_coef: float = Field(default=0.5, ge=0, description="weight of the value loss")
    max_grad_norm: float = Field(default=0.5, gt=0, description="gradients are scaled down to this norm")
    normalize_advantage: bool = Field(default=True, description="zero mean, unit variance in each minibatch")
    target_kl: float | None = Field(
        default=None, gt=0, description="end an iteration's epochs once KL exceeds 1.5 times this; null: never"
    )
    overlap: bool = Field(
        default=False,
        description="the next rollouts run while the learner learns: one policy late, with V-trace targets",
    )
    learners: int = Field(
        default=1, ge=1, description="processes that take the gradient of a minibatch together, an equal part each"
    )
    device: DeviceChoice = Field(
        default="auto",
        description="where gradients are taken: cpu, cuda, or auto: on a GPU, if there is one, for images and networks "
        "of more than a million parameters",
    )

    @model_validator(mode="after")
    def _one_learner_has_the_device(self) -> PPOConfig:
        if self.device == "cuda" and self.learners > 1:
            raise ValueError(
                f"learners ({self.learners}) share gradients between processes on the CPU: with device: cuda there is "
                "one, leave learners out"
            )
        return self


@dataclass(frozen=True)
class _Ahead:
    """Rollouts that were sent out before the last update."""

    weights: engine.ObjectRef
    """That they act by."""
    states: list[engine.ObjectRef]
    """By group, that they begin in."""
    trajectories: list[engine.ObjectRef]
    reports: list[engine.ObjectRef]


class PPO(OnPolicyAlgorithm):
    """The driver's side: sends out rollouts, hands trajectories to the learner, passes new weights on."""

    name: ClassVar[str] = "ppo"
    Config: ClassVar[type[AlgorithmConfig]] = PPOConfig
    config: PPOConfig

    def __init__(self, config: AlgorithmConfig, total_env_steps: int) -> None:
        super().__init__(config, total_env_steps)
        self._learner: Any = None
        self._ahead: _Ahead | None = None

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The clipped surrogate (eq. 7) with value loss and entropy bonus (eq. 9), to be minimised.

        Runs in the learner's process; override for another objective. ``self`` is a copy there that has
        ``config`` and nothing of the run.

        Returns:
            the scalar, and statistics by name (scalars; may be empty unless ``batch.report``).
        """
        count = len(batch.advantages)
        log_ratio = outputs.distribution.log_prob(batch.actions) - batch.old_log_probs
        ratio = log_ratio.exp()
        # min(r·A, clip(r, 1−ε, 1+ε)·A) = A · clip(r, low, high): only the side A could gain from is bounded.
        surrogate = batch.advantages.dot(ratio.clamp(batch.ratio_low, batch.ratio_high))

        error = outputs.values - batch.returns
        squared_error = error.dot(error)
        if batch.clip_range_value is not None:
            moved = (outputs.values - batch.old_values).clamp(-batch.clip_range_value, batch.clip_range_value)
            clipped = batch.old_values + moved - batch.returns
            squared_error = error.square().maximum(clipped.square()).sum()

        total = (self.config.value_coef * squared_error - surrogate) / count
        if batch.entropy_coef:
            total = total - batch.entropy_coef * outputs.distribution.entropy().mean()
        if not batch.report:
            return total, {}
        log_ratio, ratio = log_ratio.detach(), ratio.detach()
        return total, {
            "policy_loss": -surrogate.detach() / count,
            "value_loss": squared_error.detach() / count,
            "entropy": outputs.distribution.entropy().detach().mean(),
            "kl": (ratio - 1.0 - log_ratio).mean(),  # k3 of http://joschu.net/blog/kl-approx.html
            "clip_fraction": ((ratio - 1.0).abs() > batch.clip_range).float().mean(),
        }

    def setup(self) -> None:
        c = self.config
        device = device_at_once(c.device, c.learners)
        if device is not None:
            self._start_learner(device)  # imports torch, while the spaces are asked for
        self._make_policy()
        if self.policy.memory_size and (c.overlap or c.learners > 1):
            raise UnfitConfigError("overlap and several learners are not for recurrent policies; leave them out")
        first = self.policy.initial_parameters(generator(c.seed, Role.WEIGHTS))
        if device is None:
            self._start_learner(chosen_device(self.policy, len(first)))
        self._weights = engine.put(first)
        began = self._learner.start.remote(self.policy, first)
        if device != "cpu":  # what keeps a GPU from being used is said before anything is played
            engine.get(began)
        self._rollout = engine.remote(num_returns=3)(rollout)
        self._go_on_from([initial_state(group) for group in range(c.env_groups)])
        if self._normalises:  # measured once before anything is learned
            self._note(engine.get(self.collect()[1]))

    def _start_learner(self, device: Device) -> None:
        learner = engine.remote(**LEARNER, num_gpus=1 if device == "cuda" else 0)(PPOLearner)
        self._learner = learner.remote(type(self), self.config, self.total_env_steps, device)

    def _go_on_from(self, states: list[RolloutState]) -> None:
        self._spec = engine.put(self._rollouts_from(states, successors=self.config.overlap))

    def collect(self) -> tuple[list[engine.ObjectRef], list[engine.ObjectRef]]:
        """Sends out one rollout per group → (trajectory refs, report refs), in group order, at once."""
        trajectories, reports, normalisation = [], [], self._normalisation()
        for group, state in enumerate(self._states):
            near = engine.NearObject(state)  # the worker that made the state still has its environments
            trajectory, self._states[group], report = self._rollout.options(scheduling_strategy=near).remote(
                self._spec, self._weights, state, normalisation
            )
            trajectories.append(trajectory)
            reports.append(report)
        return trajectories, reports

    def training_step(self) -> dict[str, float]:
        started = time.perf_counter()
        before = self.env_steps
        trajectories, reports = self._take_ahead() if self._ahead else self.collect()
        update = self._learner.update.remote(self.progress, self.iteration, *trajectories)
        collected: list[RolloutReport] = engine.get(reports)
        self._note(collected)
        if self.config.overlap and self.env_steps < self.total_env_steps:
            self._collect_ahead()  # while the learner learns, with the weights that it begins with
        learning = time.perf_counter()
        self._weights, statistics = update
        learned: dict[str, float] = engine.get(statistics)
        ended = time.perf_counter()

        self.iteration += 1
        return {
            "env_steps": self.env_steps, "iteration": self.iteration, **self.episodes.metrics(),
            "env_restarts": sum(report.env_restarts for report in collected),
            "steps_per_second": (self.env_steps - before) / (ended - started),
            "time_rollout": learning - started, "time_learn": ended - learning,
            **learned,
        }

    def _collect_ahead(self) -> None:
        states = list(self._states)
        self._ahead = _Ahead(self._weights, states, *self.collect())

    def _take_ahead(self) -> tuple[list[engine.ObjectRef], list[engine.ObjectRef]]:
        assert self._ahead is not None
        ahead, self._ahead = self._ahead, None
        return ahead.trajectories, ahead.reports

    def trained_policy(self) -> TrainedPolicy:
        return TrainedPolicy(self.policy, engine.get(self._weights), self._moments)

    def state(self) -> dict[str, Any]:
        # Rollouts ahead are not saved. They are made again, from the same states and with the same weights.
        ahead = self._ahead
        return {
            **self._collected_state(ahead.states if ahead else self._states),
            "learner": engine.get(self._learner.state.remote()),
            "weights_ahead": engine.get(ahead.weights) if ahead else None,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        groups = self._load_collected_state(state)
        current = self._learner.load_state.remote(state["learner"])
        engine.get(current)  # a state that does not fit fails here
        self._go_on_from(groups)
        self._ahead = None
        if self.config.overlap and state["weights_ahead"] is not None:
            self._weights = engine.put(state["weights_ahead"])
            self._collect_ahead()
        self._weights = current

    def close(self) -> None:
        if self._learner is not None and engine.is_initialized():
            engine.kill(self._learner)
        self._learner = None
        super().close()
