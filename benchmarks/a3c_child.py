"""rlflow's side of a3c_vs_a2c: one training run in one process, one JSON record."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import psutil

from rlflow import engine
from rlflow.algorithms import resolve

PRELOAD = ("numpy", "gymnasium", "rlflow.algorithms.rollout")
"""As `rlflow train` has it."""


def cpu_seconds() -> float:
    """CPU time of this process and all that it has started."""
    here = psutil.Process()
    times = [process.cpu_times() for process in (here, *here.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def train(hyperparameters: dict[str, Any], seed: int, steps: int, backend: str) -> dict[str, Any]:
    engine.init(backend=backend, preload=PRELOAD)
    cls = resolve("a3c")
    algorithm = cls(cls.Config(**{**hyperparameters, "seed": seed}), steps)
    algorithm.setup()
    for _ in range(2):  # the workers' imports are set-up, as they are on the other side
        algorithm.training_step()
    before, began, cpu = algorithm.env_steps, time.perf_counter(), cpu_seconds()
    while algorithm.env_steps < before + steps:
        algorithm.training_step()
    record = {
        "train_seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds() - cpu,
        "env_steps": algorithm.env_steps - before,
    }
    evaluation = algorithm.evaluate(20, 10_000)
    algorithm.close()
    engine.shutdown()
    return {**record, "evaluation_returns": [float(r) for r in evaluation.returns]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hyperparameters", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--backend", default="local")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    record = train(asked.hyperparameters, asked.seed, asked.steps, asked.backend)
    asked.out.write_text(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
