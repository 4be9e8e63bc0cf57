"""Runs side by side: the keys in which their configs differ, and the numbers they ended with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from .config_source import shown
from .errors import InputError
from .run_folder import RunFolder, shown_path
from .run_listing import RunRow, describe_run

if TYPE_CHECKING:
    from rich.console import Console

INDIFFERENT = ("name", "runs_dir")
"""Keys that say where a run lies, and nothing about what it does."""

NOT_LEARNED = {*INDIFFERENT, "seed", "engine", "checkpoint", "evaluation", "trackers"}
"""Keys, and sections of them, in which runs may differ and still be samples of one thing."""


@dataclass(frozen=True)
class Comparison:
    """Several runs; every list has an entry a run, in the order they were given."""

    runs: list[RunRow]
    differences: dict[str, list[Any]]
    """By dotted key, the values; ``None`` where a run's config does not have it."""
    metrics: dict[str, list[float | None]]
    """By name, the last finite value."""

    def as_json(self) -> dict[str, Any]:
        return {
            "runs": [row.as_json() for row in self.runs],
            "differences": self.differences,
            "metrics": self.metrics,
        }


def compare_runs(folders: Sequence[RunFolder]) -> Comparison:
    """Reads configs, evaluations and last metrics.

    Raises:
        InputError: there is only one run.
    """
    if len(folders) < 2:
        raise InputError("give two runs or more to compare; rlflow runs lists them")
    rows = [describe_run(folder) for folder in folders]
    configs = [flattened(row.config) for row in rows]
    keys = dict.fromkeys(key for config in configs for key in config if key not in INDIFFERENT)
    values = {key: [config.get(key) for config in configs] for key in keys}
    differences = {key: row for key, row in values.items() if any(value != row[0] for value in row)}

    ends = [_last_values(folder) for folder in folders]
    metrics: dict[str, list[float | None]] = {"evaluation": [row.evaluation for row in rows]}
    metrics |= {name: [end.get(name) for end in ends] for name in dict.fromkeys(name for end in ends for name in end)}
    return Comparison(rows, differences, metrics)


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"stop": {"env_steps": 1}}`` as ``{"stop.env_steps": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def what_is_learned(config: Mapping[str, Any]) -> dict[str, str]:
    """By dotted key; equal for runs that differ in nothing but their seed, and so are one curve with one mean."""
    flat = flattened(config)
    return {key: str(value) for key, value in flat.items() if key.partition(".")[0] not in NOT_LEARNED}


def print_comparison(console: Console, compared: Comparison) -> None:
    """Runs by letter, since their names are longer than columns."""
    from rich.table import Table
    from rich.text import Text

    letters = [ascii_uppercase[index] if index < 26 else str(index + 1) for index in range(len(compared.runs))]
    for letter, row in zip(letters, compared.runs, strict=True):
        console.print(f"[bold]{letter}[/] {shown_path(row.path)} [dim]({row.status})[/]", soft_wrap=True)
    console.print()
    if not compared.differences:
        console.print("the configs do not differ")
    for title, entries in (
        ("config", {key: [_as_written(value) for value in row] for key, row in compared.differences.items()}),
        ("at the end", {name: [_number(value) for value in row] for name, row in compared.metrics.items()}),
    ):
        if not entries:
            continue
        table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
        table.add_column(title, no_wrap=True, min_width=max(map(len, compared.metrics), default=0))
        for letter in letters:
            table.add_column(letter, justify="right", overflow="fold", min_width=9)
        for key, cells in entries.items():
            table.add_row(key, *map(Text, cells))
        console.print(table)
        console.print()


def _last_values(folder: RunFolder) -> dict[str, float]:
    """Of every metric that the run has written, the last that was a number."""
    values: dict[str, float] = {}
    for row in folder.read_metrics():
        values |= {key: value for key, value in row.items() if isinstance(value, (int, float))}
    return values


def _as_written(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else shown(value)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.4g}"
