"""GAE against a slow reference that knows episodes, not arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlflow.algorithms.advantages import generalized_advantages, vtrace_advantages


def reference(rewards, values, final_value, terminated, gamma, lam):
    """One episode (or its beginning), by definition: r_0..r_n, V(s_0)..V(s_n), V of the last state."""
    count = len(rewards)
    following = [*values[1:], 0.0 if terminated else final_value]
    deltas = [rewards[i] + gamma * following[i] - values[i] for i in range(count)]
    return [sum((gamma * lam) ** (k - i) * deltas[k] for k in range(i, count)) for i in range(count)]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(1, 24),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    next_step=st.booleans(),
    end_chance=st.sampled_from([0.0, 0.2, 0.6]),
)
def test_matches_the_definition_episode_by_episode(seed, length, gamma, lam, next_step, end_chance):
    rng = np.random.default_rng(seed)
    rewards, values, next_values = rng.normal(size=(3, length, 1)).astype(np.float32)
    terminated, truncated, valid = np.zeros((3, length, 1), bool)
    expected: dict[int, float] = {}
    episode: list[int] = []
    t = 0

    def close(final_value: float, was_terminated: bool) -> None:
        found = reference(
            rewards[episode, 0].tolist(), values[episode, 0].tolist(), final_value, was_terminated, gamma, lam
        )
        expected.update(zip(episode, found, strict=True))
        episode.clear()

    while t < length:
        valid[t] = True
        episode.append(t)
        if rng.random() < end_chance:
            (terminated if rng.random() < 0.5 else truncated)[t] = True
            if next_step and t + 1 < length:
                values[t + 1] = next_values[t]  # the row of the reset shows the final observation
            close(float(next_values[t, 0]), bool(terminated[t, 0]))
            if next_step:
                rewards[t + 1 : t + 2] = 0.0
                t += 1
        elif t + 1 < length:
            next_values[t] = values[t + 1]
        t += 1
    if episode:
        close(float(next_values[episode[-1], 0]), False)

    found = generalized_advantages(rewards, values, next_values, terminated, truncated, gamma, lam)
    assert found.dtype == np.float32
    for row, value in expected.items():
        assert found[row, 0] == pytest.approx(value, rel=1e-4, abs=1e-4)
    assert set(expected) == set(np.flatnonzero(valid[:, 0]))


def test_the_next_episode_never_leaks_into_this_one():
    rewards = np.array([[0.0], [0.0], [1000.0]], np.float32)
    zeros = np.zeros((3, 1), np.float32)
    for name in ("terminated", "truncated"):
        flags = {"terminated": np.zeros((3, 1), bool), "truncated": np.zeros((3, 1), bool)}
        flags[name][1] = True
        found = generalized_advantages(rewards, zeros, zeros, **flags, gamma=0.9, gae_lambda=0.9)
        assert found[:, 0].tolist() == [0.0, 0.0, 1000.0]


def test_truncation_bootstraps_and_termination_does_not():
    one = np.ones((1, 1), np.float32)
    yes, no = np.ones((1, 1), bool), np.zeros((1, 1), bool)
    truncated = generalized_advantages(one, 0 * one, 10 * one, no, yes, 0.9, 1.0)
    terminated = generalized_advantages(one, 0 * one, 10 * one, yes, no, 0.9, 1.0)
    assert truncated.item() == pytest.approx(10.0)
    assert terminated.item() == pytest.approx(1.0)


def reference_vtrace(rewards, values, next_values, terminated, truncated, log_ratios, gamma, lam):
    """Equation 1 of Espeholt et al. 2018 as it stands: a sum over each row's future, with products of c."""
    steps, envs = rewards.shape
    targets, advantages = values.astype(float), np.zeros((steps, envs))
    rho = np.minimum(1.0, np.exp(log_ratios))
    for b in range(envs):
        for s in range(steps):
            trace, total = 1.0, 0.0
            for t in range(s, steps):
                delta = rewards[t, b] + gamma * next_values[t, b] * (not terminated[t, b]) - values[t, b]
                if t == s:
                    advantages[s, b] += delta
                else:
                    advantages[s, b] += trace / rho[s, b] * rho[t, b] * delta
                total += trace * rho[t, b] * delta
                if terminated[t, b] or truncated[t, b]:
                    break
                trace *= gamma * lam * rho[t, b]
            targets[s, b] += total
    return advantages, targets


@pytest.mark.parametrize("seed", range(5))
def test_vtrace_is_the_papers_sum(seed):
    rng = np.random.default_rng(seed)
    shape = (11, 3)
    rewards, values, next_values, log_ratios = (rng.normal(size=shape).astype(np.float32) for _ in range(4))
    terminated = rng.random(shape) < 0.2
    truncated = (rng.random(shape) < 0.2) & ~terminated
    made = vtrace_advantages(rewards, values, next_values, terminated, truncated, log_ratios, 0.97, 0.9)
    expected = reference_vtrace(rewards, values, next_values, terminated, truncated, log_ratios, 0.97, 0.9)
    for ours, theirs in zip(made, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    on_policy, _ = vtrace_advantages(rewards, values, next_values, terminated, truncated, values * 0, 0.97, 0.9)
    plain = generalized_advantages(rewards, values, next_values, terminated, truncated, 0.97, 0.9)
    np.testing.assert_array_equal(on_policy, plain)
