"""PPO with rollouts that run while the learner learns: one policy late, corrected for, reproducible."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from test_ppo import SMALL, assert_same_state, numbers, started
from test_rollout import spec_for, weights_for

from rlflow import engine
from rlflow.algorithms.advantages import flatten
from rlflow.algorithms.ppo import PPO, PPOConfig
from rlflow.algorithms.rollout import forget, initial_state, rollout

STEPS = 6


@pytest.mark.usefixtures("inline_engine")
class TestOneProcess:
    def test_rollouts_act_by_the_weights_that_the_learner_began_with(self):
        algorithm = started(overlap=True)
        for _ in range(3):
            began_with = engine.get(algorithm._weights)
            algorithm.training_step()
            assert algorithm._ahead is not None
            for trajectory in engine.get(algorithm._ahead.trajectories):
                late, current = (log_probs_under(weights, algorithm, trajectory)
                                 for weights in (began_with, engine.get(algorithm._weights)))
                np.testing.assert_allclose(trajectory.log_probs, late, rtol=1e-4, atol=1e-5)
                assert abs(trajectory.log_probs - current).max() > 1e-3

    @pytest.mark.parametrize("changes", [{}, {"env": "Pendulum-v1", "normalize_observations": True}])
    def test_a_saved_state_continues_bit_for_bit(self, changes):
        original = started(overlap=True, **changes)
        for _ in range(3):
            original.training_step()
        saved = original.state()
        ahead = [numbers(original.training_step()) for _ in range(3)]
        resumed = started(overlap=True, **changes)
        resumed.load_state(saved)
        assert [numbers(resumed.training_step()) for _ in range(3)] == ahead
        assert_same_state(resumed.state(), original.state())

    def test_a_state_goes_from_one_way_to_the_other(self):
        late = started(overlap=True)
        late.training_step()
        prompt = started()
        prompt.load_state(late.state())
        prompt.training_step()
        late.load_state(prompt.state())
        assert late.training_step()["iteration"] == 3

    def test_nothing_is_collected_past_the_end(self):
        algorithm = PPO(PPOConfig(**SMALL, overlap=True), total_env_steps=100)
        algorithm.setup()
        while algorithm.env_steps < 100:
            assert algorithm.training_step()["steps_per_second"] > 0
        assert algorithm._ahead is None


def log_probs_under(weights: Any, algorithm: PPO, trajectory: Any) -> Any:
    bound = algorithm.policy.bind(weights)
    rows = bound.rows(trajectory.observations.reshape(-1, 4)).copy()
    log_probs = bound.head.log_prob(rows, None, trajectory.actions.reshape(-1))
    return log_probs.reshape(trajectory.log_probs.shape)


@pytest.mark.parametrize(
    ("env", "arguments"),
    [("CartPole-v1", {}), ("broken_envs:Counter-v0", {"period": 3, "truncate": True})]
    + [("broken_envs:CounterVector-v0", {"mode": mode, "period": 3, "truncate": truncate})
       for mode in ("NextStep", "SameStep", "Disabled") for truncate in (False, True)],
)
def test_by_the_policy_that_acted_targets_are_those_without_correction(env, arguments):
    spec = dataclasses.replace(spec_for(env, length=20, num_envs=2, **arguments), successors=True)
    weights, state = weights_for(spec), initial_state(0)
    try:
        for _ in range(2):
            trajectory, state, _ = rollout(spec, weights, state)
            plain = flatten([trajectory], 0.97, 0.9)
            corrected = flatten([trajectory], 0.97, 0.9, spec.policy.bind(weights))
            for name, expected in plain.items():
                np.testing.assert_allclose(corrected[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
    finally:
        forget("test")


def test_numbers_do_not_depend_on_the_number_of_workers():
    runs = []
    for cpus in (1, 3):
        engine.init(num_cpus=cpus)
        try:
            algorithm = started(overlap=True, env_groups=4)
            runs.append([numbers(algorithm.training_step()) for _ in range(STEPS)])
            algorithm.close()
        finally:
            engine.shutdown()
    assert runs[0] == runs[1]
