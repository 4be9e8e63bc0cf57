"""Rollouts as pure functions: the same bits wherever and however often they run, and honest rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from rlflow.algorithms import rollout as rollout_module
from rlflow.algorithms.envs import spaces_of
from rlflow.algorithms.policies.actor_critic import BoundActorCritic, MlpActorCritic
from rlflow.algorithms.rollout import RolloutSpec, forget, initial_state, rollout
from rlflow.algorithms.seeding import Role, generator, integers
from rlflow.algorithms.states import pack_rollout_state, unpack_rollout_state


def spec_for(env: str, length: int = 32, num_envs: int = 4, **env_kwargs: Any) -> RolloutSpec:
    policy = MlpActorCritic(*spaces_of(env, env_kwargs), policy_hidden=(16,), value_hidden=(16,))
    return RolloutSpec("test", env, env_kwargs, 7, num_envs, length, policy)


def weights_for(spec: RolloutSpec) -> np.ndarray:
    return spec.policy.initial_parameters(generator(0, Role.WEIGHTS))


def assert_same(left: Any, right: Any) -> None:
    for field in dataclasses.fields(left):
        one, other = getattr(left, field.name), getattr(right, field.name)
        if isinstance(one, dict):
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_array_equal(one[key], other[key], err_msg=f"{field.name}[{key}]")
        else:
            np.testing.assert_array_equal(one, other, err_msg=field.name)


@pytest.fixture(autouse=True)
def no_live_environments():
    yield
    forget("test")


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1"])
def test_a_rollout_run_again_from_its_state_gives_the_same_bits(env):
    spec = spec_for(env)
    weights = weights_for(spec)
    state = initial_state(0)
    history = []
    for _ in range(4):
        made = rollout(spec, weights, state)
        history.append((state, made))
        state = made[1]
    for state, made in reversed(history):  # live environments have moved on or are gone: all is restored
        forget("test")
        for _ in range(2):
            again = rollout(spec, weights, unpack_rollout_state(pack_rollout_state(state)))
            for left, right in zip(made, again, strict=True):
                assert_same(left, right)
        assert again[2].env_restarts == 0


def test_groups_and_iterations_have_streams_of_their_own():
    spec = spec_for("CartPole-v1")
    weights = weights_for(spec)
    first, state, _ = rollout(spec, weights, initial_state(0))
    second, _, _ = rollout(spec, weights, initial_state(1))
    third, _, _ = rollout(spec, weights, state)
    assert not np.array_equal(first.observations[0], second.observations[0])
    assert not np.array_equal(first.actions, second.actions)
    assert not np.array_equal(first.actions, third.actions)


def test_values_and_log_probabilities_belong_to_the_rows():
    spec = spec_for("CartPole-v1", length=64)
    weights = weights_for(spec)
    made, _, _ = rollout(spec, weights, initial_state(0))
    bound = BoundActorCritic(spec.policy, weights)
    flat = made.observations.reshape(-1, 4)
    np.testing.assert_allclose(bound.value.forward(flat)[:, 0], made.values.reshape(-1), rtol=1e-4, atol=1e-6)
    log_probs = bound.head.log_prob(bound.policy.forward(flat).copy(), None, made.actions.reshape(-1))
    np.testing.assert_allclose(log_probs, made.log_probs.reshape(-1), rtol=1e-4, atol=1e-6)
    assert made.actions.min() == 0 and made.actions.max() == 1


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled", "sync"])
def test_every_autoreset_mode_gives_the_same_transitions(mode, truncate):
    """The environment counts its steps, so every row can be checked: what was seen, and what followed."""
    vector = {} if mode == "sync" else {"mode": mode}
    env = "broken_envs:Counter-v0" if mode == "sync" else "broken_envs:CounterVector-v0"
    spec = spec_for(env, length=20, num_envs=2 if vector else 1, period=3, truncate=truncate, **vector)
    policy = spec.policy
    weights = weights_for(spec)
    state = initial_state(0)
    value = BoundActorCritic(policy, weights).value
    transitions: list[list[tuple[int, int]]] = [[] for _ in range(spec.num_envs)]
    episode_lengths: list[int] = []
    for _ in range(3):
        made, state, report = rollout(spec, weights, state)
        episode_lengths += report.episode_lengths
        assert report.steps == made.valid.sum()
        ended = made.truncated if truncate else made.terminated
        assert not (made.terminated if truncate else made.truncated).any()
        assert made.valid.all() or mode == "NextStep"
        for t, i in zip(*np.nonzero(made.valid), strict=True):
            total, steps = made.observations[t, i]
            transitions[i].append((int(total), int(steps)))
            assert ended[t, i] == (steps + 1 == 3 + i)
            successor = np.array([[total + 1, steps + 1]], np.float32)
            expected = value.forward(successor).item()
            assert made.next_values[t, i] == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for i, seen in enumerate(transitions):
        expected = [(k, k % (3 + i)) for k in range(len(seen))]
        assert seen == expected, "a transition is missing, doubled or out of order"
    assert set(episode_lengths) == {3 + i for i in range(spec.num_envs)}


def test_episode_returns_add_up_across_rollouts():
    spec = spec_for("CartPole-v1", length=8)
    weights = weights_for(spec)
    state, finished, steps = initial_state(0), 0, 0
    for _ in range(30):
        _, state, report = rollout(spec, weights, state)
        finished += sum(report.episode_lengths)
        steps += report.steps
        assert report.episode_returns == [float(length) for length in report.episode_lengths]
    assert finished + int(state.lengths.sum()) == steps
    np.testing.assert_array_equal(state.returns, state.lengths)


def test_environments_without_a_snapshot_live_on_and_their_loss_is_reported():
    spec = spec_for("broken_envs:Counter-v0", length=5, num_envs=2)
    weights = weights_for(spec)
    _, state, _ = rollout(spec, weights, initial_state(0))
    assert state.snapshot is None
    second, state, report = rollout(spec, weights, state)
    assert report.env_restarts == 0
    assert second.observations[0, 0, 0] == 5.0, "the live environment was not found again"
    forget("test")
    third, state, report = rollout(spec, weights, state)
    assert report.env_restarts == 1
    assert third.observations[0, 0, 0] == 0.0
    fourth, _, report = rollout(spec, weights, state)
    assert report.env_restarts == 0
    assert fourth.observations[0, 0, 0] == 5.0


def test_stale_live_environments_are_not_used():
    spec = spec_for("broken_envs:Counter-v0", length=5, num_envs=1)
    weights = weights_for(spec)
    _, state, _ = rollout(spec, weights, initial_state(0))
    rollout(spec, weights, state)
    _, _, report = rollout(spec, weights, state)  # again: the live one has moved on
    assert report.env_restarts == 1


def test_restored_environments_remember_their_seed_for_errors():
    spec = spec_for("Pendulum-v1", length=3, num_envs=2)
    weights = weights_for(spec)
    _, state, _ = rollout(spec, weights, initial_state(1))
    before = [env.seed for env in live_environments()]
    forget("test")
    rollout(spec, weights, state)
    assert [env.seed for env in live_environments()] == before == integers(7, Role.ENVS, 1, 0, 2)


def live_environments() -> list[Any]:
    (_, stepper), = rollout_module._live["test"].values()
    return stepper.env.envs
