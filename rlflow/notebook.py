"""What a person sees of a training in Jupyter: one card, redrawn in place, that stays as the record of the run."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .callbacks import Callback, RunStart
from .cards import AMBER, BLUE, GREEN, RED, card
from .progress import SHOWN, clock, formatted
from .run_folder import RunFolder, shown_path

if TYPE_CHECKING:
    from rlflow.algorithms.base import Evaluation

REDRAWN_EVERY = 0.5
"""Seconds: each picture is sent to the browser whole."""

_BADGES = {"complete": GREEN, "running": BLUE, "stopped": AMBER, "failed": RED}


def in_notebook() -> bool:
    """Whether what is displayed reaches a Jupyter frontend."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class NotebookProgress(Callback):
    """The card of the run that goes on."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._drawn = -math.inf
        self._began = time.monotonic()
        self._metrics: dict[str, float] = {}
        self._curve: list[tuple[float, float]] = []
        self._evaluation: Evaluation | None = None
        self._note = ""

    def on_start(self, start: RunStart) -> None:
        self._began = time.monotonic()
        self._start = start
        config = start.config
        self._title = f"{config.run.algorithm} on {getattr(config.algorithm, 'env', 'its environment')}"
        seed = getattr(config.algorithm, "seed", "–")
        self._subtitle = (
            f"seed {seed} · {start.total_env_steps:,} env steps · {start.num_cpus:g} CPUs · "
            f"{config.run.engine.backend} engine"
        )
        self._curve = [
            (row["env_steps"], row["episode_return"])
            for row in start.folder.read_metrics()
            if row.get("episode_return") is not None and row["env_steps"] <= start.env_steps
        ]
        self._draw("starting", BLUE)

    def on_iteration(self, metrics: dict[str, float]) -> None:
        self._metrics = dict(metrics)
        value = metrics.get("episode_return", math.nan)
        if math.isfinite(value):
            self._curve.append((metrics["env_steps"], value))
        if time.monotonic() - self._drawn >= REDRAWN_EVERY:
            self._draw("running", BLUE)

    def on_stopping(self, signal_name: str) -> None:
        self._note = "stopping after this iteration, with a checkpoint"  # drawn by the iteration that ends

    def on_evaluation_start(self, episodes: int) -> None:
        self._draw("evaluating", BLUE)

    def on_evaluation(self, evaluation: Evaluation, env_steps: int, final: bool) -> None:
        self._evaluation = evaluation

    def on_end(self, folder: RunFolder) -> None:
        state = folder.read_status()["state"]
        if state == "stopped":
            self._note = f'rlflow.load("{shown_path(folder.path)}").resume() goes on'
        self._draw(state, _BADGES.get(state, BLUE))

    def _draw(self, word: str, colour: str) -> None:
        from IPython.display import HTML, display

        self._drawn = time.monotonic()
        picture = HTML(self.render(word, colour))
        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)

    def render(self, word: str, colour: str) -> str:
        """The card as it looks now, as HTML."""
        steps = self._metrics.get("env_steps", float(self._start.env_steps))
        numbers = [("steps", f"{steps:,.0f}"), ("time", clock(time.monotonic() - self._began))]
        if "steps_per_second" in self._metrics:
            numbers.append(("steps/s", formatted(self._metrics, "steps_per_second", "{:,.0f}")))
        for row in SHOWN:
            there = [cell for cell in row if cell[1] in self._metrics]
            numbers += [(label, formatted(self._metrics, key, form)) for label, key, form in there]
        if self._evaluation is not None:
            numbers.append(("evaluation", _evaluation_words(self._evaluation.as_json())))
        footer = shown_path(self._start.folder.path) + (f" · {self._note}" if self._note else "")
        share = steps / self._start.total_env_steps
        return card(self._title, self._subtitle, (word, colour), share, numbers, self._curve, footer)


def run_card(folder: RunFolder, config: Mapping[str, Any], evaluation: Mapping[str, Any] | None) -> str:
    """A run that was loaded, as HTML."""
    status = folder.read_status()
    rows = folder.read_metrics()
    total = config["stop"]["env_steps"]
    steps = rows[-1]["env_steps"] if rows else 0
    curve = [(row["env_steps"], row["episode_return"]) for row in rows if row.get("episode_return") is not None]
    numbers = [("steps", f"{steps:,.0f} of {total:,}"), ("iterations", f"{len(rows):,}")]
    if rows and rows[-1].get("time_total"):
        numbers.append(("time", clock(rows[-1]["time_total"])))
    if curve:
        numbers.append(("return", f"{curve[-1][1]:.1f}"))
    if evaluation is not None:
        numbers.append(("evaluation", _evaluation_words(evaluation)))
    subtitle = f"seed {config.get('seed', '–')}" + (f" · {status['reason']}" if status["reason"] else "")
    return card(
        f"{config['algorithm']} on {config.get('env', 'its environment')}", subtitle,
        (status["state"], _BADGES.get(status["state"], BLUE)), None, numbers, curve, shown_path(folder.path),
    )


def _evaluation_words(summary: Mapping[str, Any]) -> str:
    return f"{summary['mean_return']:.1f} ± {summary['std_return']:.1f} over {summary['episodes']} episodes"
