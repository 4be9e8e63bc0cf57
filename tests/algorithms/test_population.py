"""Members side by side do what each would do alone."""

import gymnasium
import numpy as np
import pytest

from rlflow.algorithms.envs import VectorStepper
from rlflow.algorithms.normalization import Moments, Normaliser
from rlflow.algorithms.policies.actor import BoundActor, MlpActor
from rlflow.algorithms.policies.mlp import Mlp, MlpSpec
from rlflow.algorithms.population import StackedMlps, play


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 5)])
def test_stacked_networks_are_the_networks(activation, hidden):
    spec = MlpSpec((3, *hidden, 2), activation)
    rng = np.random.default_rng(0)
    parameters = rng.normal(size=(6, spec.num_parameters)).astype(np.float32)
    inputs = rng.normal(size=(6, 3)).astype(np.float32)
    outputs = StackedMlps(spec, parameters).forward(inputs)
    for own, given, out in zip(parameters, inputs, outputs, strict=True):
        np.testing.assert_allclose(out, Mlp(spec, own).forward(given[None])[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("env", ["Acrobot-v1", "Pendulum-v1"])
def test_members_play_what_they_would_play_alone(env):
    spaces = gymnasium.make(env)
    policy = MlpActor(spaces.observation_space, spaces.action_space, hidden=(8,))
    spaces.close()
    rng = np.random.default_rng(1)
    parameters = np.stack([3 * policy.initial_parameters(rng) for _ in range(3)])
    moments = Moments.of(rng.normal(size=(10, policy.layout.size)))
    stepper = VectorStepper(env, {}, 3)
    seeds = [5, 6, 7]
    networks = StackedMlps(policy.network, parameters)
    played = play(stepper, networks, policy.head, Normaliser(moments), seeds, longest=150)
    stepper.close()
    for i, seed in enumerate(seeds):
        actor, normalise = BoundActor(policy, parameters[i]), Normaliser(moments)
        alone = gymnasium.make(env)
        observation, _ = alone.reset(seed=seed)
        total, steps, done = 0.0, 0, False
        while not done and steps < 150:
            action = actor.act(normalise(np.asarray(observation, np.float32).reshape(1, -1)), None)[0]
            observation, reward, terminated, truncated, _ = alone.step(action)
            total, steps, done = total + float(reward), steps + 1, terminated or truncated
        alone.close()
        assert played.lengths[i] == steps
        assert played.returns[i] == pytest.approx(total, rel=1e-3)
    assert played.moments.count == played.lengths.sum()


def test_who_has_finished_is_not_counted_on():
    policy = MlpActor(gymnasium.spaces.Box(-1, 1, (4,)), gymnasium.spaces.Discrete(2), hidden=())
    parameters = np.zeros((8, policy.network.num_parameters), np.float32)
    parameters[:, -1] = 1.0  # always to the right: falls over in ten steps or so
    stepper = VectorStepper("CartPole-v1", {}, 8)
    played = play(
        stepper, StackedMlps(policy.network, parameters), policy.head, Normaliser(Moments.none(4)), list(range(8)), None
    )
    stepper.close()
    assert played.returns.tolist() == played.lengths.tolist()
    assert 7 < played.lengths.min() <= played.lengths.max() < 13
