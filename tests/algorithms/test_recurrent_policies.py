"""Policies that remember: the learner sees what the rollout saw, memory ends with the episode, cues are recalled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlflow.algorithms.a3c import A3C, A3CConfig
from rlflow.algorithms.advantages import flatten
from rlflow.algorithms.envs import spaces_of
from rlflow.algorithms.errors import UnfitConfigError
from rlflow.algorithms.policies.torch_actor_critic import NetworkSpec, TorchActorCritic
from rlflow.algorithms.ppo import PPO, PPOConfig
from rlflow.algorithms.rollout import RolloutSpec, forget, initial_state, rollout
from rlflow.algorithms.sequences import Columns
from rlflow.algorithms.states import pack_rollout_state, unpack_rollout_state

MODES = ("NextStep", "SameStep", "Disabled")
LSTM = NetworkSpec("mlp", hidden=(8,), lstm_size=6)


def spec_for(env: str, length: int = 11, num_envs: int = 3, **env_kwargs: Any) -> tuple[RolloutSpec, np.ndarray]:
    policy = TorchActorCritic(*spaces_of(env, env_kwargs), LSTM)
    weights = policy.initial_parameters(np.random.default_rng(0)) * 3
    return RolloutSpec("recurrent", env, env_kwargs, 7, num_envs, length, policy), weights


@pytest.fixture(autouse=True)
def no_live_environments():
    yield
    forget("recurrent")


@pytest.mark.parametrize(("env", "kwargs"), [
    ("toy_envs:Recall-v0", {}),
    *(("broken_envs:CounterVector-v0", {"mode": mode, "truncate": True}) for mode in MODES),
])
def test_the_learner_sees_what_the_rollout_saw(env, kwargs):
    """Through three rollouts in which episodes end: log-probabilities and values are those of acting."""
    spec, weights = spec_for(env, **kwargs)
    learner = spec.policy.learner(weights)
    state = initial_state(0)
    for _ in range(3):
        made, state, _ = rollout(spec, weights, state)
        data = flatten([made], 0.99, 0.95)
        columns = Columns([made])
        for picked in (np.arange(3), np.array([2, 0])):
            sequences, rows = columns.pick(picked)
            seen = {}

            def loss(outputs, actions, seen=seen):
                seen["log_probs"] = outputs.distribution.log_prob(actions).detach()
                seen["values"] = outputs.values.detach()
                return outputs.values.sum(), {}

            learner.gradient_of(sequences, torch.from_numpy(data["actions"][rows]), loss)
            np.testing.assert_allclose(seen["log_probs"], data["old_log_probs"][rows], atol=1e-5)
            np.testing.assert_allclose(seen["values"], data["old_values"][rows], atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_episodes_begin_with_nothing_remembered_and_end_with_what_their_last_state_is_worth(mode):
    """Values are those of a policy that lives through each episode alone, the final observation included."""
    spec, weights = spec_for("broken_envs:CounterVector-v0", length=20, num_envs=2, mode=mode, truncate=True)
    made, _, _ = rollout(spec, weights, initial_state(0))
    bound = spec.policy.bind(weights)
    for i in range(2):
        memory = bound.initial_memory(1)
        for t in np.flatnonzero(made.valid[:, i]):
            row = made.observations[t, i][None]
            _, value, memory = bound.step(row, memory)
            assert made.values[t, i] == pytest.approx(value.item(), abs=1e-5)
            successor = bound.values(row + np.float32([[1, 1]]), memory)  # the environment counts
            assert made.next_values[t, i] == pytest.approx(successor.item(), abs=1e-5)
            if made.truncated[t, i]:
                memory = bound.initial_memory(1)


def test_a_rollout_run_again_from_its_state_gives_the_same_bits():
    spec, weights = spec_for("CartPole-v1")
    _, state, _ = rollout(spec, weights, initial_state(0))
    assert state.memory.any()
    made, after, _ = rollout(spec, weights, state)
    forget("recurrent")
    again, after_again, _ = rollout(spec, weights, unpack_rollout_state(pack_rollout_state(state)))
    np.testing.assert_array_equal(made.log_probs, again.log_probs)
    np.testing.assert_array_equal(made.values, again.values)
    np.testing.assert_array_equal(after.memory, after_again.memory)


def test_a_cue_is_recalled(inline_engine):
    """By chance, and by all that does not remember, one episode in two."""
    config = PPOConfig(
        env="toy_envs:Recall-v0", num_envs=16, rollout_length=16, epochs=4, minibatch_size=128, learning_rate=0.01,
        lstm_size=16, policy_hidden=(16,), gamma=1.0,
    )
    algorithm = PPO(config, 10_000)
    algorithm.setup()
    for _ in range(12):
        metrics = algorithm.training_step()
    assert all(math.isfinite(value) for value in metrics.values())
    assert algorithm.evaluate(10, seed=0).mean_return == 1.0
    algorithm.close()


def test_a3c_takes_gradients_through_time(inline_engine):
    algorithm = A3C(A3CConfig(env="toy_envs:Recall-v0", num_envs=4, gradients=3, rollout_length=8, lstm_size=4), 1000)
    algorithm.setup()
    assert all(math.isfinite(value) for value in algorithm.training_step().values())
    algorithm.close()


@pytest.mark.parametrize("option", [{"overlap": True}, {"learners": 2}])
def test_what_is_not_for_recurrent_policies_is_refused(inline_engine, option):
    algorithm = PPO(PPOConfig(env="toy_envs:Recall-v0", lstm_size=4, **option), 1000)
    with pytest.raises(UnfitConfigError, match="not for recurrent policies; leave them out"):
        algorithm.setup()
    algorithm.close()


def test_a_picture_and_an_lstm():
    policy = TorchActorCritic(
        spaces.Box(0, 255, (9, 9, 3), np.uint8), spaces.Discrete(2), NetworkSpec("impala", lstm_size=5)
    )
    bound = policy.bind(policy.initial_parameters(np.random.default_rng(0)))
    outputs, values, memory = bound.step(np.full((4, 243), 200, np.uint8), bound.initial_memory(4))
    assert outputs.shape == (4, 2) and values.shape == (4,) and memory.shape == (4, 10) and memory.any()


def test_a_saved_state_continues_bit_for_bit(inline_engine):
    config = PPOConfig(env="CartPole-v1", num_envs=4, env_groups=2, rollout_length=16, epochs=2, lstm_size=4)
    original, resumed = PPO(config, 1000), PPO(config, 1000)
    original.setup()
    original.training_step()
    saved = original.state()
    assert all(group["memory"].shape == (2, 8) and group["memory"].any() for group in saved["groups"])
    resumed.setup()
    resumed.load_state(saved)
    for algorithm in (original, resumed):
        algorithm.training_step()
    np.testing.assert_array_equal(
        original.trained_policy().weights, resumed.trained_policy().weights, strict=True
    )
    original.close()
    resumed.close()
