"""Who submits: the driver, or a task that runs."""

from __future__ import annotations

import bdb
import itertools

from .. import ids
from .actors import InlineActor

PASS_THROUGH = (KeyboardInterrupt, bdb.BdbQuit)
"""Whoever sits at the terminal means the program with these, not the task."""


class Scope:
    """A program that submits: the driver or one running task."""

    __slots__ = ("actor", "actor_id", "demand", "environment", "gpus", "indices", "name", "task_id")

    def __init__(
        self, name: bytes, task_id: bytes | None, actor_id: bytes | None, held: dict[str, int],
        environment: str = "", actor: InlineActor | None = None,
    ) -> None:
        self.actor = actor
        self.environment = environment
        self.gpus: tuple[str, ...] = () if actor is None else actor.gpus
        self.name = name
        self.indices = itertools.count()
        self.task_id = task_id
        self.actor_id = actor_id
        self.demand = held

    def next_task_id(self) -> bytes:
        return ids.task_id(self.name, next(self.indices))
