"""Learning curves as pictures: each run a thin line, the median of several seeds a strong one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .errors import InputError
from .run_folder import RunFolder, shown_path

COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")
_INK, _FAINT = "#1f2937", "#e5e7eb"


def plot_runs(runs: Sequence[RunFolder], out: Path) -> Path:
    """Draws episode return against environment steps; runs of one algorithm and environment share a colour.

    Raises:
        InputError: matplotlib is missing, a run has no metrics yet, or the picture cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("plotting needs matplotlib: pip install 'rlflow[plot]'") from None
    matplotlib.use("Agg")  # a picture, never a window
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    groups: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for run in runs:
        groups[_title(run)].append(_curve(run))

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
        figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
        for index, (title, curves) in enumerate(groups.items()):
            _draw_group(axes, title, curves, COLOURS[index % len(COLOURS)])
        axes.set_xlabel("environment steps")
        axes.set_ylabel("episode return")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlim(left=0)
        axes.grid(axis="y", color=_FAINT, linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        if len(groups) == 1:
            title, curves = next(iter(groups.items()))
            several = f" · {len(curves)} runs and their median" if len(curves) > 1 else ""
            axes.set_title(title + several, loc="left", fontweight="bold", pad=12)
        else:
            axes.legend(frameon=False, loc="best")
        try:
            figure.savefig(out, dpi=160)
        except (OSError, ValueError) as error:  # ValueError: a file ending that matplotlib does not know
            raise InputError(f"cannot write {out}: {error}") from None
        finally:
            pyplot.close(figure)
    return out


def _draw_group(axes: Any, title: str, curves: list[tuple[np.ndarray, np.ndarray]], colour: str) -> None:
    if len(curves) == 1:
        steps, returns = curves[0]
        axes.plot(steps, returns, color=colour, linewidth=2, label=title)
        return
    for steps, returns in curves:
        axes.plot(steps, returns, color=colour, linewidth=1, alpha=0.35)
    # Only where every seed has data: beyond that the median would jump as runs drop out.
    first = max(steps[0] for steps, _ in curves)
    last = min(steps[-1] for steps, _ in curves)
    if last <= first:
        return
    grid = np.linspace(first, last, 300)
    median = np.median([np.interp(grid, steps, returns) for steps, returns in curves], axis=0)
    axes.plot(grid, median, color=colour, linewidth=2.4, label=f"{title}, median of {len(curves)}")


def _curve(run: RunFolder) -> tuple[np.ndarray, np.ndarray]:
    points = [
        (row["env_steps"], row["episode_return"])
        for row in run.read_metrics()
        if row.get("episode_return") is not None and row.get("env_steps") is not None
    ]
    if not points:
        raise InputError(f"{shown_path(run.path)} has no episode returns yet: no episode has ended")
    steps, returns = np.array(sorted(points), dtype=float).T
    return steps, returns


def _title(run: RunFolder) -> str:
    config = yaml.safe_load(run.config_file.read_text(encoding="utf-8")) or {}
    return f"{str(config.get('algorithm', '?')).upper()} on {config.get('env', '?')}"
