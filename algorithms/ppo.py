"""PPO: proximal policy optimisation with a clipped surrogate (Schulman et al. 2017, arXiv:1707.06347).

Reads from top to bottom: the config; one iteration as the driver sees it (``PPO``); what the learner does
with the trajectories (``PPOLearner``). A variant overrides ``loss``, ``make_policy``, ``collect`` or
``training_step`` and nothing else.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

import rlflow.engine as engine

from .advantages import flatten
from .base import Algorithm
from .config import AlgorithmConfig, RolloutConfig
from .envs import spaces_of
from .errors import StateError, TrainingDivergedError
from .evaluation import Evaluation, evaluate
from .policies.actor_critic import MlpActorCritic
from .policies.mlp import Activation, Floats
from .rollout import RolloutReport, RolloutSpec, RolloutState, Trajectory, forget, initial_state, rollout
from .schedules import Schedule, value_at
from .seeding import Role, generator
from .states import pack_rollout_state, unpack_rollout_state

if TYPE_CHECKING:  # torch is imported by the learner's process only
    import torch

    from .learner import Outputs


LEARNER = {"max_restarts": 10, "checkpoint_every": 10}
"""A learner that is killed goes on from its last checkpoint, with the updates since done once more from the same
trajectories; they are kept for that long."""


class PPOConfig(RolloutConfig):
    """Hyperparameters; the defaults are the customary ones, for 8 environments."""

    rollout_length: int = Field(default=256, ge=1, description="T, steps of each environment an iteration")
    minibatch_size: int = Field(
        default=64, ge=1, description="transitions a gradient step, about: an iteration is cut into equal parts"
    )
    epochs: int = Field(default=10, ge=1, description="passes over an iteration's transitions")
    gamma: float = Field(default=0.99, ge=0, le=1, description="discount γ")
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
    policy_hidden: tuple[int, ...] = Field(default=(64, 64), strict=False, description="policy network: layers")
    value_hidden: tuple[int, ...] = Field(default=(64, 64), strict=False, description="value network: layers")
    activation: Activation = Field(default="tanh", description="after hidden layers: tanh or relu")
    log_std_init: float = Field(default=0.0, description="first log standard deviation of Box actions")


@dataclass
class Batch:
    """N transitions for one gradient step, as tensors, and the coefficients of this iteration."""

    actions: torch.Tensor
    """[N] int64 (Discrete) or [N, A] (Box)."""
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


class PPO(Algorithm):
    """The driver's side: sends out rollouts, hands trajectories to the learner, passes new weights on."""

    name: ClassVar[str] = "ppo"
    Config: ClassVar[type[AlgorithmConfig]] = PPOConfig
    config: PPOConfig

    def __init__(self, config: AlgorithmConfig, total_env_steps: int) -> None:
        super().__init__(config, total_env_steps)
        assert isinstance(config, PPOConfig)
        self.config = config
        self.episodes = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=100)
        self._run = ""
        self._learner: Any = None

    def make_policy(
        self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
    ) -> MlpActorCritic:
        """The networks' shape for these spaces. Override for another one."""
        c = self.config
        return MlpActorCritic(
            observation_space, action_space, policy_hidden=c.policy_hidden, value_hidden=c.value_hidden,
            activation=c.activation, log_std_init=c.log_std_init,
        )

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
        learner = engine.remote(**LEARNER)(PPOLearner)
        self._learner = learner.remote(type(self), c, self.total_env_steps)  # imports torch
        spaces = engine.get(engine.remote(spaces_of).remote(c.env, c.env_kwargs))
        self.policy = self.make_policy(*spaces)
        first = self.policy.initial_parameters(generator(c.seed, Role.WEIGHTS))
        self._weights = engine.put(first)
        self._learner.start.remote(self.policy, first)
        self._rollout = engine.remote(num_returns=3)(rollout)
        self._go_on_from([initial_state(group) for group in range(c.env_groups)])

    def _go_on_from(self, states: list[RolloutState]) -> None:
        c = self.config
        self._run = uuid4().hex  # a new name: no environment kept in a worker belongs to these states
        envs = c.num_envs // c.env_groups
        self._spec = engine.put(
            RolloutSpec(self._run, c.env, c.env_kwargs, c.seed, envs, c.rollout_length, self.policy)
        )
        self._states = [engine.put(state) for state in states]

    def collect(self) -> tuple[list[engine.ObjectRef], list[engine.ObjectRef]]:
        """Sends out one rollout per group → (trajectory refs, report refs), in group order, at once."""
        trajectories, reports = [], []
        for group, state in enumerate(self._states):
            near = engine.NearObject(state)  # the worker that made the state still has its environments
            trajectory, self._states[group], report = self._rollout.options(scheduling_strategy=near).remote(
                self._spec, self._weights, state
            )
            trajectories.append(trajectory)
            reports.append(report)
        return trajectories, reports

    def training_step(self) -> dict[str, float]:
        started = time.perf_counter()
        trajectories, reports = self.collect()
        self._weights, statistics = self._learner.update.remote(self.progress, self.iteration, *trajectories)
        collected: list[RolloutReport] = engine.get(reports)
        learning = time.perf_counter()
        learned: dict[str, float] = engine.get(statistics)
        ended = time.perf_counter()

        steps = sum(report.steps for report in collected)
        for report in collected:
            self._recent.extend(zip(report.episode_returns, report.episode_lengths, strict=True))
            self.episodes += len(report.episode_returns)
        self.env_steps += steps
        self.iteration += 1
        metrics: dict[str, float] = {
            "env_steps": self.env_steps, "iteration": self.iteration, "episodes": self.episodes,
            "env_restarts": sum(report.env_restarts for report in collected),
            "steps_per_second": steps / (ended - started),
            "time_rollout": learning - started, "time_learn": ended - learning,
            **learned,
        }
        if self._recent:
            metrics["episode_return"], metrics["episode_length"] = np.mean(self._recent, axis=0).tolist()
        return metrics

    def evaluate(self, episodes: int, seed: int, deterministic: bool = True) -> Evaluation:
        c = self.config
        return evaluate(c.env, c.env_kwargs, self.policy, self._weights, episodes, seed, deterministic)

    def state(self) -> dict[str, Any]:
        states: list[RolloutState] = engine.get(self._states)
        return {
            "algorithm": self.name,
            "env_steps": self.env_steps, "iteration": self.iteration, "episodes": self.episodes,
            "recent_returns": [value for value, _ in self._recent],
            "recent_lengths": [length for _, length in self._recent],
            "learner": engine.get(self._learner.state.remote()),
            "groups": [pack_rollout_state(state) for state in states],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        c = self.config
        found, groups = state.get("algorithm"), len(state.get("groups", ()))
        if (found, groups) != (self.name, c.env_groups):
            raise StateError(
                f"this state is of algorithm {found!r} with {groups} env groups; the config says {self.name!r} "
                f"with {c.env_groups}"
            )
        self.env_steps, self.iteration = state["env_steps"], state["iteration"]
        self.episodes = state["episodes"]
        self._recent.clear()
        self._recent.extend(zip(state["recent_returns"], state["recent_lengths"], strict=True))
        self._weights = self._learner.load_state.remote(state["learner"])
        self._go_on_from([unpack_rollout_state(group) for group in state["groups"]])
        engine.get(self._weights)  # a state that does not fit fails here

    def close(self) -> None:
        if self._learner is not None and engine.is_initialized():
            engine.kill(self._learner)
        self._learner = None
        forget(self._run)  # the inline engine has them in this process


class PPOLearner:
    """The learner's side, an actor: trajectories in, new weights and statistics out.

    Its state is the networks' shape, the weights and the optimiser's; random numbers are named by the iteration. So an
    update that is done once more, after a checkpoint was loaded, gives the same bits.
    """

    _policy: MlpActorCritic | None = None

    def __init__(self, algorithm: type[PPO], config: PPOConfig, total_env_steps: int) -> None:
        import torch

        torch.set_num_threads(1)  # at these sizes a second thread only waits for the first
        self._loss = algorithm(config, total_env_steps).loss
        self._config = config
        self._from_numpy = torch.from_numpy

    def start(self, policy: MlpActorCritic, weights: Floats) -> None:
        """Apart from ``__init__``, so that torch is imported while the driver asks for the spaces."""
        from .learner import OutputLearner

        self._policy = policy
        self._learner = OutputLearner(policy, weights)

    def save_checkpoint(self) -> tuple[MlpActorCritic, dict[str, Any]] | None:
        """For the engine."""
        return None if self._policy is None else (self._policy, self._learner.state())

    def load_checkpoint(self, saved: tuple[MlpActorCritic, dict[str, Any]] | None) -> None:
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
