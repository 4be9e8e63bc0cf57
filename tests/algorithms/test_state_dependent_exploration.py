"""gSDE: noise that is a function of the state, the same for a while; its distribution on both sides."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlflow.algorithms.a3c import A3C, A3CConfig
from rlflow.algorithms.envs import spaces_of
from rlflow.algorithms.errors import UnsupportedSpaceError
from rlflow.algorithms.policies.actor_critic import MlpActorCritic
from rlflow.algorithms.policies.heads import StateDependentGaussian
from rlflow.algorithms.policies.torch_heads import torch_distribution
from rlflow.algorithms.ppo import PPO, PPOConfig
from rlflow.algorithms.rollout import RolloutSpec, forget, initial_state, rollout

BOX = spaces.Box(-1, 1, (2,), np.float32)
RNG = np.random.default_rng(0)


def test_both_sides_have_torchs_log_probabilities_and_entropy():
    head = StateDependentGaussian(BOX, features=3, sample_freq=-1)
    mean, features = RNG.normal(size=(9, 2)).astype(np.float32), RNG.normal(size=(9, 3)).astype(np.float32)
    log_std = RNG.normal(size=(3, 2)).astype(np.float32)
    actions = RNG.normal(size=(9, 2)).astype(np.float32)
    deviation = np.sqrt(features**2 @ np.exp(log_std) ** 2 + 1e-6)
    expected = torch.distributions.Normal(torch.from_numpy(mean), torch.from_numpy(deviation))
    log_probs = expected.log_prob(torch.from_numpy(actions)).sum(1)
    rows = np.concatenate([mean, features], axis=1)
    np.testing.assert_allclose(head.log_prob(rows, log_std, actions), log_probs, rtol=1e-4, atol=1e-4)
    tensors = [torch.from_numpy(each).requires_grad_() for each in (mean, log_std, features)]
    ours = torch_distribution(head, tensors[0], tensors[1], None, tensors[2])
    torch.testing.assert_close(ours.log_prob(torch.from_numpy(actions)), log_probs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.entropy(), expected.entropy().sum(1), rtol=1e-4, atol=1e-4)
    ours.log_prob(torch.from_numpy(actions)).sum().backward()
    assert tensors[1].grad.abs().min() > 0 and tensors[2].grad is None


def test_samples_have_the_deviation_that_is_claimed():
    head = StateDependentGaussian(BOX, features=3, sample_freq=-1)
    features, log_std = np.array([0.5, -1.0, 2.0], np.float32), np.log(np.array([[1, 2], [0.5, 1], [0.1, 0.2]], "f4"))
    rows = np.tile(np.concatenate([[1.0, -1.0], features]).astype(np.float32), (40_000, 1))
    drawn = head.sample(rows, log_std, head.noise(RNG, (1, 40_000))[0])
    np.testing.assert_allclose(drawn.mean(0), [1, -1], atol=0.03)
    np.testing.assert_allclose(drawn.std(0), np.sqrt(features**2 @ np.exp(log_std) ** 2), rtol=0.03)


@pytest.mark.parametrize(("freq", "held"), [(-1, [0] * 7), (3, [0, 0, 0, 1, 1, 1, 2]), (1, list(range(7)))])
def test_a_matrix_is_held_for_a_while(freq, held):
    noise = StateDependentGaussian(BOX, features=3, sample_freq=freq).noise(np.random.default_rng(0), (7, 4))
    assert noise[0].shape == (4, 3, 2)
    for t in range(7):
        for s in range(7):
            assert np.array_equal(noise[t], noise[s]) == (held[t] == held[s])


def test_a_rollouts_rows_belong_to_its_policy():
    policy = MlpActorCritic(*spaces_of("Pendulum-v1", {}), policy_hidden=(8,), value_hidden=(8,), sde_sample_freq=12)
    weights = policy.initial_parameters(np.random.default_rng(0))
    try:
        made, _, _ = rollout(RolloutSpec("sde", "Pendulum-v1", {}, 7, 3, 16, policy), weights, initial_state(0))
    finally:
        forget("sde")
    bound = policy.bind(weights)
    rows = bound.rows(made.observations.reshape(48, 3))
    log_probs = bound.head.log_prob(rows, bound.log_std, made.actions.reshape(48, 1))
    np.testing.assert_allclose(log_probs, made.log_probs.ravel(), rtol=1e-4, atol=1e-4)
    exploration = made.actions.reshape(48, 1) - rows[:, :1]
    for env in range(3):  # twelve rows with one matrix: the noise is linear in the eight features
        features, noise = rows[:, 1:].reshape(16, 3, 8)[:12, env], exploration.reshape(16, 3)[:12, env]
        found = np.linalg.lstsq(features, noise, rcond=None)[0]
        np.testing.assert_allclose(features @ found, noise, atol=1e-3)
        assert abs(rows[:, 1:].reshape(16, 3, 8)[12:, env] @ found - exploration.reshape(16, 3)[12:, env]).max() > 0.1


@pytest.mark.parametrize("changes", [{}, {"lstm_size": 6}, {"env": "toy_envs:Spaces-v0", "env_kwargs": {
    "observation": "image", "action": "box"}}])
def test_ppo_and_a3c_train_with_it(inline_engine, changes):
    common = {"env": "Pendulum-v1", "num_envs": 2, "rollout_length": 8, "use_sde": True, "sde_sample_freq": 4}
    common.update(changes)
    for algorithm in (PPO(PPOConfig(**common, epochs=1), 1000), A3C(A3CConfig(**common, gradients=1), 1000)):
        algorithm.setup()
        metrics = algorithm.training_step()
        assert all(math.isfinite(value) for value in metrics.values())
        if "kl" in metrics:
            assert abs(metrics["kl"]) < 1e-3, "the learner sees another policy than the one that acted"
        first = algorithm.trained_policy().weights.copy()
        algorithm.training_step()
        assert not np.array_equal(first[-6:], algorithm.trained_policy().weights[-6:]), "log_std is not trained"
        algorithm.close()


def test_it_is_for_boxes(inline_engine):
    with pytest.raises(UnsupportedSpaceError, match="use_sde"):
        PPO(PPOConfig(env="CartPole-v1", use_sde=True), 100).setup()
    with pytest.raises(ValueError, match="sde_sample_freq"):
        PPOConfig(env="Pendulum-v1", use_sde=True, sde_sample_freq=0)
