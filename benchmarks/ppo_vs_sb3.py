"""rlflow's PPO against Stable-Baselines3's, with RL Baselines3 Zoo's hyperparameters.

    make peers                                   # once: Stable-Baselines3 into its own environment
    .venv/bin/python benchmarks/ppo_vs_sb3.py [--rows cartpole half_cheetah] [--seeds 0 1 2] [--steps 100000]

Both sides train from the same config, in processes of their own, one after the other, alternated by seed. A row may
change our side in one respect that the other side does not have: that is in its name.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from children import MissingPeers, python_of, run_child
from ppo_hyperparameters import differences_from_zoo
from report import machine, print_table, ratio_text, ratio_with_range, short, write_json

from rlflow.algorithms import resolve

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """One comparison."""

    config: str
    """Of ``configs/``: what both sides train from."""
    steps: int
    """Env steps of a run, unless asked for otherwise."""
    what: str = ""
    """In what our side differs, for the table."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Of hyperparameters, on our side."""
    own_loss: bool = False
    """Whether our side trains by an overridden loss (of the same value), which has autograd."""
    solved: bool = False
    """Whether it makes sense to ask when a return of :data:`SOLVED` was reached."""


ROWS = {
    "cartpole": Row("ppo_cartpole", 100_000, solved=True),
    "cartpole_own_loss": Row("ppo_cartpole", 100_000, "an overridden loss on our side", own_loss=True, solved=True),
    "cartpole_overlap": Row("ppo_cartpole", 100_000, "overlap on our side", {"overlap": True}, solved=True),
    "pendulum": Row("ppo_pendulum", 100_000),
    "half_cheetah": Row("ppo_half_cheetah", 30_000),
    "half_cheetah_overlap": Row("ppo_half_cheetah", 30_000, "overlap on our side", {"overlap": True}),
}
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
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="(all)")
    parser.add_argument("--steps", type=int, help="env steps of each run (by row)")
    parser.add_argument("--side", choices=(*SIDES, "both"), default="both")
    parser.add_argument("--backend", choices=("local", "inline"), default="local", help="rlflow's engine")
    parser.add_argument("--json", type=Path, help="where the JSON goes (benchmarks/results/)")
    asked = parser.parse_args()
    if asked.steps is not None and asked.steps < 1:
        parser.error("--steps must be at least 1")
    return asked


def hyperparameters_in(path: Path) -> dict[str, Any]:
    """The algorithm's keys of a training config; those of the run (length, folder, engine) left out."""
    written = yaml.safe_load(path.read_text())
    known = resolve("ppo").Config.model_fields
    checked = resolve("ppo").Config(**{key: value for key, value in written.items() if key in known})
    return checked.model_dump(mode="json", exclude_unset=True, exclude={"seed"})


def run_side(
    side: str, seed: int, row: Row, hyperparameters: dict[str, Any], steps: int, backend: str
) -> dict[str, Any]:
    """One training run; ``{"status": ..., "error": ...}`` when it failed."""
    ours = side == "ours"
    changed = {**hyperparameters, **row.changes} if ours else hyperparameters
    outcome = run_child(
        f"ppo_child_{side}.py", side,
        ["--hyperparameters", json.dumps(changed), "--seed", str(seed), "--steps", str(steps),
         "--episodes", str(EVALUATION_EPISODES), "--evaluation-seed", str(EVALUATION_SEED), "--backend", backend,
         *(["--own-loss"] if ours and row.own_loss else [])],
        timeout=120 + steps / 100,
    )
    if not outcome.records:
        status = "timeout" if outcome.exit_code is None else "failed"
        return {"seed": seed, "status": status, "error": outcome.how, "stderr": outcome.stderr}
    return figures(seed, outcome.records[0], row.solved)


def figures(seed: int, run: dict[str, Any], with_solved: bool) -> dict[str, Any]:
    """What is compared, from a run's raw record. A threshold that was not reached gives None."""
    solved = next((point for point in run["curve"] if with_solved and point[2] >= SOLVED), None)
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
        f"{SOLVED:.0f} after {run['solved_seconds']:.1f} s, {run['solved_steps']:,} steps; "
        if run["solved_steps"] else ""
    )
    print(f"  {NAMES[side]:<18} seed {run['seed']}: {run['steps_per_second']:,.0f} steps/s; {solved}"
          f"set-up {run['set_up_seconds']:.1f} s; evaluation {run['evaluation_return']:.1f}", flush=True)


def summarise(
    runs: dict[str, list[dict[str, Any]]], sides: list[str], with_solved: bool
) -> list[dict[str, Any]]:
    """One line a figure: samples by seed (None where a run failed or never got there), medians, ratio."""
    rows = []
    for key, (label, unit) in FIGURES.items():
        if key.startswith("solved") and not with_solved:
            continue
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


def report(comparison: dict[str, Any], row: Row, sides: list[str]) -> None:
    columns = ["median over seeds", *(NAMES[side] for side in sides)]
    columns += ["rlflow is better by (range)"] if len(sides) == 2 else []
    lines = []
    for figure in comparison["figures"]:
        ratio = [ratio_text(figure["ratio"])] if len(sides) == 2 else []
        lines.append([figure["label"], *(cell(figure[side]) for side in sides), *ratio])
    print()
    what = f", {row.what}" if row.what else ""
    env = comparison["hyperparameters"]["env"]
    title = f"PPO, {env}{what}, {comparison['steps']:,} env steps, seeds {comparison['seeds']}"
    print_table(title, columns, lines)
    print(flush=True)


def compare(name: str, sides: list[str], asked: argparse.Namespace) -> dict[str, Any]:
    """Runs and reports one row."""
    row = ROWS[name]
    hyperparameters = hyperparameters_in(ROOT / "configs" / f"{row.config}.yaml")
    steps = asked.steps or row.steps
    comparison: dict[str, Any] = {
        "row": name, "seeds": asked.seeds, "steps": steps, "hyperparameters": hyperparameters,
        "ours": {"changes": row.changes, "own_loss": row.own_loss},
    }
    print(f"{name}; both sides: {json.dumps(hyperparameters)}")
    if row.config == "ppo_cartpole":
        comparison["differences_from_zoo"] = differences_from_zoo(hyperparameters)
        for difference in comparison["differences_from_zoo"]:
            print(f"not the zoo's hyperparameters: {difference}")
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number, seed in enumerate(asked.seeds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            run = run_side(side, seed, row, hyperparameters, steps, asked.backend)
            show_run(side, run)
            runs[side].append(run)
    comparison |= {"runs": runs, "figures": summarise(runs, sides, row.solved)}
    report(comparison, row, sides)
    return comparison


def main() -> int:
    asked = arguments()
    sides = list(SIDES) if asked.side == "both" else [asked.side]
    try:
        for side in sides:
            python_of(side)
    except MissingPeers as error:
        print(f"ppo_vs_sb3: {error}", file=sys.stderr)
        return 2
    info = machine()
    print(
        f"{info['cpu']}, {info['cores']} cores, {info['memory_gib']} GiB, load {info['load_average'][0]}\n",
        flush=True,
    )
    rows = [compare(name, sides, asked) for name in asked.rows]
    document = {"benchmark": "ppo_vs_sb3", "machine": info, "backend": asked.backend, "rows": rows}
    print(f"written to {write_json(document, asked.json, 'ppo_vs_sb3')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
