"""What the engine raises. Meanings follow Ray's tree; Ray's own names work too (``RayTaskError`` and so on).

``EngineError`` is the root, so ``except EngineError`` catches whatever the engine itself reports. A failed
*task* raises :class:`TaskError`, and the instance a caller sees also derives from the class of the error the
task raised: ``except ValueError`` and ``except TaskError`` both catch a task that raised ``ValueError``.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from functools import lru_cache


class EngineError(Exception):
    """Root of everything the engine raises."""


class EngineStateError(EngineError, RuntimeError):
    """The engine is not in the state the call needs (not initialised, initialised twice, shut down)."""


class UnsupportedError(EngineError, NotImplementedError):
    """A name of Ray's interface that this engine does not have; the message says which."""


class StartupError(EngineError):
    """A daemon or worker did not come up; the message carries its stderr."""


class SerializationError(EngineError, TypeError):
    """A value or function cannot be pickled; the message names the attribute path that failed."""


class TaskError(EngineError):
    """A task or actor method raised.

    Attributes:
        function: qualified name of the function or method.
        remote_traceback: the traceback on the worker, as text.
        cause: the original exception, or ``None`` when it could not be pickled.
        worker: where it ran, e.g. ``"worker 3 (pid 4711)"``.
    """

    def __init__(self, function: str, remote_traceback: str, cause: BaseException | None, worker: str = "") -> None:
        # Not super(): in a combined class the next __init__ is the cause's, which wants other arguments.
        Exception.__init__(self, function, remote_traceback, cause, worker)
        self.function = function
        self.remote_traceback = remote_traceback
        self.cause = cause
        self.worker = worker

    def __str__(self) -> str:
        where = f" on {self.worker}" if self.worker else ""
        return f"{self.function} failed{where}:\n{self.remote_traceback.rstrip()}"

    def as_instanceof_cause(self) -> TaskError:
        """This error as an instance of both :class:`TaskError` and the cause's class, where that is possible."""
        if self.cause is None or isinstance(self.cause, TaskError):
            return self
        combined = _combined_class(type(self.cause))  # type: ignore[arg-type]  # mypy takes __hash__ for unbound
        if combined is None:
            return self
        try:
            error = combined(self.function, self.remote_traceback, self.cause, self.worker)
        except Exception:  # a class with a __new__ of its own, or that forbids our attributes
            return self
        for key, value in getattr(self.cause, "__dict__", {}).items():
            error.__dict__.setdefault(key, value)
        _copy_slots(self.cause, error)
        error.__cause__ = self.cause
        return error

    def __reduce__(self) -> tuple[object, ...]:
        # The combined class exists in no module; rebuild it from the plain error.
        return _rebuild_task_error, (self.function, self.remote_traceback, self.cause, self.worker)


def _rebuild_task_error(function: str, trace: str, cause: BaseException | None, worker: str) -> TaskError:
    return TaskError(function, trace, cause, worker).as_instanceof_cause()


def _copy_slots(source: BaseException, target: BaseException) -> None:
    """What no ``__dict__`` holds: ``OSError.errno``, ``UnicodeError.start``, ``__slots__`` of own classes."""
    for cls in type(source).__mro__:
        if cls in (Exception, BaseException, object):
            continue
        for name, member in vars(cls).items():
            if not (inspect.ismemberdescriptor(member) or inspect.isgetsetdescriptor(member)):
                continue
            if not name.startswith("__"):
                with suppress(Exception):
                    setattr(target, name, getattr(source, name))


@lru_cache(maxsize=256)
def _combined_class(cause: type[BaseException]) -> type[TaskError] | None:
    """``class TaskError(ValueError)(TaskError, ValueError)``; ``None`` when the layouts cannot be combined."""
    if issubclass(cause, TaskError) or not issubclass(cause, Exception):
        return None
    try:
        return type(f"TaskError({cause.__name__})", (TaskError, cause), {"__module__": TaskError.__module__})
    except Exception:  # incompatible __slots__, a final class, an __init_subclass__ with arguments
        return None


class WorkerCrashedError(EngineError):
    """The worker died while it ran the task, once more than the task may be retried."""


class ActorError(EngineError):
    """Root of what goes wrong with actors."""


class ActorDiedError(ActorError):
    """The actor is dead: it was killed, its process crashed, or its ``__init__`` raised (see ``__cause__``)."""


class ActorUnavailableError(ActorError):
    """The actor cannot be reached now and may come back; the call may or may not have run."""


class PendingCallsLimitExceeded(ActorError):
    """This process has as many unanswered calls of the actor as its ``max_pending_calls`` allows."""


class ObjectLostError(EngineError):
    """The object's memory is gone and it cannot be made again; the message says why."""


class OwnerDiedError(ObjectLostError):
    """The process that owned the object died."""


class ObjectStoreFullError(EngineError, MemoryError):
    """Neither shared memory nor disk has room for the object; the message names size, capacity and the fix."""


class TaskUnschedulableError(EngineError):
    """The task asks for resources that no machine here has; the message names both."""


class RuntimeEnvSetupError(EngineError):
    """A worker could not be made one of the ``runtime_env`` that its task asks for."""


class OutOfMemoryError(EngineError, MemoryError):
    """The task was killed because the machine ran out of memory."""


class GetTimeoutError(EngineError, TimeoutError):
    """``get`` ran out of time before every object was ready."""


class TaskCancelledError(EngineError):
    """The task was cancelled."""


class ActorExit(BaseException):
    """What ``exit_actor()`` raises to leave the method; the engine's own, and not to be caught."""


# Ray's names for the same meanings, so that ported programs need not change their except clauses.
RayError = EngineError
RayTaskError = TaskError
RayActorError = ActorError
