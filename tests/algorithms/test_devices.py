"""Learners on a device. Without a GPU it is "cpu", by their own argument: the same code, with tensors throughout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from test_ppo import numbers, started
from test_ppo_gradient import OBSERVATIONS, SPACES, N, Own, rows

from rlflow import engine
from rlflow.algorithms.devices import LARGE, chosen_device, device_at_once
from rlflow.algorithms.errors import UnfitConfigError
from rlflow.algorithms.learner import Learner, OutputLearner
from rlflow.algorithms.module_learner import DeviceLearner
from rlflow.algorithms.policies.actor_critic import MlpActorCritic
from rlflow.algorithms.policies.torch_actor_critic import NetworkSpec, TorchActorCritic
from rlflow.algorithms.ppo import PPO, PPOConfig
from rlflow.algorithms.ppo_learner import Batch

CONFIG = PPOConfig(env="x", entropy_coef=0.02, clip_range_value=0.2)
no_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
POLICIES: dict[str, dict[str, Any]] = {
    "categorical": {"policy_hidden": (8,), "value_hidden": (6, 7)},
    "gaussian": {"policy_hidden": (8, 5), "activation": "relu", "log_std_init": -0.3},
    "gaussian, exploring by features": {"policy_hidden": (8,), "value_hidden": (6,), "sde_sample_freq": 4},
    "gaussian, no hidden layer": {"policy_hidden": (), "value_hidden": ()},
    "categorical, masked": {},
}


def policy_and_rows(name: str) -> tuple[MlpActorCritic, np.ndarray, dict[str, Any]]:
    rng = np.random.default_rng(5)
    kind = name.split(",")[0]
    data = rows(kind, rng)
    observations: spaces.Space[Any] = OBSERVATIONS
    if "masked" in name:
        observations = spaces.Dict({"a": OBSERVATIONS, "action_mask": spaces.MultiBinary(4)})
        masks = rng.integers(0, 2, (N, 4)).astype(np.float32)
        masks[np.arange(N), data["actions"]] = 1
        data["observations"] = np.concatenate([data["observations"], masks], axis=1)
    policy = MlpActorCritic(observations, SPACES[kind], **POLICIES[name])
    weights = policy.initial_parameters(rng) + 0.2 * rng.standard_normal(policy.num_parameters, dtype=np.float32)
    return policy, weights, data


def batch_of(data: dict[str, Any], learner: Learner) -> tuple[Any, Batch]:
    placed = {key: learner.place(values) for key, values in data.items()}
    batch = Batch.of(placed, CONFIG, 0.0)
    batch.report = True
    return placed["observations"], batch.as_tensors()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", POLICIES)
def test_an_mlp_in_torch_has_the_loss_and_the_gradient_of_the_one_in_numpy(name, device):
    policy, weights, data = policy_and_rows(name)
    loss = PPO(CONFIG, 1).loss
    told = []
    for learner in (OutputLearner(policy, weights), DeviceLearner(policy, weights, device)):
        observations, batch = batch_of(data, learner)
        assert batch.advantages.device.type == device or isinstance(learner, OutputLearner)
        told.append(learner.gradient_of(observations, batch, loss))
    (expected, reference), (gradient, statistics) = told
    assert (expected != 0).mean() > 0.9, "a parameter without a gradient shows nothing"
    np.testing.assert_allclose(gradient, expected, rtol=2e-4, atol=3e-6)
    assert {key: float(value) for key, value in statistics.items()} == {
        key: pytest.approx(float(value), rel=1e-4, abs=1e-6) for key, value in reference.items()
    }


@pytest.mark.parametrize("device", DEVICES)
def test_steps_and_states_are_the_same_on_a_device(device):
    """Gradients that are clipped, and a state that goes from one to the other and back."""
    policy, weights, data = policy_and_rows("gaussian")
    loss = PPO(CONFIG, 1).loss
    on_cpu, on_device = OutputLearner(policy, weights), DeviceLearner(policy, weights, device)
    for take_over in (False, True):
        for learner in (on_cpu, on_device):
            for _ in range(4):
                learner.step(*batch_of(data, learner), loss, learning_rate=1e-2, max_grad_norm=0.1)
        np.testing.assert_allclose(on_device.weights(), on_cpu.weights(), atol=2e-4)
        assert np.abs(on_cpu.weights() - weights).max() > 0.01
        if not take_over:
            states = on_cpu.state(), on_device.state()
            on_cpu, on_device = OutputLearner(policy, weights), DeviceLearner(policy, weights, device)
            on_cpu.load_state(states[1])
            on_device.load_state(states[0])
    assert on_device.state()["adam"]["steps"] == 8
    np.testing.assert_allclose(on_device.state()["adam"]["square"], on_cpu.state()["adam"]["square"], rtol=1e-2)


class OnDevice:
    """As learned with on a device, which is the processor here."""

    def learner(self, weights: Any, device: str = "cpu") -> DeviceLearner:
        return DeviceLearner(self, weights, "cpu")  # type: ignore[arg-type]


class MlpOnDevice(OnDevice, MlpActorCritic): ...


class TorchOnDevice(OnDevice, TorchActorCritic): ...


class OnDevicePPO(Own):
    def make_policy(self, observation_space: Any, action_space: Any) -> Any:
        policy = super().make_policy(observation_space, action_space)
        policy.__class__ = MlpOnDevice if isinstance(policy, MlpActorCritic) else TorchOnDevice
        return policy


@pytest.mark.usefixtures("inline_engine")
@pytest.mark.parametrize("changes", [{"target_kl": 1.0, "overlap": True}, {"lstm_size": 5}], ids=["mlp", "lstm"])
def test_a_training_goes_the_same_way(changes):
    """With the iteration's rows as tensors: minibatches, columns of sequences, advantages, statistics."""
    histories = []
    for algorithm in (Own, OnDevicePPO):
        training = started(algorithm, epochs=2, **changes)
        histories.append([numbers(training.training_step()) for _ in range(2)])
        training.close()
    for plain, on_device in zip(*histories, strict=True):
        assert on_device == {key: pytest.approx(value, rel=1e-3, abs=1e-5) for key, value in plain.items()}


def test_auto_takes_a_gpu_for_large_policies_if_there_is_one():
    engine.init(backend="inline", num_gpus=0)
    assert device_at_once("auto", 1) == "cpu"
    engine.shutdown()
    engine.init(backend="inline", num_gpus=1)
    assert device_at_once("cpu", 1) == "cpu" and device_at_once("cuda", 1) == "cuda"
    assert device_at_once("auto", 2) == "cpu" and device_at_once("auto", 1) is None
    engine.shutdown()
    small = MlpActorCritic(OBSERVATIONS, spaces.Discrete(2))
    assert chosen_device(small, small.num_parameters) == "cpu" and chosen_device(small, LARGE + 1) == "cuda"
    images = TorchActorCritic(spaces.Box(0, 255, (4, 12, 10), np.uint8), spaces.Discrete(2), NetworkSpec("impala"))
    assert chosen_device(images, 1000) == "cuda"


@no_cuda
def test_cuda_where_there_is_none_is_one_clear_error():
    """No GPU for the engine, and one that torch cannot use."""
    with pytest.raises(ValueError, match=r"learners \(2\) .* leave learners out"):
        PPOConfig(env="x", device="cuda", learners=2)
    engine.init(backend="inline", num_gpus=0)
    with pytest.raises(UnfitConfigError, match=r"device: cuda, but the engine found no GPU: .*doctor.*device: cpu"):
        started(device="cuda")
    engine.shutdown()
    engine.init(backend="inline", num_gpus=1)
    with pytest.raises(UnfitConfigError, match=r"device: cuda, but torch .* sees no CUDA .*doctor.*device: cpu"):
        started(device="cuda")
    engine.shutdown()


@no_cuda
def test_auto_does_without_a_gpu_that_torch_cannot_use():
    engine.init(num_cpus=1, num_gpus=1)
    try:
        training = started(device="auto", policy_hidden=(1000, 1000), epochs=1)
        assert engine.available_resources().get("GPU", 0) == 0, "the learner has none"
        assert np.isfinite(training.training_step()["kl"])
        training.close()
    finally:
        engine.shutdown()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("changes", [{}, {"lstm_size": 8}, {"overlap": True}])
def test_a_training_on_a_gpu(changes):
    engine.init(num_cpus=1, num_gpus=1)
    try:
        histories = []
        for device in ("cpu", "cuda"):
            training = started(device=device, **changes)
            histories.append([numbers(training.training_step()) for _ in range(2)])
            training.close()
        for on_cpu, on_gpu in zip(*histories, strict=True):
            assert on_gpu == {key: pytest.approx(value, rel=0.05, abs=1e-2) for key, value in on_cpu.items()}
    finally:
        engine.shutdown()
