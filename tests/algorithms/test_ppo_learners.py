"""Several learners take the gradient of a minibatch together: it is one learner's, on any workers and after kills."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_ppo import numbers, started
from test_ppo_gradient import OBSERVATIONS, SPACES, Own, rows
from test_ppo_recovery import Killer, events, killed_and_in_peace

from rlflow.algorithms.policies.actor_critic import MlpActorCritic
from rlflow.algorithms.ppo import PPO, PPOConfig
from rlflow.algorithms.ppo_learner import Batch, PPOLearner

CONFIG = PPOConfig(env="x", entropy_coef=0.02, learners=3)
ITERATIONS = 6


@pytest.mark.usefixtures("inline_engine")
@pytest.mark.parametrize("algorithm", [PPO, Own])
@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_the_parts_add_up_to_one_learners_gradient(kind, algorithm):
    rng = np.random.default_rng(1)
    policy = MlpActorCritic(OBSERVATIONS, SPACES[kind], policy_hidden=(8,), value_hidden=(8,))
    actor = PPOLearner(algorithm, CONFIG, 1)
    actor.start(policy, policy.initial_parameters(rng) + 0.2 * rng.standard_normal(policy.num_parameters, np.float32))
    data = rows(kind, rng)
    batch = Batch.of(data, CONFIG, 0.0)
    batch.report = True
    told = actor._shared.into(actor._learner, actor._loss, data["observations"], batch)
    together = actor._learner.gradient.copy()
    alone, expected = actor._learner.gradient_of(data["observations"], batch.for_loss(actor._loss), actor._loss)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)
    assert told == {name: pytest.approx(float(value), rel=1e-4, abs=1e-6) for name, value in expected.items()}


def train(killer: Killer | None) -> list[dict[str, Any]]:
    training = started(learners=2, target_kl=10.0)
    history = []
    for iteration in range(ITERATIONS):
        if killer is not None and iteration in (2, 4):
            killer.soon(iteration == 2, training)  # the learner, then the workers
        history.append(numbers(training.training_step()))
    training.close()
    return history


def test_killed_they_give_the_numbers_of_a_training_in_peace() -> None:
    with killed_and_in_peace(train, seed=5):
        assert events("actor restored") and len(events("died")) >= 2
