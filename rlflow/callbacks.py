"""What may listen to a training run while it goes on, add to its metrics, and end it.

A config names callbacks (``callbacks: [my_module:MyCallback]``, or with arguments
``callbacks: [{rlflow.callbacks:EarlyStop: {patience: 50}}]``); Python passes instances to ``rlflow.train``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlflow.algorithms.base import Evaluation

    from .config_check import CheckedConfig
    from .run_folder import RunFolder


class StopTraining(Exception):
    """Raised by a callback: training ends in order, as when ``stop`` says so, with a checkpoint and an evaluation."""


@dataclass(frozen=True)
class RunStart:
    """What is known when a run begins."""

    config: CheckedConfig
    folder: RunFolder
    num_cpus: float
    """CPUs the engine gives out."""
    env_steps: int = 0
    """Where training begins: above 0 when the run goes on from a checkpoint."""

    @property
    def total_env_steps(self) -> int:
        return self.config.run.stop.env_steps


class Callback:
    """Methods are called in the training process, between iterations; overriding a few is enough.

    An exception in one ends the run, as a failure; :class:`StopTraining` ends it in order.
    """

    def on_start(self, start: RunStart) -> None:
        """The engine runs and the run's folder exists; the algorithm is not set up yet."""

    def on_iteration(self, metrics: dict[str, float]) -> None:
        """A training step ended; these are its metrics. What is added to them is recorded with the rest."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint lies complete at ``path``."""

    def on_stopping(self, signal_name: str) -> None:
        """A signal asked the run to stop; the iteration is still being finished.

        Runs inside the signal handler: keep it short.
        """

    def on_evaluation_start(self, episodes: int) -> None:
        """Training is over, the last checkpoint is written, and the run's evaluation begins."""

    def on_evaluation(self, evaluation: Evaluation, env_steps: int, final: bool) -> None:
        """Whole episodes were played after ``env_steps``; ``final``: at the run's end, not in between."""

    def on_end(self, folder: RunFolder) -> None:
        """The run is over, one way or another (``folder.read_status()`` says which); called exactly once."""


class CallbackList(Callback):
    """Several callbacks as one; each event reaches all of them in their order, also when one wants to stop."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def on_start(self, start: RunStart) -> None:
        self._tell(lambda callback: callback.on_start(start))

    def on_iteration(self, metrics: dict[str, float]) -> None:
        self._tell(lambda callback: callback.on_iteration(metrics))

    def on_checkpoint(self, path: Path) -> None:
        self._tell(lambda callback: callback.on_checkpoint(path))

    def on_stopping(self, signal_name: str) -> None:
        self._tell(lambda callback: callback.on_stopping(signal_name))

    def on_evaluation_start(self, episodes: int) -> None:
        self._tell(lambda callback: callback.on_evaluation_start(episodes))

    def on_evaluation(self, evaluation: Evaluation, env_steps: int, final: bool) -> None:
        self._tell(lambda callback: callback.on_evaluation(evaluation, env_steps, final))

    def on_end(self, folder: RunFolder) -> None:
        self._tell(lambda callback: callback.on_end(folder))

    def _tell(self, event: Callable[[Callback], None]) -> None:
        stop: StopTraining | None = None
        for callback in self._callbacks:
            try:
                event(callback)
            except StopTraining as wish:
                stop = stop or wish
        if stop is not None:
            raise stop


class EarlyStop(Callback):
    """Ends training when a metric has not become better for a while; a run that goes on remembers.

    Args:
        metric: which, of those in ``metrics.jsonl``.
        patience: iterations without a new best value.
        min_delta: by how much a value must be better to count.
        mode: ``"max"`` or ``"min"``: what is better.
    """

    def __init__(
        self, metric: str = "episode_return", patience: int = 50, min_delta: float = 0.0, mode: str = "max"
    ) -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', got {mode!r}")
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}")
        self._metric, self._patience, self._min_delta = metric, patience, min_delta
        self._sign = 1.0 if mode == "max" else -1.0
        self._best, self._waited = -math.inf, 0

    def on_start(self, start: RunStart) -> None:
        self._best, self._waited = -math.inf, 0
        for row in start.folder.read_metrics():
            if row["env_steps"] <= start.env_steps:
                self._see(row)

    def on_iteration(self, metrics: dict[str, float]) -> None:
        self._see(metrics)
        if self._waited >= self._patience:
            best = self._sign * self._best
            raise StopTraining(f"{self._metric} has not been better than {best:g} for {self._waited} iterations")

    def _see(self, metrics: Mapping[str, float | None]) -> None:
        value = metrics.get(self._metric)
        if value is None or not math.isfinite(value):
            return  # there is none before the first episode ends
        if self._sign * value > self._best + self._min_delta:
            self._best, self._waited = self._sign * value, 0
        else:
            self._waited += 1
