"""Stable-Baselines3's side of a3c_vs_a2c: one training run in one process, one JSON record."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium
import torch
from ppo_hyperparameters import as_sb3_schedule
from stable_baselines3 import A2C
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize

SB3_NAMES = {
    "rollout_length": "n_steps", "gamma": "gamma", "gae_lambda": "gae_lambda", "learning_rate": "learning_rate",
    "entropy_coef": "ent_coef", "value_coef": "vf_coef", "max_grad_norm": "max_grad_norm",
    "normalize_advantage": "normalize_advantage",
}
HANDLED_HERE = {
    "env", "env_kwargs", "num_envs", "policy_hidden", "value_hidden", "activation", "optimizer",
    "normalize_observations", "normalize_rewards",
}
WITHOUT_COUNTERPART = {"env_groups", "gradients", "shards", "max_staleness"}
"""What makes it asynchronous, and how often metrics are written."""
ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


def sb3_arguments(hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``stable_baselines3.A2C``.

    Raises:
        ValueError: a hyperparameter that has no counterpart there.
    """
    arguments: dict[str, Any] = {"use_rms_prop": hyperparameters.get("optimizer", "rmsprop") == "rmsprop"}
    for name, value in hyperparameters.items():
        if name in HANDLED_HERE | WITHOUT_COUNTERPART:
            continue
        if name not in SB3_NAMES:
            raise ValueError(f"hyperparameter {name!r} has no counterpart in Stable-Baselines3's A2C")
        # two that A2C takes as numbers only
        as_number = name in ("entropy_coef", "value_coef") or not isinstance(value, str)
        arguments[SB3_NAMES[name]] = value if as_number else as_sb3_schedule(value)
    return arguments


def train(hyperparameters: dict[str, Any], seed: int, steps: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    env_id, env_kwargs = hyperparameters["env"], hyperparameters.get("env_kwargs") or {}
    envs: VecEnv = make_vec_env(
        env_id, n_envs=hyperparameters["num_envs"], seed=seed, env_kwargs=env_kwargs, vec_env_cls=DummyVecEnv
    )
    observations = hyperparameters.get("normalize_observations", False)
    rewards = hyperparameters.get("normalize_rewards", False)
    if observations or rewards:
        envs = VecNormalize(
            envs, norm_obs=observations, norm_reward=rewards, gamma=hyperparameters.get("gamma", 0.99)
        )
    networks = {
        "net_arch": {
            "pi": list(hyperparameters.get("policy_hidden", (64, 64))),
            "vf": list(hyperparameters.get("value_hidden", (64, 64))),
        },
        "activation_fn": ACTIVATIONS[hyperparameters.get("activation", "tanh")],
    }
    model = A2C("MlpPolicy", envs, seed=seed, device="cpu", policy_kwargs=networks, **sb3_arguments(hyperparameters))
    began, cpu = time.perf_counter(), time.process_time()
    model.learn(steps)
    record = {
        "train_seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu,
        "env_steps": model.num_timesteps,
    }
    evaluated = DummyVecEnv([lambda: Monitor(gymnasium.make(env_id, **env_kwargs))])
    evaluated.seed(10_000)
    if isinstance(envs, VecNormalize):
        evaluated = VecNormalize(evaluated, norm_obs=observations, norm_reward=False, training=False)
        evaluated.obs_rms = envs.obs_rms
    returns, _ = evaluate_policy(model, evaluated, 20, deterministic=True, return_episode_rewards=True)
    return {**record, "evaluation_returns": [float(r) for r in returns]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hyperparameters", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--backend", help="unused on this side")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.write_text(json.dumps(train(asked.hyperparameters, asked.seed, asked.steps)) + "\n")


if __name__ == "__main__":
    main()
