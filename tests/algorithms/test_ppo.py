"""PPO end to end on the inline engine: learns, resumes bit for bit, and can be varied by overriding."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from rlflow import engine
from rlflow.algorithms.errors import StateError
from rlflow.algorithms.ppo import PPO, PPOConfig
from rlflow.algorithms.rollout import Trajectory

SMALL: dict[str, Any] = {
    "env": "CartPole-v1", "num_envs": 4, "env_groups": 2, "rollout_length": 16, "minibatch_size": 32,
    "epochs": 2,
    "policy_hidden": (16,), "value_hidden": (16,), "learning_rate": "linear(1e-3, 0)", "entropy_coef": 0.01,
}
pytestmark = pytest.mark.usefixtures("inline_engine")


def started(algorithm: type[PPO] = PPO, **changes: Any) -> PPO:
    made = algorithm(PPOConfig(**{**SMALL, **changes}), total_env_steps=5000)
    made.setup()
    return made


def numbers(metrics: dict[str, float]) -> dict[str, float]:
    timed = ("time_rollout", "time_learn", "steps_per_second")
    return {key: value for key, value in metrics.items() if key not in timed}


def leaves(state: Any) -> list[Any]:
    if isinstance(state, dict):
        return [leaf for key in sorted(state) for leaf in leaves(state[key])]
    return [leaf for item in state for leaf in leaves(item)] if isinstance(state, list) else [state]


def assert_same_state(left: Any, right: Any) -> None:
    ours, theirs = leaves(left), leaves(right)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


def test_metrics_are_complete_and_finite():
    algorithm = started()
    metrics = algorithm.training_step()
    assert all(math.isfinite(value) for value in metrics.values())
    for _ in range(4):
        metrics = algorithm.training_step()
    assert set(metrics) >= {
        "env_steps", "iteration", "episodes", "episode_return", "episode_length", "steps_per_second",
        "policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "explained_variance", "learning_rate",
        "time_rollout", "time_learn",
    }
    assert metrics["iteration"] == 5 and metrics["env_steps"] == algorithm.env_steps <= 5 * 64
    json.dumps(metrics)
    algorithm.close()
    algorithm.close()


def test_same_seed_same_numbers_other_seed_other_numbers():
    runs = []
    for seed in (3, 3, 4):
        algorithm = started(seed=seed)
        runs.append([numbers(algorithm.training_step()) for _ in range(3)])
        algorithm.close()
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_a_saved_state_continues_bit_for_bit(env):
    original = started(env=env)
    for _ in range(3):
        original.training_step()
    saved = original.state()
    assert {type(leaf) for leaf in leaves(saved)} <= {np.ndarray, int, float, str, bool, type(None)}
    ahead = [numbers(original.training_step()) for _ in range(3)]
    resumed = started(env=env)
    resumed.load_state(saved)
    assert resumed.iteration == 3
    assert [numbers(resumed.training_step()) for _ in range(3)] == ahead
    assert_same_state(resumed.state(), original.state())
    assert resumed.evaluate(3, seed=0) == original.evaluate(3, seed=0)


def test_a_state_of_something_else_is_refused():
    saved = started().state()
    with pytest.raises(StateError, match="2 env groups"):
        started(env_groups=1).load_state(saved)
    with pytest.raises(StateError, match="parameters"):
        started(policy_hidden=(8,)).load_state(saved)


def test_evaluation_is_deterministic_and_does_not_touch_training():
    algorithm, other = started(), started()
    algorithm.training_step()
    other.training_step()
    first = algorithm.evaluate(13, seed=5)
    assert len(first.returns) == len(first.lengths) == 13
    assert first.returns == [float(length) for length in first.lengths]
    assert algorithm.evaluate(13, seed=5) == first
    assert algorithm.evaluate(13, seed=6) != first
    assert algorithm.evaluate(13, seed=5, deterministic=False) != first
    assert numbers(algorithm.training_step()) == numbers(other.training_step())


def test_options_of_the_loss_run():
    algorithm = started(clip_range_value=0.2, target_kl=1e-6, normalize_advantage=False, activation="relu")
    stopped = algorithm.training_step()
    assert stopped["kl"] < 1e-4  # nothing after the first step that left the trust region
    assert all(math.isfinite(value) for value in stopped.values())


class OnlyValues(PPO):
    """A loss of one's own that leaves the policy alone."""

    def loss(self, outputs, batch):
        error = (outputs.values - batch.returns).abs().mean()
        return error, {"value_loss": error.detach(), "gamma": error.detach() * 0 + self.config.gamma}


class Wide(PPO):
    """Another network."""

    def make_policy(self, observation_space, action_space):
        policy = super().make_policy(observation_space, action_space)
        return type(policy)(observation_space, action_space, policy_hidden=(7,), value_hidden=(9, 9))


def doubled(trajectory: Trajectory) -> Trajectory:
    return dataclasses.replace(trajectory, rewards=trajectory.rewards * 2)


class DoubleReward(PPO):
    """Other experience and another metric."""

    def collect(self):
        trajectories, reports = super().collect()
        return [engine.remote(doubled).remote(trajectory) for trajectory in trajectories], reports

    def training_step(self):
        return {**super().training_step(), "answer": 42.0}


def test_subclasses_override_collect_and_training_step():
    plain, double = started().training_step(), started(DoubleReward).training_step()
    assert double["answer"] == 42.0 and double["env_steps"] == plain["env_steps"]
    assert double["value_loss"] > plain["value_loss"]


def test_subclasses_override_loss_and_policy():
    algorithm = started(OnlyValues)
    before = algorithm.state()["learner"]["parameters"]
    metrics = algorithm.training_step()
    assert metrics["gamma"] == pytest.approx(0.99) and "policy_loss" not in metrics
    policy_before, value_before, _ = algorithm.policy.split(before)
    policy_after, value_after, _ = algorithm.policy.split(algorithm.state()["learner"]["parameters"])
    np.testing.assert_array_equal(policy_before, policy_after)
    assert not np.array_equal(value_before, value_after)

    wide = started(Wide)
    wide.training_step()
    assert wide.policy.num_parameters == (4 * 7 + 7 + 7 * 2 + 2) + (4 * 9 + 9 + 9 * 9 + 9 + 9 + 1)
