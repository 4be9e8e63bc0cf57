"""Ctrl-C and SIGTERM, turned into an orderly end: finish the iteration, save, leave."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType

from rlflow.engine.interrupts import hold_back

from .errors import TrainingInterrupted


class StopSignals:
    """Watches for signals while it is entered.

    Outside :meth:`deferred` a signal raises :class:`TrainingInterrupted` where the program stands. Inside it,
    the first one only sets :attr:`received`, so that the caller ends at a point where its state is whole; a
    second one raises, for people who cannot wait. In threads other than the main one it does nothing, since
    Python delivers signals to the main thread only.
    """

    def __init__(self, signals: Sequence[signal.Signals], on_first: Callable[[str], None]) -> None:
        """
        Args:
            signals: which signals to watch for.
            on_first: called with the signal's name when it is put off; runs inside the signal handler.
        """
        self._signals = tuple(signals)
        self._on_first = on_first
        self._previous: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}
        self._deferring = False
        self.received: int | None = None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._previous.items():
            # None stands for a handler that was not installed from Python and cannot be put back from it.
            signal.signal(number, previous if previous is not None else signal.SIG_DFL)
        self._previous.clear()

    def deferred(self) -> _Deferral:
        """``with signals.deferred(): ...`` lets the block finish before a first signal counts."""
        return _Deferral(self)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._deferring and self.received is None:
            self.received = number
            self._on_first(signal.Signals(number).name)
        elif not hold_back(number, frame):  # else it comes again in a moment: not in the midst of engine bookkeeping
            self.received = number
            raise TrainingInterrupted(number)


class _Deferral:
    def __init__(self, signals: StopSignals) -> None:
        self._signals = signals

    def __enter__(self) -> None:
        self._signals._deferring = True

    def __exit__(self, *error: object) -> None:
        self._signals._deferring = False
