"""Moments merged in parts are those of the whole; what is normalised by them is trained on as it was acted on."""

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlflow.algorithms.normalization import CLIP, Moments, Normaliser, Statistics, scaled
from rlflow.algorithms.policies.actor_critic import MlpActorCritic
from rlflow.algorithms.ppo import PPO, PPOConfig
from rlflow.algorithms.rollout import Normalisation, RolloutSpec, _discounted_returns, initial_state, rollout

numbers = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=100, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 40), st.just(3)), elements=numbers), st.data())
def test_moments_of_parts_are_those_of_the_whole(observations, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(observations)), max_size=4)))
    parts = np.split(observations, cuts)
    merged = Moments.none(3).merged(Moments.of(part) for part in parts)
    wide = observations.astype(np.float64)
    assert merged.count == len(wide)
    np.testing.assert_allclose(merged.mean, wide.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.squares / len(wide), wide.var(axis=0), rtol=1e-6, atol=1e-6)


def test_what_was_measured_comes_out_with_zero_mean_and_unit_variance():
    observations = (np.random.default_rng(0).normal(5.0, [0.1, 10.0], (1000, 2))).astype(np.float32)
    normalised = Normaliser(Moments.of(observations))(observations)
    np.testing.assert_allclose(normalised.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(normalised.std(axis=0), 1.0, atol=1e-3)


def test_outliers_are_clipped_and_the_input_stays():
    observations = np.array([[1e9, -1e9]], np.float32)
    normalised = Normaliser(Moments.of(np.random.default_rng(0).normal(size=(100, 2))))(observations)
    assert normalised.tolist() == [[CLIP, -CLIP]]
    assert observations.tolist() == [[1e9, -1e9]]


def test_before_anything_was_seen_observations_pass_unchanged():
    for moments in (Moments.none(2), Moments.of(np.ones((1, 2), np.float32))):
        assert Normaliser(moments)(np.array([[3.0, -4.0]], np.float32)).tolist() == [[3.0, -4.0]]


def test_rewards_are_divided_by_the_spread_of_returns():
    returns = Moments.of(np.array([[10.0], [30.0]]))
    np.testing.assert_allclose(scaled(np.array([20.0, -5.0, 1e6], np.float32), returns), [2.0, -0.5, CLIP], rtol=1e-6)
    assert scaled(np.array([20.0], np.float32), Moments.none(1)).tolist() == [20.0]


def test_discounted_returns_end_with_their_episodes():
    rewards = np.array([[1.0], [2.0], [4.0]], np.float32)
    done = np.array([[False], [True], [False]])
    history, after = _discounted_returns(np.array([8.0]), rewards, done, np.ones((3, 1), bool), 0.5)
    assert history.ravel().tolist() == [5.0, 4.5, 4.0] and after.tolist() == [4.0]


def test_a_rollout_acts_and_is_trained_on_the_same_normalised_observations():
    env = gymnasium.make("Pendulum-v1")
    policy = MlpActorCritic(env.observation_space, env.action_space, policy_hidden=(8,), value_hidden=(8,))
    env.close()
    weights = policy.initial_parameters(np.random.default_rng(0)) * 3
    spec = RolloutSpec("normalised", "Pendulum-v1", {}, 7, 4, 16, policy)
    plain, _, report = rollout(spec, weights, initial_state(0))
    assert report.statistics is None
    measured = Statistics(Moments.of(plain.observations.reshape(-1, 3)), Moments.of(np.array([[0.0], [-20.0]])))
    seen, state, report = rollout(spec, weights, initial_state(0), Normalisation(measured, True, True))
    assert report.statistics.observations.count == 64
    np.testing.assert_allclose(seen.observations[0], Normaliser(measured.observations)(plain.observations[0]))
    bound = policy.bind(weights)
    outputs = bound.policy.forward(seen.observations.reshape(-1, 3))
    log_probs = bound.head.log_prob(outputs, bound.log_std, seen.actions.reshape(64, -1))
    np.testing.assert_allclose(log_probs, seen.log_probs.ravel(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen.rewards[0] * 10, plain.rewards[0], rtol=1e-3)  # the first actions differ little
    assert abs(state.observations).max() > 1.0  # raw: the next rollout has other statistics


@pytest.mark.usefixtures("inline_engine")
class TestPPO:
    def started(self):
        config = PPOConfig(
            env="Pendulum-v1", num_envs=4, env_groups=2, rollout_length=16, minibatch_size=32, epochs=2,
            policy_hidden=(8,), value_hidden=(8,), normalize_observations=True, normalize_rewards=True,
        )
        algorithm = PPO(config, 10_000)
        algorithm.setup()
        return algorithm

    def test_statistics_are_measured_before_anything_is_learned(self):
        algorithm = self.started()
        assert algorithm.env_steps == algorithm._statistics.observations.count == 64
        algorithm.training_step()
        assert algorithm.env_steps == algorithm._statistics.observations.count == 128

    def test_a_saved_state_goes_on_bit_for_bit(self):
        original = self.started()
        original.training_step()
        saved = original.state()
        ahead = original.training_step()
        resumed = self.started()
        resumed.load_state(saved)
        again = resumed.training_step()
        timed = ("time_rollout", "time_learn", "steps_per_second")
        assert {k: v for k, v in again.items() if k not in timed} == {k: v for k, v in ahead.items() if k not in timed}
        assert resumed.evaluate(3, seed=0) == original.evaluate(3, seed=0)
