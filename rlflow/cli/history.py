"""``tasks``, ``actors``, ``lineage``: what a run's control store recorded."""

from __future__ import annotations

from typing import Annotated

import typer

from .arguments import JsonOption, RunArgument, print_json


def tasks(
    run: RunArgument,
    failed: Annotated[bool, typer.Option("--failed", metavar="", help="Only what failed or crashed.")] = False,
    limit: Annotated[int, typer.Option(help="Show the last N; 0 for all.", min=0, metavar="N")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List tasks, actors and calls, as they were recorded.

    Works during the run and long after it.
    """
    from rich.console import Console

    from rlflow.run_folder import find_run
    from rlflow.task_history import flushed_tasks, history_as_json, print_history, read_history, read_incidents

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


def actors(run: RunArgument, as_json: JsonOption = False) -> None:
    """List actors: where they ran, their calls, how they ended."""
    from dataclasses import asdict

    from rich.console import Console

    from rlflow.lineage_view import print_actors, read_actors
    from rlflow.run_folder import find_run

    found = read_actors(find_run(run))
    if as_json:
        print_json([asdict(actor) for actor in found])
    else:
        print_actors(Console(highlight=False), found)


def lineage(
    run: RunArgument,
    object_id: Annotated[str, typer.Argument(metavar="OBJECT", help="An object's, task's or actor's id, or its ends.")],
    depth: Annotated[int, typer.Option(help="Steps to go back.", min=1, metavar="N")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Show what made an object, from what, back to the roots."""
    from rich.console import Console

    from rlflow.lineage_view import lineage_as_json, print_lineage, read_lineage
    from rlflow.run_folder import find_run

    found = read_lineage(find_run(run), object_id)
    if as_json:
        typer.echo(lineage_as_json(found))
    else:
        print_lineage(Console(highlight=False), found, depth)
