"""ES: evolution strategies (Salimans et al. 2017, arXiv:1703.03864, algorithm 2).

Reads from top to bottom: the config; what a member is (``evaluate_pairs``, a task); one iteration (``ES``). Members are
parameters with noise added and subtracted (mirrored sampling). They play whole episodes; only the number where their
noise begins and their scores travel. Centred ranks of the scores weigh the noise, whose sum is the direction.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar
from uuid import uuid4

import gymnasium
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

import rlflow.engine as engine

from .adam import Adam
from .base import Algorithm
from .config import AlgorithmConfig
from .envs import spaces_of
from .episodes import EpisodeLog
from .errors import StateError, TrainingDivergedError, UnfitConfigError
from .evaluation import TrainedPolicy
from .noise import AggregatorTree, centred_ranks, make_table
from .normalization import Moments, Normaliser
from .policies.actor import MlpActor
from .policies.mlp import Activation, Floats
from .population import StackedMlps, environments, forget, play
from .schedules import Schedule, value_at
from .seeding import Role, generator, integers
from .stragglers import run_all


class ESConfig(AlgorithmConfig):
    """Hyperparameters; the defaults are those of the paper's MuJoCo experiments, for a smaller population."""

    population: int = Field(default=64, ge=2, description="members an iteration, in mirrored pairs")
    members_per_task: int = Field(
        default=16, ge=2, description="members that one task plays side by side; part of what fixes the results"
    )
    sigma: Schedule = Field(default=0.02, description="σ, standard deviation of the noise on the parameters")
    learning_rate: Schedule = Field(default=0.01, description="Adam's step size")
    weight_decay: float = Field(default=0.005, ge=0, description="pull of the parameters towards zero")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(64, 64), strict=False, description="policy network: layers; none is a linear policy"
    )
    activation: Activation = Field(default="tanh", description="after hidden layers: tanh or relu")
    normalize_observations: bool = Field(
        default=True, description="zero mean, unit variance, by what all members have seen before the iteration"
    )
    cap_episodes: bool = Field(
        default=False,
        description="cut episodes at twice the mean length of the last iteration's, so that few long ones do not hold "
        "up the others; for environments where a longer episode is no worse one",
    )
    drop_late_after: float | None = Field(
        default=None, gt=1,
        description="go on without tasks that take this many times as long as the slowest of the half that has ended; "
        "results then depend on who was late",
    )
    noise_table: int = Field(default=25_000_000, ge=1, description="numbers in the shared table of noise")

    @field_validator("sigma")
    @classmethod
    def _some_noise(cls, sigma: Schedule) -> Schedule:
        if not min(value_at(sigma, 0.0), value_at(sigma, 1.0)) > 0:
            raise ValueError(f"sigma ({sigma}) must be above 0 all the time: without noise all members are the same")
        return sigma

    @model_validator(mode="after")
    def _pairs(self) -> ESConfig:
        for name in ("population", "members_per_task"):
            if getattr(self, name) % 2:
                raise ValueError(f"{name} ({getattr(self, name)}) must be even: members come in mirrored pairs")
        return self


@dataclass(frozen=True)
class MembersSpec:
    """What does not change from one iteration of a run to the next."""

    run: str
    env: str
    env_kwargs: dict[str, Any]
    seed: int
    policy: MlpActor


@dataclass(frozen=True)
class PairsReport:
    """What N mirrored pairs got."""

    first: int
    """Number of the first pair in the iteration."""
    scores: NDArray[np.float64]
    """[N, 2]: with the noise added, with it subtracted."""
    lengths: NDArray[np.int64]
    """[N, 2]"""
    moments: Moments
    env_seconds: float
    """Time in the environments."""


def evaluate_pairs(
    spec: MembersSpec, table: Floats, center: Floats, moments: Moments, sigma: float, starts: NDArray[np.int64],
    iteration: int, first: int, longest: int | None,
) -> PairsReport:
    """One episode of each member of N pairs; both of a pair begin with the same seed.

    Args:
        table: the shared noise.
        center: [num_parameters], θ.
        starts: [N], where the pairs' noise begins in the table.
        first: number of the first pair in the iteration.
        longest: steps after which episodes are cut.
    """
    count = len(starts)
    noise = np.stack([table[start:start + len(center)] for start in starts])
    noise *= np.float32(sigma)
    parameters = np.concatenate([center + noise, center - noise])
    networks = StackedMlps(spec.policy.network, parameters)
    stepper = environments(spec.run, spec.env, spec.env_kwargs, 2 * count)
    seeds = integers(spec.seed, Role.ENVS, first, iteration, count)
    normaliser = Normaliser(moments, spec.policy.layout)
    played = play(stepper, networks, spec.policy.head, normaliser, [*seeds, *seeds], longest)
    scores, lengths = played.returns.reshape(2, count).T.copy(), played.lengths.reshape(2, count).T.copy()
    return PairsReport(first, scores, lengths, played.moments, played.env_seconds)


class ES(Algorithm):
    """The driver's side: sends out pairs, ranks them, moves the parameters."""

    name: ClassVar[str] = "es"
    Config: ClassVar[type[AlgorithmConfig]] = ESConfig
    config: ESConfig

    def __init__(self, config: AlgorithmConfig, total_env_steps: int) -> None:
        super().__init__(config, total_env_steps)
        self.episodes = EpisodeLog()
        self._mean_length = 0.0
        self._run = ""
        self._aggregators: AggregatorTree | None = None

    def make_policy(
        self, observation_space: gymnasium.Space[Any], action_space: gymnasium.Space[Any]
    ) -> MlpActor:
        """The network's shape for these spaces. Override for another one."""
        return MlpActor(observation_space, action_space, hidden=self.config.hidden, activation=self.config.activation)

    def setup(self) -> None:
        c = self.config
        self._run = uuid4().hex
        self._table = engine.remote(make_table).remote(c.seed, c.noise_table)
        self._aggregators = AggregatorTree(
            self._table, AggregatorTree.size_for(c.population // 2, engine.cluster_resources().get("CPU", 1))
        )
        spaces = engine.get(engine.remote(spaces_of).remote(c.env, c.env_arguments))
        self.policy = self.make_policy(*spaces)
        self.parameters = self.policy.initial_parameters(generator(c.seed, Role.WEIGHTS))
        if len(self.parameters) >= c.noise_table:
            raise UnfitConfigError(
                f"noise_table ({c.noise_table}) must be larger than the policy, which has {len(self.parameters)} "
                "parameters; ten times as large at least, or the members' noise is much the same"
            )
        self._adam = Adam(len(self.parameters))
        self._moments = Moments.none(self.policy.layout.size)
        self._spec = engine.put(MembersSpec(self._run, c.env, c.env_arguments, c.seed, self.policy))
        self._evaluate = engine.remote(evaluate_pairs)

    def collect(self, starts: NDArray[np.int64], sigma: float) -> list[PairsReport]:
        """Plays the pairs whose noise begins at ``starts`` [N] → reports in order, late ones left out if asked for."""
        c = self.config
        center, moments = engine.put(self.parameters), engine.put(self._moments)
        longest = max(1, round(2 * self._mean_length)) if c.cap_episodes and self._mean_length else None
        pairs = c.members_per_task // 2
        calls = [
            (
                self._spec, self._table, center, moments, sigma, starts[first:first + pairs], self.iteration, first,
                longest,
            )
            for first in range(0, len(starts), pairs)
        ]
        return run_all(self._evaluate, calls, c.drop_late_after)

    def training_step(self) -> dict[str, float]:
        c = self.config
        began = time.perf_counter()
        sigma, learning_rate = (value_at(schedule, self.progress) for schedule in (c.sigma, c.learning_rate))
        starts = generator(c.seed, Role.NOISE, 0, self.iteration).integers(
            0, c.noise_table - len(self.parameters), c.population // 2
        )
        reports = self.collect(starts, sigma)
        played = time.perf_counter()

        scores = np.concatenate([report.scores for report in reports])
        lengths = np.concatenate([report.lengths for report in reports])
        starts = np.concatenate([starts[report.first:report.first + len(report.scores)] for report in reports])
        if not np.isfinite(scores).all():
            raise TrainingDivergedError(
                f"a member's return is not finite in iteration {self.iteration}: look for rewards of {c.env} that "
                "are not"
            )
        direction = self._direction(starts, scores, sigma)
        self._adam.step(self.parameters, c.weight_decay * self.parameters - direction, learning_rate)
        if not np.isfinite(self.parameters).all():
            raise TrainingDivergedError(
                f"the parameters are no longer finite after iteration {self.iteration}: "
                f"lower learning_rate ({learning_rate})"
            )
        if c.normalize_observations:
            self._moments = self._moments.merged(report.moments for report in reports)

        self._mean_length = float(lengths.mean())
        self.episodes.add(scores.ravel().tolist(), lengths.ravel().tolist())
        self.env_steps += int(lengths.sum())
        self.iteration += 1
        ended = time.perf_counter()
        return {
            "env_steps": self.env_steps, "iteration": self.iteration, **self.episodes.metrics(),
            "best_return": float(scores.max()), "spread_of_returns": float(scores.std()),
            "parameter_norm": float(np.linalg.norm(self.parameters)),
            "direction_norm": float(np.linalg.norm(direction)),
            "sigma": sigma, "learning_rate": learning_rate,
            "steps_per_second": int(lengths.sum()) / (ended - began),
            "time_rollout": played - began, "time_learn": ended - played,
            "time_env": sum(report.env_seconds for report in reports),
            **({} if c.drop_late_after is None else {"dropped_members": c.population - scores.size}),
        }

    def _direction(self, starts: NDArray[np.int64], scores: NDArray[np.float64], sigma: float) -> Floats:
        """The estimated gradient of the expected score (algorithm 2, line 11), with ranks for scores [N, 2]."""
        assert self._aggregators is not None
        ranks = centred_ranks(scores)
        weights = ranks[:, 0] - ranks[:, 1]
        total = self._aggregators.weighted_sum(starts, weights, len(self.parameters))
        return total / np.float32(scores.size * sigma)

    def trained_policy(self) -> TrainedPolicy:
        return TrainedPolicy(self.policy, self.parameters.copy(), self._moments)

    def state(self) -> dict[str, Any]:
        return {
            "algorithm": self.name,
            "env_steps": self.env_steps, "iteration": self.iteration, "episodes": self.episodes.state(),
            "mean_length": self._mean_length,
            "parameters": self.parameters.copy(), "adam": self._adam.state(), "moments": self._moments.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        found = state.get("algorithm")
        if found != self.name:
            raise StateError(f"this state is of algorithm {found!r}; the config says {self.name!r}")
        size = np.size(state["parameters"])
        if size != len(self.parameters):
            raise StateError(
                f"this state has {size} parameters; the policy of this config has {len(self.parameters)}"
            )
        self.env_steps, self.iteration = state["env_steps"], state["iteration"]
        self.episodes.load_state(state["episodes"])
        self._mean_length = state["mean_length"]
        self.parameters = np.array(state["parameters"], np.float32)
        self._adam.load_state(state["adam"])
        self._moments = Moments(**state["moments"])

    def close(self) -> None:
        if self._aggregators is not None and engine.is_initialized():
            self._aggregators.close()
        self._aggregators = None
        forget(self._run)  # the inline engine has them in this process
