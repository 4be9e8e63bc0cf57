"""One training run from its checked config to its evaluation; what the command line and Python both call."""

from __future__ import annotations

import logging
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rlflow import engine

from . import __version__
from .callbacks import Callback, CallbackList, RunStart
from .config import EngineConfig
from .config_check import CheckedConfig
from .environment import describe_environment
from .errors import CheckpointError, TrainingFailed, TrainingInterrupted
from .failure_report import explain_failure
from .resuming import Resumption
from .run_folder import RunFolder, default_name, shown_path
from .signals import StopSignals

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
        InputError: the run's folder cannot be made, or another process trains into it.
        TrainingFailed: something raised; ``log.txt`` has the traceback.
        TrainingInterrupted: one of ``stop_signals`` came.
    """
    folder = _create_folder(config) if resumption is None else resumption.folder
    listeners = CallbackList(callbacks)
    with ExitStack() as stack:
        stack.enter_context(folder.locked())
        stack.callback(listeners.on_end, folder)
        stack.enter_context(_log_to(folder.log_file))
        signals = stack.enter_context(StopSignals(stop_signals, listeners.on_stopping))
        try:
            stack.enter_context(_running_engine(config.run.engine, folder))
            _train_and_evaluate(config, folder, listeners, signals, resumption)
        except KeyboardInterrupt as interrupt:
            number = getattr(interrupt, "signal", signal.SIGINT)
            newest = folder.list_checkpoints()[-1:]
            log.warning("interrupted by %s", signal.Signals(number).name)
            raise TrainingInterrupted(number, folder.path, newest[0] if newest else None) from None
        except CheckpointError:
            log.error("the run failed:\n%s", traceback.format_exc())
            raise
        except Exception as error:
            log.error("the run failed:\n%s", traceback.format_exc())
            raise TrainingFailed(explain_failure(error, folder.log_file), folder.path) from error
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
    listeners.on_start(RunStart(config, folder, engine.cluster_resources().get("CPU", 0), began_at))
    algorithm = config.algorithm_class(config.algorithm, total_env_steps=run.stop.env_steps)
    try:
        algorithm.setup()
        spent = 0.0
        if resumption is not None:
            spent = _go_on(algorithm, resumption)
        with signals.deferred():
            _train(algorithm, config, folder, listeners, signals, spent)
        if signals.received is not None:
            raise TrainingInterrupted(signals.received)
        if run.evaluation.episodes:
            _evaluate(algorithm, config, folder, listeners)
    finally:
        algorithm.close()


def _go_on(algorithm: Algorithm, resumption: Resumption) -> float:
    """Brings algorithm and folder to where the checkpoint was written; returns the seconds trained until then."""
    if resumption.checkpoint is None:
        log.warning("the run had no checkpoint yet: it begins again")
    else:
        log.info("going on from %s", resumption.checkpoint.path.relative_to(resumption.folder.path))
        algorithm.load_state(resumption.checkpoint.state)
    resumption.folder.write_config(resumption.config.as_mapping())
    return resumption.folder.cut_metrics(resumption.env_steps)


def _train(
    algorithm: Algorithm,
    config: CheckedConfig,
    folder: RunFolder,
    listeners: CallbackList,
    signals: StopSignals,
    spent: float,
) -> None:
    """Iterations until the run's end or a signal; ends with a checkpoint either way.

    Args:
        spent: seconds trained before, if the run goes on from a checkpoint.
    """
    every = config.run.checkpoint.every_env_steps
    saved_at = algorithm.env_steps
    began = time.monotonic() - spent
    while algorithm.env_steps < config.run.stop.env_steps and signals.received is None:
        metrics = algorithm.training_step()
        metrics = {**metrics, "time_total": time.monotonic() - began}
        folder.append_metrics(metrics)
        listeners.on_iteration(metrics)
        if every is not None and algorithm.env_steps - saved_at >= every:
            saved_at = algorithm.env_steps
            _checkpoint(algorithm, config, folder, listeners)
    if saved_at != algorithm.env_steps or not folder.list_checkpoints():
        _checkpoint(algorithm, config, folder, listeners)
    log.info("trained %d env steps in %.1f s", algorithm.env_steps, time.monotonic() - began)


def _checkpoint(algorithm: Algorithm, config: CheckedConfig, folder: RunFolder, listeners: CallbackList) -> None:
    about = {"algorithm": config.run.algorithm, "iteration": algorithm.iteration, "rlflow": __version__}
    path = folder.save_checkpoint(algorithm.env_steps, algorithm.state(), about, config.run.checkpoint.keep)
    log.info("checkpoint %s", path.relative_to(folder.path))
    listeners.on_checkpoint(path)


def _evaluate(algorithm: Algorithm, config: CheckedConfig, folder: RunFolder, listeners: CallbackList) -> None:
    wanted = config.run.evaluation
    listeners.on_evaluation_start(wanted.episodes)
    result = algorithm.evaluate(wanted.episodes, wanted.seed)
    mean, std = float(np.mean(result.returns)), float(np.std(result.returns))
    summary = {
        "env_steps": algorithm.env_steps,
        "episodes": len(result.returns),
        "seed": wanted.seed,
        "mean_return": mean,
        "std_return": std,
        "mean_length": float(np.mean(result.lengths)),
        "returns": [float(value) for value in result.returns],
        "lengths": [int(value) for value in result.lengths],
    }
    folder.write_json(folder.evaluation_file, summary)
    log.info("evaluation: return %.2f ± %.2f over %d episodes", mean, std, len(result.returns))
    listeners.on_evaluation(result)


def _create_folder(config: CheckedConfig) -> RunFolder:
    run = config.run
    env, seed = getattr(config.algorithm, "env", "env"), getattr(config.algorithm, "seed", None)
    name = run.name or default_name(config.algorithm_class.name, env, seed)
    folder = RunFolder.create(Path(run.runs_dir), name)
    folder.write_config(config.as_mapping())
    folder.write_json(folder.environment_file, describe_environment(Path.cwd()))
    return folder


@contextmanager
def _running_engine(config: EngineConfig, folder: RunFolder) -> Iterator[None]:
    """Starts an engine for this run and stops it after; one that runs already is used and left running."""
    if engine.is_initialized():
        log.warning("using the engine that runs already: this run's task history is in that engine's store")
        yield
        return
    engine.init(
        backend=config.backend,
        num_cpus=config.num_cpus,
        object_store_memory=config.object_store_memory,
        store_limit=config.store_limit,
        store=folder.store,
        preload=_preloadable("numpy", "gymnasium", "rlflow.algorithms.rollout"),
    )
    try:
        yield
    finally:
        engine.shutdown()


def _preloadable(*modules: str) -> tuple[str, ...]:
    """Those of ``modules`` that exist, found without importing them here."""
    return tuple(module for module in modules if find_spec(module) is not None)


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Sends the ``rlflow`` logger to the run's ``log.txt``, and its chatter nowhere else."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.info("rlflow %s, run %s", __version__, shown_path(path.parent))
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()
