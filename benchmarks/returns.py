"""The returns that the configs reach, beside those that are wanted of them.

    .venv/bin/python benchmarks/returns.py                                   # everything: many hours on two cores
    .venv/bin/python benchmarks/returns.py --rows ppo_pendulum,a3c_pendulum --seeds 0-2 --json returns.json

Every row trains one config by several seeds, for as many environment steps as the row says, and plays whole episodes
with the final policy: deterministic, in environments of fixed seeds. The JSON is written after every run; what it holds
already, of the same config and length, is not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from report import RESULTS, machine, print_table, write_json

import rlflow
from rlflow.config_source import ConfigError
from rlflow.errors import TrainingFailed

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
EVALUATION_SEED = 10_000


@dataclass(frozen=True)
class Row:
    """What is wanted of a config."""

    algorithm: str
    env: str
    steps: int
    least: float
    """The return that is wanted."""
    of: str = "mean"
    """Of which number over the seeds: a key of ``OVER_SEEDS``."""
    seeds: int = 5
    episodes: int = 20
    config: str | None = None
    """The name of its file, where that is not the row's."""


ROWS = {
    "ppo_cartpole": Row("ppo", "CartPole-v1", 100_000, 500, "all"),
    "ppo_pendulum": Row("ppo", "Pendulum-v1", 100_000, -175, episodes=200),
    "ppo_acrobot": Row("ppo", "Acrobot-v1", 1_000_000, -78, episodes=100),
    "ppo_mountain_car_continuous": Row("ppo", "MountainCarContinuous-v0", 200_000, 90, "all but one"),
    "ppo_half_cheetah": Row("ppo", "HalfCheetah-v5", 1_000_000, 4500, "median"),
    "ppo_hopper": Row("ppo", "Hopper-v5", 1_000_000, 2300, "median"),
    "es_inverted_pendulum": Row("es", "InvertedPendulum-v5", 250_000, 1000, "all", seeds=3),
    "es_half_cheetah_2m": Row("es", "HalfCheetah-v5", 2_000_000, 2386, "median", 3, config="es_half_cheetah"),
    "es_half_cheetah": Row("es", "HalfCheetah-v5", 5_000_000, 3500, "median", 3),
    "a3c_cartpole": Row("a3c", "CartPole-v1", 500_000, 490, "all", 3),
    "a3c_pendulum": Row("a3c", "Pendulum-v1", 1_000_000, -175, "all", 3, episodes=200),
    "a3c_acrobot": Row("a3c", "Acrobot-v1", 500_000, -85, "all", 3),
}

OVER_SEEDS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.mean,
    "median": statistics.median,
    "all": min,
    "all but one": lambda returns: sorted(returns)[min(1, len(returns) - 1)],
}
"""What is compared with the wanted return, of the mean returns of the seeds."""


def arguments() -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--rows", type=names, default=list(ROWS), help=f"some of: {', '.join(ROWS)}")
    parser.add_argument("--seeds", type=seeds, help="as 0-4 or 0,2,7; every row has its own number by default")
    parser.add_argument("--json", type=Path, default=RESULTS / "returns.json", help="(benchmarks/results/returns.json)")
    parser.add_argument("--steps", type=int, help="env steps of every run, to try this program; the rows' own count")
    parser.add_argument("--episodes", type=int, help="of every evaluation, likewise")
    parser.add_argument("--backend", choices=("local", "inline"), default="local", help="rlflow's engine")
    return parser.parse_args()


def names(text: str) -> list[str]:
    asked = text.split(",")
    unknown = [name for name in asked if name not in ROWS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}")
    return asked


def seeds(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not (first.isdigit() and (last.isdigit() or last == "")):
            raise argparse.ArgumentTypeError(f"{text!r} is no list of seeds: write 0-4 or 0,2,7")
        found += range(int(first), int(last or first) + 1)
    return found


def config_for(name: str, row: Row) -> Path | None:
    """The row's config: by its name, else the only one that trains this algorithm on this environment."""
    named = CONFIGS / f"{row.config or name}.yaml"
    if named.exists():
        return named
    fitting = []
    for path in sorted(CONFIGS.glob("*.yaml")):
        written = yaml.safe_load(path.read_text())
        if (written.get("algorithm"), written.get("env")) == (row.algorithm, row.env):
            fitting.append(path)
    return fitting[0] if len(fitting) == 1 else None


def train(config: Path, seed: int, steps: int, episodes: int, backend: str) -> dict[str, Any]:
    """One run; ``{"status": "failed", "error": ...}`` when it failed."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="returns-") as folder:
        try:
            run = rlflow.train(
                config, seed=seed, stop={"env_steps": steps}, engine={"backend": backend}, runs_dir=folder,
                evaluation={"episodes": episodes, "seed": EVALUATION_SEED}, progress=False,
            )
        except (TrainingFailed, ConfigError) as error:
            return {"status": "failed", "error": str(error)}
        evaluation = run.evaluation
        assert evaluation is not None
        return {
            "status": "ok", "mean_return": evaluation["mean_return"], "returns": evaluation["returns"],
            "env_steps": run.status["env_steps"], "seconds": round(time.perf_counter() - began, 1),
        }


def summarise(name: str, runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Wanted and reached; ``met`` is ``None`` until there are as many seeds as are wanted."""
    row = ROWS[name]
    good = [run["mean_return"] for run in runs.values() if run["status"] == "ok"]
    reached = OVER_SEEDS[row.of](good) if good else None
    complete = len(good) >= row.seeds and all(run["steps"] <= row.steps for run in runs.values())
    return {
        "wanted": row.least, "of": row.of, "seeds_wanted": row.seeds, "reached": reached,
        "met": reached is not None and reached >= row.least if complete else None, "runs": runs,
    }


def table(rows: dict[str, dict[str, Any]]) -> None:
    lines = []
    for name, row in rows.items():
        runs = row["runs"]
        by_seed = ", ".join(
            f"{run['mean_return']:.1f}" if run["status"] == "ok" else "failed" for run in runs.values()
        )
        verdict = {True: "yes", False: "no", None: f"{len(runs)} of {row['seeds_wanted']} seeds"}[row["met"]]
        reached = "–" if row["reached"] is None else f"{row['reached']:.1f}"
        note = row.get("missing", by_seed)
        lines.append([name, f"{row['wanted']:g} ({row['of']})", reached, "–" if "missing" in row else verdict, note])
    print_table("Returns of final policies", ["row", "wanted", "reached", "met", "by seed"], lines)


def main() -> int:
    asked = arguments()
    document: dict[str, Any] = {"benchmark": "returns", "machine": machine(), "rows": {}}
    if asked.json.exists():
        document = json.loads(asked.json.read_text())
    for name in asked.rows:
        row, config = ROWS[name], config_for(name, ROWS[name])
        if config is None:
            document["rows"][name] = {**summarise(name, {}), "missing": f"no config for {row.algorithm} on {row.env}"}
            continue
        steps, episodes = asked.steps or row.steps, asked.episodes or row.episodes
        told = {"config": yaml.safe_load(config.read_text()), "steps": steps, "episodes": episodes}
        before = document["rows"].get(name, {}).get("runs", {})
        runs = {seed: run for seed, run in before.items() if told.items() <= run.items()}
        for seed in range(row.seeds) if asked.seeds is None else asked.seeds:
            if runs.get(str(seed), {}).get("status") == "ok":
                continue
            run = train(config, seed, steps, episodes, asked.backend)
            shown = f"{run['mean_return']:.1f} in {run['seconds']:.0f} s" if run["status"] == "ok" else run["error"]
            print(f"{name} seed {seed}: {shown}", flush=True)
            runs[str(seed)] = {**run, **told}
            document["rows"][name] = summarise(name, runs)
            write_json(document, asked.json, "returns")
        document["rows"][name] = summarise(name, runs)
    path = write_json(document, asked.json, "returns")
    table({name: document["rows"][name] for name in asked.rows})
    print(f"\nwritten to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
