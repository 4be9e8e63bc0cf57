"""The node daemon: one loop between the sockets and the state machines.

Each turn drains what came in, feeds it to the scheduler, the directory and the actor table, *commits* the control
store, and only then sends what they decided. So whatever a process learns from the node is in the store already
(guarantee 1), and everything that arrives while a commit runs shares the next one.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from .. import messages as m
from ..control_store import ControlStore
from ..exceptions import WorkerCrashedError
from ..ids import HANDLE_INDEX, handle_id, object_id
from ..options import UNITS
from ..serialization import dump_engine_error
from ..session import Session
from .actors import ALIVE, DEAD, Actor, ActorTable
from .directory import Directory, Freed
from .pool import Process, WorkerPool
from .scheduler import Plan, Scheduler, Task

FRAMES_PER_TURN = 64
REVOKE_AFTER_MS = 5
"""Silence after which tasks queued behind a long one are revoked, and what nobody waits for is committed."""

STOP_SECONDS = 0.3
"""At the end, for workers to report what they have just finished."""

FAILED_STARTS = 3
HIGH_CPU = 64
LAST_WORDS = (m.Logged, m.Print)
"""What still counts when it arrives after the end of its sender, whose tasks are with others by then."""


class Payload:
    """What the daemon keeps with a task."""

    __slots__ = ("adopted", "raw", "spec")

    def __init__(self, spec: m.Spec, raw: msgspec.Raw) -> None:
        self.spec = spec
        self.raw = raw
        self.adopted = False
        """Its owner is another than when it was handed out: its worker reports to somebody who is dead."""


class Daemon:
    """See the module's essay."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.store = ControlStore(Path(session.store))
        self._context = zmq.Context()
        self._inbox = self._context.socket(zmq.PULL)
        self._inbox.setsockopt(zmq.RCVHWM, 0)
        self._inbox.bind(session.address(m.NODE))
        self.pool = WorkerPool(session)
        cpus = max(1, min(session.capacity.get("CPU", 0) // UNITS, HIGH_CPU))
        self.scheduler = Scheduler(session.capacity, prestart=cpus)
        self.directory = Directory()
        self.actors = ActorTable()
        self.tasks: dict[bytes, Task] = {}
        self._functions: set[bytes] = set()
        self._peers: dict[str, zmq.Socket[bytes]] = {}
        self._roles: dict[str, str] = {}
        self._ended: set[str] = set()
        self._out: dict[str, list[m.Wire]] = {}
        self._frames = 1
        self._failed_starts = 0
        self._stop_by: float | None = None
        self._handlers: dict[type, Callable[[str, Any], None]] = {
            m.Hello: self._on_hello,
            m.Function: self._on_function,
            m.Submit: self._on_submit,
            m.Done: self._on_done,
            m.Logged: self._on_logged,
            m.Blocked: self._on_blocked,
            m.Unblocked: lambda sender, _: self.scheduler.unblocked(sender),
            m.Returned: lambda sender, message: self.scheduler.returned(sender, message.tasks),
            m.Resolve: self._on_resolve,
            m.Stored: self._on_stored,
            m.Hold: lambda _, message: self._free(
                self.directory.hold(message.object_id, message.holder, message.count)
            ),
            m.Release: self._on_release,
            m.CreateActor: self._on_create_actor,
            m.ActorStarted: self._on_actor_started,
            m.WatchActor: self._on_watch_actor,
            m.KillActor: self._on_kill_actor,
            m.FindActor: self._on_find_actor,
            m.Reconcile: self._on_reconcile,
            m.Ask: self._on_ask,
            m.Print: self._on_print,
            m.Stop: self._on_stop,
        }

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        poller = select.poll()  # on the inbox's fd, which is edge-triggered: only after it has been drained
        poller.register(int(self._inbox.getsockopt(zmq.FD)), select.POLLIN)
        poller.register(self.pool.fileno(), select.POLLIN)
        self._decide()
        while not self._stopped():
            if self._receive():
                self._decide()
                continue
            pipelined = self.scheduler.has_pipelined()
            idle = not pipelined and not self.store.gathered() and self._stop_by is None
            events = poller.poll(None if idle else REVOKE_AFTER_MS)
            if any(fd == self.pool.fileno() for fd, _ in events):
                for process, status in self.pool.poll():
                    self._worker_ended(process, status)
                self._decide()
            elif not events:
                self.store.commit()
                if pipelined:
                    for worker in self.scheduler.overdue():
                        self._post(worker, m.Revoke())
                    self._decide()
        self.store.add_event("stopped", self.session.driver)
        self.store.close()
        self._context.destroy(linger=0)

    def _receive(self) -> int:
        """Handles frames that are there; returns how many, 0 only if there was none.

        A lone frame is acted on before another is looked for, which costs 3 µs; the busier the node, the more
        frames share a turn and its transaction.
        """
        for received in range(self._frames):
            try:
                frame = m.decode_node_frame(self._inbox.recv(zmq.NOBLOCK))
            except zmq.Again:
                self._frames = 1
                return received
            late = frame.sender in self._ended
            for message in frame.messages:
                if not late or isinstance(message, LAST_WORDS):
                    self._handlers[type(message)](frame.sender, message)
        received = self._frames
        self._frames = min(2 * received, FRAMES_PER_TURN)
        return received

    def _decide(self) -> None:
        """Plan, commit, send: in this order."""
        plan = Plan() if self._stop_by is not None else self.scheduler.plan()
        for worker, tasks in plan.dispatch.items():
            self._post(worker, m.Execute([self._assignment(task) for task in tasks]))
        for worker in plan.stop_workers:
            self._dismiss(worker)
        if plan.start_workers:
            self.pool.start(plan.start_workers)
        if self._out:
            self.store.commit()
            out, self._out = self._out, {}
            for peer, messages in out.items():
                self._send(peer, messages)

    def _assignment(self, task: Task) -> m.Assignment:
        return m.Assignment(task.payload.raw, task.attempt, self.directory.resolved(task.id))

    def _post(self, peer: str, message: m.Wire) -> None:
        if peer in self._out:
            self._out[peer].append(message)
        else:
            self._out[peer] = [message]

    def _send(self, peer: str, messages: list[m.Wire]) -> None:
        socket = self._peers.get(peer)
        if socket is not None:
            socket.send(m.encode(m.OutFrame(m.NODE, messages)))

    # ------------------------------------------------------------ processes

    def _on_hello(self, sender: str, hello: m.Hello) -> None:
        socket = self._context.socket(zmq.PUSH)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(self.session.address(sender))
        self._peers[sender] = socket
        self._roles[sender] = hello.role
        self.store.add_event("joined", sender, f"{hello.role}, pid {hello.pid}")
        if hello.role == "worker":
            self.pool.processes[sender].ready = True
            self._failed_starts = 0
            self.scheduler.worker_started(sender)
        self._post(sender, m.Welcome(self.session.name))

    def _dismiss(self, worker: str) -> None:
        self.pool.processes[worker].leaving = True
        self._post(worker, m.Exit())

    def _worker_ended(self, process: Process, status: int) -> None:
        worker = process.id
        self._ended.add(worker)
        reason = self.pool.describe_end(process, status)
        self.store.add_event("left" if process.leaving else "died", worker, reason)
        if not process.ready:
            self.scheduler.start_failed()
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                raise RuntimeError(f"{FAILED_STARTS} workers in a row did not start; the last one: {reason}")
        started, _ = self.scheduler.worker_died(worker, self.pool.last_started(worker))
        for task in started:
            retries = task.payload.spec.max_retries
            if task.exclusive:
                self._actor_lost(self.actors.get(task.id), reason)
            elif retries < 0 or 0 < retries >= task.crashes:
                task.attempt += 1
                self.store.add_event("retried", task.id.hex(), reason)
                self.scheduler.retry(task)
            else:  # with max_retries=0 also those that were not to blame: they may not be run twice
                attempts = "1 attempt" if task.crashes <= 1 else f"each of {task.crashes} attempts"
                error = WorkerCrashedError(
                    f"task {task.payload.spec.name or task.id.hex()}: its worker died in {attempts} "
                    f"(max_retries={retries}); the last: {reason}"
                )
                self._fail(task, dump_engine_error(error), m.CRASHED, worker)
        pins = {
            task.id: [dep.object_id for dep in task.payload.spec.deps] + task.payload.spec.nested
            for task in self.tasks.values()
            if task.payload.spec.owner == worker
        }
        self._free(self.directory.process_died(worker, pins))
        self._drop_segments(worker)
        socket = self._peers.pop(worker, None)
        if socket is not None:
            socket.close()
            del self._roles[worker]
            for peer in self._peers:
                self._post(peer, m.WorkerDied(worker, reason))

    def _on_stop(self, sender: str, _: m.Stop) -> None:
        self._stop_by = time.monotonic() + STOP_SECONDS
        for process in self.pool.processes.values():
            if process.ready:
                self._dismiss(process.id)

    def _stopped(self) -> bool:
        """Whether the session is over: what workers did until :class:`Stop` came is part of its history."""
        if self._stop_by is None:
            return False
        return time.monotonic() > self._stop_by or not any(p.ready for p in self.pool.processes.values())

    def _on_print(self, sender: str, message: m.Print) -> None:
        if self.session.log_to_driver:
            self._post(self.session.driver, message)

    def _on_ask(self, sender: str, ask: m.Ask) -> None:
        if ask.what == "census":
            answer: dict[str, float] = {
                "tasks": len(self.tasks), "living actors": self.actors.living(), **self.directory.census(),
            }
        else:
            amounts = self.scheduler.free if ask.what == "available" else self.scheduler.capacity
            answer = {name: max(0, n) / UNITS for name, n in amounts.items()}
        self._post(sender, m.Answer(ask.token, answer))

    # ------------------------------------------------------------ tasks

    def _on_function(self, sender: str, function: m.Function) -> None:
        if function.id not in self._functions:
            self._functions.add(function.id)
            self.store.add_function(function.id, function.name, function.blob)

    def _on_submit(self, sender: str, message: m.Submit) -> None:
        for raw in message.items:
            spec = m.decode_spec(raw)
            if spec.parent_attempt and self._found_again(spec):
                continue
            task = Task(spec.task, spec.function, spec.demand, spec.prefer, payload=Payload(spec, raw))
            self.tasks[spec.task] = task
            self.store.add_spec(spec.task, raw)
            if spec.deps and not self._arguments_there(task):
                continue
            self._enqueue(task)

    def _found_again(self, spec: m.Spec) -> bool:
        """A parent that is re-run submits its children again; those that run or have ended are not run twice."""
        task = self.tasks.get(spec.task)
        if task is not None:
            task.payload.spec.owner = spec.owner
            task.payload.raw = msgspec.Raw(m.encode(task.payload.spec))
            task.payload.adopted = True
            return True
        outcome = self.store.outcome(spec.task)
        if outcome is None:
            return False
        tracked = [
            object_id(spec.task, i) for i, value in enumerate(outcome.values)
            if not isinstance(value, m.Failed) and (isinstance(value, m.Shm) or value.refs)
        ]
        if not all(self.directory.adopt(oid, spec.owner) for oid in tracked):
            return False  # freed when the parent's last attempt died with its refs
        self._post(spec.owner, m.Results([outcome]))
        return True

    def _arguments_there(self, task: Task) -> bool:
        """Looks the task's pending deps up; registers it for those that do not exist yet."""
        missing = []
        for dep in task.payload.spec.deps:
            if dep.value is not None:
                continue
            value = self._value(dep.object_id)
            if value is None:
                missing.append(dep)
            else:
                self.directory.resolve_now(task, dep, value)
        if missing:
            self.directory.wait_for(task, missing)
        return not missing

    def _value(self, oid: bytes) -> m.Value | None:
        return self.directory.known(oid) or self.store.value(oid)

    def _enqueue(self, task: Task) -> None:
        if not self.scheduler.submit(task):
            asked, there = (
                {name: amount / UNITS for name, amount in amounts.items()}
                for amounts in (task.demand, self.scheduler.capacity)
            )
            kind = "actor" if task.exclusive else "task"
            self._post(self.session.driver, m.Warning(
                f"{kind} {task.payload.spec.name} can never run: it asks for {asked} and the engine has {there}"
            ))

    def _on_done(self, sender: str, done: m.Done) -> None:
        for raw in done.items:
            outcome = m.decode_outcome(raw)
            task = self.scheduler.finished(sender, outcome.task, outcome.duration)
            if task is None or outcome.attempt != task.attempt:
                continue  # fenced: another attempt has taken its place
            del self.tasks[task.id]
            spec = task.payload.spec
            self._record(outcome, raw, spec.owner)
            if task.payload.adopted:
                self._post(spec.owner, m.Results([outcome]))
            if spec.deps:
                self.directory.forget(task.id)
            if spec.deps or spec.nested:
                self._free(self.directory.task_ended(task.id, [d.object_id for d in spec.deps] + spec.nested))

    def _on_logged(self, sender: str, logged: m.Logged) -> None:
        for raw_spec, raw_outcome in zip(logged.items[::2], logged.items[1::2], strict=True):
            spec = m.decode_spec(raw_spec)
            self.store.add_spec(spec.task, raw_spec)
            self._record(m.decode_outcome(raw_outcome), raw_outcome, spec.owner)

    def _record(self, outcome: m.Outcome, raw: msgspec.Raw, owner: str) -> None:
        self.store.add_outcome(outcome.task, raw)
        for index, value in enumerate(outcome.values):
            oid = object_id(outcome.task, index)
            if self.directory.concerns(oid, value):
                self._exists(oid, value, owner)

    def _exists(self, oid: bytes, value: m.Value, owner: str) -> None:
        ready, askers = self.directory.exists(oid, value, owner)
        for task in ready:
            self._enqueue(task)
        for process in askers:
            self._post(process, m.Resolved(oid, value))

    def _fail(self, task: Task, error: bytes, status: int, worker: str = "") -> None:
        """Ends a task with an error that no worker can report."""
        self.scheduler.withdraw(task)
        self.tasks.pop(task.id, None)
        values: list[m.Value] = [m.Failed(error)] * max(1, task.payload.spec.num_returns)
        outcome = m.Outcome(task.id, task.attempt, worker, status, 0.0, 0.0, values)
        self._record(outcome, msgspec.Raw(m.encode(outcome)), task.payload.spec.owner)
        self._post(task.payload.spec.owner, m.Results([outcome]))

    def _on_blocked(self, sender: str, message: m.Blocked) -> None:
        awaits: list[Task] = []
        seen: set[bytes] = set()
        stack = list(reversed(message.awaits))
        while stack:
            task_id = stack.pop()
            task = self.tasks.get(task_id)
            if task is None or task_id in seen:
                continue
            seen.add(task_id)
            awaits.append(task)
            stack += [oid[:-2] for oid in self.directory.unresolved(task)]
        self.scheduler.blocked(sender, awaits, message.returned)

    def _on_reconcile(self, sender: str, message: m.Reconcile) -> None:
        for task_id in message.tasks:
            if task_id not in self.tasks:
                outcome = self.store.outcome(task_id)
                if outcome is not None:
                    self._post(sender, m.Results([outcome]))

    # ------------------------------------------------------------ objects

    def _on_resolve(self, sender: str, message: m.Resolve) -> None:
        for oid in message.ids:
            value = self._value(oid)
            if value is None:
                self.directory.ask(sender, oid)
            else:
                self._post(sender, m.Resolved(oid, value))

    def _on_stored(self, sender: str, message: m.Stored) -> None:
        if not isinstance(message.value, m.Shm):
            self.store.add_stored(message.object_id, message.value)
        self._exists(message.object_id, message.value, sender)

    def _on_release(self, sender: str, message: m.Release) -> None:
        for oid in message.ids:
            self._free(self.directory.release(oid))

    def _free(self, freed: Freed) -> None:
        blocks: dict[str, list[tuple[str, int]]] = {}
        for process, segment, offset in freed.blocks:
            blocks.setdefault(process, []).append((segment, offset))
        for process, its in blocks.items():
            if process in self._peers:
                self._post(process, m.FreeBlocks(its))
            else:
                self._drop_segments(process)
        for oid in freed.objects:
            if oid.endswith(HANDLE_INDEX):
                self._handles_gone(oid[:-2])

    def _drop_segments(self, process: str) -> None:
        """Removes those segments of a dead process in which nothing lives any more."""
        for entry in os.scandir(self.session.shm):
            if entry.name.rpartition("-")[0] == process and not self.directory.segments[entry.name]:
                os.unlink(entry.path)

    # ------------------------------------------------------------ actors

    def _on_create_actor(self, sender: str, request: m.CreateActor) -> None:
        spec = m.decode_spec(request.spec)
        if request.name:
            taken = self.actors.named(request.namespace, request.name)
            if taken is not None:
                if request.get_if_exists:
                    self._introduce(sender, request.token, taken, created=False)
                else:
                    error = f"the name {request.name!r} is taken by another actor in namespace {request.namespace!r}"
                    self._post(sender, m.ActorFound(request.token, b"", "", {}, False, error))
                return
        task = Task(spec.task, spec.function, spec.demand, exclusive=True, payload=Payload(spec, request.spec))
        actor = Actor(spec.task, request, task, sender, restarts_left=request.max_restarts)
        self.actors.add(actor)
        self.directory.track(handle_id(actor.id), sender)
        self.tasks[task.id] = task
        self.store.add_spec(spec.task, request.spec)
        if request.name:
            self._post(sender, m.ActorFound(request.token, actor.id, "", {}, True, ""))
        if not spec.deps or self._arguments_there(task):
            self._enqueue(task)

    def _introduce(self, sender: str, token: int, actor: Actor, created: bool) -> None:
        """A handle for ``sender``, held from here on so that the actor cannot vanish on the way."""
        self.directory.hold(handle_id(actor.id), sender.encode(), 1)
        request = actor.request
        self._post(sender, m.ActorFound(token, actor.id, request.class_name, request.methods, created, ""))

    def _on_find_actor(self, sender: str, find: m.FindActor) -> None:
        actor = self.actors.named(find.namespace, find.name)
        if actor is not None:
            self._introduce(sender, find.token, actor, created=False)
            return
        known = ", ".join(sorted(self.actors.names(find.namespace))) or "none"
        error = f"there is no actor named {find.name!r} in namespace {find.namespace!r}; there are: {known}"
        self._post(sender, m.ActorFound(find.token, b"", "", {}, False, error))

    def _on_watch_actor(self, sender: str, watch: m.WatchActor) -> None:
        actor = self.actors.get(watch.actor)
        if actor is None:
            error = f"actor {watch.actor.hex()} is unknown here: it lived in an engine that was shut down"
            self._post(sender, m.ActorState(watch.actor, "", error, b"", 0))
            return
        actor.watchers.add(sender)
        self._post(sender, actor.message())

    def _on_actor_started(self, sender: str, message: m.ActorStarted) -> None:
        actor = self.actors.get(message.actor)
        outcome = m.decode_outcome(message.outcome)
        self.store.add_outcome(outcome.task, message.outcome)
        if actor is None or actor.state == DEAD:
            self.pool.kill(sender)
            return
        self.tasks.pop(actor.id, None)
        if outcome.status == m.FINISHED:
            self.scheduler.became_actor(sender)
            self.actors.started(actor, sender)
            self._tell_watchers(actor)
            if actor.leaving:
                self._dismiss(sender)
        else:
            self.scheduler.finished(sender, outcome.task, outcome.duration)
            (cause,) = outcome.values
            assert isinstance(cause, m.Failed)
            self._actor_dead(actor, f"{actor.describe()} could not start: its __init__ raised", cause.error)

    def _actor_lost(self, actor: Actor | None, reason: str) -> None:
        if actor is None or actor.state == DEAD:
            return
        if self.actors.may_restart(actor):
            self.store.add_event("actor restarted", actor.id.hex(), reason)
            actor.creation.attempt += 1
            self.tasks[actor.id] = actor.creation
            self.scheduler.retry(actor.creation)
            self._tell_watchers(actor)
        else:
            why = "all its handles are gone" if actor.leaving else reason
            self._actor_dead(actor, f"{actor.describe()} is dead: {why}", b"")

    def _actor_dead(self, actor: Actor, text: str, cause: bytes) -> None:
        self.store.add_event("actor died", actor.id.hex(), text)
        self.directory.forget(actor.id)
        self.actors.died(actor, text, cause)
        self._tell_watchers(actor)

    def _tell_watchers(self, actor: Actor) -> None:
        for watcher in actor.watchers:
            self._post(watcher, actor.message())

    def _on_kill_actor(self, sender: str, message: m.KillActor) -> None:
        actor = self.actors.get(message.actor)
        if actor is None or actor.state == DEAD:
            return
        if message.no_restart:
            actor.restarts_left = 0
            worker = actor.creation.worker
            self._actor_dead(actor, f"{actor.describe()} is dead: it was killed by kill()", b"")
            self.scheduler.withdraw(actor.creation)
            self.tasks.pop(actor.id, None)
            if worker:
                self.pool.kill(worker)
        elif actor.state == ALIVE:
            self.pool.kill(actor.worker)

    def _handles_gone(self, actor_id: bytes) -> None:
        actor = self.actors.get(actor_id)
        if actor is None or actor.state == DEAD:
            return
        actor.leaving = True
        if actor.state == ALIVE:
            self._dismiss(actor.worker)


def main(folder: str) -> None:
    Daemon(Session.read(folder)).run()
