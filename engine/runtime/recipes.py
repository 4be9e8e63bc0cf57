"""Recipes of what this process submits, encoded once for each remote function and each method (``messages.Recipe``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import messages as m
from ..backend import ActorInfo
from ..functions import Exported
from ..options import TaskOptions

if TYPE_CHECKING:
    from .process import ProcessBackend

REMEMBERED = 1000
"""Of either kind; past it all are made again as they are needed."""


class SubmittedRecipes:
    """See the module's essay."""

    def __init__(self, process: ProcessBackend) -> None:
        self._process = process
        self._of_tasks: dict[tuple[bytes, int], tuple[TaskOptions, bytes]] = {}
        """By function and the identity of its options, which are kept here so that no others take that."""
        self._of_calls: dict[tuple[bytes, str, int], bytes] = {}

    def of_task(self, function: Exported, options: TaskOptions) -> bytes:
        """That of a remote function."""
        known = self._of_tasks.get((function.id, id(options)))
        if known is not None:
            return known[1]
        process = self._process
        environment = process.environment_of(options.runtime_env) if options.runtime_env or process.environment else ""
        encoded = m.encode(m.Recipe(
            m.TASK, function.id, process.process, options.num_returns, options.demand, options.max_retries,
            options.name or function.name, environment=environment,
            retry_exceptions=options.pickled_retry_exceptions, max_calls=options.max_calls,
        ))
        if options.scheduling_strategy is None:  # or they may hold a ref, which would live as long as they do
            if len(self._of_tasks) >= REMEMBERED:
                self._of_tasks.clear()
            self._of_tasks[function.id, id(options)] = options, encoded
        return encoded

    def of_call(self, actor: ActorInfo, method: str, num_returns: int) -> bytes:
        """That of an actor's method."""
        key = (actor.actor_id, method, num_returns)
        encoded = self._of_calls.get(key)
        if encoded is None:
            if len(self._of_calls) >= REMEMBERED:
                self._of_calls.clear()
            encoded = self._of_calls[key] = m.encode(m.Recipe(
                m.CALL, actor.actor_id, self._process.process, num_returns, {}, 0, actor.class_name, method
            ))
        return encoded
