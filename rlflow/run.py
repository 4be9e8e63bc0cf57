"""A run as Python sees it, and the call that makes one."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .callbacks import Callback
from .run_folder import RunFolder

if TYPE_CHECKING:
    from rlflow.algorithms.base import Algorithm


class Run:
    """What a training run left in its folder. Reads the files when asked, so it is never out of date."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._folder = RunFolder(Path(path))

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self._folder.path

    @property
    def config(self) -> dict[str, Any]:
        """The complete config, as in ``config.yaml``."""
        values: dict[str, Any] = yaml.safe_load(self._folder.config_file.read_text(encoding="utf-8"))
        return values

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One dict an iteration, in order; ``None`` where a number was not finite."""
        return self._folder.read_metrics()

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """``mean_return``, ``std_return``, ``returns``, ...; ``None`` when the run had no evaluation."""
        if not self._folder.evaluation_file.is_file():
            return None
        values: dict[str, Any] = json.loads(self._folder.evaluation_file.read_text(encoding="utf-8"))
        return values

    @property
    def checkpoints(self) -> list[Path]:
        """Folders of the kept checkpoints, oldest first."""
        return self._folder.list_checkpoints()

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"


def train(
    algorithm: str | type[Algorithm],
    *,
    env: str,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **options: Any,
) -> Run:
    """Trains an agent; the options are the keys of a YAML config.

    Example::

        run = rlflow.train("ppo", env="CartPole-v1", seed=1, stop={"env_steps": 50_000})
        run.evaluation["mean_return"]

    Args:
        algorithm: a name such as ``"ppo"``, ``"module:Class"``, or the class itself.
        env: gymnasium id of the environment.
        callbacks: listeners to the run.
        progress: show the progress display.
        **options: every other key of a config; ``stop`` is required.

    Raises:
        ConfigError: with everything that is wrong with the options.
        TrainingFailed: the run broke off.
        KeyboardInterrupt: Ctrl-C; the run's last checkpoint was written first.
    """
    from .config_check import check_config
    from .config_source import source_of_arguments
    from .training import run_training

    if isinstance(algorithm, str):
        name, algorithm_class = algorithm, None
    else:
        name, algorithm_class = f"{algorithm.__module__}:{algorithm.__qualname__}", algorithm
    checked = check_config(source_of_arguments({"algorithm": name, "env": env, **options}), algorithm_class)
    listeners = list(callbacks)
    if progress:
        from rich.console import Console

        from .progress import progress_for

        listeners.insert(0, progress_for(Console(file=sys.stdout, highlight=False)))
    return Run(run_training(checked, listeners).path)
