"""Making, finding, calling and killing the actors of the inline engine: a call runs at once, in the caller's thread."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import ids
from ..backend import ActorInfo
from ..exceptions import ActorDiedError
from ..functions import Exported
from ..options import ActorOptions, demand
from ..refs import ObjectRef
from ..runtime_env import merged
from ..serialization import dump_engine_error, dumps, load_error
from .actors import InlineActor
from .objects import StoredObject
from .scope import PASS_THROUGH, Scope
from .surroundings import refuse_folders

if TYPE_CHECKING:
    from .backend import InlineBackend


class InlineHandles:
    """The methods are those of :class:`rlflow.engine.backend.Backend`."""

    def __init__(self, backend: InlineBackend) -> None:
        self._backend = backend
        self._actors: dict[bytes, InlineActor] = {}
        self._names: dict[tuple[str, str], InlineActor] = {}
        self._lock = threading.RLock()

    def living(self) -> list[InlineActor]:
        """Those that hold what they asked for."""
        return [actor for actor in self._actors.values() if actor.death is None and actor.never is None]

    def clear(self) -> None:
        for actor in list(self._actors.values()):
            self.end(actor, "the engine was shut down")
        self._actors.clear()

    def create_actor(
        self,
        cls: Exported,
        methods: Mapping[str, int],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
    ) -> tuple[ActorInfo, ObjectRef]:
        packed = StoredObject.packed(dumps((args, kwargs)))
        actor_id = self._backend.scope().next_task_id()
        key = (options.namespace or self._backend.namespace, options.name) if options.name else None
        actor = InlineActor(
            ActorInfo(actor_id, cls.name, dict(methods), options.max_pending_calls), cls, options, key, packed,
            demand(options),
            restarts_left=options.max_restarts,
            environment=merged(self._backend.scope().environment, options.runtime_env),
        )
        refuse_folders(actor.environment)
        with self._lock:
            if key is not None and key in self._names:
                if options.get_if_exists:
                    return self._handle(self._names[key])
                raise ValueError(f"an actor named {key[1]!r} lives in namespace {key[0]!r} already")
            if key is not None:
                self._names[key] = actor
            self._actors[actor_id] = actor
        stored = StoredObject.of(None)
        stored.on_free = lambda: self.end(actor, "its last handle is gone")
        handle = self._backend.objects.add(ids.handle_id(actor_id), stored)
        if options.lifetime == "detached":
            actor.own_handle = self._backend.objects.adopt(ids.handle_id(actor_id))
        actor.never = self._backend.why_never(f"actor {cls.name}", actor.demand)
        if actor.never is None:
            actor.gpus, actor.share = self._backend.gpus.lend(actor.demand.get("GPU", 0))
            self._start(actor)
        return actor.info, handle

    def _start(self, actor: InlineActor) -> None:
        """Runs ``__init__``; its error, if any, is what every call then gets."""
        packed = actor.creation
        assert packed is not None
        scope = self._actor_scope(actor, actor.info.actor_id)
        made: list[Any] = []

        def construct(*args: Any, **kwargs: Any) -> None:
            made.append(self._backend.load_function(actor.cls)(*args, **kwargs))

        with actor.lock:
            try:
                [result] = self._backend.run(scope, f"{actor.cls.name}.__init__", lambda: construct, packed, 1)
            except PASS_THROUGH:
                self.end(actor, "its __init__ was interrupted")
                raise
            if result.error is not None:
                self.end(actor, "its __init__ failed", load_error(result.error))
            elif result.never is not None:
                actor.never = result.never
            elif actor.death is None:  # it may have killed itself
                actor.instance = made[0]
                if not actor.restarts_left:
                    actor.creation = None

    def submit_call(
        self,
        actor: ActorInfo,
        handle: ObjectRef,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        num_returns: int,
    ) -> list[ObjectRef]:
        packed = StoredObject.packed(dumps((args, kwargs)))
        task = self._backend.scope().next_task_id()
        results = self._call(actor, task, method, packed, num_returns)
        return [self._backend.objects.add(ids.object_id(task, i), stored) for i, stored in enumerate(results)]

    def _call(
        self, info: ActorInfo, task: bytes, method: str, packed: StoredObject, num_returns: int
    ) -> list[StoredObject]:
        actor = self._actors.get(info.actor_id)
        if actor is None:
            unknown = Exported(b"", b"", info.class_name)
            actor = InlineActor(info, unknown, ActorOptions(), None, None, {})
            actor.die("this engine does not know it; it lived in an engine that was shut down")
        with actor.lock:
            if actor.never is not None:
                return [StoredObject(never=actor.never) for _ in range(num_returns)]
            generation = actor.generation
            if actor.death is None:
                instance = actor.instance
                name = f"{info.class_name}.{method}"
                scope = self._actor_scope(actor, task)
                target = partial(getattr, instance, method)
                results = self._backend.run(scope, name, target, packed, num_returns)
            if actor.generation == generation and actor.death is None:
                return results
            # Dead before the call or killed by it: what it returned would never have left its process.
            return [StoredObject(error=actor.death or _restarted(actor)) for _ in range(num_returns)]

    def _actor_scope(self, actor: InlineActor, task: bytes) -> Scope:
        return Scope(ids.child_scope(task), task, actor.info.actor_id, {}, actor.environment, actor)

    def get_actor(self, name: str, namespace: str | None) -> tuple[ActorInfo, ObjectRef]:
        space = namespace or self._backend.namespace
        with self._lock:
            actor = self._names.get((space, name))
            if actor is None:
                raise ValueError(f"no actor named {name!r} in namespace {space!r}")
            return self._handle(actor)

    def named_actors(self) -> list[tuple[str, str]]:
        with self._lock:
            return list(self._names)

    def _handle(self, actor: InlineActor) -> tuple[ActorInfo, ObjectRef]:
        return actor.info, self._backend.objects.adopt(ids.handle_id(actor.info.actor_id))

    def current_actor(self) -> tuple[type, bytes, ObjectRef] | None:
        actor = self._backend.scope().actor
        if actor is None or actor.instance is None:
            return None
        _, handle = self._handle(actor)
        return type(actor.instance), actor.info.actor_id, handle

    def kill_actor(self, actor: ActorInfo, no_restart: bool) -> None:
        found = self._actors.get(actor.actor_id)
        if found is None or found.death is not None:
            return
        if no_restart or not found.restarts_left:
            self.end(found, "kill() was called on it")
            return
        if found.restarts_left > 0:
            found.restarts_left -= 1
        if found.options.checkpoint_every is not None:  # restored it would be what it is
            return
        found.instance = None
        found.generation += 1
        self._start(found)

    def end(self, actor: InlineActor, reason: str, cause: BaseException | None = None) -> None:
        with self._lock:
            if actor.key is not None and self._names.get(actor.key) is actor:
                del self._names[actor.key]
            if self._backend.objects.find(ids.handle_id(actor.info.actor_id)) is None:
                self._actors.pop(actor.info.actor_id, None)
        if actor.death is None:
            self._backend.gpus.take_back(actor.share)
        actor.die(reason, cause)

def _restarted(actor: InlineActor) -> bytes:
    return dump_engine_error(ActorDiedError(f"actor {actor.info.class_name} was restarted during this call"))
