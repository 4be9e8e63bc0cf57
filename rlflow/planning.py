"""From what a person asks to train to the runs that are to be made; and what to say when there were several."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from .comparison import what_is_learned
from .config_check import CheckedConfig, check_config
from .config_runs import is_of_several, split_runs
from .config_source import ConfigError, ConfigSource, Origin, Problem, apply_overrides, read_config_file
from .errors import InputError, RlflowError

if TYPE_CHECKING:
    from rich.console import Console

    from .run_folder import RunFolder

MOST_SEEDS = 1000


def parse_seeds(text: str) -> list[int]:
    """``"0-4"``, ``"0,3,7"`` or both mixed → seeds, each once, in the order given.

    Raises:
        InputError: it is something else.
    """
    seeds: dict[int, None] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else -1
        if last < first:
            raise InputError(f"--seeds {text}: expected seeds such as 0-4 or 0,3,7, got {part.strip()!r}")
        if last - first >= MOST_SEEDS:
            raise InputError(f"--seeds {text}: these are {last - first + 1:,} runs; at most {MOST_SEEDS:,} at once")
        seeds.update(dict.fromkeys(range(first, last + 1)))
    return list(seeds)


def plan_runs(
    config: str,
    overrides: Sequence[str],
    seeds: Sequence[int] | None = None,
    device: str | None = None,
    only: Sequence[str] = (),
) -> list[CheckedConfig]:
    """The runs that the file ``config`` describes, each once a seed.

    Args:
        config: the YAML file, of one run or of several.
        overrides: ``key=value`` for all of them.
        seeds: a run for each; by default one with the seed of the config.
        device: where gradients are taken, of algorithms that can choose.
        only: which of a file's several runs, by name; ``*`` stands for any text.

    Raises:
        ConfigError: with every mistake in it.
        InputError: it can be read no further.
    """
    planned: list[CheckedConfig] = []
    problems: dict[tuple[str, str], Problem] = {}  # once, though it be found in several runs
    wanted: Sequence[int | None] = seeds or [None]
    for source in _read_sources(config, only):
        for seed in wanted:
            own = copy.deepcopy(source)
            apply_overrides(own, overrides)
            if seed is not None:
                own.override(("seed",), seed, Origin(f"--seeds {seed}", (2, 0, 0)))
                name = own.values.get("name")
                if isinstance(name, str) and len(wanted) > 1:  # else the folders would be name, name_2, name_3
                    own.override(("name",), f"{name}_seed{seed}", own.origins[("name",)])
            try:
                planned.append(_check(own, device))
            except ConfigError as error:
                problems |= {(problem.where, problem.what): problem for problem in error.problems}
    if problems:
        raise ConfigError(problems.values())
    return planned


def _read_sources(config: str, only: Sequence[str]) -> list[ConfigSource]:
    source = read_config_file(Path(config))
    if is_of_several(source):
        return list(split_runs(source, only).values())
    if only:
        raise InputError(f"--only {only[0]}: {config} is one run; a file with several has a key runs")
    return [source]


def _check(source: ConfigSource, device: str | None) -> CheckedConfig:
    checked = check_config(source)
    if device is not None and "device" in checked.algorithm_class.Config.model_fields:
        source.override(("device",), device, Origin(f"--device {device}", (2, 1, 0)))
        return check_config(source)
    if device not in (None, "cpu", "auto"):
        raise InputError(f"--device {device}: {checked.run.algorithm} runs on the CPU only")
    return checked


@dataclass
class RunsSummary:
    """What came out of several runs."""

    runs: list[tuple[CheckedConfig, RunFolder]] = field(default_factory=list)
    failures: list[tuple[CheckedConfig, RlflowError]] = field(default_factory=list)

    def add(self, config: CheckedConfig, folder: RunFolder) -> None:
        self.runs.append((config, folder))

    def add_failure(self, config: CheckedConfig, error: RlflowError) -> None:
        self.failures.append((config, error))

    def show(self, console: Console) -> None:
        """A table with a row a run, and the mean over seeds."""
        import numpy as np
        from rich.table import Table

        from .run_folder import shown_path
        from .run_listing import describe_run, shown_return

        table = Table(box=None, pad_edge=False, header_style="dim")
        for column in ("seed", "env steps", "return", "evaluation"):
            table.add_column(column, justify="right", no_wrap=True)
        table.add_column("run", overflow="fold")
        rows = [describe_run(folder) for _, folder in self.runs]
        for row in rows:
            table.add_row(
                str(row.seed), f"{row.env_steps:,}", shown_return(row.episode_return), shown_return(row.evaluation),
                shown_path(row.path),
            )
        for config, error in self.failures:
            seed = getattr(config.algorithm, "seed", None)
            table.add_row(str(seed), "", "", "[red]failed[/]", str(error).partition("\n")[0])
        console.print()
        console.print(table)
        evaluations = [row.evaluation for row in rows if row.evaluation is not None]
        if len(evaluations) > 1 and self._differ_in_seed_only():
            mean, deviation = np.mean(evaluations), np.std(evaluations, ddof=1)
            console.print(
                f"evaluation [bold green]{mean:.1f} ± {deviation:.1f}[/] over {len(evaluations)} runs "
                "(mean and standard deviation)"
            )
        paths = " ".join(shown_path(row.path) for row in rows)
        if rows:
            console.print(f"[dim]next[/] rlflow plot {paths}", soft_wrap=True)

    def _differ_in_seed_only(self) -> bool:
        """Else a mean over them would mean nothing."""
        configs = [what_is_learned(config.as_mapping()) for config, _ in self.runs]
        return all(config == configs[0] for config in configs)
