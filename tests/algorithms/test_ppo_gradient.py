"""PPO's written-out gradient against its loss under autograd, and who gets which."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from rlflow.algorithms.learner import OutputLearner
from rlflow.algorithms.policies.actor_critic import MlpActorCritic
from rlflow.algorithms.ppo import PPO, PPOConfig
from rlflow.algorithms.ppo_gradient import SurrogateGradient
from rlflow.algorithms.ppo_learner import Batch, PPOLearner

N = 96
OBSERVATIONS = gymnasium.spaces.Box(-np.inf, np.inf, (5,), np.float32)
SPACES = {
    "categorical": gymnasium.spaces.Discrete(4),
    "gaussian": gymnasium.spaces.Box(-1, 1, (3,), np.float32),
}


def rows(kind: str, rng: np.random.Generator) -> dict[str, Any]:
    """Of a policy that acted and has changed since, so that some ratios are bounded and some values too."""
    normal = rng.standard_normal
    actions = rng.integers(0, 4, N) if kind == "categorical" else normal((N, 3), dtype=np.float32)
    level = -1.4 if kind == "categorical" else -4.2
    return {
        "observations": normal((N, 5), dtype=np.float32), "actions": actions,
        "old_log_probs": level + 0.5 * normal(N, dtype=np.float32), "old_values": 0.3 * normal(N, dtype=np.float32),
        "advantages": normal(N, dtype=np.float32), "returns": normal(N, dtype=np.float32),
    }


@pytest.mark.parametrize("clip_range_value", [None, 0.2])
@pytest.mark.parametrize("entropy_coef", [0.0, 0.03])
@pytest.mark.parametrize("kind", ["categorical", "gaussian"])
def test_it_is_the_gradient_of_the_loss(kind, entropy_coef, clip_range_value):
    config = PPOConfig(env="x", entropy_coef=entropy_coef, clip_range_value=clip_range_value, value_coef=0.7)
    rng = np.random.default_rng(3)
    policy = MlpActorCritic(OBSERVATIONS, SPACES[kind], policy_hidden=(8,), value_hidden=(8,), log_std_init=-0.3)
    weights = policy.initial_parameters(rng) + 0.3 * rng.standard_normal(policy.num_parameters, dtype=np.float32)
    data = rows(kind, rng)
    batch = Batch.of(data, config, 0.5)
    batch.report = True
    by_hand, told = OutputLearner(policy, weights).gradient_of(
        data["observations"], batch, SurrogateGradient(policy.head, config.value_coef)
    )
    by_torch, reference = OutputLearner(policy, weights).gradient_of(
        data["observations"], batch.as_tensors(), PPO(config, 1).loss
    )
    np.testing.assert_allclose(by_hand, by_torch, rtol=2e-4, atol=2e-6)
    assert told == {name: pytest.approx(float(value), rel=1e-4, abs=1e-6) for name, value in reference.items()}
    assert 0.2 < told["clip_fraction"] < 0.9


class Own(PPO):
    def loss(self, outputs: Any, batch: Any) -> Any:
        return super().loss(outputs, batch)


class Renamed(PPO):
    pass


@pytest.mark.parametrize(("algorithm", "by_hand"), [(PPO, True), (Renamed, True), (Own, False)])
def test_a_loss_of_ones_own_has_autograd(algorithm, by_hand):
    policy = MlpActorCritic(OBSERVATIONS, SPACES["categorical"])
    learner = PPOLearner(algorithm, PPOConfig(env="x"), 1)
    learner.start(policy, policy.initial_parameters(np.random.default_rng(0)))
    assert isinstance(learner._loss, SurrogateGradient) == by_hand


SCRIPT = """
import sys
from rlflow import engine
from rlflow.algorithms import resolve

engine.init(backend="inline")
PPO = resolve("ppo")
algorithm = PPO(PPO.Config(env="Pendulum-v1", num_envs=2, rollout_length=8, epochs=1), 1000)
algorithm.setup()
algorithm.training_step()
assert "torch" not in sys.modules
"""


def test_a_learner_with_ppos_own_loss_needs_no_torch():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
