"""``new``: files to begin from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def new(
    kind: Annotated[
        Literal["algorithm", "env", "config"], typer.Argument(metavar="KIND", help="What to begin.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the files, here in the working folder: my_idea.")],
    algorithm: Annotated[str, typer.Option(metavar="ALGORITHM", help="Of a new config.")] = "ppo",
    env: Annotated[str, typer.Option(metavar="ENV", help="Of a new config.")] = "CartPole-v1",
) -> None:
    """Begin an algorithm, an environment or a config of your own.

    Writes small files that run as they are. Nothing is ever overwritten.
    """
    from rlflow.skeletons import new_algorithm, new_config, new_env

    written: list[Path]
    if kind == "config":
        written = new_config(name, algorithm, env)
    else:
        written = new_env(name) if kind == "env" else new_algorithm(name)
    typer.echo(f"wrote {' and '.join(map(str, written))}")
    typer.echo(f"next rlflow train {written[-1]}")
