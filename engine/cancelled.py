"""The error of what was cancelled, as the driver, the node and the workers give it."""

from __future__ import annotations

from . import messages as m
from .exceptions import TaskCancelledError
from .serialization import dump_engine_error


def cancelled_error(spec: m.Spec) -> bytes:
    """What ``get`` of its results raises."""
    name = f"{spec.recipe.name}.{spec.recipe.method}" if spec.recipe.method else spec.recipe.name
    kind = "call" if spec.recipe.kind == m.CALL else "task"
    return dump_engine_error(TaskCancelledError(f"{kind} {name} ({spec.task.hex()}) was cancelled"))
