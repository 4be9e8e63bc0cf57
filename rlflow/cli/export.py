"""``export``: the policy for programs that have no rlflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .arguments import CheckpointOption, RunArgument


def export(
    run: RunArgument,
    form: Annotated[
        Literal["onnx", "torchscript"],
        typer.Option("--format", metavar="onnx|torchscript", help="What to write (onnx: extra export)."),
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="By default policy.onnx or policy.pt in the run's folder.")
    ] = None,
    checkpoint: CheckpointOption = "last",
) -> None:
    """Write the whole policy as ONNX or TorchScript, checked.

    Normalisation, network and clipping of actions are all in the file. It
    takes "observation", float32 (N, O), and gives "action" as the environment
    takes it, the most likely one. It is compared with the run's own policy on
    observations from the environment, and deleted if it differs.
    """
    from rlflow import __version__
    from rlflow.export import ENDINGS, export_policy
    from rlflow.restoring import restored
    from rlflow.run_folder import find_run, shown_path

    folder = find_run(run)
    path = out or folder.path / f"policy{ENDINGS[form]}"
    with restored(folder, "inline", checkpoint) as (config, algorithm):
        options = config.algorithm
        about = {
            "rlflow": __version__, "algorithm": config.run.algorithm, "env": options.env,
            "env_steps": algorithm.env_steps, "run": folder.path.name,
        }
        compared = export_policy(algorithm.trained_policy(), options.env, options.env_arguments, path, form, about)
    typer.echo(f"wrote {shown_path(path)}, which acts as the policy does at {compared} observations")
