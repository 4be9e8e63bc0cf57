"""ES by population: env steps/s, tasks/s, the share of time in environments, and bare loops beside.

    .venv/bin/python benchmarks/es_scaling.py [--envs CartPole-v1 HalfCheetah-v5] [--populations 128 1000 10000]

Every round trains from scratch, with the config's hyperparameters and another seed, for some iterations. Then a
task of the same engine plays one environment with the policy that came out, and once more with that policy's actions
from a list. Ratios are of steps per CPU second, of all processes on our side, so they hardly depend on who else is
busy. The first round of all has workers import what they need; medians leave it out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import psutil
import yaml
from report import machine, print_table, short, write_json

from rlflow import engine
from rlflow.algorithms.es import ES, ESConfig
from rlflow.algorithms.normalization import Moments, Normaliser
from rlflow.algorithms.policies.actor import MlpActor

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "CartPole-v1": ("es_cartpole.yaml", {}, 500),  # stepped all at once
    "HalfCheetah-v5": ("es_half_cheetah.yaml", {"max_episode_steps": 100}, 16),  # 10,000 members in a million steps
}
"""Environment → config of its hyperparameters, keyword arguments on both sides, members a task in large populations."""
LARGE = 1000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", nargs="+", choices=CASES, default=list(CASES), help="(all)")
    parser.add_argument("--populations", type=int, nargs="+", default=[128, 1000, 10_000], help="(128 1000 10000)")
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--steps", type=int, default=300_000, help="env steps of a round, at least (300000)")
    parser.add_argument("--iterations", type=int, default=3, help="iterations of a round, at least (3)")
    parser.add_argument("--bare-steps", type=int, default=20_000, help="steps of a bare loop (20000)")
    parser.add_argument("--cpus", type=int, help="workers of the engine (all of the machine's)")
    parser.add_argument("--backend", choices=("local", "inline"), default="local")
    parser.add_argument("--json", type=Path, help="where the JSON goes (benchmarks/results/)")
    return parser.parse_args()


def config_of(env: str, population: int, seed: int) -> ESConfig:
    """The algorithm's keys of the environment's config, for this population."""
    name, env_kwargs, members_per_task = CASES[env]
    written = yaml.safe_load((CONFIGS / name).read_text())
    known = {key: value for key, value in written.items() if key in ESConfig.model_fields}
    if population >= LARGE:
        known["members_per_task"] = members_per_task
    return ESConfig(**{**known, "env_kwargs": env_kwargs, "population": population, "seed": seed})


def cpu_seconds() -> float:
    """Of this process and all of the engine's."""
    total = time.process_time()
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def train(algorithm: ES, steps: int, iterations: int) -> dict[str, float]:
    """What the training loop took."""
    cpus = engine.cluster_resources().get("CPU", 1)
    began, began_cpu, in_envs = time.perf_counter(), cpu_seconds(), 0.0
    while algorithm.env_steps < steps or algorithm.iteration < iterations:
        in_envs += algorithm.training_step()["time_env"]
    took, took_cpu = time.perf_counter() - began, cpu_seconds() - began_cpu
    config = algorithm.config
    tasks = algorithm.iteration * -(-config.population // config.members_per_task)
    return {
        "env_steps": algorithm.env_steps, "iterations": algorithm.iteration,
        "steps_per_second": algorithm.env_steps / took, "tasks_per_second": tasks / took,
        "steps_per_cpu_second": algorithm.env_steps / took_cpu, "share_in_envs": in_envs / (took * cpus),
        "episode_length": algorithm.episodes.metrics()["episode_length"],
    }


def bare_loops(
    env_id: str, env_kwargs: dict[str, Any], policy: MlpActor, weights: Any, steps: int
) -> tuple[float, float]:
    """One environment in a plain loop → steps per CPU second with the policy, and with its actions from a list."""
    env = gymnasium.make(env_id, disable_env_checker=True, **env_kwargs)
    actor = policy.bind(weights)

    def rate(choose: Callable[[Any], Any]) -> float:
        began, done, episode = time.process_time(), True, 0
        for _ in range(steps):
            if done:
                observation, _ = env.reset(seed=episode)
                episode += 1
            observation, _, terminated, truncated, _ = env.step(choose(observation))
            done = terminated or truncated
        return steps / (time.process_time() - began)

    taken: list[Any] = []

    def remember(observation: Any) -> Any:
        taken.append(actor.act(np.asarray(observation, np.float32)[None], None)[0])
        return taken[-1]

    with_policy = rate(remember)
    listed = iter(taken)
    without = rate(lambda observation: next(listed))
    env.close()
    return with_policy, without


def normalising_weights(policy: MlpActor, parameters: Any, moments: Moments) -> Any:
    """[num_parameters] of a policy for observations as they are: the bare loop need not normalise them."""
    weights = parameters.copy()
    normaliser = Normaliser(moments)
    first, bias = next(policy.network.layers(weights))
    first *= normaliser.scale[:, None]
    bias -= normaliser.mean @ first
    return weights


def measure(env: str, population: int, seed: int, asked: argparse.Namespace) -> dict[str, float]:
    config = config_of(env, population, seed)
    algorithm = ES(config, asked.steps)
    algorithm.setup()
    try:
        figures = train(algorithm, asked.steps, asked.iterations)
        weights = normalising_weights(algorithm.policy, algorithm.parameters, algorithm._moments)
        loops = engine.remote(bare_loops).remote(env, config.env_kwargs, algorithm.policy, weights, asked.bare_steps)
        with_policy, without = engine.get(loops)
    finally:
        algorithm.close()
    per_cpu_second = figures["steps_per_cpu_second"]
    return {
        **figures, "bare_policy_loop": with_policy, "bare_env_loop": without,
        "of_bare_policy_loop": per_cpu_second / with_policy, "of_bare_env_loop": per_cpu_second / without,
    }


COLUMNS = {
    "steps_per_second": "env steps/s", "tasks_per_second": "tasks/s", "share_in_envs": "share in envs",
    "steps_per_cpu_second": "steps/CPU s", "bare_policy_loop": "policy loop", "bare_env_loop": "env loop",
    "of_bare_policy_loop": "× policy loop", "of_bare_env_loop": "× env loop",
}


def main() -> None:
    asked = arguments()
    document: dict[str, Any] = {"benchmark": "es_scaling", "machine": machine(), "rows": []}
    engine.init(backend=asked.backend, num_cpus=asked.cpus)
    try:
        for env in asked.envs:
            for population in asked.populations:
                rounds = [measure(env, population, seed, asked) for seed in range(asked.rounds)]
                medians = {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}
                document["rows"].append(
                    {"env": env, "env_kwargs": CASES[env][1], "population": population, **medians, "rounds": rounds}
                )
                print(f"{env}, {population:,} members: {short(medians['steps_per_second'])} env steps/s", flush=True)
    finally:
        engine.shutdown()
    rows = [
        [f"{row['env']}, {row['population']:,}", *(short(row[key]) for key in COLUMNS)] for row in document["rows"]
    ]
    notes = [f"{env}: {CASES[env][1]}, on both sides" for env in asked.envs if CASES[env][1]]
    print_table("ES by members an iteration (medians)", ["", *COLUMNS.values()], rows, notes)
    print(f"written to {write_json(document, asked.json, 'es_scaling')}")


if __name__ == "__main__":
    main()
