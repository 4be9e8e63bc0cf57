"""Hyperparameters of ppo_vs_sb3 in rlflow's names, and how Stable-Baselines3 calls and writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

ZOO: dict[str, Any] = {
    "env": "CartPole-v1",
    "num_envs": 8,
    "rollout_length": 32,
    "minibatch_size": 256,
    "epochs": 20,
    "gamma": 0.98,
    "gae_lambda": 0.8,
    "learning_rate": "linear(1e-3, 0)",
    "clip_range": "linear(0.2, 0)",
    "entropy_coef": 0.0,
}
"""RL Baselines3 Zoo's for PPO on CartPole-v1; everything else at Stable-Baselines3's defaults."""

SB3_NAMES = {
    "rollout_length": "n_steps",
    "minibatch_size": "batch_size",
    "epochs": "n_epochs",
    "gamma": "gamma",
    "gae_lambda": "gae_lambda",
    "learning_rate": "learning_rate",
    "clip_range": "clip_range",
    "clip_range_value": "clip_range_vf",
    "entropy_coef": "ent_coef",
    "value_coef": "vf_coef",
    "max_grad_norm": "max_grad_norm",
    "normalize_advantage": "normalize_advantage",
    "target_kl": "target_kl",
    "use_sde": "use_sde",
    "sde_sample_freq": "sde_sample_freq",
}
HANDLED_ELSEWHERE = {
    "env", "env_kwargs", "num_envs", "seed", "policy_hidden", "value_hidden", "activation", "log_std_init",
    "orthogonal_init", "normalize_observations", "normalize_rewards",
}
"""They become the vector env, the seed, ``policy_kwargs`` and a ``VecNormalize``."""
WITHOUT_COUNTERPART = {"env_groups"}
"""How rlflow spreads the same environments over tasks; Stable-Baselines3 has one group."""

_LINEAR = re.compile(r"linear\(\s*([^,\s]+)\s*,\s*([^,\s]+)\s*\)")


def endpoints(schedule: float | str) -> tuple[float, float]:
    """(first, last) of a number or of ``linear(first, last)``."""
    if isinstance(schedule, str) and (match := _LINEAR.fullmatch(schedule.strip())):
        return float(match[1]), float(match[2])
    return float(schedule), float(schedule)


def as_sb3_schedule(schedule: float | str) -> float | Callable[[float], float]:
    """Stable-Baselines3 asks a schedule with what remains of the run, from 1 down to 0."""
    first, last = endpoints(schedule)
    return first if first == last else lambda remaining: last + (first - last) * remaining


def sb3_arguments(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``stable_baselines3.PPO``.

    Raises:
        ValueError: a hyperparameter that has no counterpart there, so that the comparison would not be one.
    """
    arguments: dict[str, Any] = {}
    for name, value in hyperparameters.items():
        if name in HANDLED_ELSEWHERE or name in WITHOUT_COUNTERPART:
            continue
        if name not in SB3_NAMES:
            raise ValueError(f"hyperparameter {name!r} has no counterpart in Stable-Baselines3")
        is_schedule = isinstance(value, str)
        arguments[SB3_NAMES[name]] = as_sb3_schedule(value) if is_schedule else value
    return arguments


def differences_from_zoo(hyperparameters: Mapping[str, Any]) -> list[str]:
    """What a config does otherwise than the zoo, in words; empty when it is the zoo's."""
    found = []
    for name, expected in ZOO.items():
        actual = hyperparameters.get(name, "its default")
        same = actual == expected
        if not same and isinstance(expected, (float, str)) and actual != "its default" and name != "env":
            same = endpoints(actual) == endpoints(expected)
        if not same:
            found.append(f"{name} is {actual}, the zoo's is {expected}")
    return found
