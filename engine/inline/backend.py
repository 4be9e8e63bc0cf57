"""The inline backend: every task runs at its submit, in the caller's thread."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from .. import ids, machine
from ..context import RuntimeContext
from ..exceptions import (
    ActorExit,
    GetTimeoutError,
    ObjectLostError,
    TaskUnschedulableError,
    UnsupportedError,
)
from ..explanation import FAILED, NEVER, READY, Explanation, error_line, short, size
from ..functions import Exported, LoadedFunctions, load, split_returns
from ..options import UNITS, TaskOptions, demand, machine_resources
from ..refs import ObjectRef
from ..runtime_env import merged
from ..serialization import dump_engine_error, dump_error, dumps, load_error
from .handles import InlineHandles
from .objects import ObjectTable, StoredObject
from .scope import PASS_THROUGH, Scope
from .surroundings import InlineGpus, refuse_folders, variables_set

log = logging.getLogger("rlflow.engine")

class _ArgumentMissing(Exception):
    """An argument failed or will never exist, and so does the task."""

    def __init__(self, stored: StoredObject) -> None:
        self.stored = stored


class InlineBackend:
    """See :class:`rlflow.engine.backend.Backend`."""

    name = "inline"

    def __init__(
        self,
        num_cpus: float | None,
        num_gpus: float | None,
        resources: Mapping[str, float] | None,
        namespace: str,
        runtime_env: str,
        memory: int | None = None,
    ) -> None:
        self._total = machine_resources(num_cpus, num_gpus, resources, memory)
        self.gpus = InlineGpus(machine.gpus(self._total.get("GPU", 0) // UNITS))
        refuse_folders(runtime_env)
        self.namespace = namespace
        self.objects = ObjectTable()
        self._actors = handles = InlineHandles(self)
        self.create_actor = handles.create_actor
        self.get_actor = handles.get_actor
        self.named_actors = handles.named_actors
        self.submit_call = handles.submit_call
        self.current_actor = handles.current_actor
        self.kill_actor = handles.kill_actor
        self._functions = LoadedFunctions()
        self._driver = Scope(ids.new_scope(), None, None, {}, runtime_env)
        self._running = threading.local()
        self._where = f"this process (pid {os.getpid()})"

    # --- tasks ---

    def submit_task(
        self, function: Exported, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[ObjectRef]:
        packed = StoredObject.packed(dumps((args, kwargs)))
        wanted = demand(options)
        task = self.scope().next_task_id()
        never = self.why_never(f"task {function.name}", wanted)
        if never is not None:
            results = [StoredObject(never=never) for _ in range(options.num_returns)]
        else:
            environment = merged(self.scope().environment, options.runtime_env)
            refuse_folders(environment)
            scope = Scope(ids.child_scope(task), task, None, wanted, environment)
            target = partial(self.load_function, function)
            scope.gpus, share = self.gpus.lend(wanted.get("GPU", 0))
            try:
                results = self.run(scope, function.name, target, packed, options.num_returns)
                tries = options.max_retries
                while tries and _is_to_retry(results, options):
                    tries -= 1
                    results = self.run(scope, function.name, target, packed, options.num_returns)
            finally:
                self.gpus.take_back(share)
        return [self.objects.add(ids.object_id(task, i), stored) for i, stored in enumerate(results)]

    def run(
        self,
        scope: Scope,
        name: str,
        target: Callable[[], Callable[..., Any]],
        packed: StoredObject,
        num_returns: int,
    ) -> list[StoredObject]:
        """Runs one task; its results, or its error once for each of them."""
        try:
            with self._entered(scope), variables_set(scope.environment):
                args, kwargs = self._resolve(packed)
                result = target()(*args, **kwargs)
                if inspect.iscoroutine(result) and scope.actor is not None:
                    result = scope.actor.run_coroutine(result)
                return [StoredObject.of(value) for value in split_returns(result, num_returns)]
        except PASS_THROUGH:
            raise
        except ActorExit:
            if scope.actor is not None:
                self._actors.end(scope.actor, "it called exit_actor()")
            return [StoredObject.of(None)] * num_returns  # what its caller gets is that it is dead
        except _ArgumentMissing as missing:
            error, never = missing.stored.error, missing.stored.never
            return [StoredObject(error=error, never=never) for _ in range(num_returns)]
        except BaseException as raised:
            error = dump_error(name, raised, self._where)
            return [StoredObject(error=error) for _ in range(num_returns)]

    def _resolve(self, packed: StoredObject) -> tuple[list[Any], dict[str, Any]]:
        """The arguments as the task sees them: own copies, refs at top level replaced by their values."""
        args, kwargs = packed.load()
        return [self._argument(value) for value in args], {key: self._argument(kwargs[key]) for key in kwargs}

    def _argument(self, value: Any) -> Any:
        if not isinstance(value, ObjectRef):
            return value
        stored = self._find(value)
        if stored.error is not None or stored.never is not None:
            raise _ArgumentMissing(stored)
        return stored.load()

    def load_function(self, exported: Exported) -> Callable[..., Any]:
        """The function from its pickle, like on a worker: what it captured is a copy, shared by its calls."""
        loaded = self._functions.get(exported.id)
        if loaded is None:
            loaded = load(exported.blob)
            self._functions.add(exported.id, exported.name, loaded)
        return loaded

    # --- objects ---

    def put(self, value: Any) -> ObjectRef:
        stored = StoredObject.of(value)
        return self.objects.add(ids.object_id(self.scope().next_task_id(), 0), stored)

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        values = []
        for ref in refs:
            stored = self._find(ref)
            if stored.never is not None:
                # Nothing else runs meanwhile, so waiting for the timeout could change nothing.
                if timeout is not None:
                    raise GetTimeoutError(f"{ref!r} is not ready after {timeout} s.\n{self.why(ref)}")
                raise TaskUnschedulableError(stored.never)
            values.append(stored.load())
        return values

    def why(self, ref: ObjectRef) -> Explanation:
        stored = self._find(ref)
        name = short(ids.task_of(ref.binary()))
        if stored.never is not None:
            return Explanation(NEVER, f"{name}: {stored.never}")
        if stored.error is not None:
            return Explanation(FAILED, f"{name} failed: {error_line(stored.error)}")
        return Explanation(READY, f"{name} is there: {size(stored.nbytes())}, in memory")

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        ready: list[ObjectRef] = []
        pending: list[ObjectRef] = []
        never: str | None = None
        for ref in refs:
            reason = self._find(ref).never
            never = never or reason
            (ready if reason is None and len(ready) < num_returns else pending).append(ref)
        if len(ready) < min(num_returns, len(refs)) and timeout is None:
            raise TaskUnschedulableError(never)
        return ready, pending

    def adopt(self, object_id: bytes) -> ObjectRef:
        return self.objects.adopt(object_id)

    def future(self, ref: ObjectRef) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(self.get((ref,), None)[0])
        except Exception as error:
            future.set_exception(error)
        return future

    def awaitable(self, ref: ObjectRef) -> asyncio.Future[Any]:
        return asyncio.wrap_future(self.future(ref))

    def cancel(self, ref: ObjectRef, force: bool, recursive: bool) -> None:
        """Nothing to do: what was submitted has run."""

    def _find(self, ref: ObjectRef) -> StoredObject:
        stored = self.objects.find(ref.binary())
        if stored is None:
            why = f"{ref!r} is unknown here: it was freed, or made before the last engine.shutdown()"
            return StoredObject(error=dump_engine_error(ObjectLostError(why)))
        return stored

    # --- resources and context ---

    def cluster_resources(self) -> dict[str, float]:
        return {name: amount / UNITS for name, amount in self._total.items()}

    def available_resources(self) -> dict[str, float]:
        """All but what actors and the calling task hold; one that waits for another gives its share back."""
        left = dict(self._total)
        for held in [self.scope().demand, *(actor.demand for actor in self._actors.living())]:
            for name, amount in held.items():
                left[name] = max(0, left[name] - amount)
        return {name: amount / UNITS for name, amount in left.items()}

    def why_never(self, who: str, wanted: dict[str, int]) -> str | None:
        """Why ``who`` can never run here, if so; says it in the log at once, as the other engine does."""
        if all(amount <= self._total.get(name, 0) for name, amount in wanted.items()):
            return None
        asked, there = ({k: v / UNITS for k, v in amounts.items()} for amounts in (wanted, self._total))
        reason = f"{who} can never run: it asks for {asked} and the engine has {there}"
        log.warning(reason)
        return reason

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": self._driver.name.hex(), "Alive": True, "Resources": self.cluster_resources()}]

    def timeline(self) -> list[dict[str, Any]]:
        raise UnsupportedError("timeline() needs the control store, which backend='inline' does not have")

    def context(self) -> RuntimeContext:
        scope = self.scope()
        actor = scope.actor
        held = scope.demand if actor is None else actor.demand
        return RuntimeContext(
            backend=self.name,
            role="driver" if scope.task_id is None else "worker",
            job_id=self._driver.name.hex()[:8],
            worker_id=str(os.getpid()),
            node_id=self._driver.name.hex(),
            namespace=self.namespace,
            task_id=None if scope.task_id is None else scope.task_id.hex(),
            actor_id=None if scope.actor_id is None else scope.actor_id.hex(),
            attempt=0,
            actor_name=None if actor is None or actor.key is None else actor.key[1],
            was_current_actor_reconstructed=actor is not None and actor.generation > 0,
            resources={name: amount / UNITS for name, amount in held.items()},
            gpus=scope.gpus,
            environment=scope.environment,
        )

    def scope(self) -> Scope:
        """Of the innermost task that runs in this thread, else of the driver."""
        scope: Scope = getattr(self._running, "scope", self._driver)
        return scope

    @contextmanager
    def _entered(self, scope: Scope) -> Iterator[None]:
        outer = self.scope()
        self._running.scope = scope
        try:
            yield
        finally:
            self._running.scope = outer

    def shutdown(self) -> None:
        self._actors.clear()
        self.objects.clear()


def _is_to_retry(results: list[StoredObject], options: TaskOptions) -> bool:
    """Whether a task raised what it asked to be run again for."""
    if not options.retry_exceptions or not results or results[0].error is None:
        return False
    classes = (Exception,) if isinstance(options.retry_exceptions, bool) else tuple(options.retry_exceptions)
    return isinstance(load_error(results[0].error), classes)
