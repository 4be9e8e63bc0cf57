"""Callbacks of one's own: a metric, an end, and a copy of the best checkpoint.

    python examples/callbacks.py

In a config: ``callbacks: [callbacks:ReturnPerSecond, {callbacks:CopyOfTheBest: {to: best}}]``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import rlflow
from rlflow.callbacks import Callback, EarlyStop, RunStart
from rlflow.run_folder import RunFolder


class ReturnPerSecond(Callback):
    """A custom metric: it goes to metrics.jsonl, TensorBoard and wherever else metrics go."""

    def on_iteration(self, metrics: dict[str, float]) -> None:
        if "episode_return" in metrics:
            metrics["return_per_second"] = metrics["episode_return"] / metrics["time_total"]


class CopyOfTheBest(Callback):
    """Leaves a copy of the checkpoint that the evaluations found best; rlflow itself keeps it beside the newest."""

    def __init__(self, to: str) -> None:
        self.to = Path(to)
        self.scores: list[float] = []

    def on_start(self, start: RunStart) -> None:
        print(f"training for {start.total_env_steps:,} env steps in {start.folder.path}")

    def on_evaluation(self, evaluation: Any, env_steps: int, final: bool) -> None:
        self.scores.append(evaluation.mean_return)

    def on_end(self, folder: RunFolder) -> None:
        best = folder.best_checkpoint()
        if best is not None:
            shutil.copytree(best, self.to, dirs_exist_ok=True)
            print(f"best of {len(self.scores)} evaluations: {max(self.scores):.1f}, {best.name}")


if __name__ == "__main__":
    run = rlflow.train(
        "ppo", env="CartPole-v1", seed=0, stop={"env_steps": 20_000}, engine={"num_cpus": 2}, progress=False,
        evaluation={"episodes": 5, "every_env_steps": 5_000},
        callbacks=[ReturnPerSecond(), EarlyStop("episode_return", patience=5), CopyOfTheBest("best")],
    )
    print(f"ended after {run.status['env_steps']:,} env steps: {run.status['reason']}")
