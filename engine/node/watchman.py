"""Looks after the workers while they have work: who hangs is reported, who does not start is replaced.

Whom to suspect is decided in ``pulse.py``; here they are asked, their stacks fetched and the warnings written. Stacks
come by a signal whose handler writes to the worker's log (``engine/stacks.py``), and are read there at a later look.

A worker that was forked and does not report is a different matter: it has run nothing yet, so nothing is lost with
it. Past a time limit it is killed, and the pool starts another. A forced cancel that the worker does not carry out,
because no Python runs in it, is carried out here: its user has asked for that.

The looks are a few a second at most, and only while somebody has work or is starting.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import messages as m
from .. import stacks
from ..explanation import seconds
from .leases import Task, Worker
from .pool import Process
from .pulse import Pulse, Sign, UsualCalls

if TYPE_CHECKING:
    from .daemon import Daemon

SILENCE = "RLFLOW_SILENCE_SECONDS"
"""Environment variable: how long a worker may say nothing before it is asked, and then not answer."""

STARTING = "RLFLOW_WORKER_START_SECONDS"
"""Environment variable: how long a worker may take from its fork to its first word."""

LOOKS = 4
"""In the time that a worker may be silent."""

AWAITED_REPORT, AWAITED_END = 2, 6
"""Times that, after which one is reported for which a new node waits, and killed if it runs tasks."""

FORCE_SECONDS = 2.0
"""For a worker to end itself, when a task of its was cancelled by force."""

STACK_SECONDS = 1.0
"""After which a stack that was asked for is in the log, if the process can run at all."""

LONGEST_STACK = 8000
ZYGOTE = "zygote"
"""Among suspects; its log has that name."""

LEFT_ALONE = "It is left alone; engine.cancel(ref, force=True) or engine.kill(actor) ends it"


@dataclass
class _Suspect:
    """A worker whose stack has been asked for."""

    process: Process
    text: str
    kind: str
    """Of the event in the control store."""
    log_from: int
    until: float
    doomed: bool = False
    """It is killed when the stack is there."""
    fate: str = LEFT_ALONE
    """A sentence."""


class Watchman:
    """See the module's essay."""

    def __init__(self, node: Daemon) -> None:
        self._node = node
        silence = _seconds(SILENCE, 10.0)
        self._start = _seconds(STARTING, 60.0)
        self._pulse = Pulse(silence)
        self._silence = silence
        self.pause = min(silence, self._start) / LOOKS
        self.usual_calls = UsualCalls(silence)
        self._awaited_since = 0.0
        self._awaited: set[str] = set()
        """Those that were reported because the node waits for them."""
        self._suspects: dict[str, _Suspect] = {}
        self._zygote_reported = False
        self._forced: dict[bytes, tuple[str, float]] = {}
        """Tasks that were cancelled by force: their worker, and until when it may end itself."""
        self.next_look = 0.0
        """On the monotonic clock."""

    def look(self, now: float) -> None:
        node = self._node
        self._report_those_due(now)
        found = self._pulse.look(now, self._signs())
        for worker in found.ask:
            node.post(worker, m.Ping())
        processes = node.pool.processes
        for worker, lasts in found.silent:
            why = "it may be in C code that keeps the interpreter's lock, or be stopped"
            self._suspect(processes.get(worker), "hung", f"has not answered for {seconds(lasts)}; {why}", now)
        for worker in found.back:
            node.warn(f"worker {worker} answers again")
        for worker, lasts in found.overdue:
            what = f"has been in it for {seconds(lasts)}, which is unusual"
            self._suspect(processes.get(worker), "overdue", what, now)
        for process in node.pool.late(now - self._start):
            if not process.pid:
                self._look_at_zygote(process, now)
            elif process.id not in self._suspects:
                process.late = True
                self._suspect(process, "late", f"has not started within {seconds(self._start)} and is killed", now)
        for task_id, (worker, until) in list(self._forced.items()):
            if now >= until:
                del self._forced[task_id]
                self._force(task_id, worker)
        self.next_look = now + self.pause
        for at in (*(suspect.until for suspect in self._suspects.values()), *(t for _, t in self._forced.values())):
            self.next_look = min(self.next_look, at)

    def is_in(self, worker: str, pong: m.Pong, now: float) -> None:
        """An actor, which was asked, is in a call."""
        actor = next((each.actor for each in self._workers(worker)), None)
        if actor is not None and self.usual_calls.is_overdue(actor.id, pong.call, pong.method, pong.lasts):
            what = f"has been in its method {pong.method} for {seconds(pong.lasts)}, which is unusual"
            self._suspect(self._node.pool.processes.get(worker), "overdue", what, now)
            self.next_look = min(self.next_look, now + STACK_SECONDS)

    def awaits(self, workers: list[str], now: float) -> None:
        """A node that takes the place of another one waits for these to report, and does nothing else meanwhile.

        Not for ever: one that runs tasks is killed at last, since all others wait for it, and what it ran is run again.
        """
        self._report_those_due(now)
        self._awaited_since = self._awaited_since or now
        lasts = now - self._awaited_since
        for worker in workers:
            process = self._node.pool.processes.get(worker)
            if process is None or lasts < AWAITED_REPORT * self._silence:
                continue
            runs_tasks = self._node.actors.table.get(self._node.pool.note(worker)) is None
            if worker not in self._awaited:
                self._awaited.add(worker)
                what = f"has not reported to the daemon that was started anew for {seconds(lasts)}"
                end = f"It is killed if it does not within {seconds(AWAITED_END * self._silence)}"
                fate = end if runs_tasks else LEFT_ALONE
                self._suspect(process, "hung", f"{what}; nothing new is started before it does", now, fate)
            elif runs_tasks and lasts >= AWAITED_END * self._silence:
                self._node.pool.kill(worker)

    def forced(self, task: Task, now: float) -> None:
        """A task that its worker runs was cancelled by force."""
        self._forced[task.id] = (task.worker, now + FORCE_SECONDS)
        self.next_look = min(self.next_look, now + FORCE_SECONDS)

    def _force(self, task_id: bytes, worker: str) -> None:
        """Unless it has ended by itself."""
        task = self._node.tasks.tasks.get(task_id)
        if task is not None and task.worker == worker:
            lease = next((lease for w in self._workers(worker) for lease in w.leases if task_id in lease.tasks), None)
            if lease is not None and next(iter(lease.tasks)) == task_id:  # it has begun
                self._node.pool.kill(worker)

    # ------------------------------------------------------------ who is looked after

    def _workers(self, worker: str) -> list[Worker]:
        return [each for each in self._node.scheduler.workers() if each.id == worker]

    def _signs(self) -> Iterator[Sign]:
        """Of all workers that have something to do, as far as the node knows, and of all actors."""
        handled = self._node.journal.handled
        usual = self._node.scheduler.usual_duration
        for worker in self._node.scheduler.workers():
            if not worker.leases:
                continue
            top = worker.leases[-1]
            task = None if top.blocked or worker.actor is not None else next(iter(top.tasks.values()), None)
            if task is None:
                yield Sign(worker.id, handled.get(worker.id, 0))
            else:
                yield Sign(worker.id, handled.get(worker.id, 0), task.id, usual(task.function))

    # ------------------------------------------------------------ reports

    def _suspect(self, process: Process | None, kind: str, what: str, now: float, fate: str = LEFT_ALONE) -> None:
        """Asks for the stack; the report is written when it is there."""
        if process is None or not process.pid or process.id in self._suspects:
            return
        log = self._node.session.log(process.id)
        size = log.stat().st_size if log.exists() else 0
        name = process.id if process.id == ZYGOTE else f"worker {process.id}"
        text = f"{name} (pid {process.pid}, {stacks.state(process.pid)}){self._work(process.id)} {what}"
        stacks.ask_for(process.pid)
        self._suspects[process.id] = _Suspect(process, text, kind, size, now + STACK_SECONDS, kind == "late", fate)

    def _look_at_zygote(self, waits: Process, now: float) -> None:
        """It has not even forked a worker that was asked for. Nobody can take its place, so that is said once."""
        if not self._zygote_reported:
            self._zygote_reported = True
            zygote = Process(ZYGOTE, self._node.pool.zygote_pid())
            self._suspect(zygote, "hung", f"has not forked {waits.id} within {seconds(self._start)}", now)

    def _work(self, worker: str) -> str:
        """What it does, as part of a sentence."""
        if worker == ZYGOTE:
            return ", which forks the workers,"
        for each in self._workers(worker):
            if each.actor is not None:
                return f", which is {self._node.why.label(each.actor)},"
            if each.leases and (task := next(iter(each.leases[-1].tasks.values()), None)) is not None:
                return f", which runs {self._node.why.label(task)},"
        return ""

    def _report_those_due(self, now: float) -> None:
        for worker in [worker for worker, suspect in self._suspects.items() if now >= suspect.until]:
            self._report(self._suspects.pop(worker))

    def _report(self, suspect: _Suspect) -> None:
        process = suspect.process
        if process.id != ZYGOTE and self._node.pool.processes.get(process.id) is not process:  # it has ended meanwhile
            return
        stack = self._stack(suspect)
        if suspect.doomed:
            if not process.ready:
                self._node.pool.kill(process.id)
                self._node.warn(suspect.text + stack)
            return
        self._node.store.add_event(suspect.kind, process.id, suspect.text + stack)
        fate = "It is left alone" if process.id == ZYGOTE else suspect.fate
        self._node.warn(f"{suspect.text}. {fate}{stack}")

    def _stack(self, suspect: _Suspect) -> str:
        try:
            with open(self._node.session.log(suspect.process.id), "rb") as log:
                log.seek(suspect.log_from)
                text = log.read(LONGEST_STACK).decode(errors="replace").strip()
        except OSError:
            text = ""
        return f". Its stacks:\n{text}" if text else ". It has no stack to show"


def _seconds(variable: str, default: float) -> float:
    """Raises ValueError when the variable is set to something else than seconds."""
    text = os.environ.get(variable, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise ValueError(f"{variable} must be a number of seconds above 0, got {text!r}")
    return value
