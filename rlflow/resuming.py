"""Going on with a run that ended early, from the newest checkpoint that can be read.

The promise: no step is lost that a checkpoint holds, and none is counted twice. What the run wrote after that
checkpoint is taken back, since those iterations will be made again; with the same config they give the same numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .checkpoint import Checkpoint, load_checkpoint
from .config_check import CheckedConfig, check_config
from .config_source import apply_arguments, apply_overrides, dotted, read_config_file
from .errors import CheckpointError
from .run_folder import RunFolder, find_run, shown_path

if TYPE_CHECKING:
    from rlflow.algorithms.base import Algorithm

CHANGEABLE = ("stop", "evaluation", "checkpoint", "engine", "callbacks", "trackers")
"""What may differ from the run as it was. Anything else would make it another run."""

log = logging.getLogger("rlflow")


@dataclass(frozen=True)
class Resumption:
    """A run that can go on."""

    folder: RunFolder
    config: CheckedConfig
    checkpoint: Checkpoint | None
    """``None``: it ended before its first one, and begins again."""

    @property
    def env_steps(self) -> int:
        """Where it goes on."""
        return 0 if self.checkpoint is None else int(self.checkpoint.about["env_steps"])

    same_end: bool = True
    """``stop`` is what it was."""

    @property
    def is_complete(self) -> bool:
        """Nothing is left to do."""
        run = self.config.run
        status = self.folder.read_status()
        over = self.same_end and (status["state"], status["env_steps"]) == ("complete", self.env_steps)
        over = over or self.env_steps >= run.stop.env_steps
        return over and self.folder.is_evaluated(run.evaluation.episodes)


def find_resumption(
    run: str,
    overrides: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
    algorithm_class: type[Algorithm] | None = None,
) -> Resumption:
    """The run that a person means by ``run``, ready to go on.

    Args:
        run: its folder, or its name under ``runs/``.
        overrides: ``key=value`` of keys in :data:`CHANGEABLE`.
        arguments: the same as keyword arguments of a Python call.
        algorithm_class: of a run whose class cannot be imported by its name, such as a notebook's.

    Raises:
        InputError: there is no such run, or an override would make it another run.
        CheckpointError: it has checkpoints and none of them can be read.
    """
    folder = find_run(run)
    source = read_config_file(folder.config_file)
    apply_overrides(source, overrides)
    apply_arguments(source, arguments or {})
    changed = [path for path, origin in source.origins.items() if origin.label.startswith(("override", "argument"))]
    for path in changed:
        if path[0] not in CHANGEABLE:
            source.add_problem(
                path, f"a run that goes on keeps its {dotted(path)}; what may change is {', '.join(CHANGEABLE)}"
            )
    config = check_config(source, algorithm_class)
    same_end = not any(path[0] == "stop" for path in changed)
    return Resumption(folder, config, _newest_readable(folder), same_end)


def _newest_readable(folder: RunFolder) -> Checkpoint | None:
    failure: CheckpointError | None = None
    for path in reversed(folder.list_checkpoints()):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            log.warning("%s cannot be read, trying the one before: %s", shown_path(path), error)
            failure = failure or error
    if failure is not None:
        raise failure
    return None
