"""Training from Python: the call that makes a run, and a run as Python sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .callbacks import Callback
from .config_source import ConfigSource, apply_arguments, read_config_file, source_of_arguments
from .run_folder import find_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rlflow.algorithms.base import Algorithm, Evaluation

    from .run_policy import RunPolicy


class Run:
    """What a training run left in its folder. Reads the files when asked, so it is never out of date.

    Args:
        path: the run's folder, or its name under ``runs/``.
        algorithm_class: of a run that was made with a class which cannot be imported by its name, such as a notebook's.

    Raises:
        InputError: there is no such run.
    """

    def __init__(self, path: str | os.PathLike[str], algorithm_class: type[Algorithm] | None = None) -> None:
        self._folder = find_run(os.fspath(path))
        self._algorithm_class = algorithm_class

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self._folder.path

    @property
    def config(self) -> dict[str, Any]:
        """The complete config, as in ``config.yaml``."""
        return self._folder.read_config()

    @property
    def status(self) -> dict[str, Any]:
        """``state`` (``"running"``, ``"complete"``, ``"stopped"`` or ``"failed"``), ``env_steps`` and ``reason``."""
        return self._folder.read_status()

    @property
    def metrics(self) -> Any:
        """A row an iteration, by ``env_steps``: a pandas data frame, or without pandas a table that is read alike.

        ``run.metrics["episode_return"]`` is a column [iterations]; NaN where a number did not exist.
        """
        from .metrics_table import metrics_table

        return metrics_table(self._folder.read_metrics())

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """Of the run's end: ``mean_return``, ``std_return``, ``returns``, ...; ``None`` when there was none."""
        return self._folder.read_evaluation()

    @property
    def checkpoints(self) -> list[Path]:
        """Folders of the kept checkpoints, oldest first."""
        return self._folder.list_checkpoints()

    @property
    def policy(self) -> RunPolicy:
        """What the run has learned, as a function of observations; from its last checkpoint.

        Raises:
            InputError: there is no checkpoint yet.
        """
        return self.policy_at("last")

    def policy_at(self, checkpoint: str) -> RunPolicy:
        """As :attr:`policy`, of the checkpoint ``"best"``, ``"last"`` or, say, ``"step_5000"``."""
        from rlflow.algorithms.envs import spaces_of

        from .restoring import restored
        from .run_policy import RunPolicy

        with restored(self._folder, "inline", checkpoint, self._algorithm_class) as (config, algorithm):
            trained = algorithm.trained_policy()
        observation_space, _ = spaces_of(config.algorithm.env, config.algorithm.env_arguments)
        return RunPolicy(trained, observation_space)

    def evaluate(
        self, episodes: int = 20, *, seed: int | None = None, deterministic: bool = True, checkpoint: str = "last"
    ) -> Evaluation:
        """Plays whole episodes with what the run has learned, on the engine that runs, or in this process.

        Args:
            episodes: how many.
            seed: of the environments; by default the config's, so that the numbers are those of the run's evaluation.
            deterministic: the most likely actions; else they are drawn from the policy's distribution.
            checkpoint: ``"last"``, ``"best"``, or a name such as ``"step_5000"``.

        Returns:
            ``returns`` and ``lengths`` of the episodes, and their ``mean_return``.

        Raises:
            InputError: there is no such checkpoint.
        """
        from .restoring import restored

        with restored(self._folder, "inline", checkpoint, self._algorithm_class) as (config, algorithm):
            chosen = config.run.evaluation.seed if seed is None else seed
            return algorithm.evaluate(episodes, chosen, deterministic=deterministic)

    def plot(self, *others: Run) -> Figure:
        """The learning curve, a matplotlib figure that a notebook shows; with ``others``, theirs too."""
        from .plotting import draw_runs

        return draw_runs([self._folder, *(other._folder for other in others)])

    def resume(self, *, callbacks: Sequence[Callback] = (), progress: bool = True, **options: Any) -> Run:
        """Goes on from the last checkpoint, as if the run had never ended; does nothing when it is complete.

        Args:
            callbacks: listeners to the run.
            progress: show the progress display.
            **options: what shall be different: ``stop``, ``evaluation``, ``checkpoint`` or ``engine``, of which only
                the given keys change, or ``trackers``.

        Raises:
            InputError: an option would make it another run, or a process trains into its folder.
            TrainingFailed, KeyboardInterrupt: as :func:`train`.
        """
        from .resuming import find_resumption
        from .training import run_training

        found = find_resumption(str(self.path), arguments=options, algorithm_class=self._algorithm_class)
        if not found.is_complete:
            run_training(found.config, _listeners(callbacks, progress), resumption=found)
        return self

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        from .notebook import run_card

        return run_card(self._folder, self.config, self.evaluation)


def train(
    config: str | os.PathLike[str] | Mapping[str, Any] | type[Algorithm],
    *,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    **options: Any,
) -> Run:
    """Trains an agent, and leaves a run's folder.

    Example::

        run = rlflow.train("ppo", env="CartPole-v1", seed=1, stop={"env_steps": 50_000})
        run = rlflow.train("configs/ppo_cartpole.yaml", seed=1)
        run.evaluation["mean_return"]

    Every call makes a new folder, so that a notebook's cell can be run again.

    Args:
        config: a YAML file, the same as a dict, or the algorithm alone: a name such as ``"ppo"``, ``"module:Class"``,
            or the class itself.
        callbacks: listeners to the run.
        progress: show the progress display.
        **options: the keys of a config; they win over ``config``. Of ``stop`` and other mappings only the given keys.

    Raises:
        ConfigError: with everything that is wrong with the options.
        TrainingFailed: the run broke off.
        KeyboardInterrupt: Ctrl-C, or a notebook's stop button; the run's last checkpoint was written first, and
            :meth:`Run.resume` goes on from it.
    """
    from .config_check import check_config
    from .training import run_training

    source, algorithm_class = _source_of(config)
    apply_arguments(source, options)
    checked = check_config(source, algorithm_class)
    return Run(run_training(checked, _listeners(callbacks, progress)).path, algorithm_class)


def load(path: str | os.PathLike[str], algorithm_class: type[Algorithm] | None = None) -> Run:
    """A run that was trained before: its folder, or its name under ``runs/``.

    Args:
        path: where it is.
        algorithm_class: the class that it was made with, if that cannot be imported by its name, as a notebook's.

    Raises:
        InputError: there is no such run; with the newest ones there are.
    """
    return Run(path, algorithm_class)


def _source_of(
    config: str | os.PathLike[str] | Mapping[str, Any] | type[Algorithm],
) -> tuple[ConfigSource, type[Algorithm] | None]:
    if isinstance(config, type):
        return source_of_arguments({"algorithm": f"{config.__module__}:{config.__qualname__}"}), config
    if isinstance(config, Mapping):
        return source_of_arguments(config), None
    if isinstance(config, os.PathLike) or config.endswith((".yaml", ".yml")):
        return read_config_file(Path(config)), None
    return source_of_arguments({"algorithm": config}), None


def _listeners(callbacks: Sequence[Callback], progress: bool) -> list[Callback]:
    if not progress:
        return list(callbacks)
    from .progress import default_progress

    return [*callbacks, default_progress()]
