"""Stable-Baselines3's side of ppo_vs_sb3: one training run in one process, one JSON record."""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports: they are part of set-up, on both sides

import argparse  # noqa: E402
import importlib.metadata  # noqa: E402
import json  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import gymnasium  # noqa: E402
import torch  # noqa: E402
from ppo_hyperparameters import sb3_arguments  # noqa: E402
from stable_baselines3 import PPO  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.env_util import make_vec_env  # noqa: E402
from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize  # noqa: E402

PACKAGES = ("stable-baselines3", "torch", "gymnasium", "numpy")
ACTIVATIONS = {"tanh": torch.nn.Tanh, "relu": torch.nn.ReLU}


class LearningCurve(BaseCallback):
    """(env steps, seconds of training, mean of the last 100 training episodes) once a rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.points: list[tuple[int, float, float]] = []

    def _on_training_start(self) -> None:
        self._began = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        recent = self.model.ep_info_buffer
        if recent:
            mean = sum(episode["r"] for episode in recent) / len(recent)
            self.points.append((self.num_timesteps, time.perf_counter() - self._began, float(mean)))


def train(
    hyperparameters: dict[str, Any], seed: int, steps: int, episodes: int, evaluation_seed: int
) -> dict[str, Any]:
    torch.set_num_threads(1)
    env_id, env_kwargs = hyperparameters["env"], hyperparameters.get("env_kwargs") or {}
    envs = make_vec_env(
        env_id, n_envs=hyperparameters["num_envs"], seed=seed, env_kwargs=env_kwargs, vec_env_cls=DummyVecEnv
    )
    networks = {
        "net_arch": {
            "pi": list(hyperparameters.get("policy_hidden", (64, 64))),
            "vf": list(hyperparameters.get("value_hidden", (64, 64))),
        },
        "activation_fn": ACTIVATIONS[hyperparameters.get("activation", "tanh")],
        "log_std_init": hyperparameters.get("log_std_init", 0.0),
        "ortho_init": hyperparameters.get("orthogonal_init", True),
    }
    normalised = {
        "norm_obs": hyperparameters.get("normalize_observations", False),
        "norm_reward": hyperparameters.get("normalize_rewards", False),
    }
    if any(normalised.values()):
        envs = VecNormalize(envs, gamma=hyperparameters.get("gamma", 0.99), **normalised)
    model = PPO(
        "MlpPolicy", envs, seed=seed, device="cpu", policy_kwargs=networks, **sb3_arguments(hyperparameters)
    )
    curve = LearningCurve()
    began = time.perf_counter()
    model.learn(steps, callback=curve)
    ended = time.perf_counter()

    evaluated: Any = DummyVecEnv([lambda: Monitor(gymnasium.make(env_id, **env_kwargs))])
    evaluated.seed(evaluation_seed)
    if any(normalised.values()):  # by what training has seen, and rewards as they are
        evaluated = VecNormalize(evaluated, training=False, norm_reward=False, norm_obs=normalised["norm_obs"])
        evaluated.obs_rms = envs.obs_rms
    returns, _ = evaluate_policy(
        model, evaluated, n_eval_episodes=episodes, deterministic=True, return_episode_rewards=True
    )
    return {
        "set_up_seconds": began - STARTED,
        "train_seconds": ended - began,
        "env_steps": model.num_timesteps,
        "curve": curve.points,
        "evaluation_returns": [float(r) for r in returns],
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hyperparameters", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--evaluation-seed", type=int, required=True)
    parser.add_argument("--backend", help="unused on this side")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    record = train(asked.hyperparameters, asked.seed, asked.steps, asked.episodes, asked.evaluation_seed)
    asked.out.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
