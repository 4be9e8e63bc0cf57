"""What may listen to a training run while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlflow.algorithms.base import Evaluation

    from .config_check import CheckedConfig
    from .run_folder import RunFolder


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
    """Methods are called in the training process, between iterations; overriding a few is enough."""

    def on_start(self, start: RunStart) -> None:
        """The engine runs and the run's folder exists; the algorithm is not set up yet."""

    def on_iteration(self, metrics: Mapping[str, float]) -> None:
        """A training step ended; these are its metrics."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint lies complete at ``path``."""

    def on_stopping(self, signal_name: str) -> None:
        """A signal asked the run to stop; the iteration is still being finished. Keep it short."""

    def on_evaluation_start(self, episodes: int) -> None:
        """Training is over, the last checkpoint is written, and the evaluation begins."""

    def on_evaluation(self, evaluation: Evaluation) -> None:
        """The evaluation is done."""

    def on_end(self, folder: RunFolder) -> None:
        """The run is over, one way or another; called exactly once."""


class CallbackList(Callback):
    """Several callbacks as one; each event reaches them in their order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks = tuple(callbacks)

    def on_start(self, start: RunStart) -> None:
        for callback in self._callbacks:
            callback.on_start(start)

    def on_iteration(self, metrics: Mapping[str, float]) -> None:
        for callback in self._callbacks:
            callback.on_iteration(metrics)

    def on_checkpoint(self, path: Path) -> None:
        for callback in self._callbacks:
            callback.on_checkpoint(path)

    def on_stopping(self, signal_name: str) -> None:
        for callback in self._callbacks:
            callback.on_stopping(signal_name)

    def on_evaluation_start(self, episodes: int) -> None:
        for callback in self._callbacks:
            callback.on_evaluation_start(episodes)

    def on_evaluation(self, evaluation: Evaluation) -> None:
        for callback in self._callbacks:
            callback.on_evaluation(evaluation)

    def on_end(self, folder: RunFolder) -> None:
        for callback in self._callbacks:
            callback.on_end(folder)
