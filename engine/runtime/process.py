"""One process of the engine of processes, driver or worker: submission, get, wait and put.

What waits is a predicate over the object table; what makes it true is a message that the endpoint's leader hands
to :meth:`ProcessBackend._handle`. See ``endpoint.py`` for who leads, ``objects.py`` for who counts.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from .. import messages as m
from ..context import RuntimeContext
from ..exceptions import EngineStateError, ObjectLostError, UnsupportedError
from ..functions import SENT_REMEMBERED, Exported
from ..ids import FIRST_RETURN, object_id, task_of
from ..options import UNITS, NearObject, TaskOptions
from ..refs import ObjectRef
from ..runtime_env import merged
from ..serialization import dumps
from ..session import Session
from .actor_calls import ActorCalls
from .addresses import Addresses
from .arguments import NOTHING, pack_arguments
from .endpoint import LINGER_MS, Endpoint
from .explaining import Explaining
from .futures import Futures
from .handles import ActorHandles
from .objects import Entry, ObjectTable
from .questions import Questions
from .recalling import Recalling
from .recipes import SubmittedRecipes
from .reconciliation import Reconciliation
from .resuming import Resuming
from .scope import TaskScope, current_scope
from .storage import Storage
from .unfinished import SILENCE_SECONDS, Unfinished
from .waiting import Waiting

SPECS_PER_BATCH = 128
log = logging.getLogger("rlflow.engine")


class ProcessBackend:
    """See :class:`rlflow.engine.backend.Backend`. The driver's; workers extend it (``worker/backend.py``)."""

    name = "local"
    role = "driver"

    def __init__(self, session: Session, process: str, scope: TaskScope, watch_fd: int = -1,
                 node_inbox: str = m.NODE) -> None:
        self.session = session
        self.process = process
        self.environment = ""
        """Of this process, where it is not the session's (see ``runtime_env.py``)."""
        self.gpus: list[str] = []
        """Names of the GPUs that the task or actor here may use."""
        self.actor: m.Spec | None = None
        """Creation of the actor that this process is."""
        self.actor_restarted = False
        self.program_scope = scope
        """Of what runs here, unless that is several calls at a time."""
        self.endpoint = Endpoint(session, process, self._handle, watch_fd, self._engine_ended, node_inbox)
        self.post_node: Callable[[m.Wire], None] = lambda message: self.endpoint.post(m.NODE, message)
        self.objects = ObjectTable(process, self.post_node)
        self.endpoint.out.before_flush = self.objects.drain
        self.storage = Storage(session, process, self.objects, self.endpoint, self.post_node)
        self.addresses = Addresses(self)
        self.recipes = SubmittedRecipes(self)
        self.calls = ActorCalls(self)
        self.questions = Questions(self)
        self.waiting = Waiting(self)
        self.get = self.waiting.get
        self.wait = self.waiting.wait
        self.why = self.waiting.why
        futures = Futures(self)
        self.future = futures.future
        self.awaitable = futures.awaitable
        handles = ActorHandles(self)
        self.create_actor = handles.create_actor
        self.get_actor = handles.get_actor
        self.named_actors = handles.named_actors
        self.submit_call = handles.submit_call
        self.current_actor = handles.current_actor
        self.kill_actor = handles.kill_actor
        self.objects.on_handle_gone = self.calls.forget
        self.reconciliation = Reconciliation(self.post_node)
        self.recalling = Recalling(self)
        self.resuming = Resuming(self)
        self.explaining = Explaining(self)
        self.report_work: Callable[[m.Report], None] = lambda report: None
        """Adds to the report for a new node what this process is doing."""
        self.unfinished = Unfinished()
        self.on_peer_ended: Callable[[str], None] = lambda peer: None
        self.actor_class: type | None = None
        """Of the actor that this process is."""
        self.welcome = False
        self.failure: str = ""
        self._functions: dict[bytes, None] = {}
        """Those that the node was sent, the last one last."""
        self._pins: dict[bytes, list[ObjectRef]] = {}
        self._handlers: dict[type, Callable[[str, Any], None]] = {
            m.Results: self._on_results,
            m.Resolved: lambda _, message: self.objects.arrived(message.object_id, message.value),
            m.Acknowledged: lambda _, message: self.endpoint.unacknowledged.acknowledged(message.frame),
            m.Ping: lambda sender, _: self.endpoint.post(sender.partition(".")[0], self.pong()),
            m.CancelOwn: self.calls.on_cancel_own,
            m.CancelMade: self.calls.on_cancel_made,
            m.Publish: lambda _, message: self.objects.publish(message.object_id),
            m.ActorState: lambda _, message: self.calls.on_state(message),
            m.ActorNames: lambda _, message: self.questions.answered(message.token, message.names),
            m.ActorFound: lambda _, message: self.questions.answered(message.token, message),
            m.Answer: lambda _, message: self.questions.answered(message.token, message.payload),
            m.AskWhy: self.explaining.on_ask,
            m.Because: lambda _, message: self.questions.answered(message.token, message),
            m.FreeBlocks: lambda _, message: self.storage.free(message.blocks),
            m.Copy: lambda _, message: self.storage.on_copy(message),
            m.LookAfterMemory: lambda *_: self.storage.arena.forget_lost(),
            m.GiveRoom: lambda *_: self.storage.arena.give_back(),
            m.WhoReads: lambda _, message: self.storage.on_who_reads(message),
            m.Spill: lambda _, message: self.storage.on_spill(message),
            m.WorkerDied: self._on_worker_died,
            m.Recall: self.recalling.on_recall,
            m.Reconciled: lambda _, message: self.reconciliation.answered(message.page),
            m.Warning: lambda _, message: log.warning(message.text),
            m.Print: self._on_print,
            m.Welcome: self._on_welcome,
            m.Resume: self.resuming.on_resume,
        }

    def pong(self) -> m.Pong:
        """What this process says when it is asked whether it hangs."""
        return m.Pong()

    def greet(self) -> None:
        """Tells the node that this process is ready for whatever it sends."""
        self.endpoint.post(m.NODE, m.Hello(self.role, os.getpid()))
        self.endpoint.flush()

    @property
    def scope(self) -> TaskScope:
        """Of the program that calls."""
        return current_scope.get() or self.program_scope

    # ------------------------------------------------------------ submission

    def submit_task(
        self, function: Exported, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[ObjectRef]:
        if function.id not in self._functions:
            self.send_function(function)
        scope = current_scope.get() or self.program_scope
        task = scope.next_task()
        packed = pack_arguments(self, args, kwargs) if args or kwargs else NOTHING
        prefer = "" if options.scheduling_strategy is None else self._producer(options.scheduling_strategy)
        spec = m.Spec(
            task, packed.args, packed.deps, packed.nested, prefer, scope.attempt, time.time(),
            self.recipes.of_task(function, options),
        )
        if packed.pins:
            self._pins[task] = packed.pins
        refs = self.results_of(task, options.num_returns, scope.attempt)
        raw = m.encode(spec)
        self.unfinished.submitted(task, len(raw))
        if self.endpoint.submit(msgspec.Raw(raw)) >= SPECS_PER_BATCH:
            self.endpoint.flush()
            self.wait_for_room()
        return refs

    def environment_of(self, own: str) -> str:
        """Of what is submitted here: what it asks for, on top of this process's own."""
        session = self.session.runtime_env
        environment = merged(self.environment or session, own)
        return "" if environment == session else environment

    def results_of(self, task: bytes, num_returns: int, attempt: int) -> list[ObjectRef]:
        """``attempt``: of who submits it."""
        own = self.objects.own_again if attempt else self.objects.own
        if num_returns == 1:
            return [own(task + FIRST_RETURN)]
        return [own(object_id(task, index)) for index in range(num_returns)]

    def send_function(self, function: Exported) -> None:
        self.endpoint.post(m.NODE, m.Function(function.id, function.name, function.blob))
        self._functions[function.id] = None
        if len(self._functions) > SENT_REMEMBERED:
            del self._functions[next(iter(self._functions))]

    def _producer(self, strategy: NearObject | str) -> str:
        if not isinstance(strategy, NearObject):
            return ""
        entry = self.objects.entries.get(strategy.ref.binary())
        return "" if entry is None else entry.worker

    def wait_for_room(self) -> None:
        """What has come is handled, and when too much is unfinished, some of it waited for (guarantee 5)."""
        if self.endpoint.handles_here():
            return
        self.endpoint.catch_up()
        unfinished = self.unfinished
        if unfinished.too_much():
            self.wait_until(lambda: not unfinished.too_much(), None, ())
        elif unfinished.is_ahead():
            self._keep_pace()

    def _keep_pace(self) -> None:
        """Waits until a batch has ended, for as long as anything ends at all."""
        unfinished = self.unfinished
        goal = unfinished.claim(SPECS_PER_BATCH)
        while unfinished.heard < goal and unfinished.is_ahead():
            before = unfinished.heard
            self.wait_until(lambda: unfinished.heard >= goal, SILENCE_SECONDS, ())
            unfinished.silent(before)

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        (entry,) = self.entries_of((ref,))
        if entry.value is not None:
            return
        task = task_of(ref.binary())
        if not self.calls.cancel(task, force, recursive):
            self.resuming.cancel(m.Cancel(task, force, recursive, ref.binary()))
        self.endpoint.flush()

    # ------------------------------------------------------------ objects

    def put(self, value: Any) -> ObjectRef:
        serialized = dumps(value)
        for inner in serialized.refs:
            self.objects.escape(inner)
        return self.own_put(self.storage.pack(serialized), serialized.refs)

    def own_put(self, value: m.Inline | m.Shm, inner: list[ObjectRef]) -> ObjectRef:
        """A ref to a new object of the program that runs, with its value and the refs inside."""
        scope = self.scope
        ref = self.objects.own_put(object_id(scope.next_task(), 0), value, inner, scope.task or b"")
        self.storage.arena.announced((value,))
        return ref

    def wait_until(self, ready: Callable[[], bool], timeout: float | None, refs: Sequence[ObjectRef]) -> bool:
        """Serves the inbox until ``ready()``. ``refs``: what is waited for, when all of it is needed."""
        del refs
        done = self.endpoint.wait_until(lambda: ready() or bool(self.failure), timeout)
        if self.failure and not ready():
            raise EngineStateError(self.failure)
        return done

    def entries_of(self, refs: Sequence[ObjectRef]) -> list[Entry]:
        entries = self.objects.entries
        try:
            if self.objects.lends:
                for ref in refs:
                    if ref._release is None:
                        self.objects.count(ref)
            return [entries[ref._id] for ref in refs]
        except KeyError as error:
            raise ObjectLostError(
                f"ObjectRef({error.args[0].hex()}) is unknown here: it was made before the last engine.shutdown()"
            ) from None

    def ask_for(self, refs: Sequence[ObjectRef], entries: list[Entry]) -> None:
        """Asks the node for borrowed objects; results of our own tasks come by themselves."""
        ids = []
        for ref, entry in zip(refs, entries, strict=True):
            if entry.value is None and not entry.owned and not entry.asked:
                entry.asked = True
                ids.append(ref.binary())
        if ids:
            self.post_node(m.Resolve(ids))

    def adopt(self, oid: bytes) -> ObjectRef:
        container = self.storage.unpickling.pins
        if container is not None:
            return self.objects.adopt(oid, False, container)
        self.scope.adopted.add(oid)
        return self.objects.adopt(oid, register=not self.storage.unpickling.lent)

    # ------------------------------------------------------------ messages

    def _handle(self, sender: str, message: m.ToProcess) -> None:
        self._handlers[type(message)](sender, message)

    def _on_results(self, sender: str, message: m.Results) -> None:
        arrived, arrived_plain = self.objects.arrived, self.objects.arrived_plain
        ended = self.unfinished.ended
        self.unfinished.heard += len(message.outcomes)
        pins = self._pins
        outcomes = message.outcomes
        if self.recalling.promised:
            outcomes = self.recalling.that_count(sender, outcomes)
        for outcome in outcomes:
            task = outcome.task
            first = ended(task)  # or a node that was started anew tells it again
            if first and outcome.retained:
                for borrowed in outcome.retained:
                    self.post_node(m.Hold(borrowed, outcome.worker.encode(), 1))
            values = outcome.values
            if len(values) == 1 and type(values[0]) is m.Inline and not values[0].refs:  # nearly all are like this
                arrived_plain(task + FIRST_RETURN, values[0], outcome.worker)
            else:
                for index, value in enumerate(values):
                    oid = object_id(task, index)
                    if not isinstance(value, m.Failed) and value.refs and oid in self.objects.entries:
                        for inner in value.refs:  # a container that was dropped already must hold nothing any more
                            self.post_node(m.Hold(inner, oid, 1))
                    arrived(oid, value, outcome.worker)
            if pins:
                pins.pop(task, None)
            if self.calls.in_flight:
                self.calls.finished(task)

    def pinned(self) -> int:
        """Number of unfinished tasks whose arguments this process keeps."""
        return len(self._pins)

    def peer_ended(self, peer: str) -> None:
        """A process is gone, and will send nothing more."""
        self.endpoint.ended(peer)
        self.on_peer_ended(peer)
        self.storage.reader.forget(peer)

    def _on_worker_died(self, sender: str, message: m.WorkerDied) -> None:
        self.peer_ended(message.worker)
        self.reconciliation.ask(message.worker, self.unfinished.tasks())

    def _on_print(self, sender: str, message: m.Print) -> None:
        stream = sys.stderr if message.stream == "stderr" else sys.stdout
        stream.write("".join(f"({message.source}) {line}\n" for line in message.text.splitlines()))

    def _on_welcome(self, sender: str, message: m.Welcome) -> None:
        self.welcome = True

    def _engine_ended(self) -> None:
        self.failure = "the engine's daemon is gone; see the log it left"

    # ------------------------------------------------------------ what is known of the session

    def cluster_resources(self) -> dict[str, float]:
        return self.questions.amounts("total")

    def available_resources(self) -> dict[str, float]:
        return self.questions.amounts("available")

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": self.session.name, "Alive": True, "Resources": self.cluster_resources()}]

    def timeline(self) -> list[dict[str, Any]]:
        raise UnsupportedError("timeline() works in the driver only")

    def context(self) -> RuntimeContext:
        scope = self.scope
        holder = self.actor or scope.spec
        return RuntimeContext(
            backend=self.name,
            role=self.role,
            job_id=self.session.name[1:],
            worker_id=self.process,
            node_id=self.session.name,
            namespace=self.session.namespace,
            task_id=None if scope.task is None else scope.task.hex(),
            actor_id=None if scope.actor is None else scope.actor.hex(),
            attempt=scope.attempt,
            actor_name=(self.actor.recipe.actor_name or None) if self.actor else None,
            was_current_actor_reconstructed=self.actor_restarted,
            resources={} if holder is None else {name: amount / UNITS for name, amount in holder.recipe.demand.items()},
            gpus=tuple(self.gpus),
            environment=self.environment or self.session.runtime_env,
        )

    def shutdown(self) -> None:
        self.close(LINGER_MS)

    def close(self, linger_ms: int) -> None:
        """Frees what this process holds."""
        self.endpoint.close(linger_ms)
        self.failure = self.failure or "the engine was shut down before the object was ready"
        self.objects.give_up()
        self.objects.clear()
        self.storage.close()
