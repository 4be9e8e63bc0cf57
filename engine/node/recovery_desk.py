"""What the daemon does for recoverable actors: logs their calls, answers them, cuts the log at checkpoints.

What counts and what a replay needs is decided in the actor's log, without I/O; this is its clerk. The results of
logged calls go to the callers from here, behind the commit that holds the calls (guarantee 1), and in the order of
all else that the callers hear from the node: of a dead actor they hear after its last result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .. import messages as m
from ..exceptions import ObjectLostError
from ..ids import SCOPE_BYTES, child_scope, handle_id
from ..serialization import dump_engine_error
from .actor_log import ActorLog, Cut
from .actors import ALIVE, DEAD, Actor
from .payload import needed_by
from .task_desk import tracked_results

if TYPE_CHECKING:
    from .daemon import Daemon


class RecoveryDesk:
    """See the module's essay."""

    def __init__(self, node: Daemon) -> None:
        self._node = node
        self._logs: dict[bytes, ActorLog] = {}
        self._actors: dict[str, bytes] = {}
        """Processes that are, or lately were, a recoverable actor."""
        self._ending: dict[str, bytes] = {}
        """Processes of actors that are dead for good, and have not ended yet."""
        self._logged: set[bytes] = set()
        """Calls that may be replayed, and the scopes of what they submitted."""

    # ------------------------------------------------------------ lives of actors

    def created(self, actor: Actor) -> None:
        if actor.request.checkpoint_every >= 0:
            self._remember(actor.id)
            self._logs[actor.id] = ActorLog(actor.request.checkpoint_every, actor.request.replay)

    def dispatched(self, actor_id: bytes, worker: str) -> None:
        """``worker`` is about to be told to become an actor."""
        log = self._logs.get(actor_id)
        if log is not None:
            self._actors[worker] = actor_id
            actor = self._node.actors.table.get(actor_id)
            if actor is not None:
                for older in actor.moves_to(worker):
                    self._actors.pop(older, None)
            self._node.post(worker, m.Recover(log.every, log.replays))

    def resumed(self, actor: Actor) -> None:
        """The node was started anew: the log as it is in the store, and the objects that it holds.

        For which call it holds what it got from others is not recorded: that is let go with the actor.
        """
        if actor.request.checkpoint_every < 0 or actor.state == DEAD:
            return
        self.created(actor)
        log = self._logs[actor.id]
        self._actors.update(dict.fromkeys(actor.lives, actor.id))
        calls = []
        for number, task in self._node.store.logged_calls(actor.id):
            self._remember(task)
            raw = self._node.store.spec(task)
            assert raw is not None  # committed with the call
            calls.append((number, task, without_itself(actor.id, needed_by(m.decode_spec(raw)))))
        held = self._node.objects.directory.held_by(holder(actor.id))
        log.resume(self._node.store.checkpoint(actor.id), calls, held, actor.state == ALIVE or bool(actor.incarnation))

    def started(self, actor: Actor, replayed: int) -> None:
        log = self._logs.get(actor.id)
        if log is not None:
            log.started()
            if actor.incarnation:
                detail = f"from the checkpoint after call {log.checkpoint}, with {replayed} calls replayed"
                self._node.store.add_event("actor restored", actor.id.hex(), detail)

    def ended(self, actor: Actor) -> None:
        """It is dead for good."""
        log = self._logs.pop(actor.id, None)
        if log is not None:
            for worker in actor.lives:
                self._actors.pop(worker, None)
                if worker in self._node.pool.processes:
                    self._ending[worker] = actor.id
            self._node.store.drop_actor_log(actor.id)
            self._forget(actor.id)
            self._apply(actor.id, log.end())

    def process_ended(self, process: str) -> None:
        """If it was an actor that was killed: it may have saved itself until now."""
        actor = self._ending.pop(process, None)
        if actor is not None and actor not in self._logs:  # which would be another one of the same id
            self._node.store.drop_actor_log(actor)

    # ------------------------------------------------------------ messages

    def on_ran(self, sender: str, message: m.Ran) -> None:
        actor = self._actors.get(sender)
        if actor is None:  # it was killed for good
            return
        log = self._logs[actor]
        store = self._node.store
        directory = self._node.objects.directory
        answers: dict[str, list[msgspec.Raw]] = {}
        for number, raw_spec, raw_outcome in zip(
            range(message.first, message.first + len(message.calls) // 2), message.calls[::2], message.calls[1::2],
            strict=True,
        ):
            spec = m.decode_spec(raw_spec)
            needed = without_itself(actor, needed_by(spec))
            if not log.append(number, spec.task, needed):
                continue
            self._remember(spec.task)
            store.add_spec(spec.task, raw_spec)
            store.add_call(actor, number, spec.task)
            for oid in needed:
                directory.hold(oid, holder(actor), 1)
            outcome = m.decode_outcome(raw_outcome)
            self.keep_results(spec.recipe.owner, outcome)
            self._node.watchman.usual_calls.ended(actor, spec.recipe.method, outcome.duration)
            self._node.tasks.record(outcome, raw_outcome, spec.recipe.owner)
            if spec.recipe.owner in self._node.ended:  # which can no longer register what the actor retained
                for borrowed in outcome.retained:
                    directory.hold(borrowed, sender.encode(), 1)
            answers.setdefault(spec.recipe.owner, []).append(raw_outcome)
        for owner, outcomes in answers.items():
            self._node.post(owner, m.RawResults(outcomes))

    def on_checkpointed(self, sender: str, message: m.Checkpointed) -> None:
        actor = self._node.actors.table.get(self._actors.get(sender, b""))
        if actor is None:
            return
        if message.error:
            text = f"{actor.describe()} could not be saved and keeps its older checkpoint: {message.error}"
            self._node.store.add_event("checkpoint failed", actor.id.hex(), message.error)
            self._node.post(self._node.session.driver, m.Warning(text))
            return
        cut = self._logs[actor.id].cut(message.number, without_itself(actor.id, message.refs))
        if cut is not None:
            self._node.store.add_checkpoint(actor.id, message.number)
            self._apply(actor.id, cut)

    def on_seen(self, sender: str, message: m.Seen) -> None:
        """A submitter that runs once more called the actor again: what is in its state is not run twice."""
        logged = self._actors.get(sender)
        replayed = None
        if logged is not None and self._logs[logged].replays:
            replayed = self._node.actors.table.get(logged)
        known = []
        for task, owner in message.calls:
            outcome = self._node.store.outcome(task)
            if outcome is None:
                continue
            if not (outcome.worker == sender if replayed is None else replayed.has_lived_in(outcome.worker)):
                continue  # another life ran it, whose state is gone
            known.append(task)
            outcome.retained = []  # was registered the first time
            if not self._node.tasks.adopt_results(outcome, owner):
                error = ObjectLostError(
                    "the result of the call was freed when its caller died; what an actor returned is not made again"
                )
                outcome.values = [m.Failed(dump_engine_error(error))] * len(outcome.values)
            self._node.post(owner, m.Results([outcome]))
        self._node.post(sender, m.KnownCalls(message.token, known))

    # ------------------------------------------------------------ what replays need

    def keep_results(self, owner: str, outcome: m.Outcome) -> None:
        """If ``owner`` is a recoverable actor, which made this call: it gets the result again when it is replayed."""
        if owner in self._actors:
            for oid in tracked_results(outcome):
                self.keep(owner, oid)

    def keep(self, owner: str, object_id: bytes) -> None:
        """If ``owner`` is a recoverable actor: it has got this object, and will when it is replayed."""
        actor = self._actors.get(owner)
        if actor is not None and self._logs[actor].keep(object_id):
            self._node.objects.directory.hold(object_id, holder(actor), 1)

    def needs(self, task: bytes) -> bool:
        """Whether a replay looks for what the store has of a task: it is logged, or a logged call submitted it."""
        return task in self._logged or task[:SCOPE_BYTES] in self._logged

    def _remember(self, task: bytes) -> None:
        self._logged.add(task)
        self._logged.add(child_scope(task))

    def _apply(self, actor: bytes, cut: Cut) -> None:
        directory = self._node.objects.directory
        for oid in cut.held:
            directory.hold(oid, holder(actor), 1)
        for oid in cut.released:
            self._node.objects.free(directory.hold(oid, holder(actor), -1))
        for task in cut.forgotten:
            self._forget(task)

    def _forget(self, task: bytes) -> None:
        self._logged.discard(task)
        self._logged.discard(child_scope(task))


def without_itself(actor: bytes, objects: list[bytes]) -> list[bytes]:
    """An actor that has its own handle must not live on because of that."""
    return [oid for oid in objects if oid != handle_id(actor)]


def holder(actor: bytes) -> bytes:
    """The log of an actor, as a holder of objects."""
    return actor + b"log"
