"""The loop of a run: iterations, checkpoints, evaluations in between, and why it ends.

All that decides when something is due is read from the algorithm and the run's folder, never counted beside them: a run
that goes on from a checkpoint does the same things at the same steps as one that was never stopped.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlflow.algorithms.episodes import RECENT

from . import __version__
from .callbacks import CallbackList, StopTraining
from .config_check import CheckedConfig
from .run_folder import RunFolder, finite
from .signals import StopSignals

if TYPE_CHECKING:
    from rlflow.algorithms.base import Algorithm, Evaluation

log = logging.getLogger("rlflow")


class TrainingLoop:
    """Trains one algorithm into one folder.

    Args:
        algorithm: set up, and brought to where it goes on from.
        config: of the run.
        folder: of the run; its metrics end where the algorithm stands.
        listeners: who hears of it.
        spent: seconds trained before, if the run goes on from a checkpoint.
    """

    def __init__(
        self, algorithm: Algorithm, config: CheckedConfig, folder: RunFolder, listeners: CallbackList, spent: float
    ) -> None:
        self._algorithm, self._config, self._folder, self._listeners = algorithm, config, folder, listeners
        self._began = time.monotonic() - spent
        rows = folder.read_metrics()
        self._metrics: Mapping[str, Any] = rows[-1] if rows else {"time_total": spent}
        evaluations = folder.read_evaluations()
        self._evaluated_at = int(evaluations[-1]["env_steps"]) if evaluations else 0

    def run(self, signals: StopSignals) -> str:
        """Until the run's end or a signal; ends with a checkpoint either way.

        Returns:
            why it ended, in words; empty after a signal.
        """
        algorithm, run = self._algorithm, self._config.run
        saved_at = algorithm.env_steps
        reason = self._reason_to_end()
        while not reason and signals.received is None:
            reason = self._step()
            evaluate = _is_due(algorithm.env_steps, self._evaluated_at, run.evaluation.every_env_steps)
            if evaluate or _is_due(algorithm.env_steps, saved_at, run.checkpoint.every_env_steps):
                path, wish = self._save()
                saved_at = algorithm.env_steps
                if evaluate and signals.received is None:
                    wish = self._evaluate_between(path) or wish
                reason = reason or wish
        if saved_at != algorithm.env_steps or not self._folder.list_checkpoints():
            self._save()
        log.info("trained %d env steps in %.1f s", algorithm.env_steps, time.monotonic() - self._began)
        if reason:
            log.info("training ended: %s", reason)
        return reason

    def evaluate_at_end(self) -> None:
        """The run's evaluation, written to ``evaluation.json``."""
        folder, wanted = self._folder, self._config.run.evaluation
        self._listeners.on_evaluation_start(wanted.episodes)
        result, summary = self._play()
        folder.write_json(folder.evaluation_file, summary)
        if wanted.every_env_steps is not None:
            folder.score_checkpoint(folder.list_checkpoints()[-1], summary["mean_return"])
        _heard(lambda: self._listeners.on_evaluation(result, self._algorithm.env_steps, True))

    def _reason_to_end(self) -> str:
        stop, metrics = self._config.run.stop, self._metrics
        if self._algorithm.env_steps >= stop.env_steps:
            return f"{stop.env_steps:,} env steps"
        if stop.minutes is not None and (metrics.get("time_total") or 0.0) >= 60 * stop.minutes:
            return f"{stop.minutes:g} minutes"
        value = metrics.get("episode_return")
        if stop.episode_return is None or value is None or metrics.get("episodes", 0) < RECENT:
            return ""  # the mean of a few episodes may be luck
        if value < stop.episode_return:
            return ""
        return f"an episode return of {value:.1f}, the mean of the last {RECENT} episodes"

    def _step(self) -> str:
        """One iteration; returns the reason why it was the last, if it was."""
        metrics = {**self._algorithm.training_step(), "time_total": time.monotonic() - self._began}
        wish = _heard(lambda: self._listeners.on_iteration(metrics))
        self._folder.append_metrics(metrics)
        self._metrics = metrics
        return self._reason_to_end() or wish

    def _save(self) -> tuple[Path, str]:
        """A checkpoint; returns it, and a callback's wish to stop."""
        algorithm, run = self._algorithm, self._config.run
        # Where evaluations are played in between, they say which checkpoint is the best.
        score = self._metrics.get("episode_return") if run.evaluation.every_env_steps is None else None
        about = {
            "algorithm": run.algorithm, "iteration": algorithm.iteration, "rlflow": __version__,
            "score": finite(score),
        }  # fmt: skip
        state = algorithm.state()  # first: what is still on its way is learned from before, and counts
        path = self._folder.save_checkpoint(algorithm.env_steps, state, about, run.checkpoint.keep)
        log.info("checkpoint %s", path.relative_to(self._folder.path))
        return path, _heard(lambda: self._listeners.on_checkpoint(path))

    def _evaluate_between(self, checkpoint: Path) -> str:
        result, summary = self._play()
        self._evaluated_at = self._algorithm.env_steps
        self._folder.append_evaluation(summary)
        self._folder.score_checkpoint(checkpoint, summary["mean_return"])
        return _heard(lambda: self._listeners.on_evaluation(result, self._algorithm.env_steps, False))

    def _play(self) -> tuple[Evaluation, dict[str, Any]]:
        wanted = self._config.run.evaluation
        result = self._algorithm.evaluate(wanted.episodes, wanted.seed)
        log.info(
            "evaluation: return %.2f ± %.2f over %d episodes", result.mean_return, result.std_return,
            len(result.returns),
        )
        return result, {"env_steps": self._algorithm.env_steps, "seed": wanted.seed, **result.as_json()}


def _is_due(now: int, last: int, every: int | None) -> bool:
    return every is not None and now - last >= every


def _heard(tell: Callable[[], None]) -> str:
    """Tells the listeners; returns a wish of theirs to stop training, in words."""
    try:
        tell()
    except StopTraining as wish:
        return str(wish) or "a callback's wish"
    return ""
