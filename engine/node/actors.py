"""The table of actors: names, states, who watches, what a death means. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..departed import process_number
from ..messages import ActorState, CreateActor
from .leases import Task

PENDING, ALIVE, DEAD = range(3)

LIVES_REMEMBERED = 100
"""Of a recoverable actor; what it submitted in older ones and has not ended is none of its log's any more."""


@dataclass
class Actor:
    """One actor. ``PENDING`` both before its first start and between two lives."""

    id: bytes
    request: CreateActor
    creation: Task
    owner: str
    state: int = PENDING
    worker: str = ""
    error: str = ""
    cause: bytes = b""
    incarnation: int = 0
    restarts_left: int = 0
    farewell: str = ""
    """Why it is ending by its own will or for want of handles; empty when it is not."""
    handles_gone: bool = False
    successor: tuple[str, CreateActor] | None = None
    """Who asked for an actor of the same id while this one was ending, and how."""
    lives: list[str] = field(default_factory=list)
    """Of a recoverable one: the processes it has lived in, the last ones."""
    born: int = 0
    """How many workers there had been when it was created."""
    first_lives: list[str] = field(default_factory=list)
    """Those of its processes that are older than it."""
    watchers: set[str] = field(default_factory=set)
    changed: set[bytes] = field(default_factory=set)
    """The table's."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if "changed" in self.__dict__:
            self.changed.add(self.id)

    def describe(self) -> str:
        name = f" {self.request.name!r}" if self.request.name else ""
        return f"actor {self.request.class_name}{name} ({self.id.hex()})"

    def moves_to(self, worker: str) -> list[str]:
        """It is to live there. Returns the lives that are forgotten for it."""
        lives = [*self.lives, worker]  # assigned anew, which makes it known to a node that takes our place
        if (process_number(worker) or 0) <= self.born:
            self.first_lives = [*self.first_lives, worker]
        self.lives = lives[-LIVES_REMEMBERED:]
        return lives[:-LIVES_REMEMBERED]

    def has_lived_in(self, worker: str) -> bool:
        """Of a process that has run calls of this actor, or of an earlier one with its id.

        The earlier one was dead when this one was created, so no process of its is younger.
        """
        return worker in self.first_lives or (process_number(worker) or 0) > self.born

    def message(self) -> ActorState:
        worker = self.worker if self.state == ALIVE else ""
        return ActorState(self.id, worker, self.error, self.cause, self.incarnation, self._retries())

    def _retries(self) -> int:
        """How often callers send a call again that got no answer: one that was logged got it."""
        logged = self.request.checkpoint_every >= 0 and self.request.replay
        return -1 if logged else self.request.max_task_retries


class ActorTable:
    """All actors of the session, by id and by name."""

    def __init__(self) -> None:
        self._actors: dict[bytes, Actor] = {}
        self._names: dict[tuple[str, str], bytes] = {}
        self.changed: set[bytes] = set()
        """Actors that are not what they were, for the node to remember (``journal.py``)."""

    def add(self, actor: Actor) -> None:
        self._actors[actor.id] = actor
        actor.changed = self.changed
        if actor.request.name and actor.state != DEAD:
            self._names[actor.request.namespace, actor.request.name] = actor.id

    def get(self, actor_id: bytes) -> Actor | None:
        return self._actors.get(actor_id)

    def named(self, namespace: str, name: str) -> Actor | None:
        """The living (or coming) actor of that name; one that nobody has a handle on is as good as gone."""
        actor_id = self._names.get((namespace, name))
        actor = None if actor_id is None else self._actors[actor_id]
        return None if actor is None or actor.farewell else actor

    def all(self) -> list[Actor]:
        return list(self._actors.values())

    def is_living(self, actor_id: bytes) -> bool:
        actor = self._actors.get(actor_id)
        return actor is not None and actor.state != DEAD

    def living(self) -> int:
        """How many are alive or to come."""
        return sum(actor.state != DEAD for actor in self._actors.values())

    def names(self) -> list[tuple[str, str]]:
        """(namespace, name) of all that can be found."""
        return [key for key in self._names if self.named(*key) is not None]

    def started(self, actor: Actor, worker: str) -> None:
        actor.state = ALIVE
        actor.worker = worker

    def died(self, actor: Actor, error: str, cause: bytes) -> None:
        """For good: its name is free again."""
        actor.state = DEAD
        actor.error = error
        actor.cause = cause
        key = (actor.request.namespace, actor.request.name)
        if self._names.get(key) == actor.id:
            del self._names[key]

    def process_died(self, process: str) -> None:
        """It wants to hear of no actor any more."""
        for actor in self._actors.values():
            actor.watchers.discard(process)

    def remove(self, actor: Actor) -> None:
        """Forgets a dead actor that nobody has a handle on."""
        self._actors.pop(actor.id, None)
        self.changed.add(actor.id)

    def __len__(self) -> int:
        return len(self._actors)

    def may_restart(self, actor: Actor) -> bool:
        """Whether it shall start again after its worker died; counts the restart."""
        if actor.farewell or actor.restarts_left == 0:
            return False
        if actor.restarts_left > 0:
            actor.restarts_left -= 1
        actor.state = PENDING
        actor.worker = ""
        actor.incarnation += 1
        return True
