"""Policies whose networks are torch modules: images, networks of one's own."""

from __future__ import annotations

import math
import os
import sys
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from toy_envs import Spaces

from rlflow import engine
from rlflow.algorithms.a3c import A3C, A3CConfig
from rlflow.algorithms.errors import UnsupportedSpaceError
from rlflow.algorithms.policies.torch_actor_critic import NetworkSpec, TorchActorCritic
from rlflow.algorithms.ppo import PPO, PPOConfig

SPOT: dict[str, Any] = {
    "env": "toy_envs:Spot-v0", "num_envs": 8, "rollout_length": 32, "epochs": 4, "minibatch_size": 64,
    "gamma": 0.0, "learning_rate": 5e-4,
}
ATARI = spaces.Box(0, 255, (4, 84, 84), np.uint8)


def numbers(metrics: dict[str, float]) -> dict[str, float]:
    timed = ("time_rollout", "time_learn", "steps_per_second")
    return {key: value for key, value in metrics.items() if key not in timed}


@pytest.mark.parametrize("observation", ["image", "image_first", "camera_and_more", "camera_and_bits"])
@pytest.mark.parametrize("network", [None, "mlp"])
def test_every_space_with_images_trains(inline_engine, observation, network):
    kwargs = {"observation": observation, "action": "box"}
    config = PPOConfig(
        env="toy_envs:Spaces-v0", env_kwargs=kwargs, network=network, num_envs=2, rollout_length=8, epochs=1
    )
    algorithm = PPO(config, 1000)
    algorithm.setup()
    metrics = algorithm.training_step()
    assert all(math.isfinite(value) for value in metrics.values())
    assert abs(metrics["kl"]) < 1e-4, "the learner sees another policy than the one that acted"
    assert algorithm.training_step()["value_loss"] != metrics["value_loss"]
    assert algorithm.evaluate(2, seed=0).lengths == [8, 8]
    algorithm.close()


def test_an_image_is_understood(inline_engine):
    algorithm = PPO(PPOConfig(**SPOT), 10_000)
    algorithm.setup()
    for _ in range(4):
        algorithm.training_step()
    assert algorithm.evaluate(4, seed=0).mean_return > 7.0  # 2 by chance, 8 at best
    algorithm.close()


def test_a_saved_state_acts_the_same(inline_engine):
    original, resumed = PPO(PPOConfig(**SPOT), 10_000), PPO(PPOConfig(**SPOT, seed=1), 10_000)
    original.setup()
    original.training_step()
    resumed.setup()
    resumed.load_state(original.state())
    assert resumed.evaluate(4, seed=0, deterministic=False) == original.evaluate(4, seed=0, deterministic=False)
    for algorithm in (original, resumed):
        assert math.isfinite(algorithm.training_step()["value_loss"])
        algorithm.close()


def torch_in_worker_and_zygote() -> tuple[bool, bool]:
    """A worker's parent is the zygote."""
    with open(f"/proc/{os.getppid()}/maps") as maps:
        return "torch" in sys.modules, "libtorch" in maps.read()


def test_numbers_do_not_depend_on_the_number_of_workers():
    """Neither is there torch in the zygote: a process that is forked from one with torch in it could not use CUDA."""
    histories = []
    for options in ({"backend": "inline"}, {"num_cpus": 2}):
        engine.init(**options)
        algorithm = PPO(PPOConfig(**SPOT, env_groups=2), 10_000)
        algorithm.setup()
        histories.append([numbers(algorithm.training_step()) for _ in range(2)])
        if "num_cpus" in options:
            found = engine.get([engine.remote(torch_in_worker_and_zygote).remote() for _ in range(8)])
            assert any(in_worker for in_worker, _ in found) and not any(in_zygote for _, in_zygote in found)
        algorithm.close()
        engine.shutdown()
    assert histories[0] == histories[1]


def test_rollouts_may_overlap_the_update(inline_engine):
    algorithm = PPO(PPOConfig(**{**SPOT, "overlap": True, "rollout_length": 8, "epochs": 1}), 500)
    algorithm.setup()
    for _ in range(3):
        assert all(math.isfinite(value) for value in algorithm.training_step().values())
    algorithm.close()


def test_a3c_trains_with_images(inline_engine):
    algorithm = A3C(A3CConfig(env="toy_envs:Spot-v0", num_envs=2, gradients=3, rollout_length=8), 1000)
    algorithm.setup()
    assert all(math.isfinite(value) for value in algorithm.training_step().values())
    algorithm.close()


@pytest.mark.parametrize("kind", ["nature", "impala"])
def test_networks_have_the_published_shapes(kind):
    """Of Pong: 84×84×4 and six actions, one hidden layer of 512 or 256, policy and value head on it."""
    policy = TorchActorCritic(ATARI, spaces.Discrete(6), NetworkSpec(kind))
    weights = policy.initial_parameters(np.random.default_rng(0))
    heads = 6 + 1
    hidden = 512 if kind == "nature" else 256
    convolutions = {
        "nature": (4 * 64 + 1) * 32 + (32 * 16 + 1) * 64 + (64 * 9 + 1) * 64,
        "impala": sum((a * 9 + 1) * b + 4 * (b * 9 + 1) * b for a, b in ((4, 16), (16, 32), (32, 32))),
    }[kind]
    flat = 64 * 7 * 7 if kind == "nature" else 32 * 11 * 11
    assert len(weights) == convolutions + (flat + 1) * hidden + (hidden + 1) * heads
    bound = policy.bind(weights)
    rows = np.zeros((3, 4 * 84 * 84), np.uint8)
    outputs, values, memory = bound.step(rows, bound.initial_memory(3))
    assert outputs.shape == (3, 6) and values.shape == (3,) and memory is None
    np.testing.assert_array_equal(policy.initial_parameters(np.random.default_rng(0)), weights)


def test_networks_that_do_not_fit_are_refused(inline_engine):
    with pytest.raises(UnsupportedSpaceError, match="network: nature is for images"):
        PPO(PPOConfig(env="CartPole-v1", network="nature"), 100).setup()
    policy = TorchActorCritic(Spaces.OBSERVATIONS["image"], spaces.Discrete(2), NetworkSpec("nature"))
    with pytest.raises(UnsupportedSpaceError, match="at least 36 pixels"):
        policy.initial_parameters(np.random.default_rng(0))


class Own(torch.nn.Module):
    """Pools the picture's quarters."""

    def __init__(self, layout: Any, num_outputs: int) -> None:
        super().__init__()
        self.shape = layout.parts[0].image
        self.hidden = torch.nn.Linear(4, 16)
        self.policy, self.value = torch.nn.Linear(16, num_outputs), torch.nn.Linear(16, 1)

    def forward(self, observations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert observations.shape[1:] == self.shape == (1, 8, 8) and observations.max() <= 1
        hidden = self.hidden(torch.nn.functional.avg_pool2d(observations, 4).flatten(1)).tanh()
        return self.policy(hidden), self.value(hidden).squeeze(1)


class WithBuffers(Own):
    def __init__(self, layout: Any, num_outputs: int) -> None:
        super().__init__(layout, num_outputs)
        self.norm = torch.nn.BatchNorm1d(16)


class OwnPPO(PPO):
    network = Own

    def make_policy(self, observation_space: Any, action_space: Any) -> Any:
        return TorchActorCritic(observation_space, action_space, self.network)


def test_a_network_of_ones_own_learns(inline_engine):
    algorithm = OwnPPO(PPOConfig(**{**SPOT, "learning_rate": 0.02}), 10_000)
    algorithm.setup()
    for _ in range(8):
        algorithm.training_step()
    assert algorithm.evaluate(4, seed=0).mean_return > 7.0
    algorithm.close()


def test_a_network_with_state_beside_its_parameters_is_refused():
    policy = TorchActorCritic(Spaces.OBSERVATIONS["image"], spaces.Discrete(2), WithBuffers)
    with pytest.raises(TypeError, match="WithBuffers has buffers"):
        policy.initial_parameters(np.random.default_rng(0))
