"""Every kind of space through rollout, learner and evaluation; masks are obeyed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from rlflow.algorithms.a3c import A3C, A3CConfig
from rlflow.algorithms.errors import UnsupportedSpaceError
from rlflow.algorithms.es import ES, ESConfig
from rlflow.algorithms.policies.actor_critic import MlpActorCritic
from rlflow.algorithms.policies.heads import forbid, head_for
from rlflow.algorithms.policies.torch_heads import torch_distribution
from rlflow.algorithms.ppo import PPO, PPOConfig

SMALL = {"num_envs": 4, "rollout_length": 8, "policy_hidden": (8,), "value_hidden": (8,)}
VECTORS = ("box", "discrete", "multi_discrete", "multi_binary", "dict", "tuple")


@pytest.mark.parametrize("action", ["discrete", "multi_discrete", "multi_binary", "box"])
@pytest.mark.parametrize("observation", VECTORS)
def test_ppo_trains_with_every_space(inline_engine, observation, action):
    kwargs = {"observation": observation, "action": action}
    algorithm = PPO(PPOConfig(env="toy_envs:Spaces-v0", env_kwargs=kwargs, epochs=2, **SMALL), 1000)
    algorithm.setup()
    for _ in range(2):
        metrics = algorithm.training_step()
    assert all(math.isfinite(value) for value in metrics.values()) and metrics["entropy"] > 0
    assert metrics["kl"] != 0
    assert algorithm.evaluate(2, seed=0).lengths == [8, 8]
    assert algorithm.evaluate(2, seed=0, deterministic=False).lengths == [8, 8]
    algorithm.close()


@pytest.mark.parametrize("action", ["multi_discrete", "multi_binary"])
def test_a3c_and_es_train_with_them(inline_engine, action):
    kwargs = {"observation": "dict", "action": action}
    made = [
        A3C(A3CConfig(env="toy_envs:Spaces-v0", env_kwargs=kwargs, gradients=2, **SMALL), 1000),
        ES(ESConfig(
            env="toy_envs:Spaces-v0", env_kwargs=kwargs, population=4, members_per_task=4, noise_table=10_000
        ), 1000),
    ]
    for algorithm in made:
        algorithm.setup()
        assert all(math.isfinite(value) for value in algorithm.training_step().values())
        assert algorithm.evaluate(2, seed=0).lengths == [8, 8]
        algorithm.close()


def test_discrete_choices_are_learned(inline_engine):
    """The reward is the sum of the choices: the most is 1 + 3."""
    kwargs = {"observation": "discrete", "action": "multi_discrete"}
    config = PPOConfig(
        env="toy_envs:Spaces-v0", env_kwargs=kwargs, num_envs=8, rollout_length=32, learning_rate=0.01, epochs=4,
        gamma=0.0, policy_hidden=(16,), value_hidden=(16,),
    )
    algorithm = PPO(config, 10_000)
    algorithm.setup()
    for _ in range(15):
        algorithm.training_step()
    assert algorithm.evaluate(2, seed=0).returns == [32.0, 32.0]
    algorithm.close()


@pytest.mark.parametrize("lstm_size", [0, 3])
@pytest.mark.parametrize("multi", [False, True])
def test_masks_are_obeyed_while_training_and_after(inline_engine, multi, lstm_size):
    """The environment raises if it is given a forbidden action."""
    config = PPOConfig(
        env="toy_envs:Masked-v0", env_kwargs={"multi": multi}, epochs=1, learning_rate=0.05, lstm_size=lstm_size,
        **SMALL,
    )
    algorithm = PPO(config, 1000)
    algorithm.setup()
    assert abs(algorithm.training_step()["kl"]) < 1e-5, "the learner sees another policy than the one that acted"
    metrics = [algorithm.training_step() for _ in range(5)][-1]
    assert all(math.isfinite(value) for value in metrics.values())
    for deterministic in (True, False):
        assert algorithm.evaluate(2, seed=0, deterministic=deterministic).lengths == [12, 12]
    algorithm.close()


@pytest.mark.parametrize("action", [spaces.Discrete(3), spaces.MultiBinary(2), spaces.Box(-1, 1, (2,), np.float32)])
def test_masks_that_fit_no_action_are_refused(action):
    observation = spaces.Dict({"o": spaces.Discrete(2), "action_mask": spaces.MultiBinary(2)})
    with pytest.raises(UnsupportedSpaceError, match="action_mask of 2 values"):
        MlpActorCritic(observation, action)


ACTIONS = st.one_of(
    st.integers(1, 5).map(spaces.Discrete),
    st.lists(st.integers(1, 4), min_size=1, max_size=4).map(spaces.MultiDiscrete),
    st.integers(1, 5).map(spaces.MultiBinary),
    st.integers(1, 4).map(lambda size: spaces.Box(-1, 1, (size,), np.float32)),
)


@settings(max_examples=60, deadline=None)
@given(ACTIONS, st.integers(0, 2**32 - 1), st.booleans())
def test_numpy_and_torch_agree_on_log_probabilities(space, seed, masked):
    """Of actions that NumPy samples; entropy against torch.distributions' by its mean log-probability's formula."""
    rng = np.random.default_rng(seed)
    head = head_for(space)
    rows = rng.normal(0, 3, (7, head.num_outputs)).astype(np.float32)
    masks = None
    if masked and head.maskable:
        masks = rng.integers(0, 2, rows.shape).astype(np.float32)
        for start in np.cumsum([0, *getattr(head, "sizes", ())[:-1]]):
            masks[:, start] = 1
    shape = head.log_std_shape
    log_std = None if shape is None else rng.normal(0, 1, shape).astype(np.float32)
    numpy_rows = rows if masks is None else forbid(rows, masks)
    actions = head.sample(numpy_rows, log_std, head.noise(rng, (1, 7))[0])
    for action in head.to_env(actions):
        assert space.contains(action)
    for action in head.to_env(head.mode(numpy_rows)):
        assert space.contains(action)
    ours = head.log_prob(numpy_rows, log_std, actions)
    distribution = torch_distribution(
        head, torch.from_numpy(rows), None if log_std is None else torch.from_numpy(log_std),
        None if masks is None else torch.from_numpy(masks),
    )
    theirs = distribution.log_prob(torch.from_numpy(actions))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)
    assert (ours > -100).all(), "a forbidden action was drawn"
    assert torch.isfinite(distribution.entropy()).all()


def test_entropies_match_torchs():
    rows = torch.randn(50, 5)
    bits = torch_distribution(head_for(spaces.MultiBinary(5)), rows, None)
    torch.testing.assert_close(bits.entropy(), torch.distributions.Bernoulli(logits=rows).entropy().sum(1))
    choices = torch_distribution(head_for(spaces.MultiDiscrete([2, 3])), rows, None)
    parts = [torch.distributions.Categorical(logits=part).entropy() for part in rows.split([2, 3], 1)]
    torch.testing.assert_close(choices.entropy(), sum(parts))
    masks = torch.tensor([[1, 0, 1, 1, 0]] * 50)
    allowed = torch_distribution(head_for(spaces.Discrete(5)), rows, None, masks).entropy()
    torch.testing.assert_close(allowed, torch.distributions.Categorical(logits=rows[:, [0, 2, 3]]).entropy())
