"""``tune``: a search for good hyperparameters."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from .arguments import complain, complete_config, compute_on_one_thread


def tune(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A config with a block tune.", autocompletion=complete_config)
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Keys to set instead: tune.trials=50")
    ] = None,
    study: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the study lies; by default tune_CONFIG in the config's runs_dir."),
    ] = None,
) -> None:
    """Search for good hyperparameters: trials side by side (extra: tune).

    What to search stands in the config, beside the keys that stay as they are:

      tune:
        trials: 20
        space:
          learning_rate: loguniform(1e-4, 1e-2)
          epochs: int(1, 20)
          rollout_length: [32, 64, 128]

    Each trial is a run in the study's folder. A study that was interrupted goes
    on when the same command is given again. The best config is best.yaml.
    """
    compute_on_one_thread()
    from rich.console import Console
    from rich.table import Table

    from rlflow.errors import TrainingInterrupted
    from rlflow.run_folder import shown_path
    from rlflow.signals import StopSignals
    from rlflow.tuning import best_trials, read_study, run_study, shown_values

    console = Console(highlight=False)
    wanted = read_study(Path(config), overrides or [], study)
    where = shown_path(wanted.folder)
    console.print(f"{wanted.tune.trials} trials of {', '.join(wanted.space)}", soft_wrap=True)
    console.print(f"[dim]study[/] {where}", soft_wrap=True)
    try:
        with StopSignals((signal.SIGINT, signal.SIGTERM), lambda name: None):
            found = run_study(wanted, lambda line: console.print(line, soft_wrap=True))
    except TrainingInterrupted as interrupt:
        name = signal.Signals(interrupt.signal).name
        complain(f"{name}: stopped; the study goes on when the same command is given again")
        raise typer.Exit(interrupt.exit_code) from None
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("best", no_wrap=True)
    table.add_column(wanted.tune.metric, justify="right", no_wrap=True)
    table.add_column("values", overflow="fold")
    for trial in best_trials(found, 5):
        table.add_row(f"trial_{trial.number:03}", f"{trial.value:.1f}", shown_values(trial.params))
    console.print()
    console.print(table)
    console.print(f"[dim]next[/] rlflow train {where}/best.yaml --seeds 0-4", soft_wrap=True)
