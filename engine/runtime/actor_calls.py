"""Calls to actors, from the caller's side: straight to the actor's process, in order, once it is known where.

A call whose arguments are pending holds back the later ones of this caller, so that the order stays; the actor
itself is never blocked by arguments that are still to come. What a dead actor leaves unanswered fails here.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from .. import messages as m
from ..backend import ActorInfo
from ..cancelled import cancelled_error
from ..exceptions import ActorDiedError, ActorUnavailableError, PendingCallsLimitExceeded
from ..explanation import RUNNING, WAITING, short
from ..ids import SCOPE_BYTES, child_scope, object_id
from ..refs import ObjectRef
from ..serialization import dump_engine_error, load_error

if TYPE_CHECKING:
    from .process import ProcessBackend

CALLS_PER_BATCH = 128
LOGGED_BEHIND = 4096
"""Calls that an actor can have answered at most in the few ms before it logs them."""


class PendingCall(NamedTuple):
    spec: m.Spec
    pins: list[ObjectRef]


@dataclass
class Callee:
    """One actor as this process knows it."""

    id: bytes
    worker: str = ""
    incarnation: int = 0
    death: bytes = b""
    """The pickled ActorDiedError, once it is dead."""
    waiting: deque[PendingCall] = field(default_factory=deque)
    in_flight: dict[bytes, PendingCall] = field(default_factory=dict)
    """In the order in which they were sent."""
    resent: dict[bytes, int] = field(default_factory=dict)
    """How often those in flight were sent again, if they were."""
    dropped: bool = False
    """No handle of it is left here."""
    creation_pins: list[ObjectRef] = field(default_factory=list)
    answered: deque[tuple[bytes, int]] = field(default_factory=lambda: deque(maxlen=LOGGED_BEHIND))
    """Task ids and numbers of returns of the last calls that were answered: the actor may die before their log has
    reached the node."""


class ActorCalls:
    """All actors that this process calls."""

    def __init__(self, process: ProcessBackend) -> None:
        self._process = process
        self._callees: dict[bytes, Callee] = {}
        self._lock = threading.RLock()
        self.in_flight: dict[bytes, Callee] = {}
        """By task id of the call."""

    def created(self, actor: bytes, pins: list[ObjectRef]) -> None:
        """``pins``: what the creation's arguments need until it has started."""
        self.watch(actor).creation_pins = pins

    def watch(self, actor: bytes) -> Callee:
        callee = self._callees.get(actor)
        if callee is None:
            callee = self._callees[actor] = Callee(actor)
            self._process.post_node(m.WatchActor(actor))
        callee.dropped = False
        return callee

    def __len__(self) -> int:
        return len(self._callees)

    def forget(self, actor: bytes) -> None:
        """This process has no handle of it any more; pending calls hold one, so there are none.

        What it answered last may not be in its log yet, so it is forgotten for good when it is dead.
        """
        callee = self._callees.get(actor)
        if callee is not None:
            callee.dropped = True
            if callee.death:
                del self._callees[actor]

    def check_room(self, actor: ActorInfo) -> None:
        """Raises PendingCallsLimitExceeded when so many calls are unanswered that one more is too many."""
        callee = self._callees.get(actor.actor_id)
        pending = 0 if callee is None else len(callee.waiting) + len(callee.in_flight)
        if pending >= actor.max_pending_calls:
            raise PendingCallsLimitExceeded(
                f"actor {actor.class_name} has {pending} calls of this process pending, and max_pending_calls is "
                f"{actor.max_pending_calls}: get() some of their results first"
            )

    def watch_again(self) -> None:
        """The node was started anew and does not know who watches."""
        for callee in list(self._callees.values()):
            if not callee.death:
                self._process.post_node(m.WatchActor(callee.id))

    def submit(self, actor: bytes, call: PendingCall) -> None:
        callee = self.watch(actor)
        with self._lock:
            if callee.worker and not callee.waiting and not call.spec.deps:
                self._send(callee, call)
                return
            callee.waiting.append(call)
            if len(callee.waiting) == 1:
                self._advance(callee)

    def _advance(self, callee: Callee) -> None:
        """Sends what can be sent from the front of the queue; called whenever that may have changed."""
        objects = self._process.objects
        with self._lock:
            if callee.death:
                while callee.waiting:
                    self._fail(callee, callee.waiting.popleft(), callee.death)
                return
            while callee.waiting and callee.worker:
                call = callee.waiting[0]
                for dep in call.spec.deps:
                    if dep.value is not None:
                        continue
                    entry = objects.entries[dep.object_id]  # alive: the call pins it
                    if entry.value is None:
                        ref = next(ref for ref in call.pins if ref.binary() == dep.object_id)
                        self._process.ask_for((ref,), [entry])
                        objects.when_ready(dep.object_id, lambda: self._advance(callee))
                        return
                    dep.value = entry.value
                callee.waiting.popleft()
                self._send(callee, call)

    def _send(self, callee: Callee, call: PendingCall) -> None:
        task = call.spec.task
        callee.in_flight[task] = call
        self.in_flight[task] = callee
        endpoint = self._process.endpoint
        if endpoint.batch(callee.worker, m.Call, msgspec.Raw(m.encode(call.spec))) >= CALLS_PER_BATCH:
            endpoint.flush()

    def finished(self, task: bytes) -> bool:
        """An outcome arrived; False when it was not that of a call."""
        callee = self.in_flight.pop(task, None)
        if callee is None:
            return False
        call = callee.in_flight.pop(task, None)
        if call is not None:
            callee.answered.append((task, call.spec.recipe.num_returns))
            if callee.resent:
                callee.resent.pop(task, None)
        return True

    def on_cancel_own(self, sender: str, message: m.CancelOwn) -> None:
        self.cancel(message.task, False, message.recursive)

    def on_cancel_made(self, sender: str, message: m.CancelMade) -> None:
        self.cancel_all_of(map(child_scope, message.tasks))

    def cancel_all_of(self, scopes: Iterable[bytes]) -> None:
        """Ends those that were made in these scopes."""
        wanted = set(scopes)
        with self._lock:
            made = [task for task in list(self.in_flight) if task[:SCOPE_BYTES] in wanted]
            for callee in list(self._callees.values()):
                made += [call.spec.task for call in callee.waiting if call.spec.task[:SCOPE_BYTES] in wanted]
        for task in made:
            self.cancel(task, False, True)

    def cancel(self, task: bytes, force: bool, recursive: bool) -> bool:
        """Ends a call of this process's that has not begun or awaits something; False when there is no such call.

        Raises ValueError with ``force``: an actor's process is not killed for one call.
        """
        with self._lock:
            callee = self.in_flight.get(task)
            waiting = [] if callee is not None else [
                (each, call) for each in self._callees.values() for call in each.waiting if call.spec.task == task
            ]
            if callee is None and not waiting:
                return False
            if force:
                raise ValueError("cancel(force=True) is for tasks; to end an actor with all its calls use kill()")
            for each, call in waiting:
                each.waiting.remove(call)
                self._fail(each, call, cancelled_error(call.spec))
                self._advance(each)
            if callee is not None:
                self._process.endpoint.post(callee.worker, m.CancelCall(task, recursive))
        return True

    def explain(self, task: bytes) -> m.Reason | None:
        """Where a call of this process's is, as far as this process knows."""
        with self._lock:
            callee = self.in_flight.get(task)
            call = None if callee is None else callee.in_flight.get(task)
            if callee is not None and call is not None:
                text = f"call {_name(call.spec)} was sent to its actor"
                if not callee.worker:  # kill() was called, and what became of it has not been heard
                    return m.Reason(WAITING, f"{text}, which is being killed")
                return m.Reason(RUNNING, f"{text} on {callee.worker}", callee.worker)
            for each in self._callees.values():
                position = next((i for i, waiting in enumerate(each.waiting) if waiting.spec.task == task), None)
                if position is not None:
                    return self._why_waiting(each, position)
        return None

    def _why_waiting(self, callee: Callee, position: int) -> m.Reason:
        spec = callee.waiting[position].spec
        what = f"call {_name(spec)} waits at {self._process.process}"
        if not callee.worker:
            lives = f", which is being started again ({callee.incarnation} so far)" if callee.incarnation else ""
            return m.Reason(WAITING, f"{what} for its actor{lives}:", "", [object_id(callee.id, 0)])
        first = callee.waiting[0].spec
        entries = self._process.objects.entries
        missing = [dep.object_id for dep in first.deps if dep.value is None and entries[dep.object_id].value is None]
        if not position:
            return m.Reason(WAITING, f"{what} for its arguments:", "", missing)
        behind = f"{what} behind {position} of the same caller"
        return m.Reason(WAITING, f"{behind}; the first, {_name(first)}, waits for its arguments:", "", missing)

    def on_state(self, state: m.ActorState) -> None:
        callee = self._callees.get(state.actor)
        if callee is None:
            return
        with self._lock:
            if state.error:
                error = ActorDiedError(state.error)
                if state.cause:
                    error.__cause__ = load_error(state.cause)
                callee.death = dump_engine_error(error)
                lost = callee.death
            else:
                lost = dump_engine_error(ActorUnavailableError(
                    "the actor's process died while the call was on its way; it may or may not have run"
                ))
            if state.error or state.incarnation != callee.incarnation:
                self._publish_answers(callee)
                again = []
                for call in list(callee.in_flight.values()):
                    sent = callee.resent.get(call.spec.task, 0)
                    if not state.error and (state.retries < 0 or sent < state.retries):
                        again.append(call)
                    else:
                        self._fail(callee, call, lost)
                self._send_again(callee, again)
            callee.incarnation = state.incarnation
            callee.worker = state.worker
            if state.worker or state.error:
                callee.creation_pins = []
            self._advance(callee)
            if callee.death and callee.dropped:
                del self._callees[state.actor]

    def _send_again(self, callee: Callee, calls: list[PendingCall]) -> None:
        """They go to the actor's next life, ahead of what has not been sent yet, and say that they were sent before."""
        for call in reversed(calls):
            task = call.spec.task
            del callee.in_flight[task], self.in_flight[task]
            callee.resent[task] = callee.resent.get(task, 0) + 1
            call.spec.parent_attempt += 1
            callee.waiting.appendleft(call)

    def _publish_answers(self, callee: Callee) -> None:
        """Tells the node the results that the dead actor may not have logged: tasks may be waiting for them there."""
        entries = self._process.objects.entries
        while callee.answered:
            task, num_returns = callee.answered.popleft()
            for index in range(num_returns):
                oid = object_id(task, index)
                entry = entries.get(oid)
                if entry is not None and entry.value is not None and not isinstance(entry.value, m.Shm):
                    self._process.post_node(m.Stored(oid, entry.value))

    def _fail(self, callee: Callee, call: PendingCall, error: bytes) -> None:
        """Ends a call that no actor will answer; the node hears of it for those that wait there."""
        task = call.spec.task
        self.in_flight.pop(task, None)
        callee.in_flight.pop(task, None)
        callee.resent.pop(task, None)
        self._process.unfinished.ended(task)
        for index in range(call.spec.recipe.num_returns):
            oid = object_id(task, index)
            self._process.post_node(m.Stored(oid, m.Failed(error)))
            self._process.objects.arrived(oid, m.Failed(error))


def _name(spec: m.Spec) -> str:
    return f"{spec.recipe.name}.{spec.recipe.method} ({short(spec.task)})"
