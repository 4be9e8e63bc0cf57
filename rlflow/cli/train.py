"""``train``: one run, one for each of several seeds, or the rest of one that ended early."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rlflow import __version__
from rlflow.errors import InputError, RlflowError, TrainingInterrupted

from .arguments import complain, complete_config, complete_run, compute_on_one_thread

if TYPE_CHECKING:
    from rich.console import Console

    from rlflow.config_check import CheckedConfig


def train(
    config: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG", help="The config to train.", autocompletion=complete_config),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="Keys to set instead: lr=3e-4 stop.env_steps=50000"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Short for seed=N.", min=0, metavar="N")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N-M", help="A run for each seed, one after the other, and their summary: 0-4 or 0,3,7"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Of a config with several runs, only this one; * stands for any text."),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="Go on with a run, from its last checkpoint, instead of starting one.",
            autocompletion=complete_run,
        ),
    ] = None,
    backend: Annotated[
        Literal["local", "inline"] | None,
        typer.Option(
            "--engine", metavar="local|inline",
            help="Short for engine.backend=...; inline: all in one process, for debuggers.",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Where PPO takes gradients: auto, cpu, cuda.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", metavar="", help="Print the complete config as YAML, with defaults; train nothing."),
    ] = False,
) -> None:
    """Train an agent, with live progress and an evaluation at the end.

    A mistake in the config is found before anything starts, and all of them at once.
    """
    compute_on_one_thread()
    if seeds is not None and (seed is not None or resume is not None):
        other = "--seed" if resume is None else "--resume"
        raise InputError(f"--seeds starts new runs, one a seed: leave out either it or {other}")
    if device is not None and resume is not None:
        raise InputError("a run that goes on keeps its device: leave out either --device or --resume")
    wanted = list(overrides or [])
    if backend is not None:
        wanted.append(f"engine.backend={backend}")
    if seed is not None:
        wanted.append(f"seed={seed}")

    from rich.console import Console

    console = Console(highlight=False)
    if not dry_run:
        console.print(f"[bold]rlflow {__version__}[/] · {resume or config or ''}", soft_wrap=True)
    if resume is not None:
        if config is not None:  # the first override stands where a config would
            if "=" not in config:
                raise InputError(f"give either a config or --resume, not both: {config} and {resume}")
            wanted.insert(0, config)
        _resume(console, resume, wanted, dry_run)
        return
    if config is None:
        raise InputError("nothing to train: give a config, such as configs/ppo_cartpole.yaml, or --resume RUN")

    from rlflow.planning import parse_seeds, plan_runs

    configs = plan_runs(config, wanted, None if seeds is None else parse_seeds(seeds), device, only or [])
    if dry_run:
        _print_configs(configs)
    elif len(configs) == 1:
        _train(console, configs[0])
    else:
        _train_each(console, configs)


def _resume(console: Console, run: str, overrides: list[str], dry_run: bool) -> None:
    from rlflow.progress import progress_for
    from rlflow.resuming import find_resumption
    from rlflow.training import run_training

    resumption = find_resumption(run, overrides)
    if dry_run:
        _print_configs([resumption.config])
        return
    if resumption.is_complete:  # no error: who starts it again until it is done, is done
        more = f"to train on, raise the end: stop.env_steps={2 * resumption.env_steps}"
        console.print(f"the run is complete, with {resumption.env_steps:,} env steps; {more}", soft_wrap=True)
        return
    try:
        run_training(
            resumption.config, [progress_for(console)], stop_signals=(signal.SIGINT, signal.SIGTERM),
            resumption=resumption,
        )
    except TrainingInterrupted as interrupt:
        raise _interrupted(interrupt) from None


def _train(console: Console, config: CheckedConfig) -> None:
    from rlflow.progress import progress_for
    from rlflow.training import run_training

    try:
        run_training(config, [progress_for(console)], stop_signals=(signal.SIGINT, signal.SIGTERM))
    except TrainingInterrupted as interrupt:
        raise _interrupted(interrupt) from None


def _train_each(console: Console, configs: list[CheckedConfig]) -> None:
    """One after the other, each on an engine of its own, so that each has its own task history.

    A run that fails does not take the others with it; a signal ends them all, and the exit code says so even after a
    checkpoint, since those that had not begun cannot be gone on with.
    """
    from rlflow.planning import RunsSummary
    from rlflow.progress import progress_for
    from rlflow.training import run_training

    summary = RunsSummary()
    for number, config in enumerate(configs, start=1):
        console.print(f"\n[dim]run {number} of {len(configs)}[/]")
        try:
            folder = run_training(config, [progress_for(console)], stop_signals=(signal.SIGINT, signal.SIGTERM))
        except TrainingInterrupted as interrupt:
            if summary.runs:
                summary.show(console)
            _interrupted(interrupt)
            raise typer.Exit(128 + interrupt.signal) from None
        except RlflowError as error:
            complain(str(error))
            summary.add_failure(config, error)
        else:
            summary.add(config, folder)
    summary.show(console)
    if summary.failures:
        raise typer.Exit(1)


def _interrupted(interrupt: TrainingInterrupted) -> typer.Exit:
    from rlflow.progress import interruption_notice

    name = signal.Signals(interrupt.signal).name
    complain(interruption_notice(name, interrupt.checkpoint, interrupt.run))
    return typer.Exit(interrupt.exit_code)


def _print_configs(configs: list[CheckedConfig]) -> None:
    """As YAML that can be trained as it is; several as documents of one stream."""
    from rlflow.run_folder import config_as_yaml

    typer.echo("---\n".join(config_as_yaml(config.as_mapping()) for config in configs), nl=False)
