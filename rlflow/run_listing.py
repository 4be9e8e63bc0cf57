"""The runs of a folder as a table: what each is, how far it came, how well it did.

Everything is read from the runs' own files, so that runs of other machines, copied here, are listed like one's own.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config_check import SHORTHANDS
from .config_source import parse_value
from .errors import InputError
from .run_folder import RunFolder, shown_path

if TYPE_CHECKING:
    from rich.console import Console

SORT_KEYS = ("time", "name", "status", "steps", "return", "evaluation")


@dataclass(frozen=True)
class RunRow:
    """One run in brief."""

    name: str
    path: Path
    status: str
    """``running``, ``complete``, ``stopped`` (can be resumed) or ``failed``."""
    algorithm: str
    env: str
    seed: int | None
    env_steps: int
    total_env_steps: int | None
    episode_return: float | None
    """Of the last iteration."""
    evaluation: float | None
    """Mean return of the final evaluation."""
    changed: float
    """When it last wrote metrics, in seconds since 1970."""
    config: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        values = asdict(self)
        del values["config"]
        return {**values, "path": str(self.path)}


def list_runs(runs_dir: Path, where: Sequence[str] = (), sort: str = "time") -> list[RunRow]:
    """The runs in a folder.

    Args:
        runs_dir: where they lie.
        where: conditions, all of which must hold: ``key=value`` of a config (dotted, with ``*`` in values) or
            ``status=...``.
        sort: one of :data:`SORT_KEYS`; newest or best first, names and states by alphabet.

    Raises:
        InputError: there is no such folder, or a condition cannot be read.
    """
    if not runs_dir.is_dir():
        raise InputError(f"there is no folder {runs_dir}; runs are looked for there, or in --dir FOLDER")
    conditions = [_condition(text) for text in where]
    rows = [describe_run(RunFolder(entry)) for entry in runs_dir.iterdir() if (entry / "config.yaml").is_file()]
    kept = [row for row in rows if all(_holds(row, key, value) for key, value in conditions)]
    kept.sort(key=lambda row: row.changed, reverse=True)
    if sort in ("name", "status"):
        kept.sort(key=lambda row: getattr(row, sort))
    elif sort != "time":
        attribute = {"steps": "env_steps", "return": "episode_return", "evaluation": "evaluation"}[sort]
        kept.sort(key=lambda row: _or_lowest(getattr(row, attribute)), reverse=True)
    return kept


def describe_run(folder: RunFolder) -> RunRow:
    """A run in brief, from its files; what is missing or damaged is left out."""
    config = folder.read_config()
    metrics = folder.read_metrics()
    last = metrics[-1] if metrics else {}
    evaluation = folder.read_evaluation()
    stop = config.get("stop")
    newest = folder.metrics_file if folder.metrics_file.is_file() else folder.config_file
    return RunRow(
        name=folder.path.name,
        path=folder.path,
        status=folder.read_status()["state"],
        algorithm=str(config.get("algorithm", "?")),
        env=str(config.get("env", "?")),
        seed=config.get("seed"),
        env_steps=int(last.get("env_steps", 0)),
        total_env_steps=stop.get("env_steps") if isinstance(stop, dict) else None,
        episode_return=last_value(metrics, "episode_return"),
        evaluation=evaluation.get("mean_return") if evaluation else None,
        changed=newest.stat().st_mtime,
        config=config,
    )


def print_runs(console: Console, rows: Sequence[RunRow], runs_dir: Path) -> None:
    """A table that fits 80 columns when names are the usual ones."""
    from rich.table import Table

    if not rows:
        console.print(f"no runs in {shown_path(runs_dir)} that match")
        return
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("run", overflow="fold")
    table.add_column("status", no_wrap=True)
    for column in ("steps", "return", "eval", "age"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            f"[{_STYLES[row.status]}]{row.status}[/]",
            shown_steps(row.env_steps),
            shown_return(row.episode_return),
            shown_return(row.evaluation),
            _age(time.time() - row.changed),
        )
    console.print(table)


_STYLES = {"complete": "green", "running": "cyan", "stopped": "yellow", "failed": "red"}


def shown_steps(steps: int) -> str:
    """``950``, ``50.0k``, ``1.25M``."""
    if steps < 1000:
        return str(steps)
    return f"{steps / 1e3:.1f}k" if steps < 1_000_000 else f"{steps / 1e6:.2f}M"


def _condition(text: str) -> tuple[str, Any]:
    key, equals, written = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--where {text}: expected key=value, such as env=CartPole-v1 or status=complete")
    return key.strip(), parse_value(written)


def _holds(row: RunRow, key: str, wanted: Any) -> bool:
    found: Any = row.status if key == "status" else row.config
    if key != "status":
        for part in SHORTHANDS.get(key, key).split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(wanted, str) and isinstance(found, str):
        return fnmatch.fnmatchcase(found, wanted)
    return bool(found == wanted)


def last_value(metrics: Sequence[Mapping[str, Any]], key: str) -> float | None:
    """Of a metric, the last that was a number."""
    return next((row[key] for row in reversed(metrics) if row.get(key) is not None), None)


def _or_lowest(value: float | None) -> float:
    return float("-inf") if value is None else value


def shown_return(value: float | None) -> str:
    """One decimal, and a dash for what is not there."""
    return "–" if value is None else f"{value:,.1f}"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
