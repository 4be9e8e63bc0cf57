"""Pong through ale-py's native vector environment, as ``configs/ppo_pong.yaml`` has it, for some hundred steps."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from rlflow.algorithms.ppo import PPO, PPOConfig

pytest.importorskip("ale_py")

CONFIG = Path(__file__).parents[2] / "configs" / "ppo_pong.yaml"
OF_THE_RUN = ("algorithm", "stop", "evaluation")


def test_the_config_for_pong_trains(inline_engine):
    values = {key: value for key, value in yaml.safe_load(CONFIG.read_text()).items() if key not in OF_THE_RUN}
    config = PPOConfig(**{**values, "num_envs": 4, "rollout_length": 32, "minibatch_size": 64, "epochs": 1})
    algorithm = PPO(config, 1000)
    algorithm.setup()
    assert algorithm.policy.build.kind == "nature" and algorithm.policy.layout.parts[0].image == (4, 84, 84)
    for iteration in (1, 2):
        metrics = algorithm.training_step()
        assert all(math.isfinite(value) for value in metrics.values())
        assert metrics["env_steps"] == 128 * iteration and metrics["env_restarts"] == 0
    algorithm.close()
