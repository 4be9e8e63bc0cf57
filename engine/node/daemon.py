"""The node daemon: one loop between the sockets and the state machines.

Each turn drains what came in, feeds it to the scheduler, the directory and the actor table, *commits* the control
store, and only then sends what they decided. So whatever a process learns from the node is in the store already
(guarantee 1), and everything that arrives while a commit runs shares the next one.
"""

from __future__ import annotations

import gc
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb

from .. import messages as m
from ..control_store import ControlStore
from ..departed import Departed
from ..exceptions import OutOfMemoryError, WorkerCrashedError
from ..mailbox import Mailbox
from ..options import UNITS
from ..session import Session
from ..supervisor import GIVES_UP
from .actor_desk import ActorDesk
from .cancel_desk import CancelDesk
from .function_desk import FunctionDesk
from .info_desk import InfoDesk
from .journal import Journal
from .latecomers import Latecomers
from .lineage_desk import LineageDesk
from .memory_guard import MemoryGuard
from .object_desk import ObjectDesk
from .pool import Process, WorkerPool
from .rebuild_desk import RebuildDesk
from .recovery_desk import RecoveryDesk
from .scheduler import Plan, Scheduler, Task
from .successor import Successor
from .task_desk import TaskDesk
from .watchman import Watchman
from .why_desk import WhyDesk

FRAMES_PER_TURN = 64
TICK_SECONDS = 0.005
"""Silence after which what nobody waits for is committed; as often the node looks for tasks behind a long one."""

SPIN_SECONDS = 0.00005
"""As long as a program takes from a task's result to its next task."""

STOP_SECONDS = 0.3
"""At the end, for workers to report what they have just finished."""

RETRY_SECONDS = 0.2
NO_ROOM = (lmdb.MapFullError, lmdb.DiskError, lmdb.Error)
"""What LMDB raises when the disk is full; the last, itself, when a write went through in part."""

FAILED_STARTS = 10
"""Of workers in a row, before the engine gives up."""

LATE_COUNTS = 4
"""As so many counts one that did not start in a minute: nobody wants to wait for ten of them."""

ACKNOWLEDGE_EVERY = 32
"""Frames of a sender; it keeps that many, for the node that may take our place."""

HIGH_CPU = 64
LAST_WORDS = (m.Logged, m.Print)
"""What still counts when it arrives after the end of its sender, whose tasks are with others by then."""


class GaveUp(Exception):
    """Another node would fare no better."""


class Daemon:
    """See the module's essay."""

    def __init__(self, session: Session, incarnation: int) -> None:
        self.session = session
        self._incarnation = incarnation
        self._inbox = f"{m.NODE}.{incarnation}" if incarnation else m.NODE
        self.store = ControlStore(Path(session.store), limit=session.store_limit)
        self.store.history.needed = self._needs
        self._mail: Mailbox[m.NodeFrame] = Mailbox(session, self._inbox, m.decode_node_frame)
        self.pool = WorkerPool(session, self._inbox)
        cpus = max(1, min(session.capacity.get("CPU", 0) // UNITS, HIGH_CPU))
        self.scheduler = Scheduler(session.capacity, prestart=cpus)
        self.objects = ObjectDesk(self, incarnation)
        self.tasks = TaskDesk(self)
        self.functions = FunctionDesk(self.store)
        self.lineage = LineageDesk(self)
        self.rebuild = RebuildDesk(self)
        self.cancels = CancelDesk(self)
        self.actors = ActorDesk(self)
        self.recovery = RecoveryDesk(self)
        self.journal = Journal(self.store, self.objects.directory, self.lineage.ancestry, self.actors.table)
        self.memory = MemoryGuard(self)
        self.why = WhyDesk(self)
        self.watchman = Watchman(self)
        self.latecomers = Latecomers(self, self._mail)
        self.roles: dict[str, str] = {}
        self._newcomers: list[str] = []
        self.ended = Departed()
        self._out: dict[str, list[m.Wire]] = {}
        self._frames = 1
        self._failed_starts = 0
        self._stop_by: float | None = None
        self._retry_at = 0.0
        """When to try the commit again that failed, if one did."""
        self._handlers: dict[type, Callable[[str, Any], None]] = {
            m.Hello: self._on_hello,
            m.Report: self._on_report,
            m.Function: self.functions.on_function,
            m.Submit: self.tasks.on_submit,
            m.WantAcknowledgement: lambda sender, message: self.post(sender, m.Acknowledged(message.frame)),
            m.Done: self.tasks.on_done,
            m.Logged: self.tasks.on_logged,
            m.Ran: self.recovery.on_ran,
            m.Checkpointed: self.recovery.on_checkpointed,
            m.Seen: self.recovery.on_seen,
            m.Blocked: self.tasks.on_blocked,
            m.Unblocked: lambda sender, _: self.scheduler.unblocked(sender),
            m.Returned: self.tasks.on_returned,
            m.Retiring: self.tasks.on_retiring,
            m.Cancel: self.cancels.on_cancel,
            m.Resolve: self.objects.on_resolve,
            m.Lost: self.objects.on_lost,
            m.Stored: self.objects.on_stored,
            m.Copied: self.lineage.on_copied,
            m.Escaped: self.objects.on_escaped,
            m.Hold: self.objects.on_hold,
            m.Release: self.objects.on_release,
            m.CreateActor: self.actors.on_create_actor,
            m.ActorStarted: self.actors.on_actor_started,
            m.ActorExits: self.actors.on_actor_exits,
            m.WatchActor: self.actors.on_watch_actor,
            m.KillActor: self.actors.on_kill_actor,
            m.FindActor: self.actors.on_find_actor,
            m.ListNames: self.actors.on_list_names,
            m.NeedRoom: self.objects.spilling.on_need_room,
            m.Reads: self.objects.spilling.on_reads,
            m.Spilled: self.objects.spilling.on_spilled,
            m.Reconcile: self.tasks.on_reconcile,
            m.Recalled: self.tasks.on_recalled,
            m.Pong: self._on_pong,
            m.Ask: InfoDesk(self).on_ask,
            m.AskWhy: self.why.on_ask,
            m.Print: self._on_print,
            m.Stop: self._on_stop,
        }

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        zygote = self.pool.fileno()
        self._mail.watch(zygote)
        if self._incarnation:
            Successor(self, self._mail, self._inbox, self._incarnation).take_over()
        else:
            self.journal.forget()
        self._decide()
        look_at = 0.0
        while not self._stopped():
            pipelined = self.scheduler.has_pipelined()
            idle = not pipelined and not self._gathered() and self._stop_by is None
            timeout = None if idle else TICK_SECONDS
            busy = self.scheduler.busy()
            if busy:
                timeout = self._look(self.memory, timeout)
            if busy or self.pool.starting:
                timeout = self._look(self.watchman, timeout)
            self._mail.wait(timeout, SPIN_SECONDS)
            if zygote in self._mail.receive():
                for process, status in self.pool.poll():
                    self.worker_ended(process, status)
                self._welcome()
            elif not self._mail.frames:
                self._commit()
            if pipelined and (now := time.monotonic()) >= look_at:
                look_at = now + TICK_SECONDS
                for worker in self.scheduler.overdue():
                    self.post(worker, m.Revoke())
            self._receive()
            self._decide()
        self.store.add_event("stopped", self.session.driver)
        try:
            self.store.close()
        except lmdb.Error as error:  # there was no room to the end
            print(f"the last records of the control store are lost: {error}", file=sys.stderr, flush=True)
        self._mail.close(linger_ms=0)

    def _look(self, guard: MemoryGuard | Watchman, timeout: float | None) -> float:
        """Has a guard look if it is time; returns how long it is to the next look, or ``timeout`` if that is less."""
        now = time.monotonic()
        if now >= guard.next_look:
            guard.look(now)
        left = max(0.0, guard.next_look - now)
        return left if timeout is None else min(left, timeout)

    def _receive(self) -> None:
        """Handles frames that are there.

        A lone frame is acted on before another is looked for; the busier the node, the more frames share a turn and
        its transaction.
        """
        frames = self._mail.frames
        expected = self.latecomers.expected
        for _ in range(self._frames):
            if not frames:
                self._mail.wait(0)
                self._mail.receive()
                if not frames:
                    self._frames = 1
                    return
            frame = frames.popleft()
            if expected and frame.sender in expected:
                self.latecomers.take(frame)
            else:
                self.handle(frame)
        self._frames = min(2 * self._frames, FRAMES_PER_TURN)

    def handle(self, frame: m.NodeFrame) -> None:
        sender = frame.sender
        late = sender not in self.roles and sender in self.ended
        for message in frame.messages:
            if not late or isinstance(message, LAST_WORDS):
                self._handlers[type(message)](sender, message)
        count = frame.number + 1
        if count and not late:
            self.journal.handled[sender] = count
            if not count % ACKNOWLEDGE_EVERY:
                self.post(sender, m.Acknowledged(frame.number))

    def _decide(self) -> None:
        """Plan, commit, send: in this order."""
        plan = Plan() if self._stop_by is not None else self.scheduler.plan()
        for worker, devices in plan.gpus.items():
            self.post(worker, m.Devices([self.session.gpus[device] for device in devices]))
        for worker, tasks in plan.dispatch.items():
            if tasks[0].exclusive:
                self.recovery.dispatched(tasks[0].id, worker)
            self.post(worker, m.Execute([self._assignment(task) for task in tasks]))
        for worker in plan.stop_workers:
            self.dismiss(worker)
        if plan.start_workers:
            self.pool.start(plan.start_workers)
        for environment, count in plan.start_elsewhere.items():
            self.pool.start(count, environment)
        if self._out and self._commit():
            out, self._out = self._out, {}
            for peer, messages in out.items():
                if peer in self.roles:
                    self._mail.send(peer, messages)

    def _commit(self) -> bool:
        """Whether all that came in is in the store. While there is no room for it nothing may be sent."""
        if self._retry_at and time.monotonic() < self._retry_at:
            return False
        try:
            self.journal.gather()
            self.store.commit()
        except lmdb.Error as error:
            if type(error) not in NO_ROOM:
                raise
            if not self._retry_at:
                free = shutil.disk_usage(self.session.store).free
                self.warn(
                    f"the control store in {self.session.store} cannot be written ({error}; {free / 1e6:.0f} MB are "
                    "free there). No new task starts until it can be; nothing is lost. Make room on that disk."
                )
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return False
        self.pool.buried()
        if self._retry_at:
            self._retry_at = 0.0
            self.warn("the control store can be written again")
        return True

    def _gathered(self) -> bool:
        return self.store.gathered() or self.journal.changed()

    def warn(self, text: str) -> None:
        """Tells the driver at once what does not depend on the store."""
        self._mail.send(self.session.driver, [m.Warning(text)])

    def _needs(self, task: bytes) -> bool:
        """Whether the store must keep what it has of a task: it has not ended, or an object of it lives."""
        return (
            task in self.tasks.tasks or task in self.objects.directory.producers or self.actors.table.is_living(task)
            or self.recovery.needs(task) or self.lineage.needs(task)
        )

    def _assignment(self, task: Task) -> m.Assignment:
        payload = task.payload
        payload.adopted = False
        return m.Assignment(payload.raw, task.attempt, self.objects.directory.resolved(task.id), task.nested)

    def post(self, peer: str, message: m.Wire) -> None:
        if peer in self._out:
            self._out[peer].append(message)
        else:
            self._out[peer] = [message]

    # ------------------------------------------------------------ processes

    def _on_hello(self, sender: str, hello: m.Hello) -> None:
        if sender in self.roles:  # it reported before it could say hello
            return
        self.roles[sender] = hello.role
        self.journal.joined(sender, hello.role, hello.pid)
        self.store.add_event("joined", sender, f"{hello.role}, pid {hello.pid}")
        process = self.pool.processes.get(sender)
        if process is not None:  # a worker, and it has not ended meanwhile
            self.pool.started(process)
            self._failed_starts = 0
            self.scheduler.worker_started(sender, process.environment)
        self._newcomers.append(sender)
        self._welcome()

    def _on_report(self, sender: str, report: m.Report) -> None:
        """From a worker that was starting when this node took over: it has nothing yet."""
        self._mail.begin_at(sender, report.first)

    def _on_pong(self, sender: str, pong: m.Pong) -> None:
        self.tasks.on_pong(sender, pong)
        if pong.call:
            self.watchman.is_in(sender, pong, time.monotonic())

    def _welcome(self) -> None:
        """Answers greetings once workers can be had: an engine whose preload fails has not started."""
        if self.pool.ready:
            while self._newcomers:
                self.post(self._newcomers.pop(), m.Welcome(self.session.name))

    def dismiss(self, worker: str) -> None:
        process = self.pool.processes.get(worker)
        if process is not None:  # it may have ended, and its last words be what leads here
            process.leaving = True
            self.post(worker, m.Exit())

    def worker_ended(self, process: Process, status: int) -> None:
        worker = process.id
        self._hear_out(worker)
        if worker in self.latecomers.expected:
            self.latecomers.ended(worker)
        self.ended.add(worker)
        self.journal.ended(worker)
        out_of_memory = self.memory.ended(worker)
        reason = out_of_memory or self.pool.describe_end(process, status)
        self.store.add_event("left" if process.leaving else "died", worker, reason)
        self.store.forget_dead_readers()
        if not process.ready:
            self.scheduler.start_failed(process.environment)
            self._failed_starts += LATE_COUNTS if process.late else 1
            if self._failed_starts >= FAILED_STARTS:
                raise GaveUp(f"one worker after the other did not start; the last one: {reason}")
        self.tasks.worker_died(worker, reason, OutOfMemoryError if out_of_memory else WorkerCrashedError)
        self.tasks.owner_ended(worker)
        pins = self.tasks.needed_by_tasks_of(worker)
        for task in pins:
            if not self.actors.table.is_living(task):  # actors are known without their owners
                self.journal.orphaned(task)
        self.objects.free(self.objects.directory.process_died(worker, pins))
        self.lineage.process_ended(worker)
        self.objects.drop_segments(worker)
        self.actors.table.process_died(worker)
        self.functions.process_ended(worker)
        self.recovery.process_ended(worker)
        self._mail.forget(worker)
        known = self.roles.pop(worker, None) is not None
        self.objects.spilling.process_ended(worker)
        if known:
            for peer in self.roles:
                self.post(peer, m.WorkerDied(worker, reason))

    def _hear_out(self, worker: str) -> None:
        """What a dead worker has reported counts; some of it may still be in the mail."""
        self._mail.end_of(worker)
        for _ in range(FRAMES_PER_TURN):
            self._receive()
            if self._frames == 1:  # it found nothing more
                break

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


def main(folder: str, incarnation: int = 0) -> int:
    """Returns the exit code. ``incarnation``: how many daemons the session has had before."""
    gc.freeze()  # what is imported stays; and tasks, which come and go by thousands, are no cycles to look for
    gc.set_threshold(50_000, 20, 100)
    try:
        Daemon(Session.read(folder), incarnation).run()
    except GaveUp as reason:
        print(reason, file=sys.stderr, flush=True)
        return GIVES_UP
    return 0
