"""``@remote``: functions become task factories, classes become actor factories."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from . import api
from .backend import ActorInfo
from .exceptions import ActorExit, EngineStateError, UnsupportedError
from .functions import Exported, export
from .options import ActorOptions, TaskOptions, merge_actor_options, merge_task_options
from .refs import ObjectRef


class RemoteFunction:
    """A function whose ``.remote(...)`` submits a task and returns its future at once."""

    def __init__(self, function: Callable[..., Any], options: TaskOptions) -> None:
        self._function = function
        self._options = options
        self._exported: Exported | None = None
        self.__name__ = getattr(function, "__name__", "function")
        self.__qualname__ = getattr(function, "__qualname__", self.__name__)
        self.__doc__ = function.__doc__
        self.__wrapped__ = function

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submits one task; returns an ObjectRef, a list of them (``num_returns`` > 1) or None (0)."""
        exported = self._exported
        if exported is None:
            exported = self._exported = export(self._function)
        options = self._options
        refs = api.current_backend().submit_task(exported, args, kwargs, options)
        return refs[0] if options.num_returns == 1 else (refs or None)

    def options(self, **options: Any) -> RemoteFunction:
        """This function with other options."""
        if self._exported is None:
            self._exported = export(self._function)
        other = RemoteFunction(self._function, merge_task_options(self._options, options))
        other._exported = self._exported
        return other

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"remote function {self.__qualname__} cannot be called directly: use {self.__name__}.remote(...), "
            f"or {self.__name__}.__wrapped__(...) to run it here"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # State apart from construction, so that a function that refers to itself (recursion) can be pickled.
        return _blank, (RemoteFunction,), {"_function": self._function, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_function"], state["_options"])  # type: ignore[misc]


class ActorClass:
    """A class whose ``.remote(...)`` starts an actor: an instance in a worker process of its own."""

    def __init__(self, cls: type, options: ActorOptions) -> None:
        if options.checkpoint_every is not None:
            _check_recoverable(cls)
        self._cls = cls
        self._methods = _public_methods(cls)
        self._options = options
        self._exported: Exported | None = None
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__doc__ = cls.__doc__

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Creates the actor; returns its handle at once. Errors of ``__init__`` come with the first call."""
        if self._exported is None:
            self._exported = export(self._cls)
        info, handle = api.current_backend().create_actor(
            self._exported, self._methods, args, kwargs, self._options
        )
        return ActorHandle(info, handle)

    def options(self, **options: Any) -> ActorClass:
        other = ActorClass(self._cls, merge_actor_options(self._options, options))
        other._exported = self._exported
        return other

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"actor class {self.__qualname__} cannot be instantiated directly: use {self.__name__}.remote(...)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (ActorClass,), {"_cls": self._cls, "_options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["_cls"], state["_options"])  # type: ignore[misc]


class ActorHandle:
    """An actor, seen from outside: ``handle.method.remote(...)``. The actor lives while a handle does."""

    def __init__(self, info: ActorInfo, handle: ObjectRef) -> None:
        self._info = info
        self._handle = handle

    def __getattr__(self, name: str) -> ActorMethod:
        info: ActorInfo = self.__dict__["_info"]
        if name not in info.methods:
            known = ", ".join(sorted(info.methods)) or "none"
            raise AttributeError(f"actor {info.class_name} has no public method {name!r}; it has: {known}")
        method = ActorMethod(info, self._handle, name, info.methods[name])
        self.__dict__[name] = method  # the next access is a plain attribute lookup
        return method

    def __repr__(self) -> str:
        return f"ActorHandle({self._info.class_name}, {self._info.actor_id.hex()})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._info.actor_id == self._info.actor_id

    def __hash__(self) -> int:
        return hash(self._info.actor_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorHandle, (self._info, self._handle)


class ActorMethod:
    """A method of an actor; ``.remote(...)`` queues one call. Calls of one caller keep their order."""

    # Not the ActorHandle: it caches its methods, and a cycle would keep the actor alive after its last handle.
    __slots__ = ("_handle", "_info", "_name", "_num_returns")

    def __init__(self, info: ActorInfo, handle: ObjectRef, name: str, num_returns: int) -> None:
        self._info = info
        self._handle = handle
        self._name = name
        self._num_returns = num_returns

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        refs = api.current_backend().submit_call(
            self._info, self._handle, self._name, args, kwargs, self._num_returns
        )
        return refs[0] if self._num_returns == 1 else (refs or None)

    def options(self, **options: Any) -> ActorMethod:
        for name in options:
            if name != "num_returns":
                raise UnsupportedError(f"option {name!r} of an actor method is not supported yet; known: num_returns")
        merged = merge_task_options(TaskOptions(num_returns=self._num_returns), options)
        return ActorMethod(self._info, self._handle, self._name, merged.num_returns)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"actor methods cannot be called directly: use .{self._name}.remote(...)")


def remote(*args: Any, **options: Any) -> Any:
    """Decorator: ``@remote`` or ``@remote(num_cpus=2, ...)`` on a function or a class."""
    if len(args) == 1 and not options and callable(args[0]):
        return _wrap(args[0], {})
    if args:
        raise TypeError("use @remote, or @remote(option=value, ...) with keyword options only")
    return lambda target: _wrap(target, options)


def method(*, num_returns: int = 1) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator for actor methods that return several objects."""
    merge_task_options(TaskOptions(), {"num_returns": num_returns})

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__rlflow_num_returns__ = num_returns  # type: ignore[attr-defined]
        return function

    return mark


def kill(actor: ActorHandle, *, no_restart: bool = True) -> None:
    """Kills an actor at once; its pending calls fail with ActorDiedError."""
    if not isinstance(actor, ActorHandle):
        raise TypeError(f"kill() takes an actor handle, got {type(actor).__name__}; tasks cannot be killed this way")
    api.current_backend().kill_actor(actor._info, no_restart)


def exit_actor() -> None:
    """Ends the actor whose method calls this, without a restart; calls that are queued fail with ActorDiedError.

    Raises:
        EngineStateError: the caller is no actor.
    """
    if api.current_backend().context().actor_id is None:
        raise EngineStateError("exit_actor() ends the actor that calls it; this is no actor's method")
    raise ActorExit


def current_actor() -> ActorHandle:
    """A handle of the actor that calls this; raises EngineStateError when none does."""
    found = api.current_backend().current_actor()
    if found is None:
        raise EngineStateError("there is no current actor: this is no actor's method")
    cls, actor_id, handle = found
    return ActorHandle(ActorInfo(actor_id, cls.__name__, _public_methods(cls)), handle)


def get_actor(name: str, namespace: str | None = None) -> ActorHandle:
    """The living actor of that name. Raises ValueError when there is none."""
    return ActorHandle(*api.current_backend().get_actor(name, namespace))


def _wrap(target: Any, options: Mapping[str, Any]) -> RemoteFunction | ActorClass:
    if isinstance(target, (RemoteFunction, ActorClass)):
        raise TypeError(f"{target.__qualname__} is remote already")
    if inspect.isclass(target):
        return ActorClass(target, merge_actor_options(ActorOptions(), options))
    if not callable(target):
        raise TypeError(f"@remote goes on a function or a class, not on {target!r}")
    if inspect.isgeneratorfunction(target) or inspect.iscoroutinefunction(target):
        kind = "generators" if inspect.isgeneratorfunction(target) else "coroutines"
        raise UnsupportedError(f"{kind} as tasks are not supported yet: {target.__qualname__}")
    return RemoteFunction(target, merge_task_options(TaskOptions(), options))


def _public_methods(cls: type) -> dict[str, int]:
    found = {}
    for name, member in inspect.getmembers(cls, callable):
        if name.startswith("__") and name != "__call__":
            continue
        if inspect.isclass(member):
            continue
        if inspect.isasyncgenfunction(member):
            raise UnsupportedError(f"async generators are not supported yet: {cls.__qualname__}.{name}")
        found[name] = getattr(member, "__rlflow_num_returns__", 1)
    return found


def _check_recoverable(cls: type) -> None:
    for name, _ in inspect.getmembers(cls, inspect.iscoroutinefunction):
        if not name.startswith("__"):
            raise TypeError(
                f"{cls.__qualname__}.{name} is a coroutine: checkpoint_every needs calls that run one at a time"
            )
    for name, other in (("save_checkpoint", "load_checkpoint"), ("load_checkpoint", "save_checkpoint")):
        if hasattr(cls, other) and not hasattr(cls, name):
            raise TypeError(f"{cls.__qualname__} has no {name}: checkpoints need both it and {other}, or neither")


def _blank(cls: type) -> Any:
    return object.__new__(cls)
