"""``eval``: a trained policy plays whole episodes, and is filmed if asked for."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .arguments import CheckpointOption, JsonOption, RunArgument, complain, print_json

FILMED = 3
"""Episodes on film, at most; more are rarely looked at."""


def evaluate(
    run: RunArgument,
    episodes: Annotated[int, typer.Option(help="Whole episodes to play.", min=1, metavar="N")] = 20,
    stochastic: Annotated[
        bool,
        typer.Option("--stochastic", metavar="", help="Draw actions from the policy; else the most likely are taken."),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(help="Of the environments; the config's evaluation.seed by default.", min=0, metavar="N"),
    ] = None,
    checkpoint: CheckpointOption = "last",
    video: Annotated[
        bool,
        typer.Option("--video", metavar="", help=f"Film {FILMED} episodes into the run's videos/ (extra: video)."),
    ] = False,
    backend: Annotated[
        Literal["local", "inline"] | None,
        typer.Option("--engine", metavar="local|inline", help="Where to play; as in the config by default."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Play episodes with the policy of a checkpoint."""
    import numpy as np
    from rich.console import Console

    from rlflow.restoring import restored
    from rlflow.run_folder import find_run, shown_path

    folder = find_run(run)
    with restored(folder, backend, checkpoint) as (config, algorithm):
        chosen = config.run.evaluation.seed if seed is None else seed
        result = algorithm.evaluate(episodes, chosen, not stochastic)
        films = []
        if video:
            from rlflow.video import film_episode

            policy, options = algorithm.trained_policy(), config.algorithm
            for number in range(min(episodes, FILMED)):
                path = folder.path / "videos" / f"step_{algorithm.env_steps}_episode_{number}.mp4"
                score = film_episode(
                    path, options.env, options.env_arguments, policy, chosen, number, deterministic=not stochastic
                )
                films.append({"path": str(path), "return": score})
                if not as_json:
                    complain(f"filmed {shown_path(path)}, return {score:.1f}")
        env_steps = algorithm.env_steps
    if as_json:
        print_json({
            "run": str(folder.path), "env_steps": env_steps, "seed": chosen, "stochastic": stochastic,
            **result.as_json(), "videos": films,
        })
        return
    console = Console(highlight=False)
    console.print(
        f"[bold green]{result.mean_return:.1f} ± {result.std_return:.1f}[/] return over {episodes} "
        f"episode{'s' if episodes > 1 else ''} of {result.mean_length:.1f} steps",
        soft_wrap=True,
    )
    low, middle, high = np.percentile(result.returns, [0, 50, 100])
    console.print(f"[dim]lowest[/] {low:.1f}  [dim]median[/] {middle:.1f}  [dim]highest[/] {high:.1f}")
    console.print(f"[dim]after[/] {env_steps:,} env steps  [dim]run[/] {shown_path(folder.path)}", soft_wrap=True)
