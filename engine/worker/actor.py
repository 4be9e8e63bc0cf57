"""A worker that has become an actor: it has one instance, and runs calls in place of tasks.

Three ways to run them: one after the other in the main thread, which is here; several at a time, which is in
``concurrency.py``; or one after the other with each of them logged, so that the state can be made again, which is in
``recovery.py``. Calls of the first two are reported to their callers at once, and to the node only now and then: their
history is logged behind.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .. import messages as m
from ..explanation import QUEUED, RUNNING, short
from ..runtime.endpoint import Endpoint
from ..runtime.scope import current_scope
from .attempt import REPORT_SECONDS, Attempt, node_first
from .backend import WorkerBackend
from .callers import Answered, Callers
from .cancellation import Request
from .concurrency import ConcurrentCalls, concurrent_calls
from .recovery import Recovery
from .repeats import Repeats

if TYPE_CHECKING:
    from .executor import Executor

CALLS_LOGGED_AT_ONCE = 64


class ActorHost:
    """See the module's essay. Every worker has one; ``id`` is None until it has become an actor."""

    def __init__(self, executor: Executor, backend: WorkerBackend) -> None:
        self.id: bytes | None = None
        self.concurrent: ConcurrentCalls | None = None
        """Who runs the calls of an actor that runs several at a time."""
        self._executor = executor
        self._backend = backend
        self._instance: Any = None
        self._raw_calls: dict[bytes, msgspec.Raw] = {}
        """Those that have arrived and are not reported, as they came."""
        self._log: deque[tuple[msgspec.Raw, msgspec.Raw]] = deque()
        self._log_lock = threading.RLock()  # main and background thread log; a finalizer's print may flush inside
        self._reported_at = 0.0
        self._exited = False
        """The actor wanted to end: what still comes is not run."""
        self._recovery: Recovery | None = None
        self._repeats = Repeats(backend, self.log_calls)
        self.callers = Callers(backend.endpoint, self._released)
        self.handlers: dict[type, Callable[[str, Any], None]] = {
            m.Call: self._on_call,
            m.CancelCall: self._on_cancel_call,
            m.Recover: self._on_recover,
            m.KnownCalls: self._repeats.on_known,
            m.Pong: lambda caller, _: self.callers.answered(caller),
        }

    # ------------------------------------------------------------ for those that run calls

    @property
    def leaving(self) -> bool:
        """Whether it is enough: what has begun is finished, nothing else is."""
        return self._executor.leaving

    @property
    def endpoint(self) -> Endpoint:
        return self._backend.endpoint

    # ------------------------------------------------------------ messages

    def _on_recover(self, sender: str, message: m.Recover) -> None:
        self._recovery = Recovery(self._backend, message)

    def _on_call(self, sender: str, message: m.Call) -> None:
        if self._exited:
            return
        for raw in message.items:
            spec = m.decode_spec(raw)
            self._raw_calls[spec.task] = raw
            if self.concurrent is None:
                self._executor.queue.append(spec)
            else:
                self.concurrent.accept(spec)

    def _on_cancel_call(self, sender: str, message: m.CancelCall) -> None:
        if message.recursive:
            self._backend.cancel_below(message.task)
        if message.task in self._raw_calls:
            cancellation = self._backend.cancellation
            cancellation.requested[message.task] = Request(False, message.recursive)
            if self.concurrent is not None:
                self.concurrent.cancel(message.task)
            if message.task not in self._raw_calls:  # it has ended in this moment
                cancellation.ended(message.task)

    def explain(self, task: bytes) -> m.Reason | None:
        """What is to be said of a call that has arrived and is not reported."""
        arrived = list(self._raw_calls.items())
        ahead = next((i for i, (arrival, _) in enumerate(arrived) if arrival == task), -1)
        if ahead < 0:
            return None
        if self.concurrent is not None:
            return m.Reason(RUNNING, f"it has arrived; {ahead} calls that came before it have not ended")
        running = self._backend.explain_running(arrived[0][0], 0)
        if not ahead:
            return running
        first = m.decode_spec(arrived[0][1])
        name = f"{first.recipe.name}.{first.recipe.method}"
        what = f"it is in the actor's queue behind {ahead}; {name} ({short(first.task)}) is first"
        return m.Reason(QUEUED, f"{what}: {running.text}", "", running.waits_for)

    # ------------------------------------------------------------ its life

    def create(self, spec: m.Spec, assignment: m.Assignment) -> None:
        """Makes the instance, or the one that was lost again, and says so to the node."""
        backend = self._backend
        executor = self._executor
        self.id = spec.task
        backend.actor = spec
        backend.actor_restarted = assignment.attempt > 0

        def construct(*args: Any, **kwargs: Any) -> None:
            cls = executor.function(spec)
            if self._recovery is None:
                self._instance = cls(*args, **kwargs)
            else:
                attempt = assignment.attempt
                self._instance = self._recovery.restore(spec.task, attempt, executor.store(), cls, args, kwargs)

        spec.change(name=f"{spec.recipe.name}.__init__")
        outcome = executor.attempt(spec, assignment.attempt, assignment.resolved, lambda: construct, ())
        self._hold(outcome.retained)
        replayed = 0
        if outcome.status != m.FINISHED:
            self.id = backend.actor = None
        else:
            backend.actor_class = type(self._instance)
            self.callers.watch()
            backend.on_peer_ended = self.callers.ended
            if self._recovery is None:
                self.concurrent = concurrent_calls(self, self._instance, spec.recipe.max_concurrency)
            else:
                replayed = self._replay(self._recovery, assignment.attempt)
        backend.post_node(m.ActorStarted(spec.task, msgspec.Raw(m.encode(outcome)), replayed))
        if outcome.status != m.FINISHED:  # a worker like any other
            backend.running.pop()
        backend.endpoint.flush()

    def _released(self, caller: str) -> None:
        """Calls that were held back may run. Those that run one after the other are put in their place by the main
        thread, or it might take a later one in this moment."""
        if self.concurrent is None:
            self._executor.queue.append(Answered(caller))
        else:
            for spec in self.callers.released(caller):
                self.concurrent.accept(spec)

    def _replay(self, recovery: Recovery, attempt: int) -> int:
        """Runs the logged calls again; returns how many there were."""
        count = 0
        for call in recovery.to_replay(self._executor.store()):
            outcome = self._executor.attempt(call, attempt, [], getattr, (self._instance, call.recipe.method))
            self._hold(outcome.retained)
            count += 1
        return count

    def _hold(self, retained: list[bytes]) -> None:
        """For what keeps borrowed objects and nobody gets a reply that could register them."""
        for borrowed in retained:
            self._backend.post_node(m.Hold(borrowed, self._backend.process.encode(), 1))

    def exit(self) -> None:
        """The actor wants to end: no call after this one is run."""
        assert self.id is not None
        self._executor.leaving = True
        self._exited = True
        self._executor.queue.clear()
        self._backend.post_node(m.ActorExits(self.id))

    # ------------------------------------------------------------ calls

    def take(self, item: m.Spec | Answered) -> None:
        """What is next in the queue of an actor that runs one call at a time."""
        if isinstance(item, m.Spec):
            self.run_call(item)
        else:
            self._executor.queue.extendleft(reversed(self.callers.released(item.caller)))

    def run_call(self, spec: m.Spec) -> None:
        """Runs one call and reports it."""
        executor = self._executor
        if self.callers.stalled and self.callers.holds_back(spec):
            return
        if self.concurrent is None:
            if spec.parent_attempt and self._repeats.has_run(spec, executor.queue):
                self._raw_calls.pop(spec.task, None)
                return
            if self._repeats.verdicts:
                self._repeats.verdicts.pop(spec.task, None)  # which is out of date now
        outcome = executor.attempt(spec, spec.parent_attempt, [], getattr, (self._instance, spec.recipe.method))
        self.report_call(spec, outcome)
        if self._recovery is not None:
            self._recovery.save_if_due(self._instance)

    async def run_coroutine(self, spec: m.Spec) -> m.Outcome:
        """One call of an ``async def`` method, in the event loop."""
        attempt = Attempt(self._backend, spec, spec.parent_attempt, self.id, self._executor.description)
        current_scope.set(attempt)  # of this asyncio task, whose context is its own
        try:
            args, kwargs = attempt.arguments([])
            result = await getattr(self._instance, spec.recipe.method)(*args, **kwargs)
            del args, kwargs
            values = attempt.pack(result)
            del result
        except BaseException as error:
            values = self._executor.failure(attempt, spec, error)
        if attempt.kept:
            self._executor.kept[spec.task] = attempt.kept
        if attempt.exits:
            self.exit()
        return attempt.outcome(values)

    def report_call(self, spec: m.Spec, outcome: m.Outcome) -> None:
        """Sends an outcome to the caller, at once unless there is more to run; and logs it behind.

        That of a recoverable actor goes to the node, which logs it and sends it on. What was cancelled has not run, and
        is no part of the log.
        """
        raw = msgspec.Raw(m.encode(outcome))
        endpoint = self._backend.endpoint
        raw_spec = self._raw_calls.pop(spec.task, None)
        cancellation = self._backend.cancellation
        if cancellation.requested:
            cancellation.ended(spec.task)
        if raw_spec is None:  # it was here twice
            raw_spec = msgspec.Raw(m.encode(spec))
        recovery = self._recovery
        if recovery is not None and recovery.logs and outcome.status != m.CANCELLED:
            self.callers.count(spec.recipe.owner, len(raw))
            recovery.ran(raw_spec, raw, self._executor.kept.pop(spec.task, None), outcome.values)
        else:
            self._log.append((raw_spec, raw))
            if node_first(outcome):
                self.log_calls()
                self._backend.storage.arena.announced(outcome.values)
                self._executor.kept.pop(spec.task, None)
                endpoint.flush()
            endpoint.batch(spec.recipe.owner, m.RawResults, raw)
        # Looked at only now: what waits yet will be reported after this.
        more = self._executor.queue if self.concurrent is None else self.concurrent.more()
        now = time.perf_counter()
        if not more or now - self._reported_at > REPORT_SECONDS:
            self._reported_at = now
            endpoint.flush()

    def before_flush(self) -> None:
        """Posts what is not to wait for the next tick."""
        if self._recovery is not None or len(self._log) >= CALLS_LOGGED_AT_ONCE:
            self.log_calls()

    def log_calls(self) -> None:
        """Posts all calls that have been run and not logged."""
        if self._recovery is not None:
            self._recovery.post_calls()
        batch: list[msgspec.Raw] = []
        with self._log_lock:  # whoever comes here second finds what there was posted
            while self._log:
                batch += self._log.popleft()
            if batch:
                self._backend.post_node(m.Logged(batch))
