"""An algorithm as a run's checkpoint left it, on an engine, to be evaluated, filmed or exported; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from rlflow import engine

from .checkpoint import load_checkpoint
from .config_check import check_config
from .config_source import read_config_file
from .errors import InputError
from .run_folder import RunFolder, shown_path

if TYPE_CHECKING:
    from rlflow.algorithms.base import Algorithm

    from .config_check import CheckedConfig


@contextmanager
def restored(
    folder: RunFolder, backend: Literal["local", "inline"] | None = None, checkpoint: str | None = None
) -> Iterator[tuple[CheckedConfig, Algorithm]]:
    """The run's config, and its algorithm with the state of a checkpoint.

    Args:
        folder: the run.
        backend: of the engine, when none runs yet; as in the run's config by default.
        checkpoint: name of the checkpoint, such as ``step_50000``; the newest by default.

    Raises:
        InputError: there is no such checkpoint.
        CheckpointError: it cannot be read.
        ConfigError: the run's config is none that this rlflow accepts.
    """
    found = {path.name: path for path in folder.list_checkpoints()}
    if not found:
        raise InputError(f"{shown_path(folder.path)} has no checkpoint yet: train it further, then try again")
    if checkpoint is not None and checkpoint not in found:
        raise InputError(f"{shown_path(folder.path)} has no checkpoint {checkpoint!r}; it has {', '.join(found)}")
    state = load_checkpoint(found[checkpoint or list(found)[-1]]).state
    config = check_config(read_config_file(folder.config_file))

    started = not engine.is_initialized()
    if started:
        settings = config.run.engine
        engine.init(backend=backend or settings.backend, num_cpus=settings.num_cpus)
    try:
        algorithm = config.algorithm_class(config.algorithm, total_env_steps=config.run.stop.env_steps)
        try:
            algorithm.setup()
            algorithm.load_state(state)
            yield config, algorithm
        finally:
            algorithm.close()
    finally:
        if started:
            engine.shutdown()
