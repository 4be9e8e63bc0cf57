"""What several verbs share: the argument RUN, the option --json, their completion, and how examples look."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def complain(message: str) -> None:
    """To stderr, as everything that is not the verb's result."""
    print(f"rlflow: {message}", file=sys.stderr)


def print_json(value: Any) -> None:
    """A verb's result for scripts."""
    import json

    typer.echo(json.dumps(value, indent=2))


def compute_on_one_thread() -> None:
    """To be called before NumPy is imported, by verbs that train.

    Its BLAS would start a thread a core for matrices too small to share, and they then fight with the workers for the
    cores. Workers set their own numbers of threads.
    """
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")


def examples(*lines: str) -> str:
    """The end of a verb's help; each line stays one line."""
    shown = (line.replace("[", r"\[") for line in lines)
    return "\n".join(["[bold]Examples[/]", *(f"[dim]$[/] {line}" for line in shown)])


def complete_run(incomplete: str) -> list[str]:
    """Names of runs under ``runs/``, newest first; paths are completed by the shell itself."""
    folders = Path("runs").glob("*/config.yaml")
    newest = sorted(folders, key=lambda config: config.stat().st_mtime, reverse=True)
    names = [config.parent.name for config in newest]
    return [name for name in names if name.startswith(incomplete)] + sorted(
        str(path) for path in Path().glob(f"{incomplete}*/") if incomplete and (path / "config.yaml").is_file()
    )


def complete_config(incomplete: str) -> list[str]:
    """YAML files and folders."""
    found = (path for path in Path().glob(f"{incomplete}*") if path.is_dir() or path.suffix in (".yaml", ".yml"))
    return sorted(f"{path}/" if path.is_dir() else str(path) for path in found)


_RUN_HELP = "A run's folder, or its name under runs/."

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help=_RUN_HELP, autocompletion=complete_run)]
RunsArgument = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Run folders, or names under runs/.", autocompletion=complete_run)
]
CheckpointOption = Annotated[
    str, typer.Option(metavar="NAME", help="last, best, or a checkpoint such as step_50000.")
]
JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON, for scripts.")]
