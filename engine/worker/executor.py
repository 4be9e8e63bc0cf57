"""What a worker does all day: take a task from its queue, run it, report.

Reports leave in batches: at once when the queue is empty or the task is one that may not be run again, else every
``REPORT_SECONDS``. The result goes straight to the owner first, then the outcome to the node. A worker that has become
an actor does what is in ``actor.py``.

Before each task its id is written into a mapped file, which outlives the process: when the worker dies, the node
knows which task it was in, and does not blame those whose reports were still waiting or that had not begun.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from .. import messages as m
from .. import runtime_env
from ..cancelled import cancelled_error
from ..exceptions import EngineError
from ..explanation import QUEUED
from ..functions import LoadedFunctions, load
from ..ids import TASK_BYTES
from ..refs import ObjectRef
from ..runtime.scope import current_scope
from ..store_reader import StoreReader
from .actor import ActorHost
from .attempt import REPORT_SECONDS, Attempt, node_first
from .backend import NO_TASK, WorkerBackend
from .callers import Answered
from .cancellation import Request
from .threads import Threads

REPORTS_PER_BATCH = 64
PATIENCE = 0.1
"""Seconds that a busy node may take to make room for the report of a task that may not be run again."""

FUNCTIONS_COUNTED = 1000


class Executor:
    """The worker's main thread."""

    def __init__(self, backend: WorkerBackend, description: str) -> None:
        self._backend = backend
        self.queue: deque[m.Assignment | m.Spec | Answered] = deque()
        self.leaving = False
        """It is enough: what has begun is finished, nothing else is."""
        self.description = description
        self._threads = Threads(backend.environment or backend.session.runtime_env)
        self._functions = LoadedFunctions()
        self._reader: StoreReader | None = None
        self._reported_at = 0.0
        self._actor = ActorHost(self, backend)
        self._cancellation = backend.cancellation
        self.kept: dict[bytes, list[ObjectRef]] = {}
        """Refs inside the results of tasks that have not been reported to the node."""
        self._calls_of: dict[bytes, int] = {}
        """Runs of functions that have a ``max_calls``."""
        self._worn_out = False
        """One of them has been run as often as it may."""
        self._retired = False
        """The node was told so: what it sent before it heard of that is others' to run."""
        self._started_task = _mapped(backend.session.started_task(backend.process), TASK_BYTES)
        backend.queue = self.queue
        backend.run_one = self._run_one
        backend.give_back = self._give_back
        backend.give_back_late = self._give_back_late
        backend.report_work = self._report_work
        backend.explaining.of_work = self._explain
        drain = backend.objects.drain

        def before_flush() -> None:
            drain()
            self._actor.before_flush()

        backend.endpoint.out.before_flush = before_flush
        backend.endpoint.on_tick = self._actor.log_calls
        backend._handlers.update({
            m.Execute: lambda _, message: self.queue.extend(message.tasks),
            m.Revoke: lambda _, message: backend.post_node(m.Returned(self._give_back())),
            m.CancelTask: self._on_cancel_task,
            m.Devices: self._on_devices,
            m.Exit: self._on_exit,
            **self._actor.handlers,
        })

    def run(self) -> None:
        """Until told to leave."""
        queue = self.queue
        endpoint = self._backend.endpoint
        while self._actor.concurrent is None:
            if self._retired:
                break
            if not queue:
                if self.leaving:
                    break
                self._cancellation.forget_ended()
                endpoint.wait_until(lambda: bool(queue) or self.leaving)
                continue
            self._run_one()
        else:
            self._actor.concurrent.run()
        self._actor.log_calls()

    # ------------------------------------------------------------ messages

    def _on_cancel_task(self, sender: str, message: m.CancelTask) -> None:
        for item in list(self.queue):
            if isinstance(item, m.Assignment) and m.decode_spec(item.spec).task == message.task:
                with suppress(ValueError):  # the main thread takes it in this moment
                    self.queue.remove(item)
                    self._backend.post_node(m.Returned([message.task]))
                    return
        self._cancellation.request(message.task, Request(message.force, message.recursive))

    def _on_devices(self, sender: str, message: m.Devices) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(message.gpus)
        self._backend.gpus = message.gpus

    def _on_exit(self, sender: str, message: m.Exit) -> None:
        self.leaving = True

    def _report_work(self, report: m.Report) -> None:
        backend = self._backend
        with backend.taking:
            report.running = list(backend.running)
            report.queued = [item for item in self.queue if isinstance(item, m.Assignment)]
        report.environment = backend.environment
        report.gpus = backend.gpus
        report.used = self._started_task[:] != NO_TASK

    def _explain(self, task: bytes) -> m.Reason | None:
        """What is to be said of a task or call that this process has."""
        backend = self._backend
        if self._actor.id is not None and task != self._actor.id:
            return self._actor.explain(task)
        with backend.taking:
            running = list(backend.running)
        for i, each in enumerate(running):
            if m.decode_spec(each.task.spec).task == task:
                return backend.explain_running(task, i)
        queued = [item for item in list(self.queue) if isinstance(item, m.Assignment)]
        waits = any(m.decode_spec(item.spec).task == task for item in queued)
        return m.Reason(QUEUED, "it has not begun") if waits else None

    def _give_back(self) -> list[bytes]:
        """Takes out the tasks that have not been started; an actor's calls stay."""
        returned: list[bytes] = []
        if self._actor.id is not None:
            return returned
        while True:
            try:
                assignment = self.queue.pop()
            except IndexError:  # the main thread may be taking from the other end
                break
            assert isinstance(assignment, m.Assignment)
            returned.append(m.decode_spec(assignment.spec).task)
        returned.reverse()
        return returned

    def _give_back_late(self) -> None:
        """The running task is blocked: takes out what the node sent before it knew of that.

        On top of the blocked task they might wait for it, and the node would not know what runs here.
        """
        late: list[bytes] = []
        for item in list(self.queue):
            if isinstance(item, m.Assignment) and not item.nested:
                with suppress(ValueError):  # revoked in this moment
                    self.queue.remove(item)
                    late.append(m.decode_spec(item.spec).task)
        if late:
            self._backend.post_node(m.Returned(late))

    # ------------------------------------------------------------ running

    def _run_one(self) -> None:
        backend = self._backend
        running = backend.running
        with backend.taking:
            try:
                item = self.queue.popleft()
            except IndexError:  # revoked in this moment
                return
            if isinstance(item, m.Assignment):
                running.append(m.Running(item))
        if not isinstance(item, m.Assignment):
            self._actor.take(item)
            return
        spec = m.decode_spec(item.spec)
        below = backend.program_scope.task  # it is blocked, if there is one
        self._started_task[:] = spec.task
        recipe = spec.recipe
        cpus = recipe.demand.get("CPU", 0)
        if cpus != self._threads.units:
            self._threads.follow(cpus)
        if recipe.kind == m.ACTOR:
            self._actor.create(spec, item)
            return
        outcome = self.attempt(spec, item.attempt, item.resolved, self.function, (spec,))
        if below is not None and below != NO_TASK:
            self._started_task[:] = below
            beneath = backend.program_scope.spec
            if beneath is not None:
                self._threads.follow(beneath.recipe.demand.get("CPU", 0))
        self._report(spec, recipe, outcome)
        running.pop()
        if recipe.max_calls:
            self._count_call(recipe)
        if self._worn_out and not running:
            self._retire()

    def _report(self, spec: m.Spec, recipe: m.Recipe, outcome: m.Outcome) -> None:
        raw = msgspec.Raw(m.encode(outcome))
        endpoint = self._backend.endpoint
        if outcome.status == m.RETRIED or not recipe.owner:  # or it runs for the sake of what was lost
            endpoint.batch(m.NODE, m.Done, raw)
            self._backend.storage.arena.announced(outcome.values)
            self.kept.pop(spec.task, None)
            endpoint.flush()
            return
        if node_first(outcome):
            endpoint.batch(m.NODE, m.Done, raw)
            self._backend.storage.arena.announced(outcome.values)
            self.kept.pop(spec.task, None)
            endpoint.flush()
            endpoint.batch(recipe.owner, m.RawResults, raw)
            endpoint.flush()
            return
        size = endpoint.report(recipe.owner, raw)
        now = time.perf_counter()
        if not recipe.max_retries:  # it may not be run twice, and the next task may be this process's last
            endpoint.flush_to_node(PATIENCE)
        if not self.queue or size >= REPORTS_PER_BATCH or now - self._reported_at > REPORT_SECONDS:
            self._reported_at = now
            endpoint.flush()

    def attempt(
        self, spec: m.Spec, number: int, resolved: list[m.Dep], target: Callable[..., Callable[..., Any]],
        target_args: tuple[Any, ...],
    ) -> m.Outcome:
        """Runs one attempt and packs what came of it."""
        backend = self._backend
        attempt = Attempt(backend, spec, number, self._actor.id, self.description)
        several = self._actor.concurrent is not None
        outer: Any
        if several:
            outer = current_scope.set(attempt)
        else:
            outer, backend.program_scope = backend.program_scope, attempt
        cancellation = self._cancellation
        cancellation.prepared = spec.task
        try:
            if cancellation.requested:
                cancellation.check(spec.task)
            function = target(*target_args)
            if spec.args is None and not spec.deps:
                result = cancellation.run(spec.task, function)
            else:
                args, kwargs = attempt.arguments(resolved)
                result = cancellation.run(spec.task, function, args, kwargs)
                del args, kwargs
            cancellation.prepared = b""
            values = attempt.pack(result)
            del result
        except BaseException as error:
            cancellation.prepared = b""
            values = self.failure(attempt, spec, error)
        finally:
            if several:
                current_scope.reset(outer)
            else:
                backend.program_scope = outer
            if cancellation.requested:
                cancellation.ended(spec.task)
        if attempt.kept:
            self.kept[spec.task] = attempt.kept
        if attempt.exits:
            self._actor.exit()
        return attempt.outcome(values)

    def failure(self, attempt: Attempt, spec: m.Spec, error: BaseException) -> list[m.Value]:
        """The error in place of each return; that of the cancellation if there was one."""
        request = self._cancellation.requested.pop(spec.task, None)
        if request is None or not isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
            return attempt.failure(error)
        attempt.status = m.CANCELLED
        error.__traceback__ = None  # frees what its frames hold
        if request.recursive and attempt.has_submitted:
            self._backend.cancel_below(spec.task)
        return [m.Failed(cancelled_error(spec))] * max(1, spec.recipe.num_returns)

    def function(self, spec: m.Spec) -> Callable[..., Any]:
        """The function or class that a spec names."""
        recipe = spec.recipe
        function = self._functions.get(recipe.function)
        if function is None:
            backend = self._backend
            if not backend.is_set_up:
                runtime_env.apply(backend.environment or backend.session.runtime_env, backend.session.sys_path)
                backend.is_set_up = True
            found = self.store().function(recipe.function)
            if found is None:
                raise EngineError(f"function {recipe.name} is not in the control store")
            function = load(found[1])
            self._functions.add(recipe.function, found[0], function)
        return function

    def _count_call(self, recipe: m.Recipe) -> None:
        """A function may be run so many times in one process (it leaks, say); then another takes its place."""
        runs = self._calls_of[recipe.function] = self._calls_of.get(recipe.function, 0) + 1
        if runs >= recipe.max_calls:
            self._worn_out = True
        if len(self._calls_of) > FUNCTIONS_COUNTED:
            del self._calls_of[next(iter(self._calls_of))]

    def _retire(self) -> None:
        """Another worker takes this one's place. Not while a task waits beneath: it goes on here, and ends first."""
        if self.leaving:
            return
        self.leaving = self._retired = True
        self._backend.post_node(m.Returned(self._give_back()))
        self._backend.post_node(m.Retiring())

    def store(self) -> StoreReader:
        """The control store, as this process reads it."""
        if self._reader is None:
            self._reader = StoreReader(self._backend.session.store)
        return self._reader


def _mapped(path: Path, size: int) -> mmap.mmap:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)
