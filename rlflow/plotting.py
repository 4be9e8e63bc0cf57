"""Learning curves as pictures: runs of one config and different seeds are one curve with a confidence band.

The band is a bootstrap of the mean over seeds (Efron 1979): with the handful of seeds that people have, returns are far
from normal, and a standard error would promise returns above the highest there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .comparison import what_is_learned
from .errors import InputError
from .run_folder import RunFolder, shown_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")
_INK, _FAINT = "#1f2937", "#e5e7eb"

Curve = tuple[np.ndarray, np.ndarray]
"""Environment steps [N] and episode returns [N]."""

RESAMPLES, CONFIDENCE = 2000, 0.95


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed."""

    title: str
    curves: list[Curve]


def plot_runs(runs: Sequence[RunFolder], out: Path) -> Path:
    """Writes the picture of :func:`draw_runs` to ``out``, whose ending says the format.

    Raises:
        InputError: matplotlib is missing, a run has no metrics yet, or the picture cannot be written.
    """
    figure = draw_runs(runs)
    try:
        figure.savefig(out, dpi=160)
    except (OSError, ValueError) as error:  # ValueError: a file ending that matplotlib does not know
        raise InputError(f"cannot write {out}: {error}") from None
    return out


def draw_runs(runs: Sequence[RunFolder]) -> Figure:
    """Episode return against environment steps.

    The figure is none of pyplot's: a notebook shows it once, as the value of a cell, and no backend is touched.

    Raises:
        InputError: matplotlib is missing, or a run has no metrics yet.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("plotting needs matplotlib: pip install 'rlflow[plot]'") from None
    from matplotlib.ticker import EngFormatter

    from .figures import ShownFigure

    groups = group_runs(runs)

    style = {
        "font.family": "sans-serif",
        "font.size": 11,
        "axes.edgecolor": _FAINT,
        "axes.labelcolor": _INK,
        "text.color": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
    }
    with matplotlib.rc_context(style):
        figure = ShownFigure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        for index, group in enumerate(groups):
            _draw_group(axes, group, COLOURS[index % len(COLOURS)])
        axes.set_xlabel("environment steps")
        axes.set_ylabel("episode return")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(left=0)
        axes.grid(axis="y", color=_FAINT, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        if len(groups) == 1:
            [group] = groups
            several = f" · mean of {len(group.curves)} runs, 95 % confidence" if len(group.curves) > 1 else ""
            axes.set_title(group.title + several, loc="left", fontweight="bold", pad=12)
        else:
            axes.legend(frameon=False, loc="best")
    return figure


def group_runs(runs: Sequence[RunFolder]) -> list[Group]:
    """Runs by what they do, in the order of their first; titles name what sets the groups apart.

    Raises:
        InputError: a run has no episode returns yet.
    """
    configs: list[dict[str, str]] = []
    curves: list[list[Curve]] = []
    for run in runs:
        config = what_is_learned(run.read_config())
        if config not in configs:
            configs.append(config)
            curves.append([])
        curves[configs.index(config)].append(_curve(run))
    return [Group(_title(config, configs), found) for config, found in zip(configs, curves, strict=True)]


def confidence_band(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[S, N] of S seeds → lower and upper bound [N] of their mean, by a bootstrap over seeds."""
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(samples), (RESAMPLES, len(samples)))
    weights = np.stack([np.bincount(row, minlength=len(samples)) for row in drawn]) / len(samples)
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(weights @ samples, [tail, 100.0 - tail], axis=0)
    return low, high


def _draw_group(axes: Any, group: Group, colour: str) -> None:
    if len(group.curves) == 1:
        steps, returns = group.curves[0]
        axes.plot(steps, returns, color=colour, linewidth=2, label=group.title)
        return
    for steps, returns in group.curves:
        axes.plot(steps, returns, color=colour, linewidth=0.7, alpha=0.3)
    # Only where every seed has data: beyond that the mean would jump as runs drop out.
    first = max(steps[0] for steps, _ in group.curves)
    last = min(steps[-1] for steps, _ in group.curves)
    if last <= first:
        return
    grid = np.linspace(first, last, 300)
    samples = np.stack([np.interp(grid, steps, returns) for steps, returns in group.curves])
    low, high = confidence_band(samples)
    axes.fill_between(grid, low, high, color=colour, alpha=0.18, linewidth=0)
    label = f"{group.title}, mean of {len(group.curves)}"
    axes.plot(grid, samples.mean(axis=0), color=colour, linewidth=2.2, label=label)


def _curve(run: RunFolder) -> Curve:
    points = [
        (row["env_steps"], row["episode_return"])
        for row in run.read_metrics()
        if row.get("episode_return") is not None and row.get("env_steps") is not None
    ]
    if not points:
        raise InputError(f"{shown_path(run.path)} has no episode returns yet: no episode has ended")
    steps, returns = np.array(sorted(points), dtype=float).T
    return steps, returns


def _title(config: Mapping[str, str], configs: Sequence[Mapping[str, str]]) -> str:
    """``"PPO on CartPole-v1"``, and the keys in which runs of that title differ."""
    def short(of: Mapping[str, str]) -> str:
        return f"{of.get('algorithm', '?').upper()} on {of.get('env', '?')}"

    alike = [other for other in configs if short(other) == short(config)]
    telling = [key for key in config if any(other.get(key) != config[key] for other in alike)]
    return ", ".join([short(config), *(f"{key}={config[key]}" for key in telling[:3])])
