"""The command line: one room a verb or group of verbs.

Every verb is thin: it reads its arguments, calls one module of ``rlflow`` and prints. Whatever is slow to import
(torch, NumPy, gymnasium, pydantic, rich's tables) is imported inside the verbs, so that ``--help`` and completion are
immediate. Importing this package must not import any of them; a test looks.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from rlflow import __version__
from rlflow.errors import RlflowError

from .arguments import complain, examples
from .doctor import doctor
from .evaluate import evaluate
from .export import export
from .history import actors, lineage, tasks
from .new import new
from .runs import compare, plot, runs
from .schema import schema
from .train import train
from .tune import tune

_EXIT_CODES = """
[bold]Exit codes[/]  0 done, or SIGTERM with a checkpoint to resume · 1 failed while running ·
2 the input was wrong · 130 Ctrl-C · 143 SIGTERM without a checkpoint
"""

app = typer.Typer(
    name="rlflow",
    help="Train reinforcement-learning agents on a task and actor engine.",
    epilog=examples(
        "rlflow train configs/ppo_cartpole.yaml", "rlflow runs", "rlflow COMMAND --help    has more of them"
    ) + "\n\n" + _EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def main() -> None:
    """Entry point. Exit codes: see ``_EXIT_CODES``."""
    # A console script lacks the working folder in its path, where "my_module:MyPPO" is looked for.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app()
    except RlflowError as error:
        complain(str(error))
        sys.exit(error.exit_code)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rlflow {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", metavar="", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


TRAINING, LOOKING, USING, SETTING_UP = "Train", "Look at runs", "Use what was trained", "Set up"

app.command(rich_help_panel=TRAINING, epilog=examples(
    "rlflow train configs/ppo_cartpole.yaml",
    "rlflow train configs/ppo_cartpole.yaml lr=1e-3 stop.env_steps=50000 --seed 1",
    "rlflow train configs/ppo_cartpole.yaml --seeds 0-4",
    "rlflow train configs/ppo_cartpole.yaml --dry-run > mine.yaml",
    "rlflow train several.yaml --only fast",
    "rlflow train --resume RUN",
    "rlflow train --resume RUN stop.env_steps=200000",
))(train)

app.command(rich_help_panel=TRAINING, epilog=examples(
    "rlflow tune search.yaml", "rlflow tune search.yaml tune.trials=100 tune.parallel=4 --study lr_search",
))(tune)

app.command(rich_help_panel=LOOKING, epilog=examples(
    "rlflow runs",
    "rlflow runs --sort return --where env=CartPole-v1 --where learning_rate=0.001",
    "rlflow runs --json | jq -r '.[0].path'",
))(runs)
app.command(rich_help_panel=LOOKING, epilog=examples(
    "rlflow plot RUN",
    "rlflow plot runs/ppo_* runs/es_* --out curves.png",
))(plot)
app.command(rich_help_panel=LOOKING, epilog=examples(
    "rlflow compare RUN OTHER_RUN",
    "rlflow compare runs/ppo_* --json",
))(compare)
app.command(rich_help_panel=LOOKING, epilog=examples(
    "rlflow tasks RUN --limit 50",
    "rlflow tasks RUN --failed --json",
))(tasks)
app.command(rich_help_panel=LOOKING, epilog=examples("rlflow actors RUN", "rlflow actors RUN --json"))(actors)
app.command(rich_help_panel=LOOKING, epilog=examples("rlflow lineage RUN 3f09c1…00001a"))(lineage)

app.command("eval", rich_help_panel=USING, epilog=examples(
    "rlflow eval RUN",
    "rlflow eval RUN --episodes 100 --stochastic --json",
    "rlflow eval RUN --video",
))(evaluate)

app.command(rich_help_panel=USING, epilog=examples(
    "rlflow export RUN", "rlflow export RUN --format torchscript --out walker.pt",
))(export)

app.command(rich_help_panel=SETTING_UP, epilog=examples(
    "rlflow new algorithm my_idea",
    "rlflow new env my_env",
    "rlflow new config mine --algorithm es --env Pendulum-v1",
))(new)
app.command(rich_help_panel=SETTING_UP, epilog=examples(
    "rlflow schema --out config.schema.json", "rlflow schema --markdown --out docs/config.md",
))(schema)
app.command(rich_help_panel=SETTING_UP, epilog=examples("rlflow doctor", "rlflow doctor --json"))(doctor)


if __name__ == "__main__":
    main()
