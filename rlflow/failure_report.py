"""Words a failed run for the person who started it: what happened, where, and where the traceback is."""

from __future__ import annotations

import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from rlflow.engine.exceptions import EngineError, TaskError

from .run_folder import shown_path

if TYPE_CHECKING:
    from rlflow.algorithms.errors import EnvStepError

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)', re.MULTILINE)


def explain_failure(error: BaseException, log_file: Path) -> str:
    """A few lines without a traceback."""
    return f"{_what_happened(error)}\nThe traceback is in {shown_path(log_file)}"


def _what_happened(error: BaseException) -> str:
    from rlflow.algorithms.errors import EnvStepError, RLError

    if isinstance(error, TaskError):
        cause = error.cause
        while isinstance(cause, TaskError):  # a task that waited for another that failed
            error, cause = cause, cause.cause
        where = f" on {error.worker}" if error.worker else ""
        if isinstance(cause, EnvStepError):
            return _env_failure(cause)
        if isinstance(cause, (RLError, EngineError)):
            return f"{error.function} failed{where}: {cause}"
        frames = _FRAME.findall(error.remote_traceback)
        last_line = (error.remote_traceback.strip().splitlines() or [type(error).__name__])[-1]
        return f"{error.function} failed{where}: {last_line}{_at(frames[-1][:2] if frames else None)}"
    if isinstance(error, EnvStepError):
        return _env_failure(error)
    if isinstance(error, (RLError, EngineError)):
        return str(error)
    frame = (traceback.extract_tb(error.__traceback__) or [None])[-1]
    place = None if frame is None else (frame.filename, str(frame.lineno))
    return f"{type(error).__name__}: {error}{_at(place)}"


def _env_failure(error: EnvStepError) -> str:
    """Worker, env index, seed and action from the error's first line; of the env's traceback only its end."""
    frames = _FRAME.findall(error.trace)
    reason = (error.trace.strip().splitlines() or ["(no message)"])[-1]
    return f"{str(error).splitlines()[0]}\n  {reason}{_at(frames[-1][:2] if frames else None)}"


def _at(place: tuple[str, str] | None) -> str:
    return "" if place is None else f"\n  at {shown_path(Path(place[0]))}, line {place[1]}"
