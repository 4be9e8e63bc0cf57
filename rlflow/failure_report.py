"""Words a failed run for the person who started it: what happened, where, and where the traceback is."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from rlflow.engine.exceptions import EngineError, TaskError

from .run_folder import shown_path

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
            return f"{cause}\nIt happened in {error.function}{where}."
        if isinstance(cause, (RLError, EngineError)):
            return f"{error.function} failed{where}: {cause}"
        frames = _FRAME.findall(error.remote_traceback)
        last_line = (error.remote_traceback.strip().splitlines() or [type(error).__name__])[-1]
        return f"{error.function} failed{where}: {last_line}{_at(frames[-1][:2] if frames else None)}"
    if isinstance(error, (RLError, EngineError)):
        return str(error)
    frame = (traceback.extract_tb(error.__traceback__) or [None])[-1]
    place = None if frame is None else (frame.filename, str(frame.lineno))
    return f"{type(error).__name__}: {error}{_at(place)}"


def _at(place: tuple[str, str] | None) -> str:
    return "" if place is None else f"\n  at {shown_path(Path(place[0]))}, line {place[1]}"
