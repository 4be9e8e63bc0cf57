"""What the daemon does about actors: their creation, their names, their ends.

The decisions are in the actor table, without I/O; this is the table's clerk, between it and the messages.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from .. import messages as m
from ..exceptions import ActorDiedError
from ..ids import handle_id
from ..serialization import dump_engine_error
from .actors import ALIVE, DEAD, Actor, ActorTable
from .payload import Payload, needed_by
from .scheduler import Task

if TYPE_CHECKING:
    from .daemon import Daemon


INTRODUCTIONS = 100
"""Answers to :class:`FindActor` that are remembered."""


class ActorDesk:
    """See the module's essay."""

    def __init__(self, node: Daemon) -> None:
        self._node = node
        self.table = ActorTable()
        self._introduced: deque[tuple[str, int]] = deque(maxlen=INTRODUCTIONS)

    def on_create_actor(self, sender: str, request: m.CreateActor) -> None:
        spec = m.decode_spec(request.spec)
        again = self.table.get(spec.task)
        if again is not None and again.state != DEAD:
            self._created_again(sender, request, again)
            return
        if request.name:
            taken = self.table.named(request.namespace, request.name)
            if taken is not None:
                if request.get_if_exists:
                    self._introduce(sender, request.token, taken, created=False)
                else:
                    error = f"the name {request.name!r} is taken by another actor in namespace {request.namespace!r}"
                    self._node.post(sender, m.ActorFound(request.token, b"", "", {}, -1, False, error))
                return
        recipe = spec.recipe
        task = Task(spec.task, recipe.function, recipe.demand, exclusive=True, payload=Payload(spec, request.spec))
        task.environment = recipe.environment
        actor = Actor(spec.task, request, task, sender, restarts_left=request.max_restarts, born=self._node.pool.count)
        self.table.add(actor)
        self._node.recovery.created(actor)
        self._node.watchman.usual_calls.follow(actor.id)
        self._node.recovery.keep(sender, handle_id(actor.id))
        directory = self._node.objects.directory
        directory.track(handle_id(actor.id), sender)
        if request.detached:
            directory.hold(handle_id(actor.id), actor.id, 1)
        if request.max_restarts:  # its owner needs them until it has started, a restart as well
            for oid in needed_by(spec):
                directory.hold(oid, actor.id, 1)
        self._node.tasks.tasks[task.id] = task
        self._node.store.add_spec(spec.task, request.spec)
        if request.name:
            self._node.post(sender, m.ActorFound(request.token, actor.id, "", {}, -1, True, ""))
        if not spec.deps or self._node.tasks.arguments_there(task):
            self._node.tasks.enqueue(task)

    def _created_again(self, sender: str, request: m.CreateActor, actor: Actor) -> None:
        """Its creator crashed and runs again: there is one actor of an id."""
        if actor.farewell:  # for want of handles, since its creator's went with it; the next life begins after its end
            actor.successor = (sender, request)
            return
        self._node.objects.directory.wanted_again(handle_id(actor.id), sender)
        if request.name:
            self._node.post(sender, m.ActorFound(request.token, actor.id, "", {}, -1, True, ""))

    def _introduce(self, sender: str, token: int, actor: Actor, created: bool) -> None:
        """A handle for ``sender``, held from here on so that the actor cannot vanish on the way."""
        asked = (sender, token)
        if asked not in self._introduced:  # it asks again when it thinks that the answer was lost
            self._introduced.append(asked)
            self._node.objects.directory.hold(handle_id(actor.id), sender.encode(), 1)
        request = actor.request
        self._node.post(sender, m.ActorFound(
            token, actor.id, request.class_name, request.methods, request.max_pending_calls, created, ""
        ))

    def on_find_actor(self, sender: str, find: m.FindActor) -> None:
        actor = self.table.named(find.namespace, find.name)
        if actor is not None:
            self._introduce(sender, find.token, actor, created=False)
            return
        known = ", ".join(sorted(name for space, name in self.table.names() if space == find.namespace)) or "none"
        error = f"there is no actor named {find.name!r} in namespace {find.namespace!r}; there are: {known}"
        self._node.post(sender, m.ActorFound(find.token, b"", "", {}, -1, False, error))

    def on_list_names(self, sender: str, message: m.ListNames) -> None:
        self._node.post(sender, m.ActorNames(message.token, self.table.names()))

    def on_watch_actor(self, sender: str, watch: m.WatchActor) -> None:
        actor = self.table.get(watch.actor)
        if actor is None:
            error = f"actor {watch.actor.hex()} is unknown here: it lived in an engine that was shut down"
            self._node.post(sender, m.ActorState(watch.actor, "", error, b"", 0))
            return
        actor.watchers.add(sender)
        self._node.post(sender, actor.message())

    def on_actor_started(self, sender: str, message: m.ActorStarted) -> None:
        actor = self.table.get(message.actor)
        outcome = m.decode_outcome(message.outcome)
        self._node.store.add_outcome(outcome.task, message.outcome)
        if actor is None or actor.state == DEAD:
            self._node.pool.kill(sender)
            return
        self._node.tasks.tasks.pop(actor.id, None)
        if outcome.status == m.FINISHED:
            self._node.scheduler.became_actor(sender)
            self.table.started(actor, sender)
            self._node.recovery.started(actor, message.replayed)
            if not actor.restarts_left:
                self._free_arguments(actor)
            self._tell_watchers(actor)
            if actor.farewell:
                self._node.dismiss(sender)
        else:
            self._node.scheduler.finished(sender, outcome.task, outcome.duration)
            (cause,) = outcome.values
            assert isinstance(cause, m.Failed)
            restored = actor.incarnation and actor.request.checkpoint_every >= 0
            how = "could not be restored: its checkpoint or __init__" if restored else "could not start: its __init__"
            self._dead(actor, f"{actor.describe()} {how} raised", cause.error)

    def _free_arguments(self, actor: Actor) -> None:
        """What its ``__init__`` needs: it will not run again."""
        needed = needed_by(actor.creation.payload.spec)
        self._node.objects.free(self._node.objects.directory.task_ended(actor.id, needed))

    def lost(self, creation: Task, reason: str) -> None:
        """Its worker ended."""
        actor = self.table.get(creation.id)
        if actor is None or actor.creation is not creation or actor.state == DEAD:
            return
        if self.table.may_restart(actor):
            self._node.store.add_event("actor restarted", actor.id.hex(), reason)
            actor.creation.attempt += 1
            self._node.journal.attempted(actor.creation)
            self._node.tasks.tasks[actor.id] = actor.creation
            self._node.scheduler.retry(actor.creation)
            self._tell_watchers(actor)
        else:
            lives = f" after {actor.incarnation} restarts" if actor.incarnation else ""
            text = f"{actor.describe()} is dead{lives}: {actor.farewell or reason}"
            self._dead(actor, text, b"", meant=bool(actor.farewell))

    def _dead(self, actor: Actor, text: str, cause: bytes, meant: bool = False) -> None:
        """``meant``: somebody wanted it to end, so that a creation that has not ended is no failure."""
        self._node.store.add_event("actor died", actor.id.hex(), text)
        self._node.objects.directory.forget(actor.id)
        creation = self._node.tasks.tasks.pop(actor.id, None)
        if actor.creation.attempt:
            self._node.journal.finished(actor.creation)
        if creation is not None:  # it did not live to report itself
            error = m.Failed(dump_engine_error(ActorDiedError(text)))
            status = m.CANCELLED if meant else m.CRASHED
            outcome = m.Outcome(actor.id, creation.attempt, creation.worker, status, 0.0, 0.0, [error])
            self._node.store.add_outcome(actor.id, msgspec.Raw(m.encode(outcome)))
        self.table.died(actor, text, cause)
        self._free_arguments(actor)
        self._node.recovery.ended(actor)
        self._node.watchman.usual_calls.forget(actor.id)
        self._tell_watchers(actor)
        if actor.request.detached:
            self._node.objects.free(self._node.objects.directory.hold(handle_id(actor.id), actor.id, -1))
        if actor.handles_gone:
            self.table.remove(actor)
        if actor.successor is not None:
            self.on_create_actor(*actor.successor)

    def _tell_watchers(self, actor: Actor) -> None:
        for watcher in actor.watchers:
            self._node.post(watcher, actor.message())

    def on_kill_actor(self, sender: str, message: m.KillActor) -> None:
        actor = self.table.get(message.actor)
        if actor is None or actor.state == DEAD:
            return
        if message.no_restart:
            actor.restarts_left = 0
            worker = actor.creation.worker
            self._dead(actor, f"{actor.describe()} is dead: it was killed by kill()", b"", meant=True)
            self._node.scheduler.withdraw(actor.creation)
            self._node.tasks.tasks.pop(actor.id, None)
            if worker:
                self._node.pool.kill(worker)
        elif actor.state == ALIVE:
            self._node.pool.kill(actor.worker)

    def handles_gone(self, actor_id: bytes) -> None:
        """Nobody can call it any more: it finishes what it has and ends."""
        actor = self.table.get(actor_id)
        if actor is None:
            return
        actor.handles_gone = True
        if actor.state == DEAD:
            self.table.remove(actor)
            return
        actor.farewell = "all its handles are gone"
        if actor.state == ALIVE:
            self._node.dismiss(actor.worker)

    def on_actor_exits(self, sender: str, message: m.ActorExits) -> None:
        """It ends with the call it is in; its worker leaves by itself."""
        actor = self.table.get(message.actor)
        if actor is not None and actor.state != DEAD:
            actor.farewell = "it called exit_actor()"
            self._node.pool.leaves(sender)
