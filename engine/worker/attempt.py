"""One attempt at a task or call: its arguments, its scope, and what came of it as an outcome."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from .. import messages as m
from ..exceptions import ActorDiedError, ActorExit
from ..functions import split_returns
from ..refs import ObjectRef
from ..runtime.arguments import WHOLE
from ..runtime.scope import TaskScope
from ..serialization import INLINE_BYTES, dump_engine_error, dump_error, dump_scalar, dumps, loads
from ..store.reader import StaleAddress
from .backend import WorkerBackend

REPORT_SECONDS = 0.001
"""How long an outcome waits for company while there is more to run."""



class ArgumentFailed(Exception):
    """A top-level argument is an error: the task fails with it."""

    def __init__(self, error: bytes) -> None:
        self.error = error


class Attempt(TaskScope):
    """See the module's essay. ``number`` is 0 for the first."""

    # In the class what most attempts never change: making one costs less.
    status = m.FAILED
    exits = False
    """Whether the actor is to end with this call."""
    _duration: float | None = None

    def __init__(
        self, backend: WorkerBackend, spec: m.Spec, number: int, actor: bytes | None, description: str
    ) -> None:
        super().__init__(spec.task, actor, number)
        self.spec: m.Spec = spec
        self.kept: list[ObjectRef] = []
        """Refs inside the returns. Nobody may count them down before the node knows the objects that hold them."""
        self._backend = backend
        self._description = description
        self.started = time.time()
        self._begin = time.perf_counter()

    def arguments(self, resolved: list[m.Dep]) -> tuple[Sequence[Any], dict[str, Any]]:
        """Raises ArgumentFailed when one of them is an error."""
        backend = self._backend
        spec = self.spec
        if spec.args is not None and not (spec.deps or spec.nested or spec.args.buffers):
            plain: tuple[Sequence[Any], dict[str, Any]] = loads(spec.args.data)
            return plain
        backend.storage.unpickling.lent = True
        try:
            positional: Any = ()
            kwargs: dict[str, Any] = {}
            if spec.args is not None:
                positional, kwargs = loads(spec.args.data, buffers=spec.args.buffers)
            args = list(positional)
            for dep in (*spec.deps, *resolved):
                if dep.value is None:
                    continue
                value = self._load(dep.object_id, dep.value)
                if isinstance(dep.value, m.Shm):
                    self.adopted.add(dep.object_id)
                if dep.slot == WHOLE:
                    args[:], kwargs = value
                elif isinstance(dep.slot, int):
                    args[dep.slot] = value
                else:
                    kwargs[dep.slot] = value
        finally:
            backend.storage.unpickling.lent = False
        return args, kwargs

    def _load(self, oid: bytes, value: m.Value) -> Any:
        while True:
            if isinstance(value, m.Failed):
                raise ArgumentFailed(value.error)
            try:
                return self._backend.storage.load(oid, value)
            except StaleAddress:
                value = self._backend.addresses.current(oid, value)

    def pack(self, result: Any) -> list[m.Value]:
        """The returns as they travel."""
        self._duration = time.perf_counter() - self._begin
        number = self.spec.recipe.num_returns
        if number == 1:
            data = dump_scalar(result)
            values: list[m.Value] = [
                self._pack(result) if data is None or len(data) > INLINE_BYTES else m.Inline(data)
            ]
        else:
            values = [self._pack(value) for value in split_returns(result, number)]
        self.status = m.FINISHED
        return values

    def _pack(self, value: Any) -> m.Value:
        serialized = dumps(value)
        if serialized.refs:
            self.kept += serialized.refs
            for ref in serialized.refs:
                self._backend.objects.escape(ref)
        return self._backend.storage.pack(serialized)

    def failure(self, error: BaseException) -> list[m.Value]:
        """The error in place of each return."""
        spec = self.spec
        if self._is_to_retry(error):
            self.status = m.RETRIED
        recipe = spec.recipe
        name = f"{recipe.name}.{recipe.method}" if recipe.method else recipe.name
        if isinstance(error, ArgumentFailed):
            failed = error.error
        elif isinstance(error, ActorExit) and recipe.kind == m.CALL:
            self.exits = True
            failed = dump_engine_error(
                ActorDiedError(f"actor {recipe.name} is dead: it called exit_actor() in {name}")
            )
        else:
            failed = dump_error(name, error, self._description)
        error.__traceback__ = None  # frees what its frames hold
        return [m.Failed(failed)] * max(1, recipe.num_returns)

    def _is_to_retry(self, error: BaseException) -> bool:
        recipe = self.spec.recipe
        if not recipe.retry_exceptions or not isinstance(error, Exception) or isinstance(error, ArgumentFailed):
            return False
        if 0 <= recipe.max_retries <= self.attempt:
            return False
        return recipe.retry_exceptions == m.ANY_ERROR or isinstance(error, loads(recipe.retry_exceptions))

    def outcome(self, values: list[m.Value]) -> m.Outcome:
        """To be called when the frames that knew the arguments are gone."""
        backend = self._backend
        duration = self._duration
        if duration is None:
            duration = time.perf_counter() - self._begin
        return m.Outcome(
            self.spec.task, self.attempt, backend.process, self.status, self.started, duration, values,
            backend.objects.retained(self.adopted) if self.adopted else [],
        )


def node_first(outcome: m.Outcome) -> bool:
    """Whether the node has to hear of it before the owner.

    If this process dies between the two, memory that the node does not know of goes with it, and refs in a value
    that it does not know of would hold their objects for ever.
    """
    for value in outcome.values:
        if isinstance(value, m.Shm) or (isinstance(value, m.Inline) and value.refs):
            return True
    return False
