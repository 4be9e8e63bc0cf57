"""``runs``, ``plot``, ``compare``: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .arguments import JsonOption, RunsArgument, print_json


def runs(
    folder: Annotated[Path, typer.Option("--dir", help="The folder of runs.", metavar="FOLDER")] = Path("runs"),
    sort: Annotated[
        Literal["time", "name", "status", "steps", "return", "evaluation"],
        typer.Option(help="Newest or best first."),
    ] = "time",
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Only runs whose config has this, or status=complete; * stands for any text."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Show the first N; 0 for all.", min=0, metavar="N")] = 0,
    as_json: JsonOption = False,
) -> None:
    """List runs: state, steps, return, evaluation.

    A run is complete, running, stopped (rlflow train --resume goes on with it) or failed (see its log.txt).
    """
    from rich.console import Console

    from rlflow.run_listing import list_runs, print_runs

    found = list_runs(folder, where or [], sort)
    found = found[:limit] if limit else found
    if as_json:
        print_json([row.as_json() for row in found])
    else:
        print_runs(Console(highlight=False), found, folder)


def plot(
    runs: RunsArgument,
    out: Annotated[
        Path, typer.Option(help="The picture to write; its ending says the format: png, svg, pdf.", metavar="FILE")
    ] = Path("curve.png"),
) -> None:
    """Draw learning curves: return against environment steps.

    Runs that differ in nothing but their seed are one curve: their mean, with a 95 % confidence band.
    """
    from rlflow.plotting import plot_runs
    from rlflow.run_folder import find_run

    typer.echo(f"wrote {plot_runs([find_run(run) for run in runs], out)}")


def compare(runs: RunsArgument, as_json: JsonOption = False) -> None:
    """Compare runs: where their configs differ, and what came out."""
    from rich.console import Console

    from rlflow.comparison import compare_runs, print_comparison
    from rlflow.run_folder import find_run

    compared = compare_runs([find_run(run) for run in runs])
    if as_json:
        print_json(compared.as_json())
    else:
        print_comparison(Console(highlight=False), compared)
