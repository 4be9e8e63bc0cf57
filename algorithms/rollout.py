"""Rollouts as pure tasks: (spec, weights, state) → (trajectory, next state, report).

A rollout that is executed again, anywhere, gives the same bits. The state carries a snapshot of the
environments where one can be taken faithfully; the worker that made it also keeps the live environments, so
that the group's next rollout, which prefers that worker, need not restore anything. Environments without a
snapshot live only there: if they are lost, the group restarts from a freshly seeded reset, and says so.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import env_snapshots
from .envs import Bools, Rows, VectorStepper
from .normalization import Moments, Normaliser, Statistics, scaled
from .policies.mlp import Floats
from .policies.protocol import BoundPolicy, Policy
from .seeding import Role, generator, integers


@dataclass(frozen=True)
class RolloutSpec:
    """What does not change from one rollout of a run to the next."""

    run: str
    """Unique to this run of an algorithm: names its live environments in workers."""
    env: str
    env_kwargs: dict[str, Any]
    seed: int
    num_envs: int
    """B, of one group."""
    length: int
    """T, steps of each environment in a rollout."""
    policy: Policy
    gamma: float = 0.99
    """Of the discounted returns that rewards are scaled by."""
    successors: bool = False
    """Whether trajectories hold the observations that another value function needs."""
    episode_info: tuple[str, ...] = ()
    """Names of numbers in the environments' info, of which a report tells."""


@dataclass(frozen=True)
class RolloutState:
    """Where a group of B environments stands between two rollouts."""

    group: int
    version: int
    """How many rollouts the group has made."""
    observations: Rows
    """[B, O], what the next actions are chosen in; empty before the first rollout."""
    done: Bools
    """[B]: the next step of that environment is a reset and no transition (NEXT_STEP autoreset)."""
    returns: NDArray[np.float64]
    """[B], reward so far of the running episodes."""
    lengths: NDArray[np.int64]
    """[B], steps so far of the running episodes."""
    discounted: NDArray[np.float64]
    """[B], reward so far of the running episodes, discounted from then to now."""
    snapshot: env_snapshots.Snapshot | None
    """The environments; ``None`` where no faithful snapshot exists, and before the first rollout."""
    memory: Floats | None = None
    """[B, M], what a recurrent policy remembers, cleared where the next row is an episode's first."""


@dataclass(frozen=True)
class Recurrence:
    """What a recurrent policy's learner needs to know beside."""

    memory: Floats
    """[B, M], before the first step."""
    first: Bools
    """[T, B]: memory was cleared before this step."""


@dataclass(frozen=True)
class Trajectory:
    """T steps of B environments. Rows that are not ``valid`` are autoresets: never trained on."""

    observations: Rows
    """[T, B, O], as the policy saw them: normalised, if it is."""
    actions: NDArray[Any]
    """As the policy's head has them: [T, B] int64 counted from 0, or [T, B, A] float32 before clipping to the space."""
    log_probs: Floats
    """[T, B], of the actions under the policy that chose them."""
    rewards: Floats
    """[T, B], scaled, if they are."""
    values: Floats
    """[T, B], V(observations)."""
    next_values: Floats
    """[T, B], V of the state each action led to; at an episode's end, of its final state."""
    terminated: Bools
    """[T, B]"""
    truncated: Bools
    """[T, B]"""
    valid: Bools
    """[T, B]"""
    successors: Rows | None = None
    """[n, O], if asked for: what the n actions led to that ended an episode or came last, in the order of (t, b). What
    any other action led to is in the next row."""
    recurrence: Recurrence | None = None


@dataclass(frozen=True)
class RolloutReport:
    """What a rollout tells the driver."""

    steps: int
    """Valid transitions."""
    episode_returns: list[float]
    """Of the episodes that ended in it, in the order of (time, environment)."""
    episode_lengths: list[int]
    env_restarts: int
    """1 when the environments were lost and started again from a fresh reset."""
    statistics: Statistics | None
    """Of what it saw, if anything is normalised by it."""
    episode_info: dict[str, list[float]] = field(default_factory=dict)
    """Numbers that the environments gave as these episodes ended, by name."""


@dataclass(frozen=True)
class Normalisation:
    """By what, for the length of a rollout; with nothing measured yet it changes nothing."""

    statistics: Statistics
    observations: bool
    rewards: bool


def initial_state(group: int) -> RolloutState:
    """The state before a group's first rollout, which makes and resets its environments."""
    nothing = np.empty((0, 0), np.float32)
    return RolloutState(
        group, 0, nothing, np.empty(0, np.bool_), np.empty(0), np.empty(0, np.int64), np.empty(0), None
    )


def rollout(
    spec: RolloutSpec, weights: Floats, state: RolloutState, normalisation: Normalisation | None = None
) -> tuple[Trajectory, RolloutState, RolloutReport]:
    """Steps the group's B environments T times under the policy with ``weights`` [num_parameters].

    Raises:
        EnvStepError: an environment raised.
        BadEnvValueError: it gave something that cannot be trained on.
    """
    stepper, state, restarted = _environments(spec, state)
    length, count = spec.length, spec.num_envs
    policy = spec.policy.bind(weights)
    head, log_std, act = policy.head, policy.log_std, policy.step
    noise = head.noise(generator(spec.seed, Role.ACTIONS, state.group, state.version), (length, count))

    raw = np.empty((length + 1, count, spec.policy.layout.size), spec.policy.layout.dtype)
    normalise = None
    observations = raw
    if normalisation is not None and normalisation.observations:
        normalise = Normaliser(normalisation.statistics.observations, spec.policy.layout)
        observations = np.empty_like(raw)
    outputs = np.empty((length, count, head.row_size), np.float32)
    actions: list[NDArray[Any]] = []
    rewards = np.empty((length, count), np.float32)
    terminated = np.empty((length, count), np.bool_)
    truncated = np.empty((length, count), np.bool_)
    finals: list[tuple[int, Rows]] = []
    info: dict[str, list[float]] = {name: [] for name in spec.episode_info}
    memories: list[Floats] = []  # in which the finals were come to, if anything is remembered
    given: list[Floats] = []  # values, if the policy has them as it acts
    memory = policy.initial_memory(count) if state.memory is None else np.array(state.memory)
    recurrence = None if memory is None else Recurrence(memory, np.zeros((length, count), np.bool_))

    raw[0] = state.observations
    for t in range(length):
        if normalise is not None:
            observations[t] = normalise(raw[t])
        outputs[t], value, memory = act(observations[t], memory)
        if value is not None:
            given.append(value)
        action = head.sample(outputs[t], log_std, noise[t])
        actions.append(action)
        stepped = stepper.step(head.to_env(action))
        raw[t + 1], rewards[t], terminated[t], truncated[t], final = stepped
        if spec.episode_info and (ended := terminated[t] | truncated[t]).any():
            for name, numbers in stepper.episode_info(spec.episode_info, ended).items():
                info[name] += numbers
        if final is not None:
            finals.append((t, final if normalise is None else normalise(final)))
            if memory is not None:
                memories.append(memory)
        if recurrence is not None and memory is not None:
            ended = terminated[t] | truncated[t]
            if stepper.next_step_resets:  # the row of the final observation is still of the old episode
                ended = state.done if t == 0 else terminated[t - 1] | truncated[t - 1]
            memory = memory * ~ended[:, None]
            if t + 1 < length:
                recurrence.first[t + 1] = ended
    stepper.check_finite(raw, rewards)
    if normalise is not None:
        observations[length] = normalise(raw[length])

    done = terminated | truncated
    valid = np.ones((length, count), np.bool_)
    if stepper.next_step_resets:
        valid[0] = ~state.done
        valid[1:] = ~done[:-1]
    stacked = np.stack(actions)
    flat_outputs = outputs.reshape(length * count, -1)
    log_probs = head.log_prob(flat_outputs, log_std, stacked.reshape(length * count, *stacked.shape[2:]))
    if given:
        values = np.stack([*given, policy.values(observations[length], memory)])
    else:  # in one batch; copied, since the buffer serves the final observations next
        all_values = policy.values(observations.reshape((length + 1) * count, -1), None)
        values = all_values.reshape(length + 1, count).copy()
    next_values = values[1:]
    if finals:  # the next observation belongs to the next episode there
        next_values = next_values.copy()
        for (t, _), final_values in zip(finals, _values_of(policy, finals, memories), strict=True):
            next_values[t, done[t]] = final_values[done[t]]

    returns, lengths, episode_returns, episode_lengths = _account(state, rewards, done, valid)
    discounted, statistics = state.discounted, None
    if normalisation is not None:
        history, discounted = _discounted_returns(state.discounted, rewards, done, valid, spec.gamma)
        statistics = Statistics(Moments.of(raw[:-1][valid]), Moments.of(history[valid][:, None]))
        if normalisation.rewards:
            rewards = scaled(rewards, normalisation.statistics.returns)
    following = RolloutState(
        state.group, state.version + 1, raw[length],
        done[-1] if stepper.next_step_resets else np.zeros(count, np.bool_),
        returns, lengths, discounted, env_snapshots.take(stepper.env), memory,
    )
    _keep(spec, following, stepper)
    trajectory = Trajectory(
        observations[:-1], stacked, log_probs.reshape(length, count), rewards, values[:-1], next_values,
        terminated, truncated, valid, _successors(observations, finals, done) if spec.successors else None, recurrence,
    )
    report = RolloutReport(int(valid.sum()), episode_returns, episode_lengths, int(restarted), statistics, info)
    return trajectory, following, report


def _successors(observations: Rows, finals: list[tuple[int, Rows]], done: Bools) -> Rows:
    """As :class:`Trajectory` has them, of ``observations`` [T + 1, B, O] and the episodes' final ones."""
    after = observations[1:]
    if finals:
        after = after.copy()
        for t, final in finals:
            after[t, done[t]] = final[done[t]]
    return after[ends_of(done)]


def ends_of(done: Bools) -> Bools:
    """[T, B]: the rows whose successor is not the next row."""
    ends = done.copy()
    ends[-1] = True
    return ends


def _values_of(policy: BoundPolicy, finals: list[tuple[int, Rows]], memories: list[Floats]) -> Floats:
    """V of final observations: [len(finals), B]; rows of environments that are not done mean nothing."""
    if memories:
        return np.stack([policy.values(final, memory) for (_, final), memory in zip(finals, memories, strict=True)])
    stacked = np.stack([final for _, final in finals])
    return policy.values(stacked.reshape(-1, stacked.shape[-1]), None).reshape(stacked.shape[:2])


def _account(
    state: RolloutState, rewards: Floats, done: Bools, valid: Bools
) -> tuple[NDArray[np.float64], NDArray[np.int64], list[float], list[int]]:
    """Running (returns [B], lengths [B]) after the rollout, and those of the episodes that ended in it."""
    all_returns = state.returns + np.cumsum(rewards * valid, axis=0, dtype=np.float64)
    all_lengths = state.lengths + np.cumsum(valid, axis=0)
    before_returns, before_lengths = np.zeros_like(state.returns), np.zeros_like(state.lengths)
    episode_returns: list[float] = []
    episode_lengths: list[int] = []
    for t, i in zip(*np.nonzero(done & valid), strict=True):
        episode_returns.append(float(all_returns[t, i] - before_returns[i]))
        episode_lengths.append(int(all_lengths[t, i] - before_lengths[i]))
        before_returns[i], before_lengths[i] = all_returns[t, i], all_lengths[t, i]
    return all_returns[-1] - before_returns, all_lengths[-1] - before_lengths, episode_returns, episode_lengths


def _discounted_returns(
    before: NDArray[np.float64], rewards: Floats, done: Bools, valid: Bools, gamma: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reward so far, discounted to each step: [T, B], and how it goes on after the rollout: [B]."""
    history = np.empty(rewards.shape)
    running = before
    for t in range(len(rewards)):
        history[t] = running * gamma + rewards[t] * valid[t]
        running = history[t] * ~done[t]
    return history, running


_KEPT_RUNS = 4
_live: OrderedDict[str, dict[int, tuple[int, VectorStepper]]] = OrderedDict()
"""Run → group → (version of the state they are in, its environments), in this process."""


def _environments(spec: RolloutSpec, state: RolloutState) -> tuple[VectorStepper, RolloutState, bool]:
    """The group's environments as ``state`` says: live ones if they are here, else restored, else reset."""
    version, stepper = _live.get(spec.run, {}).pop(state.group, (-1, None))
    if stepper is not None and version == state.version:
        return stepper, state, False
    if stepper is None:
        stepper = VectorStepper(spec.env, spec.env_kwargs, spec.num_envs, state.group * spec.num_envs)
    count = spec.num_envs
    if state.snapshot is not None:
        env_snapshots.restore(stepper.env, state.snapshot)
        stepper.remember(integers(spec.seed, Role.ENVS, state.group, 0, count))
        return stepper, state, False
    seeds = integers(spec.seed, Role.ENVS, state.group, state.version, count)
    fresh = RolloutState(
        state.group, state.version, stepper.reset(seeds), np.zeros(count, np.bool_), np.zeros(count),
        np.zeros(count, np.int64), np.zeros(count), None,
    )
    return stepper, fresh, state.version > 0


def _keep(spec: RolloutSpec, state: RolloutState, stepper: VectorStepper) -> None:
    """Keeps the environments for the next rollout; those of runs long past are closed."""
    _live.setdefault(spec.run, {})[state.group] = (state.version, stepper)
    _live.move_to_end(spec.run)
    while len(_live) > _KEPT_RUNS:
        _, groups = _live.popitem(last=False)
        for _, old in groups.values():
            old.close()


def forget(run: str) -> None:
    """Closes the live environments of ``run`` in this process."""
    for _, stepper in _live.pop(run, {}).values():
        stepper.close()
