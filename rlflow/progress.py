"""What a person sees while a run goes on: a live display on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Mapping
from io import UnsupportedOperation
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .callbacks import Callback, RunStart
from .run_folder import RunFolder, shown_path

if TYPE_CHECKING:
    from rlflow.algorithms.base import Evaluation

PLAIN_SECONDS = 3.0
"""How often a plain line is printed."""

CURVE_POINTS = 1000
"""Resolution of the curve of returns."""

_STOPPING = "stopping after this iteration, with a checkpoint; again to stop at once"

SHOWN = (
    (
        ("return", "episode_return", "{:.1f}"),
        ("length", "episode_length", "{:.1f}"),
        ("episodes", "episodes", "{:,.0f}"),
    ),
    (
        ("policy loss", "policy_loss", "{:.4f}"),
        ("value loss", "value_loss", "{:.4g}"),
        ("entropy", "entropy", "{:.3f}"),
    ),
    (
        ("KL", "kl", "{:.4f}"),
        ("clipped", "clip_fraction", "{:.1%}"),
        ("expl. var", "explained_variance", "{:.2f}"),
    ),
)


def progress_for(console: Console) -> Callback:
    """The live display where ``console`` is a terminal, lines otherwise."""
    return LiveProgress(console) if console.is_terminal and not console.is_dumb_terminal else PlainProgress(console)


def default_progress() -> Callback:
    """Of a training from Python: the display of a notebook, a terminal, or a pipe."""
    from .notebook import NotebookProgress, in_notebook

    if in_notebook():
        return NotebookProgress()
    return progress_for(Console(file=sys.stdout, highlight=False))


class _Narration(Callback):
    """What both displays say: the header, the evaluation, and where to go from here."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total = 0
        self._began = time.monotonic()
        self._first: tuple[float, float] | None = None
        self._evaluated = False

    def on_start(self, start: RunStart) -> None:
        self._total = start.total_env_steps
        self._began = time.monotonic()
        config = start.config
        what = f"{config.run.algorithm} on {getattr(config.algorithm, 'env', 'its environment')}"
        cpus = f"{start.num_cpus:g} CPU" + ("s" if start.num_cpus != 1 else "")
        parts = [f"seed {getattr(config.algorithm, 'seed', '–')}", f"{self._total:,} env steps", cpus]
        parts.append(f"{config.run.engine.backend} engine")
        self._say(Text.assemble((what, "bold"), " · " + " · ".join(parts)))
        going_on = f", going on from {start.env_steps:,} env steps" if start.env_steps else ""
        self._say(Text.assemble(("run ", "dim"), shown_path(start.folder.path) + going_on))

    def on_iteration(self, metrics: dict[str, float]) -> None:
        if self._first is None:  # not the start: what comes before the first iteration happens only once
            self._first = (metrics["env_steps"], time.monotonic())

    def on_evaluation(self, evaluation: Evaluation, env_steps: int, final: bool) -> None:
        self._evaluated |= final
        self._say(
            Text.assemble(
                ("evaluation ", "dim"),
                "" if final else f"at {env_steps:,} steps ",
                (f"{evaluation.mean_return:.1f} ± {evaluation.std_return:.1f}", "bold green"),
                f" return over {len(evaluation.returns)} episodes of {evaluation.mean_length:.1f} steps",
            )
        )

    def on_end(self, folder: RunFolder) -> None:
        if self._evaluated:
            self._say(Text.assemble(("run ", "dim"), shown_path(folder.path)))
            self._say(Text.assemble(("next ", "dim"), f"rlflow tasks {shown_path(folder.path)}"))
            self._say(Text.assemble(("     ", "dim"), f"rlflow plot {shown_path(folder.path)} --out curve.png"))

    def _say(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _remaining(self, env_steps: float) -> str:
        """``"1:05 left"``, from the run's own rate since its first iteration; empty without a rate."""
        if self._first is None or env_steps <= self._first[0]:
            return ""
        first_steps, first_time = self._first
        rate = (env_steps - first_steps) / max(time.monotonic() - first_time, 1e-9)
        return f"{clock(max(self._total - env_steps, 0) / rate)} left"


class PlainProgress(_Narration):
    """A line every few seconds, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._last_line = -math.inf

    def on_iteration(self, metrics: dict[str, float]) -> None:
        super().on_iteration(metrics)
        steps = metrics["env_steps"]
        done = steps >= self._total
        if not done and time.monotonic() - self._last_line < PLAIN_SECONDS:
            return
        self._last_line = time.monotonic()
        shown = [
            f"{label} {formatted(metrics, key, form)}" for row in SHOWN for label, key, form in row if key in metrics
        ]
        shown.insert(2, f"{formatted(metrics, 'steps_per_second', '{:,.0f}')} steps/s")
        left = "" if done else self._remaining(steps)
        head = f"{steps:>9,.0f} steps {_percent(steps, self._total):>4}" + (f", {left}" if left else "")
        self._say(Text(f"{head}: {', '.join(shown)}"))

    def on_stopping(self, signal_name: str) -> None:
        # Runs in a signal handler, maybe in the middle of a print: only an unbuffered write is safe here.
        try:
            os.write(self._console.file.fileno(), f"{signal_name}: {_STOPPING}\n".encode())
        except (OSError, UnsupportedOperation):
            return

    def on_evaluation_start(self, episodes: int) -> None:
        self._say(Text(f"evaluating {episodes} episodes"))


class LiveProgress(_Narration):
    """A bar by env steps, the curve of returns, and the losses, redrawn in place."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._metrics: dict[str, float] = {}
        self._returns: dict[int, float] = {}  # by share of the run, so that long runs cost no more to draw
        self._stopping = ""
        self._live: Live | None = None

    def on_start(self, start: RunStart) -> None:
        super().on_start(start)
        self._console.print()
        self._show(Live(console=self._console, get_renderable=self.render, refresh_per_second=8))

    def on_iteration(self, metrics: dict[str, float]) -> None:
        super().on_iteration(metrics)
        self._metrics = dict(metrics)
        value = metrics.get("episode_return", math.nan)
        if math.isfinite(value):
            self._returns[int(CURVE_POINTS * metrics["env_steps"] / self._total)] = value

    def on_stopping(self, signal_name: str) -> None:
        self._stopping = f"{signal_name}: {_STOPPING}"  # drawn by the display's own thread

    def on_evaluation_start(self, episodes: int) -> None:
        self._show(None)
        self._console.print()
        self._live = Live(Text(f"evaluating {episodes} episodes …", "dim"), console=self._console, transient=True)
        self._live.start()

    def on_evaluation(self, evaluation: Evaluation, env_steps: int, final: bool) -> None:
        if final:
            self._show(None)
        super().on_evaluation(evaluation, env_steps, final)  # one during training is printed above the display

    def on_end(self, folder: RunFolder) -> None:
        self._show(None)
        super().on_end(folder)

    def _show(self, live: Live | None) -> None:
        """Ends the display that is on, leaving its last picture, and begins another."""
        if self._live is not None:
            self._live.stop()
        self._live = live
        if live is not None:
            live.start()

    def render(self) -> RenderableType:
        """The display as it looks now."""
        steps = self._metrics.get("env_steps", 0.0)
        lines: list[RenderableType] = [self._bar(steps)]
        if self._metrics:
            lines.append(self._numbers())
        else:
            lines.append(Text(" starting", "dim"))
        if self._stopping:
            lines.append(Text(self._stopping, "yellow"))
        return Group(*lines)

    def _bar(self, steps: float) -> Table:
        grid = Table.grid(padding=(0, 1), expand=True)
        grid.add_column(width=5, justify="right")
        grid.add_column(ratio=1)
        grid.add_column(justify="right", no_wrap=True)
        done = steps >= self._total
        took = clock(time.monotonic() - self._began)
        rate = formatted(self._metrics, "steps_per_second", "{:,.0f}")
        tail = f"{steps:,.0f} steps · {rate} steps/s · {took if done else self._remaining(steps) or took}"
        bar = ProgressBar(total=self._total, completed=min(steps, self._total))
        grid.add_row(_percent(steps, self._total), bar, tail)
        return grid

    def _numbers(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        for _ in range(3):
            grid.add_column(style="dim", min_width=13, no_wrap=True)
            grid.add_column(justify="right", min_width=9)
        grid.add_column()
        for row in SHOWN:
            cells = [cell for label, key, form in row for cell in (f" {label}", formatted(self._metrics, key, form))]
            if any(key in self._metrics for _, key, _ in row):
                grid.add_row(*cells)
        curve = sparkline(list(self._returns.values()), max(self._console.width - 18, 10))
        whole = Table.grid(padding=(0, 1))
        whole.add_column(style="dim", min_width=13)
        whole.add_column(no_wrap=True)
        whole.add_row(" returns", Text(curve, "green"))
        outer = Table.grid()
        outer.add_row(grid)
        outer.add_row(whole)
        return outer


def sparkline(values: list[float], width: int) -> str:
    """Values as a line of eighth blocks, at most ``width`` wide; each block is the mean of its share."""
    if not values:
        return ""
    shares = np.array_split(np.asarray(values, dtype=float), min(width, len(values)))
    means = np.array([share.mean() for share in shares])
    low, high = means.min(), means.max()
    levels = np.zeros(len(means)) if high == low else (means - low) / (high - low)
    return "".join("▁▂▃▄▅▆▇█"[round(level * 7)] for level in levels)


def formatted(metrics: Mapping[str, float], key: str, form: str) -> str:
    value = metrics.get(key)
    return "–" if value is None or not math.isfinite(value) else form.format(value)


def _percent(steps: float, total: int) -> str:
    """Rounded down: 100 % is said when it is reached and not before."""
    return f"{min(int(100 * steps / total), 100)}%"


def clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def interruption_notice(signal_name: str, checkpoint: Path | None, run: Path | None) -> str:
    """What to say when a run ended early."""
    if checkpoint is not None and run is not None:
        return (
            f"{signal_name}: stopped. The last checkpoint is {shown_path(checkpoint)}; "
            f"go on with: rlflow train --resume {shown_path(run)}"
        )
    if run is not None:
        return f"{signal_name}: stopped, without a checkpoint. The run folder is {shown_path(run)}"
    return f"{signal_name}: stopped"
