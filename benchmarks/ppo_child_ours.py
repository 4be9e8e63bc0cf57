"""rlflow's side of ppo_vs_sb3: one training run in one process, one JSON record."""

from __future__ import annotations

import time

STARTED = time.perf_counter()  # before the imports: they are part of set-up, on both sides

import argparse  # noqa: E402
import importlib.metadata  # noqa: E402
import json  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from rlflow import engine  # noqa: E402
from rlflow.algorithms import resolve  # noqa: E402

PRELOAD = ("numpy", "gymnasium", "rlflow.algorithms.rollout")
"""As `rlflow train` has it."""

PACKAGES = ("rlflow", "torch", "gymnasium", "numpy")


def with_own_loss(ppo_class: Any) -> Any:
    """PPO by an overridden loss, of the same value."""

    class OwnLoss(ppo_class):  # type: ignore[misc]
        def loss(self, outputs: Any, batch: Any) -> Any:
            return super().loss(outputs, batch)

    return OwnLoss


def train(
    hyperparameters: dict[str, Any], seed: int, steps: int, episodes: int, evaluation_seed: int, backend: str,
    own_loss: bool,
) -> dict[str, Any]:
    engine.init(backend=backend, preload=PRELOAD)
    ppo_class = with_own_loss(resolve("ppo")) if own_loss else resolve("ppo")
    algorithm = ppo_class(ppo_class.Config(**{**hyperparameters, "seed": seed}), steps)
    algorithm.setup()
    # Its state can be had once the learner is up: its imports are set-up, as they are on the other side.
    algorithm.state()

    curve: list[tuple[int, float, float]] = []
    began = time.perf_counter()
    while algorithm.env_steps < steps:
        metrics = algorithm.training_step()
        if "episode_return" in metrics:
            curve.append(
                (int(metrics["env_steps"]), time.perf_counter() - began, float(metrics["episode_return"]))
            )
    ended = time.perf_counter()

    evaluation = algorithm.evaluate(episodes, evaluation_seed)
    algorithm.close()
    engine.shutdown()
    return {
        "set_up_seconds": began - STARTED,
        "train_seconds": ended - began,
        "env_steps": algorithm.env_steps,
        "curve": curve,
        "evaluation_returns": [float(r) for r in evaluation.returns],
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hyperparameters", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--episodes", type=int, required=True)
    parser.add_argument("--evaluation-seed", type=int, required=True)
    parser.add_argument("--backend", default="local")
    parser.add_argument("--own-loss", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    record = train(
        asked.hyperparameters, asked.seed, asked.steps, asked.episodes, asked.evaluation_seed, asked.backend,
        asked.own_loss,
    )
    asked.out.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
