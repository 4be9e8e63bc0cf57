"""One training run from its checked config to its evaluation; what the command line and Python both call."""

from __future__ import annotations

import logging
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rlflow import engine

from .callback_loading import make_callbacks
from .callbacks import Callback, CallbackList, RunStart
from .config import EngineConfig
from .config_check import CheckedConfig
from .environment import describe_environment
from .errors import CheckpointError, TrainingFailed, TrainingInterrupted
from .failure_report import explain_failure
from .resuming import Resumption
from .run_engine import running_engine
from .run_folder import RunFolder, default_name
from .run_log import log_to
from .signals import StopSignals
from .system_monitor import SystemMonitor
from .trackers import make_trackers
from .training_loop import TrainingLoop

if TYPE_CHECKING:
    from rlflow.algorithms.base import Algorithm

log = logging.getLogger("rlflow")


def run_training(
    config: CheckedConfig,
    callbacks: Sequence[Callback] = (),
    stop_signals: Sequence[signal.Signals] = (signal.SIGINT,),
    resumption: Resumption | None = None,
) -> RunFolder:
    """Trains, checkpoints, evaluates, and leaves a complete run folder.

    Args:
        config: what to train.
        callbacks: who listens.
        stop_signals: signals that end the run early but in order, with a last checkpoint.
        resumption: the run to go on with; a new one by default.

    Returns:
        The run's folder.

    Raises:
        InputError: the run's folder cannot be made, another process trains into it, or a callback or tracker of the
            config cannot be made.
        TrainingFailed: something raised; ``log.txt`` has the traceback.
        TrainingInterrupted: one of ``stop_signals`` came.
    """
    named, trackers = make_callbacks(config.run.callbacks), make_trackers(config.run.trackers)
    # Those that may add to the metrics come before those that show and send them.
    listeners = CallbackList([*named, *callbacks, *trackers, SystemMonitor()])
    folder = _create_folder(config) if resumption is None else resumption.folder
    with ExitStack() as stack:
        stack.enter_context(folder.locked())
        stack.callback(listeners.on_end, folder)
        stack.enter_context(log_to(folder.log_file))
        signals = stack.enter_context(StopSignals(stop_signals, listeners.on_stopping))
        try:
            stack.enter_context(_engine_of_run(config.run.engine, folder))
            _train_and_evaluate(config, folder, listeners, signals, resumption)
        except KeyboardInterrupt as interrupt:
            number = getattr(interrupt, "signal", signal.SIGINT)
            newest = folder.list_checkpoints()[-1:]
            name = signal.Signals(number).name
            log.warning("interrupted by %s", name)
            _note_end(folder, "stopped", name)
            raise TrainingInterrupted(number, folder.path, newest[0] if newest else None) from None
        except CheckpointError as error:
            log.error("the run failed:\n%s", traceback.format_exc())
            _note_end(folder, "failed", str(error))
            raise
        except Exception as error:
            log.error("the run failed:\n%s", traceback.format_exc())
            report = explain_failure(error, folder.log_file)
            _note_end(folder, "failed", report.splitlines()[0])
            raise TrainingFailed(report, folder.path) from error
    return folder


def _train_and_evaluate(
    config: CheckedConfig,
    folder: RunFolder,
    listeners: CallbackList,
    signals: StopSignals,
    resumption: Resumption | None,
) -> None:
    run = config.run
    began_at = 0 if resumption is None else resumption.env_steps
    folder.write_status("running", began_at, "")
    listeners.on_start(RunStart(config, folder, engine.cluster_resources().get("CPU", 0), began_at))
    algorithm = config.algorithm_class(config.algorithm, total_env_steps=run.stop.env_steps)
    try:
        algorithm.setup()
        spent = 0.0 if resumption is None else _go_on(algorithm, resumption)
        loop = TrainingLoop(algorithm, config, folder, listeners, spent)
        with signals.deferred():
            reason = loop.run(signals)
        if signals.received is not None:
            raise TrainingInterrupted(signals.received)
        if run.evaluation.episodes:
            loop.evaluate_at_end()
        folder.write_status("complete", algorithm.env_steps, reason)
    finally:
        algorithm.close()


def _note_end(folder: RunFolder, state: str, reason: str) -> None:
    rows = folder.read_metrics()
    folder.write_status(state, int(rows[-1]["env_steps"]) if rows else 0, reason)


def _go_on(algorithm: Algorithm, resumption: Resumption) -> float:
    """Brings algorithm and folder to where the checkpoint was written; returns the seconds trained until then."""
    if resumption.checkpoint is None:
        log.warning("the run had no checkpoint yet: it begins again")
    else:
        log.info("going on from %s", resumption.checkpoint.path.relative_to(resumption.folder.path))
        algorithm.load_state(resumption.checkpoint.state)
    resumption.folder.write_config(resumption.config.as_mapping())
    return resumption.folder.cut_back(resumption.env_steps)


def _create_folder(config: CheckedConfig) -> RunFolder:
    run = config.run
    env, seed = getattr(config.algorithm, "env", "env"), getattr(config.algorithm, "seed", None)
    name = run.name or default_name(config.algorithm_class.name, env, seed)
    folder = RunFolder.create(Path(run.runs_dir), name)
    folder.write_config(config.as_mapping())
    folder.write_json(folder.environment_file, describe_environment(Path.cwd()))
    return folder


@contextmanager
def _engine_of_run(config: EngineConfig, folder: RunFolder) -> Iterator[None]:
    """Starts an engine for this run and stops it after; one that runs already is used and left running."""
    if engine.is_initialized():
        log.warning("using the engine that runs already: this run's task history is in that engine's store")
        yield
        return
    preload = ("numpy", "gymnasium", "rlflow.algorithms.rollout")
    with running_engine(config, store=folder.store, preload=preload):
        yield
