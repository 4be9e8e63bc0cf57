"""rlflow's A3C beside Stable-Baselines3's A2C on CartPole-v1: env steps/s while training.

    make peers                                   # once: Stable-Baselines3 into its own environment
    .venv/bin/python benchmarks/a3c_vs_a2c.py [--seeds 0 1 2] [--steps 200000]

Both sides train from the same config, in processes of their own, one after the other, alternated by seed. They have the
same number of environments. A3C's groups of them take gradients without waiting for each other; A2C, which is A3C with
one group, steps them all and takes one gradient.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from children import MissingPeers, python_of, run_child
from report import machine, print_table, ratio_text, ratio_with_range, short, write_json

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "a3c_cartpole.yaml"
CHILDREN = {"ours": "a3c_child.py", "sb3": "a2c_child_sb3.py"}
NAMES = {"ours": "rlflow A3C", "sb3": "Stable-Baselines3 A2C"}
OF_THE_RUN = {"algorithm", "seed", "stop", "evaluation", "checkpoint", "engine", "name", "runs_dir"}
FIGURES = {
    "steps_per_second": ("env steps/s while training", "steps/s"),
    "steps_per_cpu_second": ("env steps per second of CPU time", "steps/s"),
    "evaluation_return": ("final return, 20 deterministic episodes", "return"),
}
"""Key → (what the table calls it, unit)."""


def arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("--steps", type=int, default=200_000, help="env steps of each run (200000)")
    parser.add_argument("--side", choices=(*CHILDREN, "both"), default="both")
    parser.add_argument("--config", type=Path, default=CONFIG, help="what both sides train from")
    parser.add_argument("--backend", choices=("local", "inline"), default="local", help="rlflow's engine")
    parser.add_argument("--json", type=Path, help="where the JSON goes (benchmarks/results/)")
    asked = parser.parse_args()
    if asked.steps < 1:
        parser.error("--steps must be at least 1")
    return asked


def hyperparameters_in(path: Path) -> dict[str, Any]:
    written: Mapping[str, Any] = yaml.safe_load(path.read_text())
    return {key: value for key, value in written.items() if key not in OF_THE_RUN}


def run_side(side: str, seed: int, hyperparameters: dict[str, Any], asked: argparse.Namespace) -> dict[str, Any]:
    """One training run; ``{"status": ..., "error": ...}`` when it failed."""
    outcome = run_child(
        CHILDREN[side], side,
        ["--hyperparameters", json.dumps(hyperparameters), "--seed", str(seed), "--steps", str(asked.steps),
         "--backend", asked.backend],
        timeout=120 + asked.steps / 200,
    )
    if not outcome.records:
        status = "timeout" if outcome.exit_code is None else "failed"
        return {"seed": seed, "status": status, "error": outcome.how, "stderr": outcome.stderr}
    run = outcome.records[0]
    return {
        "seed": seed, "status": "ok", **run,
        "steps_per_second": run["env_steps"] / run["train_seconds"],
        "steps_per_cpu_second": run["env_steps"] / run["cpu_seconds"],
        "evaluation_return": statistics.mean(run["evaluation_returns"]),
    }


def summarise(runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """One row a figure: samples by seed (None where a run failed), medians, ratio."""
    rows = []
    for key, (label, unit) in FIGURES.items():
        row: dict[str, Any] = {"figure": key, "label": label, "unit": unit, "ratio": None}
        for side, of_side in runs.items():
            samples = [run.get(key) for run in of_side]
            good = [sample for sample in samples if sample is not None]
            row[side] = {"samples": samples, "median": statistics.median(good) if good else None}
        if len(runs) == 2 and unit != "return":
            row["ratio"] = ratio_with_range(unit, row["ours"]["samples"], row["sb3"]["samples"])
        rows.append(row)
    return rows


def report(document: dict[str, Any]) -> None:
    sides = list(document["runs"])
    lines = []
    for row in document["rows"]:
        medians = [row[side]["median"] for side in sides]
        ratio = [ratio_text(row["ratio"])] if len(sides) == 2 else []
        lines.append([row["label"], *("–" if median is None else short(median) for median in medians), *ratio])
    columns = ["median over seeds", *(NAMES[side] for side in sides), *(["ratio (range)"] if len(sides) == 2 else [])]
    print_table(f"CartPole-v1, {document['steps']:,} env steps, seeds {document['seeds']}", columns, lines)


def main() -> int:
    asked = arguments()
    sides = list(CHILDREN) if asked.side == "both" else [asked.side]
    try:
        hyperparameters = hyperparameters_in(asked.config)
        for side in sides:
            python_of(side)
    except (OSError, yaml.YAMLError, MissingPeers) as error:
        print(f"a3c_vs_a2c: {error}", file=sys.stderr)
        return 2
    document: dict[str, Any] = {
        "benchmark": "a3c_vs_a2c", "machine": machine(), "seeds": asked.seeds, "steps": asked.steps,
        "backend": asked.backend, "hyperparameters": hyperparameters,
    }
    print(f"both sides: {json.dumps(hyperparameters)}", flush=True)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number, seed in enumerate(asked.seeds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            run = run_side(side, seed, hyperparameters, asked)
            shown = f"{run['steps_per_second']:,.0f} steps/s" if run["status"] == "ok" else run["error"]
            print(f"  {NAMES[side]} seed {seed}: {shown}", flush=True)
            runs[side].append(run)
    document |= {"runs": runs, "rows": summarise(runs)}
    report(document)
    print(f"\nwritten to {write_json(document, asked.json, 'a3c_vs_a2c')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
