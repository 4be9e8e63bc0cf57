"""The node daemon: one loop between the sockets and the state machines.

Each turn drains what came in, feeds it to the scheduler, the directory and the actor table, *commits* the control
store, and only then sends what they decided. So whatever a process learns from the node is in the store already
(guarantee 1), and everything that arrives while a commit runs shares the next one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from .. import messages as m
from ..control_store import ControlStore
from ..exceptions import WorkerCrashedError
from ..ids import HANDLE_INDEX, object_id
from ..mailbox import Mailbox
from ..options import UNITS
from ..serialization import dump_engine_error
from ..session import Session
from .actor_desk import ActorDesk
from .directory import Directory, Freed
from .payload import Payload
from .pool import Process, WorkerPool
from .scheduler import Plan, Scheduler, Task

FRAMES_PER_TURN = 64
REVOKE_AFTER_MS = 5
"""Silence after which tasks queued behind a long one are revoked, and what nobody waits for is committed."""

SPIN_SECONDS = 0.00005
"""As long as a program takes from a task's result to its next task."""

STOP_SECONDS = 0.3
"""At the end, for workers to report what they have just finished."""

FAILED_STARTS = 10
HIGH_CPU = 64
LAST_WORDS = (m.Logged, m.Print)
"""What still counts when it arrives after the end of its sender, whose tasks are with others by then."""


class Daemon:
    """See the module's essay."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.store = ControlStore(Path(session.store))
        self._mail: Mailbox[m.NodeFrame] = Mailbox(session, m.NODE, m.decode_node_frame)
        self.pool = WorkerPool(session)
        cpus = max(1, min(session.capacity.get("CPU", 0) // UNITS, HIGH_CPU))
        self.scheduler = Scheduler(session.capacity, prestart=cpus)
        self.directory = Directory()
        self.tasks: dict[bytes, Task] = {}
        self.actors = ActorDesk(self)
        self._functions: set[bytes] = set()
        self._roles: dict[str, str] = {}
        self._newcomers: list[str] = []
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
            m.CreateActor: self.actors.on_create_actor,
            m.ActorStarted: self.actors.on_actor_started,
            m.WatchActor: self.actors.on_watch_actor,
            m.KillActor: self.actors.on_kill_actor,
            m.FindActor: self.actors.on_find_actor,
            m.NeedRoom: self._on_need_room,
            m.Reconcile: self._on_reconcile,
            m.Ask: self._on_ask,
            m.Print: self._on_print,
            m.Stop: self._on_stop,
        }

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        zygote = self.pool.fileno()
        self._mail.watch(zygote)
        self._decide()
        while not self._stopped():
            pipelined = self.scheduler.has_pipelined()
            idle = not pipelined and not self.store.gathered() and self._stop_by is None
            self._mail.wait(None if idle else REVOKE_AFTER_MS / 1000, SPIN_SECONDS)
            if zygote in self._mail.receive():
                for process, status in self.pool.poll():
                    self._worker_ended(process, status)
                self._welcome()
            elif not self._mail.frames:
                self.store.commit()
                if pipelined:
                    for worker in self.scheduler.overdue():
                        self.post(worker, m.Revoke())
            self._receive()
            self._decide()
        self.store.add_event("stopped", self.session.driver)
        self.store.close()
        self._mail.close(linger_ms=0)

    def _receive(self) -> None:
        """Handles frames that are there.

        A lone frame is acted on before another is looked for; the busier the node, the more frames share a turn and
        its transaction.
        """
        frames = self._mail.frames
        for _ in range(self._frames):
            if not frames:
                self._mail.wait(0)
                self._mail.receive()
                if not frames:
                    self._frames = 1
                    return
            frame = frames.popleft()
            late = frame.sender in self._ended
            for message in frame.messages:
                if not late or isinstance(message, LAST_WORDS):
                    self._handlers[type(message)](frame.sender, message)
        self._frames = min(2 * self._frames, FRAMES_PER_TURN)

    def _decide(self) -> None:
        """Plan, commit, send: in this order."""
        plan = Plan() if self._stop_by is not None else self.scheduler.plan()
        for worker, tasks in plan.dispatch.items():
            self.post(worker, m.Execute([self._assignment(task) for task in tasks]))
        for worker in plan.stop_workers:
            self.dismiss(worker)
        if plan.start_workers:
            self.pool.start(plan.start_workers)
        if self._out:
            self.store.commit()
            out, self._out = self._out, {}
            for peer, messages in out.items():
                if peer in self._roles:
                    self._mail.send(peer, messages)

    def _assignment(self, task: Task) -> m.Assignment:
        task.payload.adopted = False
        return m.Assignment(task.payload.raw, task.attempt, self.directory.resolved(task.id), task.nested)

    def post(self, peer: str, message: m.Wire) -> None:
        if peer in self._out:
            self._out[peer].append(message)
        else:
            self._out[peer] = [message]

    # ------------------------------------------------------------ processes

    def _on_hello(self, sender: str, hello: m.Hello) -> None:
        self._roles[sender] = hello.role
        self.store.add_event("joined", sender, f"{hello.role}, pid {hello.pid}")
        if hello.role == "worker":
            self.pool.processes[sender].ready = True
            self._failed_starts = 0
            self.scheduler.worker_started(sender)
        self._newcomers.append(sender)
        self._welcome()

    def _welcome(self) -> None:
        """Answers greetings once workers can be had: an engine whose preload fails has not started."""
        if self.pool.ready:
            while self._newcomers:
                self.post(self._newcomers.pop(), m.Welcome(self.session.name))

    def dismiss(self, worker: str) -> None:
        self.pool.processes[worker].leaving = True
        self.post(worker, m.Exit())

    def _worker_ended(self, process: Process, status: int) -> None:
        worker = process.id
        self._ended.add(worker)
        reason = self.pool.describe_end(process, status)
        self.store.add_event("left" if process.leaving else "died", worker, reason)
        self.store.forget_dead_readers()
        if not process.ready:
            self.scheduler.start_failed()
            self._failed_starts += 1
            if self._failed_starts == FAILED_STARTS:
                raise RuntimeError(f"{FAILED_STARTS} workers in a row did not start; the last one: {reason}")
        started, _ = self.scheduler.worker_died(worker, self.pool.last_started(worker))
        for task in started:
            retries = task.payload.spec.max_retries
            if task.exclusive:
                self.actors.lost(task.id, reason)
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
        self._mail.forget(worker)
        self._mail.end_of(worker)
        if self._roles.pop(worker, None) is not None:
            for peer in self._roles:
                self.post(peer, m.WorkerDied(worker, reason))

    def _on_stop(self, sender: str, _: m.Stop) -> None:
        self._stop_by = time.monotonic() + STOP_SECONDS
        for process in self.pool.processes.values():
            if process.ready:
                self.dismiss(process.id)

    def _stopped(self) -> bool:
        """Whether the session is over: what workers did until :class:`Stop` came is part of its history."""
        if self._stop_by is None:
            return False
        return time.monotonic() > self._stop_by or not any(p.ready for p in self.pool.processes.values())

    def _on_print(self, sender: str, message: m.Print) -> None:
        if self.session.log_to_driver:
            self.post(self.session.driver, message)

    def _on_ask(self, sender: str, ask: m.Ask) -> None:
        if ask.what == "census":
            answer: dict[str, float] = {
                "tasks": len(self.tasks), "living actors": self.actors.table.living(), **self.directory.census(),
            }
        else:
            amounts = self.scheduler.free if ask.what == "available" else self.scheduler.capacity
            answer = {name: max(0, n) / UNITS for name, n in amounts.items()}
        self.post(sender, m.Answer(ask.token, answer))

    # ------------------------------------------------------------ tasks

    def _on_function(self, sender: str, function: m.Function) -> None:
        if function.id not in self._functions:
            self._functions.add(function.id)
            self.store.add_function(function.id, function.name, function.blob)

    def _on_submit(self, sender: str, message: m.Submit) -> None:
        for raw in message.items:
            spec = m.decode_spec(raw)
            if spec.parent_attempt:
                if self._found_again(spec):
                    continue
            elif spec.task in self.tasks:  # sent twice
                continue
            task = Task(spec.task, spec.function, spec.demand, spec.prefer, payload=Payload(spec, raw))
            self.tasks[spec.task] = task
            self.store.add_spec(spec.task, raw)
            if spec.deps and not self.arguments_there(task):
                continue
            self.enqueue(task)

    def _found_again(self, spec: m.Spec) -> bool:
        """A parent that is re-run submits its children again; those that run or have ended are not run twice."""
        task = self.tasks.get(spec.task)
        if task is not None:
            task.payload.spec.owner = spec.owner
            task.payload.raw = msgspec.Raw(m.encode(task.payload.spec))
            task.payload.adopted = True
            for index in range(spec.num_returns):
                self.directory.wanted_again(object_id(spec.task, index), spec.owner)
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
        self.post(spec.owner, m.Results([outcome]))
        return True

    def arguments_there(self, task: Task) -> bool:
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

    def enqueue(self, task: Task) -> None:
        if not self.scheduler.submit(task):
            asked, there = (
                {name: amount / UNITS for name, amount in amounts.items()}
                for amounts in (task.demand, self.scheduler.capacity)
            )
            kind = "actor" if task.exclusive else "task"
            self.post(self.session.driver, m.Warning(
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
                self.post(spec.owner, m.Results([outcome]))
            elif spec.owner in self._ended:  # which can no longer register what the worker retained
                for borrowed in outcome.retained:
                    self._free(self.directory.hold(borrowed, sender.encode(), 1))
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
        ready, askers, freed = self.directory.exists(oid, value, owner)
        for task in ready:
            self.enqueue(task)
        for process in askers:
            self.post(process, m.Resolved(oid, value))
        self._free(freed)

    def _fail(self, task: Task, error: bytes, status: int, worker: str = "") -> None:
        """Ends a task with an error that no worker can report."""
        self.scheduler.withdraw(task)
        self.tasks.pop(task.id, None)
        values: list[m.Value] = [m.Failed(error)] * max(1, task.payload.spec.num_returns)
        outcome = m.Outcome(task.id, task.attempt, worker, status, 0.0, 0.0, values)
        self._record(outcome, msgspec.Raw(m.encode(outcome)), task.payload.spec.owner)
        self.post(task.payload.spec.owner, m.Results([outcome]))

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
                if outcome is not None and outcome.worker == message.worker:  # others report by themselves
                    self.post(sender, m.Results([outcome]))

    # ------------------------------------------------------------ objects

    def _on_resolve(self, sender: str, message: m.Resolve) -> None:
        for oid in message.ids:
            value = self._value(oid)
            if value is None:
                self.directory.ask(sender, oid)
            else:
                self.post(sender, m.Resolved(oid, value))

    def _on_stored(self, sender: str, message: m.Stored) -> None:
        if not isinstance(message.value, m.Shm):
            self.store.add_stored(message.object_id, message.value)
        self._exists(message.object_id, message.value, sender)

    def _on_release(self, sender: str, message: m.Release) -> None:
        for oid in message.ids:
            self._free(self.directory.release(oid))

    def _on_need_room(self, sender: str, _: m.NeedRoom) -> None:
        for process in self._roles:
            if process != sender:
                self.post(process, m.GiveRoom())

    def _free(self, freed: Freed) -> None:
        blocks: dict[str, list[tuple[str, int]]] = {}
        for process, segment, offset in freed.blocks:
            blocks.setdefault(process, []).append((segment, offset))
        for process, its in blocks.items():
            if process in self._roles:
                self.post(process, m.FreeBlocks(its))
            else:
                self._drop_segments(process)
        for oid in freed.objects:
            if oid.endswith(HANDLE_INDEX):
                self.actors.handles_gone(oid[:-2])
        for oid in freed.unseen:
            if not oid.endswith(HANDLE_INDEX) and self.store.value(oid) is None:
                self.directory.unwanted(oid)

    def _drop_segments(self, process: str) -> None:
        """Removes those segments of a dead process in which nothing lives any more."""
        for entry in os.scandir(self.session.shm):
            if entry.name.rpartition("-")[0] == process and not self.directory.segments[entry.name]:
                os.unlink(entry.path)


def main(folder: str) -> None:
    Daemon(Session.read(folder)).run()
