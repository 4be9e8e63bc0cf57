"""The command line: one function a verb. Heavy imports are inside them, so that ``--help`` is immediate."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .errors import InputError, RlflowError, TrainingInterrupted

app = typer.Typer(
    name="rlflow",
    help="Train reinforcement-learning agents on a task and actor engine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)


def main() -> None:
    """Entry point. Exit codes: 0 done, 1 failed while running, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    # A console script lacks the working folder in its path, where "my_module:MyPPO" is looked for.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app()
    except RlflowError as error:
        _complain(str(error))
        sys.exit(error.exit_code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rlflow {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
def train(
    config: Annotated[str | None, typer.Argument(metavar="CONFIG", help="The config to train.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Keys to set instead: lr=3e-4 stop.env_steps=50000"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Short for seed=N.", min=0)] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with a run, from its last checkpoint, instead of starting one."),
    ] = None,
) -> None:
    """Train an agent, with live progress and an evaluation at the end.

    Examples:

        rlflow train configs/ppo_cartpole.yaml

        rlflow train configs/ppo_cartpole.yaml lr=1e-3 stop.env_steps=50000 --seed 1

        rlflow train --resume runs/ppo_CartPole-v1_0_20250131-174502

        rlflow train --resume runs/ppo_CartPole-v1_0_20250131-174502 stop.env_steps=200000
    """
    # Before NumPy is imported: its BLAS would start a thread a core for matrices too small to share, and they
    # then fight with the workers for the cores. Workers set their own numbers of threads.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

    from rich.console import Console

    console = Console(highlight=False)
    wanted = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    resumption = None
    if resume is not None:
        from .resuming import find_resumption

        if config is not None:  # the first override stands where a config would
            if "=" not in config:
                raise InputError(f"give either a config or --resume, not both: {config} and {resume}")
            wanted.insert(0, config)
        console.print(f"[bold]rlflow {__version__}[/] · {resume}", soft_wrap=True)
        resumption = find_resumption(resume, wanted)
        if resumption.is_complete:  # no error: who starts it again until it is done, is done
            more = f"to train on, raise the end: stop.env_steps={2 * resumption.env_steps}"
            console.print(f"the run is complete, with {resumption.env_steps:,} env steps; {more}", soft_wrap=True)
            return
        checked = resumption.config
    elif config is None:
        raise InputError("nothing to train: give a config, such as configs/ppo_cartpole.yaml, or --resume RUN")
    else:
        from .config_check import check_config
        from .config_source import apply_overrides, read_config_file

        console.print(f"[bold]rlflow {__version__}[/] · {config}", soft_wrap=True)
        source = read_config_file(Path(config))
        apply_overrides(source, wanted)
        checked = check_config(source)

    from .progress import interruption_notice, progress_for
    from .training import run_training

    try:
        signals = (signal.SIGINT, signal.SIGTERM)
        run_training(checked, [progress_for(console)], stop_signals=signals, resumption=resumption)
    except TrainingInterrupted as interrupt:
        name = signal.Signals(interrupt.signal).name
        _complain(interruption_notice(name, interrupt.checkpoint, interrupt.run))
        raise typer.Exit(interrupt.exit_code) from None


@app.command()
def tasks(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name under runs/.")],
    failed: Annotated[bool, typer.Option("--failed", help="Only what failed or crashed.")] = False,
    limit: Annotated[int, typer.Option(help="Show the last N; 0 for all.", min=0)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """List the tasks, actors and calls that a run's control store recorded.

    Works during the run and long after it.

    Examples:

        rlflow tasks runs/ppo_CartPole-v1_0_20250131-174502 --limit 50

        rlflow tasks ppo_CartPole-v1_0_20250131-174502 --failed --json
    """
    from rich.console import Console

    from .run_folder import find_run
    from .task_history import flushed_tasks, history_as_json, print_history, read_history, read_incidents

    folder = find_run(run)
    recorded = read_history(folder)
    chosen = [task for task in recorded if task.outcome in ("failed", "crashed")] if failed else recorded
    chosen = chosen[-limit:] if limit else chosen
    if as_json:
        typer.echo(history_as_json(chosen))
    else:
        what = "failed tasks" if failed else "tasks"
        console = Console(highlight=False)
        print_history(console, recorded, chosen, what, flushed_tasks(folder), read_incidents(folder))


@app.command()
def actors(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name under runs/.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """List the actors of a run: where they ran, how many calls they had, how they ended.

    Examples:

        rlflow actors runs/ppo_CartPole-v1_0_20250131-174502
    """
    from dataclasses import asdict

    from rich.console import Console

    from .lineage_view import print_actors, read_actors
    from .run_folder import find_run

    found = read_actors(find_run(run))
    if as_json:
        typer.echo(json.dumps([asdict(actor) for actor in found], indent=1))
    else:
        print_actors(Console(highlight=False), found)


@app.command()
def lineage(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's folder, or its name under runs/.")],
    object_id: Annotated[str, typer.Argument(metavar="OBJECT", help="An object's, task's or actor's id, or its ends.")],
    depth: Annotated[int, typer.Option(help="Steps to go back.", min=1)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
) -> None:
    """Show what made an object, from what, back to the roots.

    Examples:

        rlflow lineage runs/ppo_CartPole-v1_0_20250131-174502 3f09c1…00001a
    """
    from rich.console import Console

    from .lineage_view import lineage_as_json, print_lineage, read_lineage
    from .run_folder import find_run

    found = read_lineage(find_run(run), object_id)
    if as_json:
        typer.echo(lineage_as_json(found))
    else:
        print_lineage(Console(highlight=False), found, depth)


@app.command()
def plot(
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="Run folders, or names under runs/.")],
    out: Annotated[Path, typer.Option(help="The picture to write; its ending says the format.")] = Path("curve.png"),
) -> None:
    """Draw learning curves: return against environment steps, one colour per algorithm and environment.

    Examples:

        rlflow plot runs/ppo_* --out curve.png
    """
    from .plotting import plot_runs
    from .run_folder import find_run

    typer.echo(f"wrote {plot_runs([find_run(run) for run in runs], out)}")


def _complain(message: str) -> None:
    print(f"rlflow: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
