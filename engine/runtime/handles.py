"""Handles of actors in one process: making an actor, finding it by its name, calling it, killing it.

A handle is a ref to a pseudo-object, the handle id, whose holders the node counts: the last one gone, the actor leaves.
How a call gets to its actor, and what becomes of it when the actor dies, is in ``actor_calls.py``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from .. import messages as m
from ..backend import ActorInfo
from ..functions import Exported
from ..ids import handle_id
from ..options import ActorOptions, demand
from ..refs import ObjectRef
from .actor_calls import CALLS_PER_BATCH, PendingCall
from .arguments import NOTHING, pack_arguments

if TYPE_CHECKING:
    from .process import ProcessBackend


class ActorHandles:
    """See the module's essay; the methods are those of :class:`rlflow.engine.backend.Backend`."""

    def __init__(self, process: ProcessBackend) -> None:
        self._process = process
        self._calls = 0

    def create_actor(
        self,
        cls: Exported,
        methods: Mapping[str, int],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
    ) -> tuple[ActorInfo, ObjectRef]:
        process = self._process
        process.send_function(cls)
        scope = process.scope
        actor = scope.next_task()
        packed = pack_arguments(process, args, kwargs) if args or kwargs else NOTHING
        recipe = m.Recipe(
            m.ACTOR, cls.id, process.process, 1, demand(options), 0, cls.name,
            max_concurrency=options.max_concurrency or 0, environment=process.environment_of(options.runtime_env),
            actor_name=options.name,
        )
        spec = m.Spec(
            actor, packed.args, packed.deps, packed.nested, "", scope.attempt, time.time(), m.encode(recipe)
        )
        token = process.questions.next_token()
        namespace = options.namespace or process.session.namespace
        handle = process.objects.own(handle_id(actor))
        process.objects.entries[handle_id(actor)].tracked = True
        request = m.CreateActor(
            token, msgspec.Raw(m.encode(spec)), options.name, namespace, options.get_if_exists,
            options.max_restarts, options.lifetime == "detached", cls.name, dict(methods), options.max_pending_calls,
            options.max_task_retries, -1 if options.checkpoint_every is None else options.checkpoint_every,
            options.replay,
        )
        if not options.name:
            process.post_node(request)
        else:
            found: m.ActorFound = process.questions.ask(token, request)
            if not found.created:
                process.objects.entries[handle_id(actor)].tracked = False  # never came to be
                return self._found(found)
        process.calls.created(actor, packed.pins)
        return ActorInfo(actor, cls.name, dict(methods), options.max_pending_calls), handle

    def _found(self, found: m.ActorFound) -> tuple[ActorInfo, ObjectRef]:
        process = self._process
        if found.error:
            raise ValueError(found.error)
        handle = handle_id(found.actor)
        ref = process.objects.adopt(handle, register=False)
        entry = process.objects.entries[handle]
        if not entry.owned:
            entry.registered += 1
        else:
            process.post_node(m.Hold(handle, process.process.encode(), -1))
        return ActorInfo(found.actor, found.class_name, found.methods, found.max_pending_calls), ref

    def get_actor(self, name: str, namespace: str | None) -> tuple[ActorInfo, ObjectRef]:
        questions = self._process.questions
        token = questions.next_token()
        namespace = namespace or self._process.session.namespace
        return self._found(questions.ask(token, m.FindActor(token, name, namespace)))

    def named_actors(self) -> list[tuple[str, str]]:
        self._process.endpoint.flush()  # what was dropped before the question goes ahead of it
        token = self._process.questions.next_token()
        names: list[tuple[str, str]] = self._process.questions.ask(token, m.ListNames(token))
        return names

    def submit_call(
        self, actor: ActorInfo, handle: ObjectRef, method: str, args: tuple[Any, ...], kwargs: dict[str, Any],
        num_returns: int,
    ) -> list[ObjectRef]:
        process = self._process
        if actor.max_pending_calls > 0:
            process.calls.check_room(actor)
        scope = process.scope
        task = scope.next_task()
        packed = pack_arguments(process, args, kwargs) if args or kwargs else NOTHING
        spec = m.Spec(
            task, packed.args, packed.deps, packed.nested, "", scope.attempt, time.time(),
            process.recipes.of_call(actor, method, num_returns),
        )
        refs = process.results_of(task, num_returns, scope.attempt)
        process.unfinished.submitted(task, 0 if packed.args is None else len(packed.args.data))
        process.calls.submit(actor.actor_id, PendingCall(spec, [handle, *packed.pins]))
        self._calls += 1
        if not self._calls % CALLS_PER_BATCH:
            process.wait_for_room()
        return refs

    def current_actor(self) -> tuple[type, bytes, ObjectRef] | None:
        process = self._process
        actor = process.scope.actor
        if actor is None or process.actor_class is None:
            return None
        return process.actor_class, actor, process.adopt(handle_id(actor))

    def kill_actor(self, actor: ActorInfo, no_restart: bool) -> None:
        process = self._process
        process.calls.watch(actor.actor_id).worker = ""  # later calls wait to hear what became of it
        process.post_node(m.KillActor(actor.actor_id, no_restart))
        process.endpoint.flush()
