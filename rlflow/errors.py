"""What goes wrong in ways a person can mend; the command line prints these without a traceback."""

from __future__ import annotations

from pathlib import Path
from signal import SIGTERM


class RlflowError(Exception):
    """Root of this package's own errors; the message alone says what happened and what to do."""

    exit_code = 1


class InputError(RlflowError):
    """What was asked cannot be done: a bad argument, a missing file, a folder that cannot be written."""

    exit_code = 2


class CheckpointError(RlflowError, ValueError):
    """A state that cannot be saved faithfully, or a checkpoint that cannot be read."""


class TrainingFailed(RlflowError):
    """A run broke off with an error. The message is short; the run's ``log.txt`` has the traceback."""

    def __init__(self, message: str, run: Path) -> None:
        super().__init__(message)
        self.run = run


class TrainingInterrupted(KeyboardInterrupt):
    """A signal ended the run early; a ``KeyboardInterrupt``, so that ``except Exception`` lets it pass.

    Attributes:
        signal: number of the signal.
        run: the run's folder, or ``None`` when none was made yet.
        checkpoint: the newest checkpoint of the run, or ``None`` when there is none.
    """

    def __init__(self, signal: int, run: Path | None = None, checkpoint: Path | None = None) -> None:
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal
        self.run = run
        self.checkpoint = checkpoint

    @property
    def exit_code(self) -> int:
        """0 for SIGTERM when there is a checkpoint to go on from: who preempts a job asks for no more than that.

        Else what shells report for a process that the signal ended: 130 for Ctrl-C, 143 for SIGTERM.
        """
        return 0 if self.signal == SIGTERM and self.checkpoint is not None else 128 + self.signal

    def _render_traceback_(self) -> list[str]:
        """For IPython: the stop button is no error to be traced."""
        where = "" if self.run is None else f'; rlflow.load("{self.run}").resume() goes on'
        return [f"training was stopped{where}"]
