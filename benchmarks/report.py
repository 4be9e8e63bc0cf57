"""Medians, ratios, tables and the JSON file of a comparison."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).resolve().parent / "results"
LOWER_IS_BETTER = frozenset({"s", "env steps"})
"""Units; everything else is a rate."""


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "kernel": platform.release(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def advantage(unit: str, ours: float, theirs: float) -> float:
    """How many times better ours is: above 1 we win, for rates and for durations alike."""
    better, worse = (theirs, ours) if unit in LOWER_IS_BETTER else (ours, theirs)
    return better / worse if worse else float("inf")


def ratio_with_range(
    unit: str, ours: Sequence[float | None], theirs: Sequence[float | None]
) -> dict[str, float] | None:
    """The ratio of the medians, and the least and greatest ratio of a pair measured in the same round.

    None samples are rounds that failed; without a round in which both sides succeeded there is no ratio.
    """
    pairs = [
        advantage(unit, a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None
    ]
    if not pairs:
        return None
    our_median = statistics.median(a for a in ours if a is not None)
    their_median = statistics.median(b for b in theirs if b is not None)
    return {
        "ratio": advantage(unit, our_median, their_median),
        "ratio_min": min(pairs),
        "ratio_max": max(pairs),
    }


def short(value: float) -> str:
    """Three significant digits for small figures, thousands separators for large ones."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ratio_text(ratio: dict[str, float] | None) -> str:
    if ratio is None:
        return "–"
    low, high = ratio["ratio_min"], ratio["ratio_max"]
    spread = f" ({low:.1f}–{high:.1f})" if f"{low:.1f}" != f"{high:.1f}" else ""
    return f"{ratio['ratio']:.1f}×{spread}"


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> None:
    console = Console(width=None if Console().is_terminal else 140, highlight=False)
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        console.print(note, markup=False)


def write_json(document: dict[str, Any], path: Path | None, name: str) -> Path:
    """Writes the document to ``path``, or under ``benchmarks/results/`` with the time in its name."""
    if path is None:
        path = RESULTS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path
