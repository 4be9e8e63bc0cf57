"""What a worker does all day: take a task from its queue, run it, report.

Reports leave in batches: at once when the queue is empty, else every ``REPORT_SECONDS``. The result goes straight to
the owner first, then the outcome to the node. An actor's calls are reported to the owner at once, and to the node
only now and then (their history is logged behind).

Before each task its id is written into a mapped file, which outlives the process: when the worker dies, the node
knows which task it was in, and does not blame those whose reports were still waiting or that had not begun.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import threading
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
from ..control_store import StoreReader
from ..exceptions import EngineError
from ..functions import LoadedFunctions, load
from ..ids import TASK_BYTES
from ..refs import ObjectRef
from ..runtime.endpoint import Endpoint
from ..runtime.process import TaskScope, current_scope
from .attempt import Attempt
from .backend import NO_TASK, WorkerBackend
from .concurrency import ConcurrentCalls, concurrent_calls
from .recovery import Recovery
from .repeats import Repeats
from .threads import Threads

REPORT_SECONDS = 0.001
REPORTS_PER_BATCH = 64
CALLS_LOGGED_AT_ONCE = 64

class Executor:
    """The worker's main thread."""

    def __init__(self, backend: WorkerBackend, description: str) -> None:
        self._backend = backend
        self._description = description
        self._queue: deque[m.Assignment | m.Spec] = deque()
        self._raw_calls: dict[bytes, msgspec.Raw] = {}
        self._call_log: deque[tuple[msgspec.Raw, msgspec.Raw]] = deque()
        self._log_lock = threading.RLock()  # main and background thread log; a finalizer's print may flush inside
        self._leaving = False
        self._exited = False
        """The actor wanted to end: what still comes is not run."""
        self._threads = Threads(backend.environment or backend.session.runtime_env)
        self._functions = LoadedFunctions()
        self._reader: StoreReader | None = None
        self._reported_at = 0.0
        self._actor: Any = None
        self._actor_id: bytes | None = None
        self._concurrent: ConcurrentCalls | None = None
        """Who runs the calls of an actor that runs several at a time."""
        self._recovery: Recovery | None = None
        self._repeats = Repeats(backend, self._log_calls)
        self._cancellation = backend.cancellation
        self._kept: dict[bytes, list[ObjectRef]] = {}
        """Refs inside the results of tasks that have not been reported to the node."""
        self._calls_of: dict[bytes, int] = {}
        """Runs of functions that have a ``max_calls``."""
        self._started_task = _mapped(backend.session.started_task(backend.process), TASK_BYTES)
        backend.queue = self._queue
        backend.run_one = self._run_one
        backend.give_back = self._give_back
        backend.give_back_late = self._give_back_late
        drain = backend.objects.drain

        def before_flush() -> None:
            drain()
            if self._recovery is not None or len(self._call_log) >= CALLS_LOGGED_AT_ONCE:
                self._log_calls()

        backend.endpoint.before_flush = before_flush
        backend.endpoint.on_tick = self._log_calls
        backend._handlers.update({
            m.Execute: lambda _, message: self._queue.extend(message.tasks),
            m.Call: self._on_call,
            m.Revoke: lambda _, message: backend.post_node(m.Returned(self._give_back())),
            m.CancelTask: self._on_cancel_task,
            m.CancelCall: self._on_cancel_call,
            m.Devices: self._on_devices,
            m.Recover: self._on_recover,
            m.KnownCalls: self._repeats.on_known,
            m.Exit: self._on_exit,
        })

    def run(self) -> None:
        """Until told to leave."""
        queue = self._queue
        endpoint = self._backend.endpoint
        while self._concurrent is None:
            if not queue:
                if self._leaving:
                    break
                self._cancellation.forget_ended()
                endpoint.wait_until(lambda: bool(queue) or self._leaving)
                continue
            self._run_one()
        else:
            self._concurrent.run()
        self._log_calls()

    @property
    def leaving(self) -> bool:
        """Whether it is enough: what has begun is finished, nothing else is."""
        return self._leaving

    @property
    def endpoint(self) -> Endpoint:
        return self._backend.endpoint

    # ------------------------------------------------------------ messages

    def _on_cancel_task(self, sender: str, message: m.CancelTask) -> None:
        for item in list(self._queue):
            if isinstance(item, m.Assignment) and m.decode_spec(item.spec).task == message.task:
                with suppress(ValueError):  # the main thread takes it in this moment
                    self._queue.remove(item)
                    self._backend.post_node(m.Returned([message.task]))
                    return
        self._cancellation.request(message.task, message.force)

    def _on_cancel_call(self, sender: str, message: m.CancelCall) -> None:
        self._backend.post_node(m.Cancel(message.task, False, True))  # what it has submitted
        if message.task in self._raw_calls:
            self._cancellation.requested.add(message.task)
            if self._concurrent is not None:
                self._concurrent.cancel(message.task)

    def _on_recover(self, sender: str, message: m.Recover) -> None:
        self._recovery = Recovery(self._backend, message)

    def _on_devices(self, sender: str, message: m.Devices) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(message.gpus)
        self._backend.gpus = message.gpus

    def _on_exit(self, sender: str, message: m.Exit) -> None:
        self._leaving = True

    def _give_back(self) -> list[bytes]:
        """Takes out the tasks that have not been started; an actor's calls stay."""
        returned: list[bytes] = []
        if self._actor_id is not None:
            return returned
        while True:
            try:
                assignment = self._queue.pop()
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
        for item in list(self._queue):
            if isinstance(item, m.Assignment) and not item.nested:
                with suppress(ValueError):  # revoked in this moment
                    self._queue.remove(item)
                    late.append(m.decode_spec(item.spec).task)
        if late:
            self._backend.post_node(m.Returned(late))

    def _log_calls(self) -> None:
        if self._recovery is not None:
            self._recovery.post_calls()
        batch: list[msgspec.Raw] = []
        with self._log_lock:  # whoever comes here second finds what there was posted
            while self._call_log:
                batch += self._call_log.popleft()
            if batch:
                self._backend.post_node(m.Logged(batch))

    # ------------------------------------------------------------ running

    def _run_one(self) -> None:
        try:
            item = self._queue.popleft()
        except IndexError:  # revoked in this moment
            return
        if isinstance(item, m.Spec):
            self.run_call(item)
            return
        spec = m.decode_spec(item.spec)
        below = self._backend.scope.task  # it is blocked, if there is one
        self._started_task[:] = spec.task
        cpus = spec.demand.get("CPU", 0)
        if cpus != self._threads.units:
            self._threads.follow(cpus)
        if spec.kind == m.ACTOR:
            self._create_actor(spec, item)
            return
        outcome = self._attempt(spec, item.attempt, item.resolved, self._function, (spec,))
        if below is not None and below != NO_TASK:
            self._started_task[:] = below
            beneath = self._backend.scope.spec
            if beneath is not None:
                self._threads.follow(beneath.demand.get("CPU", 0))
        self._report(spec, outcome)
        if spec.max_calls:
            self._count_call(spec)

    def _report(self, spec: m.Spec, outcome: m.Outcome) -> None:
        raw = msgspec.Raw(m.encode(outcome))
        endpoint = self._backend.endpoint
        if outcome.status == m.RETRIED:
            endpoint.batch(m.NODE, m.Done, raw)
            endpoint.flush()
            return
        if _node_first(outcome):
            endpoint.batch(m.NODE, m.Done, raw)
            self._kept.pop(spec.task, None)
            endpoint.flush()
            endpoint.batch(spec.owner, m.RawResults, raw)
            endpoint.flush()
            return
        endpoint.batch(spec.owner, m.RawResults, raw)
        size = endpoint.batch(m.NODE, m.Done, raw)
        now = time.perf_counter()
        if not self._queue or size >= REPORTS_PER_BATCH or now - self._reported_at > REPORT_SECONDS:
            self._reported_at = now
            endpoint.flush()

    def _attempt(
        self, spec: m.Spec, number: int, resolved: list[m.Dep], target: Callable[..., Callable[..., Any]],
        target_args: tuple[Any, ...],
    ) -> m.Outcome:
        """Runs one attempt and packs what came of it."""
        attempt = Attempt(self._backend, spec, number, self._actor_id, self._description)
        outer = self._enter(attempt.scope)
        cancellation = self._cancellation
        beneath = cancellation.running
        try:
            if cancellation.requested:
                cancellation.check(spec.task)
            function = target(*target_args)
            if spec.args is None and not spec.deps:
                cancellation.running = spec.task
                result = function()
            else:
                args, kwargs = attempt.arguments(resolved)
                cancellation.running = spec.task
                result = function(*args, **kwargs)
                del args, kwargs
            cancellation.running = beneath
            values = attempt.pack(result)
            del result
        except BaseException as error:
            cancellation.running = beneath
            values = self._failure(attempt, spec, error)
        finally:
            self._leave(outer)
        if attempt.kept:
            self._kept[spec.task] = attempt.kept
        if attempt.exits:
            self._exit_actor()
        return attempt.outcome(values)

    def _failure(self, attempt: Attempt, spec: m.Spec, error: BaseException) -> list[m.Value]:
        requested = self._cancellation.requested
        if spec.task not in requested or not isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
            return attempt.failure(error)
        requested.discard(spec.task)
        attempt.status = m.CANCELLED
        error.__traceback__ = None  # frees what its frames hold
        self._backend.post_node(m.Cancel(spec.task, False, True))  # what it has submitted
        return [m.Failed(cancelled_error(spec))] * max(1, spec.num_returns)

    def _enter(self, scope: TaskScope) -> Any:
        """Makes ``scope`` that of what is submitted from here on; returns what :meth:`_leave` wants."""
        backend = self._backend
        if self._concurrent is not None:
            return current_scope.set(scope)
        outer, backend.scope = backend.scope, scope
        return outer

    def _leave(self, outer: Any) -> None:
        if self._concurrent is not None:
            current_scope.reset(outer)
        else:
            self._backend.scope = outer

    def _function(self, spec: m.Spec) -> Callable[..., Any]:
        function = self._functions.get(spec.function)
        if function is None:
            backend = self._backend
            if not backend.is_set_up:
                runtime_env.apply(backend.environment or backend.session.runtime_env, backend.session.sys_path)
                backend.is_set_up = True
            found = self._store().function(spec.function)
            if found is None:
                raise EngineError(f"function {spec.name} is not in the control store")
            function = load(found[1])
            self._functions.add(spec.function, found[0], function)
        return function

    def _count_call(self, spec: m.Spec) -> None:
        """A function may be run so many times in one process (it leaks, say); then another takes its place."""
        self._calls_of[spec.function] = self._calls_of.get(spec.function, 0) + 1
        if self._calls_of[spec.function] >= spec.max_calls and not self._leaving:
            self._leaving = True
            self._backend.post_node(m.Returned(self._give_back()))
            self._backend.post_node(m.Retiring())

    def _store(self) -> StoreReader:
        if self._reader is None:
            self._reader = StoreReader(self._backend.session.store)
        return self._reader

    # ------------------------------------------------------------ actors

    def _create_actor(self, spec: m.Spec, assignment: m.Assignment) -> None:
        backend = self._backend
        self._actor_id = spec.task
        backend.actor = spec
        backend.actor_restarted = assignment.attempt > 0

        def construct(*args: Any, **kwargs: Any) -> None:
            cls = self._function(spec)
            if self._recovery is None:
                self._actor = cls(*args, **kwargs)
            else:
                self._actor = self._recovery.restore(spec.task, assignment.attempt, self._store(), cls, args, kwargs)

        spec.name = f"{spec.name}.__init__"
        outcome = self._attempt(spec, assignment.attempt, assignment.resolved, lambda: construct, ())
        self._hold(outcome.retained)
        replayed = 0
        if outcome.status != m.FINISHED:
            self._actor_id = backend.actor = None
        elif self._recovery is None:
            backend.actor_class = type(self._actor)
            self._concurrent = concurrent_calls(self, self._actor, spec.max_concurrency)
        else:
            for call in self._recovery.to_replay(self._store()):
                self._hold(self._attempt(call, assignment.attempt, [], getattr, (self._actor, call.method)).retained)
                replayed += 1
        backend.post_node(m.ActorStarted(spec.task, msgspec.Raw(m.encode(outcome)), replayed))
        backend.endpoint.flush()

    def _hold(self, retained: list[bytes]) -> None:
        """For what keeps borrowed objects and nobody gets a reply that could register them."""
        for borrowed in retained:
            self._backend.post_node(m.Hold(borrowed, self._backend.process.encode(), 1))

    def _on_call(self, sender: str, message: m.Call) -> None:
        if self._exited:
            return
        for raw in message.items:
            spec = m.decode_spec(raw)
            self._raw_calls[spec.task] = raw
            if self._concurrent is None:
                self._queue.append(spec)
            else:
                self._concurrent.accept(spec)

    def run_call(self, spec: m.Spec) -> None:
        """Runs one call of the actor's and reports it."""
        if self._concurrent is None:
            if spec.parent_attempt and self._repeats.has_run(spec, self._queue):
                self._raw_calls.pop(spec.task, None)
                return
            if self._repeats.verdicts:
                self._repeats.verdicts.pop(spec.task, None)  # which is out of date now
        outcome = self._attempt(spec, spec.parent_attempt, [], getattr, (self._actor, spec.method))
        self.report_call(spec, outcome, not self._queue)
        if self._recovery is not None:
            self._recovery.save_if_due(self._actor)

    async def run_coroutine(self, spec: m.Spec) -> m.Outcome:
        """One call of an ``async def`` method, in the event loop."""
        attempt = Attempt(self._backend, spec, spec.parent_attempt, self._actor_id, self._description)
        current_scope.set(attempt.scope)  # of this asyncio task, whose context is its own
        try:
            args, kwargs = attempt.arguments([])
            result = await getattr(self._actor, spec.method)(*args, **kwargs)
            del args, kwargs
            values = attempt.pack(result)
            del result
        except BaseException as error:
            values = self._failure(attempt, spec, error)
        if attempt.kept:
            self._kept[spec.task] = attempt.kept
        if attempt.exits:
            self._exit_actor()
        return attempt.outcome(values)

    def report_call(self, spec: m.Spec, outcome: m.Outcome, last: bool) -> None:
        """Sends an outcome to the caller, at once if it is the ``last`` there is to run; and logs it behind."""
        raw = msgspec.Raw(m.encode(outcome))
        endpoint = self._backend.endpoint
        raw_spec = self._raw_calls.pop(spec.task, None)
        if raw_spec is None:  # it was here twice
            raw_spec = msgspec.Raw(m.encode(spec))
        recovery = self._recovery
        if recovery is not None and recovery.logs and outcome.status != m.CANCELLED:
            recovery.ran(raw_spec, raw, self._kept.pop(spec.task, None))
        else:
            self._call_log.append((raw_spec, raw))
            if _node_first(outcome):
                self._log_calls()
                self._kept.pop(spec.task, None)
                endpoint.flush()
            endpoint.batch(spec.owner, m.RawResults, raw)
        now = time.perf_counter()
        if last or now - self._reported_at > REPORT_SECONDS:
            self._reported_at = now
            endpoint.flush()

    def _exit_actor(self) -> None:
        """The actor wants to end: no call after this one is run."""
        assert self._actor_id is not None
        self._leaving = True
        self._exited = True
        self._queue.clear()
        self._backend.post_node(m.ActorExits(self._actor_id))


def _node_first(outcome: m.Outcome) -> bool:
    """Whether the node has to hear of it before the owner.

    If this process dies between the two, memory that the node does not know of goes with it, and refs in a value
    that it does not know of would hold their objects for ever.
    """
    for value in outcome.values:
        if isinstance(value, m.Shm) or (isinstance(value, m.Inline) and value.refs):
            return True
    return False


def _mapped(path: Path, size: int) -> mmap.mmap:
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)
