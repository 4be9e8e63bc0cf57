"""An algorithm as a run's checkpoint left it, on an engine, to be evaluated, filmed or exported; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlflow import engine

from .checkpoint import load_checkpoint
from .config_check import check_config
from .config_source import read_config_file
from .errors import InputError
from .run_engine import running_engine
from .run_folder import RunFolder, shown_path

if TYPE_CHECKING:
    from rlflow.algorithms.base import Algorithm

    from .config_check import CheckedConfig


@contextmanager
def restored(
    folder: RunFolder,
    backend: Literal["local", "inline"] | None = None,
    checkpoint: str = "last",
    algorithm_class: type[Algorithm] | None = None,
) -> Iterator[tuple[CheckedConfig, Algorithm]]:
    """The run's config, and its algorithm with the state of a checkpoint.

    Args:
        folder: the run.
        backend: of the engine, when none runs yet; as in the run's config by default.
        checkpoint: ``"best"``, ``"last"`` (the default), or a name such as ``step_50000``.
        algorithm_class: of a run whose class cannot be imported by its name, such as a notebook's.

    Raises:
        InputError: there is no such checkpoint.
        CheckpointError: it cannot be read.
        ConfigError: the run's config is none that this rlflow accepts.
    """
    state = load_checkpoint(find_checkpoint(folder, checkpoint)).state
    config = check_config(read_config_file(folder.config_file), algorithm_class)

    with ExitStack() as stack:
        if not engine.is_initialized():
            stack.enter_context(running_engine(config.run.engine, backend))
        algorithm = config.algorithm_class(config.algorithm, total_env_steps=config.run.stop.env_steps)
        try:
            algorithm.setup()
            algorithm.load_state(state)
            yield config, algorithm
        finally:
            algorithm.close()


def find_checkpoint(folder: RunFolder, name: str) -> Path:
    """``"last"``, ``"best"`` (by evaluations in between, else by training returns), or that of a name.

    Raises:
        InputError: the run has none, or not this one.
    """
    found = {path.name: path for path in folder.list_checkpoints()}
    if not found:
        raise InputError(f"{shown_path(folder.path)} has no checkpoint yet: train it further, then try again")
    last = list(found.values())[-1]
    found |= {"last": last, "best": folder.best_checkpoint() or last}
    if name not in found:
        raise InputError(f"{shown_path(folder.path)} has no checkpoint {name!r}; it has {', '.join(found)}")
    return found[name]
