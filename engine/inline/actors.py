"""Actors of the inline engine: an instance, a lock and, once it is dead, the reason."""

from __future__ import annotations

import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from ..backend import ActorInfo
from ..exceptions import ActorDiedError
from ..functions import Exported
from ..node.accelerators import Share
from ..options import ActorOptions
from ..refs import ObjectRef
from ..serialization import dump_engine_error
from .coroutines import InlineLoop
from .objects import StoredObject


@dataclass(eq=False)
class InlineActor:
    """One actor."""

    info: ActorInfo
    cls: Exported
    options: ActorOptions
    key: tuple[str, str] | None
    """(namespace, name) of a named actor."""
    creation: StoredObject | None
    """The arguments of ``__init__``, kept while the actor may be restarted."""
    demand: dict[str, int]
    environment: str = ""
    gpus: tuple[str, ...] = ()
    share: Share = field(default_factory=dict)
    instance: Any = None
    death: bytes | None = None
    """The pickled ActorDiedError, once it is dead."""
    never: str | None = None
    """Why it can never start, when it asks for what the engine does not have."""
    restarts_left: int = 0
    generation: int = 0
    own_handle: ObjectRef | None = None
    """Of a detached actor, which needs nobody else's."""
    loop: InlineLoop | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    """One call at a time. Re-entrant, for an actor that calls itself runs that call inside the first one."""

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Runs an ``async def`` method to its end."""
        if self.loop is None:
            self.loop = InlineLoop()
        return self.loop.run(coroutine)

    def die(self, reason: str, cause: BaseException | None = None) -> None:
        """Drops the instance; every call from now on gets the reason."""
        if self.death is None:
            who = f"actor {self.info.class_name} ({self.info.actor_id.hex()})"
            error = ActorDiedError(f"{who} is dead: {reason}")
            error.__cause__ = cause
            self.death = dump_engine_error(error)
        if self.loop is not None:
            self.loop.close()
            self.loop = None
        self.instance = None
        self.own_handle = None
        self.creation = None
        self.generation += 1
