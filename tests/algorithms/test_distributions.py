"""Log-probabilities, entropies and samples of both sides against torch.distributions."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from rlflow.algorithms.errors import UnsupportedSpaceError
from rlflow.algorithms.policies.heads import Categorical, DiagonalGaussian, head_for
from rlflow.algorithms.policies.torch_heads import TorchCategorical, TorchDiagonalGaussian

RNG = np.random.default_rng(0)


def test_categorical_matches_torch():
    logits = RNG.normal(size=(20, 4)).astype(np.float32) * 3
    actions = RNG.integers(0, 4, 20)
    expected = torch.distributions.Categorical(logits=torch.from_numpy(logits))
    ours = TorchCategorical(torch.from_numpy(logits))
    log_prob = expected.log_prob(torch.from_numpy(actions))
    torch.testing.assert_close(ours.log_prob(torch.from_numpy(actions)), log_prob)
    torch.testing.assert_close(ours.entropy(), expected.entropy())
    found = Categorical(gymnasium.spaces.Discrete(4)).log_prob(logits, None, actions)
    np.testing.assert_allclose(found, log_prob.numpy(), rtol=1e-5, atol=1e-6)


def test_gaussian_matches_torch():
    mean = RNG.normal(size=(20, 3)).astype(np.float32)
    log_std = RNG.normal(size=3).astype(np.float32)
    actions = RNG.normal(size=(20, 3)).astype(np.float32)
    normal = torch.distributions.Normal(torch.from_numpy(mean), torch.from_numpy(log_std).exp())
    expected = torch.distributions.Independent(normal, 1)
    ours = TorchDiagonalGaussian(torch.from_numpy(mean), torch.from_numpy(log_std))
    log_prob = expected.log_prob(torch.from_numpy(actions))
    torch.testing.assert_close(ours.log_prob(torch.from_numpy(actions)), log_prob, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.entropy().expand(20), expected.entropy())
    head = DiagonalGaussian(gymnasium.spaces.Box(-1, 1, (3,), np.float32))
    np.testing.assert_allclose(head.log_prob(mean, log_std, actions), log_prob.numpy(), rtol=1e-4, atol=1e-4)


def test_samples_follow_the_distribution():
    head = Categorical(gymnasium.spaces.Discrete(3))
    logits = np.log(np.array([[0.2, 0.5, 0.3]], np.float32)).repeat(50_000, 0)
    drawn = head.sample(logits, None, head.noise(np.random.default_rng(1), (1, 50_000))[0])
    np.testing.assert_allclose(np.bincount(drawn) / 50_000, [0.2, 0.5, 0.3], atol=0.01)
    gaussian = DiagonalGaussian(gymnasium.spaces.Box(-1, 1, (2,), np.float32))
    means = np.tile(np.array([1.0, -2.0], np.float32), (50_000, 1))
    drawn = gaussian.sample(means, np.log([0.5, 2.0]).astype("f4"), gaussian.noise(RNG, (1, 50_000))[0])
    np.testing.assert_allclose(drawn.mean(0), [1.0, -2.0], atol=0.05)
    np.testing.assert_allclose(drawn.std(0), [0.5, 2.0], rtol=0.03)


def test_actions_fit_the_space():
    space = gymnasium.spaces.Box(np.float32([[-1, 0]]), np.float32([[1, 0.5]]))
    head = head_for(space)
    sent = head.to_env(np.array([[-7.0, 7.0]], np.float32))
    assert sent.shape == (1, 1, 2) and space.contains(sent[0])
    shifted = head_for(gymnasium.spaces.Discrete(3, start=-1))
    assert shifted.to_env(np.array([0, 2])).tolist() == [-1, 1]


@pytest.mark.parametrize("space", [
    gymnasium.spaces.Text(3),
    gymnasium.spaces.Box(0, 9, (2,), np.int64),
])
def test_unsupported_action_spaces_are_refused_by_name(space):
    with pytest.raises(UnsupportedSpaceError, match=type(space).__name__):
        head_for(space)
