"""How a node takes the place of one that was killed: the rim around ``resume.py`` and ``journal.py``.

It asks every process that the last node knew for a report. Until all have answered, nothing but their reports is
handled and what else comes is kept; then everything is put in its place at once, what was kept is handled, and the
node goes on like any other. Calls between actors and their callers do not pass the node and notice nothing. An actor
that cannot answer yet is not waited for longer than a moment (``latecomers.py``).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from .. import messages as m
from ..departed import Departed
from .actors import ALIVE, DEAD, PENDING, Actor
from .latecomers import PATIENCE_SECONDS
from .leases import Held
from .payload import Payload
from .resume import Part, RollCall, Standing, standing
from .scheduler import Task

if TYPE_CHECKING:
    from ..mailbox import Mailbox
    from .daemon import Daemon
    from .pool import Process

STALE = (
    m.Hello, m.Blocked, m.Unblocked, m.Returned, m.Resolve, m.Lost, m.WatchActor, m.FindActor, m.ListNames, m.Reconcile,
    m.Ask,
)
"""What a report says better, or its sender asks again."""


class Successor:
    """See the module's essay."""

    def __init__(self, node: Daemon, mail: Mailbox[m.NodeFrame], inbox: str, incarnation: int) -> None:
        self._node = node
        self._mail = mail
        self._inbox = inbox
        self._incarnation = incarnation
        self._kept: list[m.NodeFrame] = []
        self._ends: list[tuple[Process, int]] = []
        self._attempts = node.journal.attempts()
        self._late: dict[str, Actor] = {}
        """Actors that have not reported, by process."""

    def take_over(self) -> None:
        node = self._node
        rows = node.journal.processes()
        marks = node.journal.marks()
        known = {process: row.pid for process, row in rows.items() if row.role == "worker"}
        self._ends = node.pool.take_over(known)
        node.roles = {process: row.role for process, row in rows.items()}  # whose memory is theirs, until they end
        not_told = [process.id for process, _ in self._ends]
        node.ended = Departed.all_of(node.pool.count, but=[*node.pool.processes, *not_told])
        node.journal.restore_directory(node.ended)
        node.lineage.restore()
        node.objects.spilling.restored()
        node.functions.restored()
        node.journal.restore_orphans()
        node.journal.restore_actors(self._creation)
        for actor in node.actors.table.all():
            node.recovery.resumed(actor)
            if actor.state != DEAD:
                node.watchman.usual_calls.follow(actor.id)
        calls = RollCall({node.session.driver, *(known.keys() & node.pool.processes.keys())})
        resume = m.Resume(self._inbox, self._incarnation, list(node.pool.processes))
        for process in (node.session.driver, *node.pool.processes):
            self._mail.hold_back(process)
            self._mail.send(process, [resume])
        patience_ends = time.monotonic() + PATIENCE_SECONDS
        while not calls.complete(self._mail.arrived):
            left = patience_ends - time.monotonic()
            if left <= 0:
                self._go_on_without_actors(calls)
            self._listen(calls, marks, max(left, 0.0) or None)
        node.latecomers.expect(self._late, self, marks)
        self._put_in_place(calls.reports)
        self._go_on(calls.reports)

    def _creation(self, request: m.CreateActor) -> Task:
        spec = m.decode_spec(request.spec)
        recipe = spec.recipe
        task = Task(spec.task, recipe.function, recipe.demand, exclusive=True, payload=Payload(spec, request.spec))
        task.environment = recipe.environment
        task.attempt, task.crashes = self._attempts.get(spec.task, (0, 0))
        return task

    def _go_on_without_actors(self, calls: RollCall) -> None:
        for process in calls.missing():
            actor = self._node.latecomers.actor_of(process)
            if actor is not None:
                self._late[process] = actor
                calls.gone_on_without(process)

    def _listen(self, calls: RollCall, marks: dict[str, int], timeout: float | None) -> None:
        node, mail = self._node, self._mail
        if calls.complete(mail.arrived):
            return
        mail.wait(node.watchman.pause if timeout is None else timeout)
        node.watchman.awaits(calls.missing(), time.monotonic())
        if node.pool.fileno() in mail.receive():
            for process, status in node.pool.poll():
                self._ends.append((process, status))
                mail.end_of(process.id)
                calls.ended(process.id)
                self._late.pop(process.id, None)
        while mail.frames:
            frame = mail.frames.popleft()
            if frame.number != m.UNNUMBERED:
                if frame.number >= marks.get(frame.sender, 0):  # of one that died without a report all come
                    self._kept.append(frame)
                continue
            (report,) = frame.messages
            assert isinstance(report, m.Report)
            if frame.sender not in calls.reports:
                self._late.pop(frame.sender, None)
                calls.heard(frame.sender, report)
                mail.begin_at(frame.sender, max(report.first, marks.get(frame.sender, 0)))

    # ------------------------------------------------------------ everything in its place

    def _put_in_place(self, reports: dict[str, m.Report]) -> None:
        node = self._node
        node.roles = {process.id: "worker" for process, _ in self._ends}  # their ends will be told
        node.roles.update(dict.fromkeys(self._late, "worker"))
        node.roles.update({process: report.role for process, report in reports.items()})
        for process, report in reports.items():
            node.journal.joined(process, report.role, report.pid)
        died_in = {process.id: node.pool.last_started(process.id) for process, _ in self._ends}
        finished, orphans = self._finished(reports, died_in), self._orphans(reports, died_in)
        result = standing(reports, finished, died_in, orphans, self._attempt, self._spec, self._ended)
        for worker, parts in result.held.items():
            if worker in died_in or node.roles[worker] == "worker":
                self._put_worker(worker, reports.get(worker), parts)
        for process, actor in self._late.items():
            self._put_late_actor(process, actor)
        self._take_up(result)
        self._put_actors(reports)
        for task_id in self._attempts:
            node.rebuild.given_up(task_id)

    def _put_late_actor(self, process: str, actor: Actor) -> None:
        node = self._node
        creation = self._recorded(actor.id, Part(actor.id, actor.creation.attempt))
        there = node.pool.processes[process]
        node.pool.started(there)
        node.scheduler.resumed(process, there.environment, [Held(creation)], [], True)

    def _take_up(self, result: Standing) -> None:
        """Queues the tasks that are lost, if they are not here by now, and tells owners what they may not know."""
        node = self._node
        lost = [task_id for task_id in result.lost if task_id not in node.tasks.tasks]
        for task_id in lost:
            self._recorded(task_id)
        self._adopt(result)
        for task_id in lost:
            task = node.tasks.tasks[task_id]
            if not task.payload.spec.deps or node.tasks.arguments_there(task):
                node.tasks.enqueue(task)
        for owner, task_id in result.untold:
            outcome = node.store.outcome(task_id)
            assert outcome is not None
            node.post(owner, m.Results([outcome]))

    def place_submitted(self, process: str, report: m.Report) -> None:
        """The tasks of one that reports late."""
        its = m.Report(report.role, report.pid, report.unfinished)
        self._take_up(standing({process: its}, {}, {}, (), self._attempt, self._spec, self._ended))

    def place_orphans(self, process: str) -> None:
        """The tasks of one that has died before it reported."""
        orphans = self._node.store.unfinished_of({process}, self._began())
        self._take_up(standing({}, {}, {}, orphans, self._attempt, self._spec, self._ended))

    def _orphans(self, reports: dict[str, m.Report], died_in: dict[str, bytes]) -> set[bytes]:
        """Those that are known, and the tasks of workers that have died and reported nothing."""
        silent = died_in.keys() - reports.keys()
        if not silent:
            return self._node.journal.orphans
        return {*self._node.journal.orphans, *self._node.store.unfinished_of(silent, self._began())}

    def _began(self) -> float:
        """When the session did."""
        return (Path(self._node.session.folder) / "session.json").stat().st_mtime

    def _attempt(self, task_id: bytes) -> int:
        return self._attempts.get(task_id, (0, 0))[0]

    def _finished(
        self, reports: dict[str, m.Report], died_in: dict[str, bytes]
    ) -> dict[str, list[tuple[bytes, int]]]:
        """What the workers' frames that are on their way say."""
        finished: dict[str, list[tuple[bytes, int]]] = {}
        for frame in self._kept:
            report = reports.get(frame.sender)
            if frame.number >= report.next if report is not None else frame.sender not in died_in:
                continue
            for message in frame.messages:
                raws = [message.outcome] if isinstance(message, m.ActorStarted) else []
                if isinstance(message, m.Done):
                    raws = message.items
                for raw in raws:
                    outcome = m.decode_outcome(raw)
                    finished.setdefault(frame.sender, []).append((outcome.task, outcome.attempt))
        return finished

    def _spec(self, task_id: bytes) -> m.Spec | None:
        """Of a task; calls are their actors' matter."""
        raw = self._node.store.spec(task_id)
        spec = None if raw is None else m.decode_spec(raw)
        return None if spec is None or spec.recipe.kind == m.CALL else spec

    def _ended(self, task_id: bytes) -> int:
        outcome = None if self._node.actors.table.is_living(task_id) else self._node.store.outcome(task_id)
        return -1 if outcome is None else outcome.attempt

    def _recorded(self, task_id: bytes, part: Part | None = None) -> Task:
        """The task of a spec that was recorded, among those that have not ended."""
        tasks = self._node.tasks.tasks
        task = tasks.get(task_id)
        if task is not None:
            return task
        actor = self._node.actors.table.get(task_id)
        if actor is not None:
            task = actor.creation
        else:
            raw = part.raw if part is not None and part.raw is not None else self._node.store.spec(task_id)
            assert raw is not None  # no task is handed out before its spec is committed
            spec = m.decode_spec(raw)
            task = Task(spec.task, spec.recipe.function, spec.recipe.demand, spec.prefer, payload=Payload(spec, raw))
            if spec.recipe.environment:
                task.environment = spec.recipe.environment
            task.attempt, task.crashes = self._attempts.get(task_id, (0, 0))
        if part is not None:
            task.attempt = max(task.attempt, part.attempt)
            for dep in part.resolved:
                assert dep.value is not None
                self._node.objects.directory.resolve_now(task, dep, dep.value)
        tasks[task_id] = task
        if actor is None and self._node.store.outcome(task_id) is not None:
            self._node.rebuild.resumed(task)
        return task

    def _put_worker(self, worker: str, report: m.Report | None, parts: list[Part]) -> None:
        node = self._node
        held = []
        for part in parts:
            task = self._recorded(part.task, part)
            held.append(Held(task, part.begun, part.blocked))
        for part, place in zip(parts, held, strict=True):
            place.awaits = node.tasks.awaited(part.awaits)
        if report is None:
            node.scheduler.resumed(worker, "", held, [], True)
            return
        devices = [node.session.gpus.index(name) for name in report.gpus]
        node.scheduler.resumed(worker, report.environment, held, devices, report.used)
        process = node.pool.processes.get(worker)
        if process is not None:
            node.pool.started(process)
            process.environment = report.environment

    def _adopt(self, result: Standing) -> None:
        for owner, task_id in result.adopted:
            payload = self._node.tasks.tasks[task_id].payload
            payload.spec.change(owner=owner)
            payload.raw = msgspec.Raw(m.encode(payload.spec))
            payload.adopted = True

    def _put_actors(self, reports: dict[str, m.Report]) -> None:
        node = self._node
        for actor in node.actors.table.all():
            if actor.state == ALIVE:
                node.tasks.tasks.pop(actor.id, None)
                node.scheduler.became_actor(actor.worker)
                if actor.farewell and actor.worker in node.pool.processes:
                    node.dismiss(actor.worker)
            elif actor.state == PENDING and actor.id not in node.tasks.tasks:
                task = node.tasks.tasks[actor.id] = actor.creation
                if not task.payload.spec.deps or node.tasks.arguments_there(task):
                    node.tasks.enqueue(task)
        for worker, report in reports.items():
            for running in report.running[:1]:
                hosted = node.actors.table.get(m.decode_spec(running.task.spec).task)
                if hosted is not None and hosted.state == DEAD:  # it was to be killed
                    node.pool.kill(worker)

    # ------------------------------------------------------------ and on

    def _go_on(self, reports: dict[str, m.Report]) -> None:
        node = self._node
        node.store.add_event("node restarted", self._inbox)
        self._remove_sockets()
        self.handle(self._kept, reports)
        self._kept = []
        for process, status in self._ends:
            node.worker_ended(process, status)
        node.objects.reclaim({process: report.blocks for process, report in reports.items()})

    def handle(self, frames: list[m.NodeFrame], reports: dict[str, m.Report]) -> None:
        """Handles frames that came meanwhile, those older than their sender's report as such."""
        node = self._node
        for frame in frames:
            report = reports.get(frame.sender)
            node.tasks.repeated = report is None or frame.number < report.next
            if node.tasks.repeated:
                frame.messages = [message for message in frame.messages if not isinstance(message, STALE)]
            node.handle(frame)
        node.tasks.repeated = False

    def _remove_sockets(self) -> None:
        """Of earlier nodes."""
        folder = Path(self._node.session.folder)
        for kind in ("sock", "lane"):
            for path in (folder / f"{m.NODE}.{kind}", *folder.glob(f"{m.NODE}.*.{kind}")):
                if path.stem != self._inbox:
                    path.unlink(missing_ok=True)
