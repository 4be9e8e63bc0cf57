"""The inline backend: every task runs at its submit, in the caller's thread."""

from __future__ import annotations

import asyncio
import bdb
import inspect
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

from .. import ids, machine
from ..backend import ActorInfo
from ..context import RuntimeContext
from ..exceptions import (
    ActorDiedError,
    ActorExit,
    GetTimeoutError,
    ObjectLostError,
    TaskUnschedulableError,
    UnsupportedError,
)
from ..functions import Exported, LoadedFunctions, load, split_returns
from ..options import UNITS, ActorOptions, TaskOptions, demand, machine_resources
from ..refs import ObjectRef
from ..runtime_env import merged
from ..serialization import dump_engine_error, dump_error, dumps, load_error
from .actors import InlineActor
from .objects import ObjectTable, StoredObject
from .surroundings import InlineGpus, refuse_folders, variables_set

log = logging.getLogger("rlflow.engine")

PASS_THROUGH = (KeyboardInterrupt, bdb.BdbQuit)
"""Whoever sits at the terminal means the program with these, not the task."""


class _Scope:
    """A program that submits: the driver or one running task."""

    __slots__ = ("actor", "actor_id", "demand", "environment", "gpus", "indices", "name", "task_id")

    def __init__(
        self, name: bytes, task_id: bytes | None, actor_id: bytes | None, held: dict[str, int],
        environment: str = "", actor: InlineActor | None = None,
    ) -> None:
        self.actor = actor
        self.environment = environment
        self.gpus: tuple[str, ...] = () if actor is None else actor.gpus
        self.name = name
        self.indices = itertools.count()
        self.task_id = task_id
        self.actor_id = actor_id
        self.demand = held

    def next_task_id(self) -> bytes:
        return ids.task_id(self.name, next(self.indices))


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
        self._gpus = InlineGpus(machine.gpus(self._total.get("GPU", 0) // UNITS))
        refuse_folders(runtime_env)
        self._namespace = namespace
        self._objects = ObjectTable()
        self._actors: dict[bytes, InlineActor] = {}
        self._names: dict[tuple[str, str], InlineActor] = {}
        self._lock = threading.RLock()
        self._functions = LoadedFunctions()
        self._driver = _Scope(ids.new_scope(), None, None, {}, runtime_env)
        self._running = threading.local()
        self._where = f"this process (pid {os.getpid()})"

    # --- tasks ---

    def submit_task(
        self, function: Exported, args: tuple[Any, ...], kwargs: dict[str, Any], options: TaskOptions
    ) -> list[ObjectRef]:
        packed = StoredObject.packed(dumps((args, kwargs)))
        wanted = demand(options)
        task = self._scope().next_task_id()
        never = self._why_never(f"task {function.name}", wanted)
        if never is not None:
            results = [StoredObject(never=never) for _ in range(options.num_returns)]
        else:
            environment = merged(self._scope().environment, options.runtime_env)
            refuse_folders(environment)
            scope = _Scope(ids.child_scope(task), task, None, wanted, environment)
            target = partial(self._load, function)
            scope.gpus, share = self._gpus.lend(wanted.get("GPU", 0))
            try:
                results = self._run(scope, function.name, target, packed, options.num_returns)
                tries = options.max_retries
                while tries and _is_to_retry(results, options):
                    tries -= 1
                    results = self._run(scope, function.name, target, packed, options.num_returns)
            finally:
                self._gpus.take_back(share)
        return [self._objects.add(ids.object_id(task, i), stored) for i, stored in enumerate(results)]

    def _run(
        self,
        scope: _Scope,
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
                self._end(scope.actor, "it called exit_actor()")
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

    def _load(self, exported: Exported) -> Callable[..., Any]:
        """The function from its pickle, like on a worker: what it captured is a copy, shared by its calls."""
        loaded = self._functions.get(exported.id)
        if loaded is None:
            loaded = load(exported.blob)
            self._functions.add(exported.id, exported.name, loaded)
        return loaded

    # --- actors ---

    def create_actor(
        self,
        cls: Exported,
        methods: Mapping[str, int],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: ActorOptions,
    ) -> tuple[ActorInfo, ObjectRef]:
        packed = StoredObject.packed(dumps((args, kwargs)))
        actor_id = self._scope().next_task_id()
        key = (options.namespace or self._namespace, options.name) if options.name else None
        actor = InlineActor(
            ActorInfo(actor_id, cls.name, dict(methods), options.max_pending_calls), cls, options, key, packed,
            demand(options),
            restarts_left=options.max_restarts,
            environment=merged(self._scope().environment, options.runtime_env),
        )
        refuse_folders(actor.environment)
        with self._lock:
            if key is not None and key in self._names:
                if options.get_if_exists:
                    return self._handle(self._names[key])
                raise ValueError(f"an actor named {key[1]!r} lives in namespace {key[0]!r} already")
            if key is not None:
                self._names[key] = actor
            self._actors[actor_id] = actor
        stored = StoredObject.of(None)
        stored.on_free = lambda: self._end(actor, "its last handle is gone")
        handle = self._objects.add(ids.handle_id(actor_id), stored)
        if options.lifetime == "detached":
            actor.own_handle = self._objects.adopt(ids.handle_id(actor_id))
        actor.never = self._why_never(f"actor {cls.name}", actor.demand)
        if actor.never is None:
            actor.gpus, actor.share = self._gpus.lend(actor.demand.get("GPU", 0))
            self._start(actor)
        return actor.info, handle

    def _start(self, actor: InlineActor) -> None:
        """Runs ``__init__``; its error, if any, is what every call then gets."""
        packed = actor.creation
        assert packed is not None
        scope = self._actor_scope(actor, actor.info.actor_id)
        made: list[Any] = []

        def construct(*args: Any, **kwargs: Any) -> None:
            made.append(self._load(actor.cls)(*args, **kwargs))

        with actor.lock:
            try:
                [result] = self._run(scope, f"{actor.cls.name}.__init__", lambda: construct, packed, 1)
            except PASS_THROUGH:
                self._end(actor, "its __init__ was interrupted")
                raise
            if result.error is not None:
                self._end(actor, "its __init__ failed", load_error(result.error))
            elif result.never is not None:
                actor.never = result.never
            elif actor.death is None:  # it may have killed itself
                actor.instance = made[0]
                if not actor.restarts_left:
                    actor.creation = None

    def submit_call(
        self,
        actor: ActorInfo,
        handle: ObjectRef,
        method: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        num_returns: int,
    ) -> list[ObjectRef]:
        packed = StoredObject.packed(dumps((args, kwargs)))
        task = self._scope().next_task_id()
        results = self._call(actor, task, method, packed, num_returns)
        return [self._objects.add(ids.object_id(task, i), stored) for i, stored in enumerate(results)]

    def _call(
        self, info: ActorInfo, task: bytes, method: str, packed: StoredObject, num_returns: int
    ) -> list[StoredObject]:
        actor = self._actors.get(info.actor_id)
        if actor is None:
            unknown = Exported(b"", b"", info.class_name)
            actor = InlineActor(info, unknown, ActorOptions(), None, None, {})
            actor.die("this engine does not know it; it lived in an engine that was shut down")
        with actor.lock:
            if actor.never is not None:
                return [StoredObject(never=actor.never) for _ in range(num_returns)]
            generation = actor.generation
            if actor.death is None:
                instance = actor.instance
                name = f"{info.class_name}.{method}"
                scope = self._actor_scope(actor, task)
                target = partial(getattr, instance, method)
                results = self._run(scope, name, target, packed, num_returns)
            if actor.generation == generation and actor.death is None:
                return results
            # Dead before the call or killed by it: what it returned would never have left its process.
            return [StoredObject(error=actor.death or _restarted(actor)) for _ in range(num_returns)]

    def _actor_scope(self, actor: InlineActor, task: bytes) -> _Scope:
        return _Scope(ids.child_scope(task), task, actor.info.actor_id, {}, actor.environment, actor)

    def get_actor(self, name: str, namespace: str | None) -> tuple[ActorInfo, ObjectRef]:
        space = namespace or self._namespace
        with self._lock:
            actor = self._names.get((space, name))
            if actor is None:
                raise ValueError(f"no actor named {name!r} in namespace {space!r}")
            return self._handle(actor)

    def _handle(self, actor: InlineActor) -> tuple[ActorInfo, ObjectRef]:
        return actor.info, self._objects.adopt(ids.handle_id(actor.info.actor_id))

    def current_actor(self) -> tuple[type, bytes, ObjectRef] | None:
        actor = self._scope().actor
        if actor is None or actor.instance is None:
            return None
        return type(actor.instance), actor.info.actor_id, self._objects.adopt(ids.handle_id(actor.info.actor_id))

    def kill_actor(self, actor: ActorInfo, no_restart: bool) -> None:
        found = self._actors.get(actor.actor_id)
        if found is None or found.death is not None:
            return
        if no_restart or not found.restarts_left:
            self._end(found, "kill() was called on it")
            return
        if found.restarts_left > 0:
            found.restarts_left -= 1
        if found.options.checkpoint_every is not None:  # restored it would be what it is
            return
        found.instance = None
        found.generation += 1
        self._start(found)

    def _end(self, actor: InlineActor, reason: str, cause: BaseException | None = None) -> None:
        with self._lock:
            if actor.key is not None and self._names.get(actor.key) is actor:
                del self._names[actor.key]
            if self._objects.find(ids.handle_id(actor.info.actor_id)) is None:
                self._actors.pop(actor.info.actor_id, None)
        if actor.death is None:
            self._gpus.take_back(actor.share)
        actor.die(reason, cause)

    # --- objects ---

    def put(self, value: Any) -> ObjectRef:
        stored = StoredObject.of(value)
        return self._objects.add(ids.object_id(self._scope().next_task_id(), 0), stored)

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        values = []
        for ref in refs:
            stored = self._find(ref)
            if stored.never is not None:
                # Nothing else runs meanwhile, so waiting for the timeout could change nothing.
                if timeout is not None:
                    raise GetTimeoutError(f"{ref!r} is not ready after {timeout} s: {stored.never}")
                raise TaskUnschedulableError(stored.never)
            values.append(stored.load())
        return values

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
        return self._objects.adopt(object_id)

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
        stored = self._objects.find(ref.binary())
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
        actors = [actor for actor in self._actors.values() if actor.death is None and actor.never is None]
        for held in [self._scope().demand, *(actor.demand for actor in actors)]:
            for name, amount in held.items():
                left[name] = max(0, left[name] - amount)
        return {name: amount / UNITS for name, amount in left.items()}

    def _why_never(self, who: str, wanted: dict[str, int]) -> str | None:
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
        scope = self._scope()
        actor = scope.actor
        held = scope.demand if actor is None else actor.demand
        return RuntimeContext(
            backend=self.name,
            role="driver" if scope.task_id is None else "worker",
            job_id=self._driver.name.hex()[:8],
            worker_id=str(os.getpid()),
            node_id=self._driver.name.hex(),
            namespace=self._namespace,
            task_id=None if scope.task_id is None else scope.task_id.hex(),
            actor_id=None if scope.actor_id is None else scope.actor_id.hex(),
            attempt=0,
            actor_name=None if actor is None or actor.key is None else actor.key[1],
            was_current_actor_reconstructed=actor is not None and actor.generation > 0,
            resources={name: amount / UNITS for name, amount in held.items()},
            gpus=scope.gpus,
            environment=scope.environment,
        )

    def _scope(self) -> _Scope:
        """Of the innermost task that runs in this thread, else of the driver."""
        scope: _Scope = getattr(self._running, "scope", self._driver)
        return scope

    @contextmanager
    def _entered(self, scope: _Scope) -> Iterator[None]:
        outer = self._scope()
        self._running.scope = scope
        try:
            yield
        finally:
            self._running.scope = outer

    def shutdown(self) -> None:
        for actor in list(self._actors.values()):
            self._end(actor, "the engine was shut down")
        self._actors.clear()
        self._objects.clear()


def _is_to_retry(results: list[StoredObject], options: TaskOptions) -> bool:
    """Whether a task raised what it asked to be run again for."""
    if not options.retry_exceptions or not results or results[0].error is None:
        return False
    classes = (Exception,) if isinstance(options.retry_exceptions, bool) else tuple(options.retry_exceptions)
    return isinstance(load_error(results[0].error), classes)


def _restarted(actor: InlineActor) -> bytes:
    return dump_engine_error(ActorDiedError(f"actor {actor.info.class_name} was restarted during this call"))

