"""The NumPy networks, Adam and the output learner against torch doing the whole thing."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch

from rlflow.algorithms.adam import Adam, clip_to_norm
from rlflow.algorithms.learner import OutputLearner
from rlflow.algorithms.policies.actor_critic import MlpActorCritic
from rlflow.algorithms.policies.mlp import Mlp, MlpSpec
from rlflow.algorithms.policies.torch_heads import torch_distribution

BOX = gymnasium.spaces.Box(-1, 1, (5,), np.float32)
DISCRETE = gymnasium.spaces.Discrete(3)
CONTINUOUS = gymnasium.spaces.Box(-2, 2, (2,), np.float32)


def torch_mlp(spec: MlpSpec, flat: np.ndarray) -> torch.nn.Sequential:
    modules: list[torch.nn.Module] = []
    for weights, bias in spec.layers(flat):
        layer = torch.nn.Linear(*weights.shape)
        layer.weight.data = torch.from_numpy(weights.T.copy())
        layer.bias.data = torch.from_numpy(bias.copy())
        modules += [layer, torch.nn.Tanh() if spec.activation == "tanh" else torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])


def flat_gradient(network: torch.nn.Sequential) -> np.ndarray:
    parts = []
    for layer in network:
        if isinstance(layer, torch.nn.Linear):
            parts += [layer.weight.grad.T.reshape(-1), layer.bias.grad]
    return torch.cat(parts).numpy()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("sizes", [(4, 64, 64, 2), (3, 7, 1), (6, 5)])
def test_forward_and_backward_match_torch(activation, sizes):
    spec = MlpSpec(sizes, activation)
    rng = np.random.default_rng(0)
    flat = rng.normal(size=spec.num_parameters).astype(np.float32) * 0.3
    gradient = np.full_like(flat, np.nan)
    ours, theirs = Mlp(spec, flat, gradient), torch_mlp(spec, flat)
    for rows in (16, 5, 16):  # buffers shrink and grow
        inputs = rng.normal(size=(rows, sizes[0])).astype(np.float32)
        upstream = rng.normal(size=(rows, sizes[-1])).astype(np.float32)
        found = ours.forward(inputs)
        expected = theirs(torch.from_numpy(inputs))
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-4, atol=1e-5)
        ours.backward(upstream)
        theirs.zero_grad()
        expected.backward(torch.from_numpy(upstream))
        np.testing.assert_allclose(gradient, flat_gradient(theirs), rtol=1e-3, atol=1e-4)


def test_initial_layers_are_orthogonal_with_the_usual_gains():
    spec = MlpSpec((4, 64, 32, 2), "tanh")
    layers = list(spec.layers(spec.initialise(np.random.default_rng(0), output_gain=0.01)))
    for (weights, bias), gain in zip(layers, (2**0.5, 2**0.5, 0.01), strict=True):
        rows, columns = weights.shape
        gram = weights @ weights.T if rows < columns else weights.T @ weights
        np.testing.assert_allclose(gram, gain**2 * np.eye(min(rows, columns)), atol=1e-5)
        assert not bias.any()


def test_adam_and_clipping_match_torch():
    rng = np.random.default_rng(1)
    ours = rng.normal(size=50).astype(np.float32)
    theirs = torch.nn.Parameter(torch.from_numpy(ours.copy()))
    adam = Adam(50)
    optimiser = torch.optim.Adam([theirs], eps=1e-5)
    for step in range(30):
        gradient = (rng.normal(size=50) * 10.0 ** rng.integers(-3, 2)).astype(np.float32)
        theirs.grad = torch.from_numpy(gradient.copy())
        rate = 1e-2 * (1 - step / 40)
        optimiser.param_groups[0]["lr"] = rate
        expected_norm = torch.nn.utils.clip_grad_norm_([theirs], 0.5)
        assert clip_to_norm(gradient, 0.5) == pytest.approx(float(expected_norm), rel=1e-5)
        optimiser.step()
        adam.step(ours, gradient, rate)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("action_space", [DISCRETE, CONTINUOUS])
def test_output_learner_follows_torch_autograd_through_everything(action_space):
    policy = MlpActorCritic(BOX, action_space, policy_hidden=(8, 8), value_hidden=(6,), log_std_init=-0.5)
    rng = np.random.default_rng(2)
    start = policy.initial_parameters(rng) + 0.1 * rng.normal(size=policy.num_parameters).astype(np.float32)
    learner = OutputLearner(policy, start)
    policy_part, value_part, log_std_part = policy.split(start)
    networks = torch_mlp(policy.policy_spec, policy_part), torch_mlp(policy.value_spec, value_part)
    log_std = torch.nn.Parameter(torch.from_numpy(log_std_part.copy()))
    parameters = [*networks[0].parameters(), *networks[1].parameters(), log_std]
    optimiser = torch.optim.Adam(parameters, lr=3e-3, eps=1e-5)

    observations = rng.normal(size=(32, 5)).astype(np.float32)
    if action_space is DISCRETE:
        actions = torch.from_numpy(rng.integers(0, 3, 32))
    else:
        actions = torch.from_numpy(rng.normal(size=(32, 2)).astype(np.float32))
    targets = torch.from_numpy(rng.normal(size=32).astype(np.float32))

    def scalar(distribution, values):
        return -(distribution.log_prob(actions) * targets).mean() + (values - targets).square().mean()

    for step in range(5):
        learner.step(observations, None, lambda o, _: (scalar(o.distribution, o.values), {}), 3e-3, 0.5)
        inputs = torch.from_numpy(observations)
        distribution = torch_distribution(policy.head, networks[0](inputs), log_std)
        optimiser.zero_grad()
        scalar(distribution, networks[1](inputs)[:, 0]).backward()
        if log_std.grad is None:
            log_std.grad = torch.zeros_like(log_std)
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimiser.step()
        found = policy.split(learner.parameters)
        specs = (policy.policy_spec, policy.value_spec)
        for spec, part, network in zip(specs, found, networks, strict=False):
            ours = torch_mlp(spec, part)
            for mine, other in zip(ours.parameters(), network.parameters(), strict=True):
                torch.testing.assert_close(mine, other, rtol=2e-3, atol=2e-5, msg=f"step {step}")
        np.testing.assert_allclose(found[2], log_std.detach().numpy(), rtol=1e-3, atol=1e-5)


def test_a_loss_may_leave_outputs_out():
    policy = MlpActorCritic(BOX, CONTINUOUS)
    learner = OutputLearner(policy, policy.initial_parameters(np.random.default_rng(0)))
    observations = np.ones((4, 5), np.float32)
    gradient, _ = learner.gradient_of(observations, None, lambda o, _: (o.values.sum(), {}))
    policy_part, value_part, log_std_part = policy.split(gradient)
    assert value_part.any() and not policy_part.any() and not log_std_part.any()


def test_uniform_first_weights_are_spread_as_torchs():
    spec = MlpSpec((64, 256, 3), "relu")
    flat = spec.initialise_uniform(np.random.default_rng(0))
    for (weights, bias), (fan_in, fan_out) in zip(spec.layers(flat), ((64, 256), (256, 3)), strict=True):
        reference = torch.nn.Linear(fan_in, fan_out)
        bound = fan_in**-0.5
        assert abs(weights).max() <= bound and abs(bias).max() <= bound
        assert weights.std() == pytest.approx(reference.weight.std().item(), rel=0.15)
