"""A3C: asynchronous advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783, algorithm S3).

Reads from top to bottom: the config; what one group of environments contributes (``gradient``, a task); the driver's
side (``A3C``). Each group plays a few steps with the newest parameters and returns a gradient. The driver has it
applied as it comes and sends the group on; nobody waits for the others, unless it is too far ahead of them.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

import rlflow.engine as engine

from .a3c_gradient import PolicyGradient
from .adam import clip_to_norm
from .advantages import flatten
from .config import AlgorithmConfig
from .errors import TrainingDivergedError, UnfitConfigError
from .evaluation import TrainedPolicy
from .on_policy import OnPolicyAlgorithm, OnPolicyConfig
from .parameter_server import Optimizer, ParameterServer
from .policies.mlp import Floats
from .rollout import (
    Normalisation,
    RolloutReport,
    RolloutSpec,
    RolloutState,
    initial_state,
    rollout,
)
from .schedules import Schedule, value_at
from .seeding import Role, generator
from .sequences import Columns

if TYPE_CHECKING:  # torch is imported where gradients are taken
    import torch

    from .learner import Learner, Outputs


class A3CConfig(OnPolicyConfig):
    """Hyperparameters. ``env_groups`` are the paper's actor-learners."""

    rollout_length: int = Field(default=16, ge=1, description="T, steps of each environment a gradient")
    gradients: int = Field(default=64, ge=1, description="gradients an iteration: how often metrics are written")
    gae_lambda: float = Field(
        default=1.0, ge=0, le=1, description="λ of generalised advantage estimation; 1 is the paper's n-step return"
    )
    learning_rate: Schedule = Field(default=7e-4, description="the optimiser's step size")
    optimizer: Optimizer = Field(default="rmsprop", description="shared by all groups: rmsprop or adam")
    entropy_coef: Schedule = Field(default=0.01, description="β, weight of the entropy bonus")
    value_coef: float = Field(default=0.5, ge=0, description="weight of the value loss")
    max_grad_norm: float = Field(default=0.5, gt=0, description="gradients are scaled down to this norm")
    normalize_advantage: bool = Field(default=False, description="zero mean, unit variance in each gradient")
    shards: int = Field(default=1, ge=1, description="actors that hold the parameters, a slice each")
    max_staleness: int = Field(
        default=16, ge=0,
        description="how many gradients may at most be applied between the parameters that a gradient is taken at and "
        "those it is applied to; groups wait for slower ones to keep to it",
    )


@dataclass
class Batch:
    """N transitions of one gradient, as tensors; as arrays where the gradient is written out."""

    actions: torch.Tensor
    """N of them as the policy's head has them: [N] int64 (Discrete), [N, A] (Box)."""
    advantages: torch.Tensor
    """[N]"""
    returns: torch.Tensor
    """[N], the value network's targets."""
    entropy_coef: float


@dataclass(frozen=True)
class GradientSpec:
    """What does not change from one gradient of a run to the next."""

    rollout: RolloutSpec
    algorithm: type[A3C]
    config: A3CConfig
    total_env_steps: int


def gradient(
    spec: GradientSpec, state: RolloutState, progress: float, normalisation: Normalisation | None, *parameters: Floats
) -> tuple[Any, ...]:
    """Plays T steps under ``parameters`` (slices of [num_parameters]) and takes the gradient of the loss on them.

    Returns:
        the gradient in as many slices, the next state, the rollout's report, statistics.
    """
    c = spec.config
    weights = np.concatenate(parameters)
    trajectory, following, report = rollout(spec.rollout, weights, state, normalisation)
    data = flatten([trajectory], c.gamma, c.gae_lambda)
    advantages = data["advantages"]
    if c.normalize_advantage:
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    learner, loss, tensor = _learner(spec, weights)
    batch = Batch(
        tensor(data["actions"]), tensor(advantages), tensor(data["returns"]), value_at(c.entropy_coef, progress)
    )
    observations: Any = data["observations"]
    if trajectory.recurrence is not None:
        columns = Columns([trajectory])
        observations, _ = columns.pick(np.arange(len(columns)))  # whose rows are in flatten's order
    flat, statistics = learner.gradient_of(observations, batch, loss)
    norm = clip_to_norm(flat, c.max_grad_norm)
    if not np.isfinite(norm):
        raise TrainingDivergedError(
            f"a gradient of group {state.group} is not finite: try a smaller learning_rate, or look for observations "
            "and rewards of the environment that are not finite"
        )
    numbers = {name: float(value) for name, value in statistics.items()}
    return (*np.array_split(flat, len(parameters)), following, report, {**numbers, "gradient_norm": norm})


_KEPT = 2
_learners: OrderedDict[str, tuple[Learner, Any, Any]] = OrderedDict()
"""By run: a learner keeps its buffers from one gradient to the next."""


def _learner(spec: GradientSpec, weights: Floats) -> tuple[Learner, Any, Any]:
    """With these weights; the loss; and what makes of arrays what the loss takes."""
    found = _learners.get(spec.rollout.run)
    if found is None:
        policy, by_hand = spec.rollout.policy, None
        if spec.algorithm.loss is A3C.loss:
            by_hand = PolicyGradient.for_policy(policy, spec.config.value_coef)
        if by_hand is not None:
            found = policy.learner(weights), by_hand, np.asarray
        else:
            import torch

            torch.set_num_threads(1)  # at these sizes a second thread only waits for the first
            loss = spec.algorithm(spec.config, spec.total_env_steps).loss
            found = policy.learner(weights), loss, torch.from_numpy
        _learners[spec.rollout.run] = found
        while len(_learners) > _KEPT:
            _learners.popitem(last=False)
    found[0].parameters[...] = weights
    return found


class A3C(OnPolicyAlgorithm):
    """The driver's side: keeps every group busy, has gradients applied as they come."""

    name: ClassVar[str] = "a3c"
    Config: ClassVar[type[AlgorithmConfig]] = A3CConfig
    config: A3CConfig

    def __init__(self, config: AlgorithmConfig, total_env_steps: int) -> None:
        super().__init__(config, total_env_steps)
        self._server: ParameterServer | None = None
        self._working: dict[engine.ObjectRef, tuple[int, int, list[engine.ObjectRef]]] = {}
        """By the ref of its report: group, version that the gradient began with, and the gradient's slices."""
        self._waiting: deque[int] = deque()
        """Groups that are too far ahead."""
        self._frozen: engine.ObjectRef | None = None
        """What gradients are normalised by from here on."""

    def loss(self, outputs: Outputs, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """−log π(a|s) · A + value loss − β · entropy (section 4), to be minimised.

        Runs in the workers; override for another objective. ``self`` is a copy there that has ``config`` and nothing
        of the run.

        Returns:
            the scalar, and statistics by name (scalars).
        """
        count = len(batch.advantages)
        policy_loss = -batch.advantages.dot(outputs.distribution.log_prob(batch.actions)) / count
        error = outputs.values - batch.returns
        value_loss = error.dot(error) / count
        entropy = outputs.distribution.entropy().mean()
        total = policy_loss + self.config.value_coef * value_loss - batch.entropy_coef * entropy
        return total, {
            "policy_loss": policy_loss.detach(), "value_loss": value_loss.detach(), "entropy": entropy.detach()
        }

    def setup(self) -> None:
        c = self.config
        self._make_policy()
        first = self.policy.initial_parameters(generator(c.seed, Role.WEIGHTS))
        if c.shards > len(first):
            raise UnfitConfigError(
                f"shards is {c.shards}, but the policy has only {len(first)} parameters to share out: use fewer shards"
            )
        self._server = ParameterServer(first, c.shards, c.optimizer)
        self._gradient = engine.remote(num_returns=c.shards + 3)(gradient)
        self._go_on_from([initial_state(group) for group in range(c.env_groups)])
        if self._normalises:
            self._measure(first)

    def _go_on_from(self, states: list[RolloutState]) -> None:
        c = self.config
        self._rollout_spec = self._rollouts_from(states)
        self._spec = engine.put(GradientSpec(self._rollout_spec, type(self), c, self.total_env_steps))
        self._frozen = self._normalisation()
        self._working.clear()
        self._waiting = deque(range(c.env_groups))

    def _measure(self, weights: Floats) -> None:
        """A rollout of every group from which nothing is learned, so that there is something to normalise by."""
        measure = engine.remote(num_returns=3)(rollout)
        reports = []
        for group, state in enumerate(self._states):
            _, self._states[group], report = measure.remote(self._rollout_spec, weights, state, self._frozen)
            reports.append(report)
        self._note(engine.get(reports))
        self._frozen = self._normalisation()

    def _send_out(self) -> None:
        """Sends on the groups that wait, as long as the slowest keeps to its bound though all others come in first."""
        assert self._server is not None
        server = self._server
        oldest = min((began for _, began, _ in self._working.values()), default=server.version)
        while self._waiting and server.version - oldest + len(self._working) <= self.config.max_staleness:
            group = self._waiting.popleft()
            near = engine.NearObject(self._states[group])  # the worker that made it still has the environments
            *slices, self._states[group], report, statistics = self._gradient.options(scheduling_strategy=near).remote(
                self._spec, self._states[group], self.progress, self._frozen, *server.parameters
            )
            self._working[report] = (group, server.version, [*slices, statistics])

    def _apply_next(self) -> tuple[int, RolloutReport, engine.ObjectRef]:
        """Waits for the next gradient and has it applied → its staleness, the report, a ref of the statistics."""
        assert self._server is not None
        server = self._server
        (ready,), _ = engine.wait(list(self._working))
        report: RolloutReport = engine.get(ready)
        group, version, (*slices, statistics) = self._working.pop(ready)
        staleness = server.version - version
        server.apply(slices, value_at(self.config.learning_rate, self.progress))
        self._waiting.append(group)
        self._note([report])
        return staleness, report, statistics

    def training_step(self) -> dict[str, float]:
        """Until ``gradients`` gradients were applied."""
        began, before = time.perf_counter(), self.env_steps
        self._frozen = self._normalisation()
        applied: list[tuple[int, RolloutReport, engine.ObjectRef]] = []
        while len(applied) < self.config.gradients:
            self._send_out()
            applied.append(self._apply_next())
        self._send_out()
        self.iteration += 1
        seconds = time.perf_counter() - began
        staleness = [each[0] for each in applied]
        learned: list[dict[str, float]] = engine.get([each[2] for each in applied])
        return {
            "env_steps": self.env_steps, "iteration": self.iteration, **self.episodes.metrics(),
            "env_restarts": sum(each[1].env_restarts for each in applied),
            "steps_per_second": (self.env_steps - before) / seconds,
            "staleness": float(np.mean(staleness)), "staleness_max": max(staleness),
            "learning_rate": value_at(self.config.learning_rate, self.progress),
            **{name: float(np.mean([each[name] for each in learned])) for name in learned[0]},
        }

    def trained_policy(self) -> TrainedPolicy:
        assert self._server is not None
        return TrainedPolicy(self.policy, np.concatenate(engine.get(self._server.parameters)), self._moments)

    def state(self) -> dict[str, Any]:
        """Between gradients: those on their way are waited for and applied first."""
        assert self._server is not None
        while self._working:
            self._apply_next()
        return {**self._collected_state(self._states), "server": self._server.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        assert self._server is not None
        groups = self._load_collected_state(state)
        self._server.load_state(state["server"])
        self._go_on_from(groups)

    def close(self) -> None:
        if self._server is not None and engine.is_initialized():
            self._server.close()
        self._server = None
        self._working.clear()
        super().close()
