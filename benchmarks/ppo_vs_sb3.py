"""rlflow's PPO against Stable-Baselines3's, on CartPole-v1 with RL Baselines3 Zoo's hyperparameters.

    make peers                                   # once: Stable-Baselines3 into its own environment
    .venv/bin/python benchmarks/ppo_vs_sb3.py [--seeds 0 1 2] [--steps 100000]

Both sides train from the same config, in processes of their own, one after the other, alternated by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml
from children import MissingPeers, python_of, run_child
from ppo_hyperparameters import differences_from_zoo
from report import machine, print_table, ratio_text, ratio_with_range, short, write_json

from rlflow.algorithms import resolve

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "ppo_cartpole.yaml"
SIDES = ("ours", "sb3")
NAMES = {"ours": "rlflow", "sb3": "Stable-Baselines3"}
SOLVED = 475.0
EVALUATION_EPISODES = 20
EVALUATION_SEED = 10_000

FIGURES = {
    "steps_per_second": ("env steps/s while training", "steps/s"),
    "solved_seconds": (f"training seconds to {SOLVED:.0f}", "s"),
    "solved_seconds_with_set_up": (f"seconds to {SOLVED:.0f}, set-up included", "s"),
    "solved_steps": (f"env steps to {SOLVED:.0f}", "env steps"),
    "set_up_seconds": ("set-up seconds", "s"),
    "evaluation_return": (f"final return, {EVALUATION_EPISODES} deterministic episodes", "return"),
}
"""Key → (what the table calls it, unit)."""


def arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("--steps", type=int, default=100_000, help="env steps of each run (100000)")
    parser.add_argument("--side", choices=(*SIDES, "both"), default="both")
    parser.add_argument("--config", type=Path, default=CONFIG, help="what both sides train from")
    parser.add_argument("--backend", choices=("local", "inline"), default="local", help="rlflow's engine")
    parser.add_argument("--json", type=Path, help="where the JSON goes (benchmarks/results/)")
    asked = parser.parse_args()
    if asked.steps < 1:
        parser.error("--steps must be at least 1")
    return asked


def hyperparameters_in(path: Path) -> dict[str, Any]:
    """The algorithm's keys of a training config; those of the run (length, folder, engine) left out."""
    written = yaml.safe_load(path.read_text())
    known = resolve("ppo").Config.model_fields
    chosen = {key: value for key, value in written.items() if key in known and key != "seed"}
    return {**chosen, "learning_rate": written["lr"]} if "lr" in written else chosen


def run_side(
    side: str, seed: int, hyperparameters: dict[str, Any], asked: argparse.Namespace
) -> dict[str, Any]:
    """One training run; ``{"status": ..., "error": ...}`` when it failed."""
    outcome = run_child(
        f"ppo_child_{side}.py", side,
        ["--hyperparameters", json.dumps(hyperparameters), "--seed", str(seed), "--steps", str(asked.steps),
         "--episodes", str(EVALUATION_EPISODES), "--evaluation-seed", str(EVALUATION_SEED),
         "--backend", asked.backend],
        timeout=120 + asked.steps / 200,
    )
    if not outcome.records:
        status = "timeout" if outcome.exit_code is None else "failed"
        return {"seed": seed, "status": status, "error": outcome.how, "stderr": outcome.stderr}
    return figures(seed, outcome.records[0])


def figures(seed: int, run: dict[str, Any]) -> dict[str, Any]:
    """What is compared, from a run's raw record. A threshold that was not reached gives None."""
    solved = next((point for point in run["curve"] if point[2] >= SOLVED), None)
    steps, seconds, _ = solved if solved else (None, None, None)
    return {
        "seed": seed,
        "status": "ok",
        "steps_per_second": run["env_steps"] / run["train_seconds"],
        "solved_seconds": seconds,
        "solved_seconds_with_set_up": None if seconds is None else seconds + run["set_up_seconds"],
        "solved_steps": steps,
        "evaluation_return": statistics.mean(run["evaluation_returns"]),
        **run,
    }


def show_run(side: str, run: dict[str, Any]) -> None:
    if run["status"] != "ok":
        print(f"  {NAMES[side]:<18} seed {run['seed']}: {run['status']}: {run['error']}", flush=True)
        return
    solved = (
        f"{SOLVED:.0f} after {run['solved_seconds']:.1f} s, {run['solved_steps']:,} steps"
        if run["solved_steps"] else f"{SOLVED:.0f} not reached"
    )
    print(f"  {NAMES[side]:<18} seed {run['seed']}: {run['steps_per_second']:,.0f} steps/s; {solved}; "
          f"set-up {run['set_up_seconds']:.1f} s; evaluation {run['evaluation_return']:.1f}", flush=True)


def summarise(runs: dict[str, list[dict[str, Any]]], sides: list[str]) -> list[dict[str, Any]]:
    """One row a figure: samples by seed (None where a run failed or never got there), medians, ratio."""
    rows = []
    for key, (label, unit) in FIGURES.items():
        row: dict[str, Any] = {"figure": key, "label": label, "unit": unit, "ratio": None}
        for side in sides:
            samples = [run.get(key) for run in runs[side]]
            good = [sample for sample in samples if sample is not None]
            row[side] = {"samples": samples, "median": statistics.median(good) if good else None}
        if len(sides) == 2:
            row["ratio"] = ratio_with_range(unit, row["ours"]["samples"], row["sb3"]["samples"])
        rows.append(row)
    return rows


def cell(side_row: dict[str, Any]) -> str:
    samples, median = side_row["samples"], side_row["median"]
    missing = samples.count(None)
    if median is None:
        return f"none of {len(samples)}"
    return short(median) + (f" ({len(samples) - missing} of {len(samples)})" if missing else "")


def report(document: dict[str, Any], sides: list[str]) -> None:
    columns = ["median over seeds", *(NAMES[side] for side in sides)]
    columns += ["rlflow is better by (range)"] if len(sides) == 2 else []
    rows = []
    for row in document["rows"]:
        ratio = [ratio_text(row["ratio"])] if len(sides) == 2 else []
        rows.append([row["label"], *(cell(row[side]) for side in sides), *ratio])
    print()
    env = document["hyperparameters"]["env"]
    title = f"PPO, {env}, {document['steps']:,} env steps, seeds {document['seeds']}"
    print_table(title, columns, rows)


def main() -> int:
    asked = arguments()
    sides = list(SIDES) if asked.side == "both" else [asked.side]
    try:
        hyperparameters = hyperparameters_in(asked.config)
        for side in sides:
            python_of(side)
    except (OSError, yaml.YAMLError, MissingPeers) as error:
        print(f"ppo_vs_sb3: {error}", file=sys.stderr)
        return 2
    document: dict[str, Any] = {
        "benchmark": "ppo_vs_sb3", "machine": machine(), "seeds": asked.seeds, "steps": asked.steps,
        "backend": asked.backend, "hyperparameters": hyperparameters,
        "differences_from_zoo": differences_from_zoo(hyperparameters),
    }
    info = document["machine"]
    print(f"{info['cpu']}, {info['cores']} cores, {info['memory_gib']} GiB, load {info['load_average'][0]}")
    print(f"both sides: {json.dumps(hyperparameters)}")
    for difference in document["differences_from_zoo"]:
        print(f"not the zoo's hyperparameters: {difference}")
    print(flush=True)

    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number, seed in enumerate(asked.seeds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            run = run_side(side, seed, hyperparameters, asked)
            show_run(side, run)
            runs[side].append(run)
    document |= {"runs": runs, "rows": summarise(runs, sides)}
    report(document, sides)
    print(f"\nwritten to {write_json(document, asked.json, 'ppo_vs_sb3')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
