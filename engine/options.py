"""Options of tasks and actors: names and meanings are Ray's, checked where they are given."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypeVar

import cloudpickle

from . import machine
from .exceptions import UnsupportedError
from .messages import ANY_ERROR
from .runtime_env import normal_form

UNITS = 10_000
"""Resources are counted in ten-thousandths, as integers: sums of fractions stay exact."""

MAX_RETURNS = 60_000


@dataclass(frozen=True)
class NearObject:
    """Scheduling strategy: prefer the worker that produced ``ref``, if it is free (soft affinity)."""

    ref: Any


@dataclass(frozen=True)
class TaskOptions:
    """Options of one task (or of one actor method, which uses ``num_returns``, ``name`` only)."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    memory: int = 0
    num_returns: int = 1
    max_retries: int = 3
    retry_exceptions: bool | Sequence[type[Exception]] = False
    """Whether (or for which errors) a task that raised is run again, within ``max_retries``."""
    max_calls: int = 0
    """Runs of the function after which a worker ends and another takes its place; 0: never."""
    name: str = ""
    scheduling_strategy: NearObject | str | None = None
    runtime_env: Any = ""
    """Given as a dict, kept in its normal form."""

    @cached_property
    def pickled_retry_exceptions(self) -> bytes:
        """As it travels in a spec."""
        if isinstance(self.retry_exceptions, bool):
            return ANY_ERROR if self.retry_exceptions else b""
        return cloudpickle.dumps(tuple(self.retry_exceptions)) if self.retry_exceptions else b""

    @cached_property
    def demand(self) -> dict[str, int]:
        return demand(self)


@dataclass(frozen=True)
class ActorOptions:
    """Options of one actor. As in Ray, a running actor holds no CPU unless asked.

    ``checkpoint_every=N`` keeps the state over restarts: the instance is saved after every N calls and the calls
    since are replayed (0: all calls, nothing is saved). With ``replay=False`` they are not: the state goes back to
    what was saved.
    """

    num_cpus: float = 0.0
    num_gpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    memory: int = 0
    name: str = ""
    namespace: str | None = None
    get_if_exists: bool = False
    lifetime: str | None = None
    """``"detached"``: it lives until it is killed or the engine ends, whatever becomes of its handles."""
    max_restarts: int = 0
    max_task_retries: int = 0
    checkpoint_every: int | None = None
    replay: bool = True
    max_concurrency: int | None = None
    """Calls it runs at a time: in threads, or on an event loop if it has ``async def`` methods. None: 1, or 1000."""
    max_pending_calls: int = -1
    runtime_env: Any = ""


Options = TypeVar("Options", TaskOptions, ActorOptions)

NOT_YET = frozenset({
    "accelerator_type", "label_selector", "placement_group", "concurrency_groups",
})
"""Names that Ray has and this engine does not have yet; they raise by name instead of being ignored."""


def demand(options: TaskOptions | ActorOptions) -> dict[str, int]:
    """What the scheduler must set aside, in :data:`UNITS`; zero amounts left out."""
    wanted = {"CPU": options.num_cpus, "GPU": options.num_gpus, "memory": options.memory, **options.resources}
    return {name: max(1, round(amount * UNITS)) for name, amount in wanted.items() if amount}


def machine_resources(
    num_cpus: float | None, num_gpus: float | None, resources: Mapping[str, float] | None, memory: int | None = None,
    object_store_memory: int = 0,
) -> dict[str, int]:
    """What ``init`` gives the scheduler to share out, in :data:`UNITS`; what the machine has by default.

    Raises:
        TypeError, ValueError: as for the options of tasks.
    """
    cpus = machine.cpus() if num_cpus is None else num_cpus
    given = {} if resources is None else resources
    _check_amounts(cpus, num_gpus or 0, given)
    if memory is None:
        memory = max(0, machine.memory() - object_store_memory)
    else:
        _check_memory(memory)
    if num_gpus is not None and num_gpus != int(num_gpus):
        raise ValueError(f"num_gpus of init must be whole, got {num_gpus}")
    gpus = len(machine.gpus(None if num_gpus is None else int(num_gpus)))
    total = {"CPU": round(cpus * UNITS), "GPU": gpus * UNITS, "memory": memory * UNITS}
    total.update({name: round(amount * UNITS) for name, amount in given.items()})
    return {name: amount for name, amount in total.items() if amount or name == "CPU"}


def merge_task_options(base: TaskOptions, given: Mapping[str, Any]) -> TaskOptions:
    """``base`` with ``given`` on top.

    Raises:
        TypeError: a name that does not exist (with the nearest one), or a value of the wrong type.
        ValueError: a value out of range.
        UnsupportedError: an option of Ray's that this engine lacks.
    """
    if not given:
        return base
    _check_names(given, TaskOptions, "task")
    merged = _replaced(base, given)
    _check_amounts(merged.num_cpus, merged.num_gpus, merged.resources)
    _check_memory(merged.memory)
    returns: Any = merged.num_returns
    if not isinstance(returns, int) or isinstance(returns, bool):
        if returns in ("streaming", "dynamic"):
            raise UnsupportedError("num_returns='streaming' is not supported yet; return a list or several values")
        raise TypeError(f"num_returns must be an int, got {returns!r}")
    if not 0 <= merged.num_returns <= MAX_RETURNS:
        raise ValueError(f"num_returns must be between 0 and {MAX_RETURNS}, got {merged.num_returns}")
    _check_count("max_retries", merged.max_retries)
    _check_count("max_calls", merged.max_calls)
    if merged.max_calls < 0:
        raise ValueError(f"max_calls must be 0 or more, got {merged.max_calls}")
    _check_retry_exceptions(merged.retry_exceptions)
    strategy = merged.scheduling_strategy
    if not (strategy is None or strategy == "DEFAULT" or isinstance(strategy, NearObject)):
        raise UnsupportedError(f"scheduling_strategy {strategy!r} is not supported; use NearObject(ref) or None")
    return merged


def merge_actor_options(base: ActorOptions, given: Mapping[str, Any]) -> ActorOptions:
    """``base`` with ``given`` on top; raises as :func:`merge_task_options`."""
    if not given:
        return base
    _check_names(given, ActorOptions, "actor")
    merged = _replaced(base, given)
    _check_amounts(merged.num_cpus, merged.num_gpus, merged.resources)
    _check_memory(merged.memory)
    _check_count("max_restarts", merged.max_restarts)
    _check_count("max_pending_calls", merged.max_pending_calls)
    if merged.max_concurrency is not None:
        _check_count("max_concurrency", merged.max_concurrency)
        if merged.max_concurrency < 1:
            raise ValueError(f"max_concurrency must be at least 1, got {merged.max_concurrency}")
    if merged.lifetime not in (None, "detached", "non_detached"):
        raise ValueError(f"lifetime must be 'detached', 'non_detached' or None, got {merged.lifetime!r}")
    if not isinstance(merged.name, str):
        raise TypeError(f"name must be a str, got {merged.name!r}")
    if merged.get_if_exists and not merged.name:
        raise ValueError("get_if_exists=True needs a name")
    _check_recovery(merged)
    return merged


def _check_recovery(options: ActorOptions) -> None:
    _check_count("max_task_retries", options.max_task_retries)
    if not isinstance(options.replay, bool):
        raise TypeError(f"replay must be True or False, got {options.replay!r}")
    every = options.checkpoint_every
    if every is None:
        if not options.replay:
            raise ValueError("replay=False restarts from a checkpoint: give checkpoint_every=N as well")
        return
    if isinstance(every, bool) or not isinstance(every, int):
        raise TypeError(f"checkpoint_every must be an int or None, got {every!r}")
    if every < 0:
        raise ValueError(f"checkpoint_every must be 0 (log only) or more calls, got {every}")
    if not every and not options.replay:
        raise ValueError("checkpoint_every=0 with replay=False keeps nothing: save every N calls, or leave both out")
    if options.max_concurrency not in (None, 1):
        raise ValueError("checkpoint_every needs calls that run one at a time: leave max_concurrency out")
    if not options.max_restarts:
        raise ValueError("checkpoint_every is for actors that restart: give max_restarts (-1: for ever) as well")


def _replaced(base: Options, given: Mapping[str, Any]) -> Options:
    if "runtime_env" in given:
        given = {**given, "runtime_env": normal_form(given["runtime_env"])}
    return replace(base, **given)


def _check_names(given: Mapping[str, Any], options: type, kind: str) -> None:
    known = [f.name for f in fields(options)]
    for name in given:
        if name in known:
            continue
        if name in NOT_YET:
            raise UnsupportedError(f"{kind} option {name!r} is not supported yet; known: {', '.join(known)}")
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
        raise TypeError(f"unknown {kind} option {name!r}{hint}")


def _check_amounts(num_cpus: Any, num_gpus: Any, resources: Any) -> None:
    if not isinstance(resources, Mapping):
        raise TypeError(f"resources must be a dict of name to amount, got {resources!r}")
    for reserved, option in (("CPU", "num_cpus"), ("GPU", "num_gpus"), ("memory", "memory")):
        if reserved in resources:
            raise ValueError(f"ask for {reserved}{'s' * (reserved != 'memory')} with {option}, not in resources")
    amounts = {"num_cpus": num_cpus, "num_gpus": num_gpus, **resources}
    for name, amount in amounts.items():
        if isinstance(amount, bool) or not isinstance(amount, (int, float)):
            raise TypeError(f"{name} must be a number, got {amount!r}")
        if not 0 <= amount < float("inf"):
            raise ValueError(f"{name} must be at least 0, got {amount}")
    if num_gpus > 1 and num_gpus != int(num_gpus):
        raise ValueError(f"num_gpus must be whole when it is more than 1, got {num_gpus}")


def _check_memory(memory: Any) -> None:
    if isinstance(memory, bool) or not isinstance(memory, int):
        raise TypeError(f"memory must be an int, in bytes, got {memory!r}")
    if memory < 0:
        raise ValueError(f"memory must be at least 0 bytes, got {memory}")


def _check_retry_exceptions(given: Any) -> None:
    classes = [] if isinstance(given, bool) else given
    if not isinstance(classes, (list, tuple)) or not all(
        isinstance(each, type) and issubclass(each, Exception) for each in classes
    ):
        raise TypeError(f"retry_exceptions must be True, False or a list of exception classes, got {given!r}")


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if value < -1:
        raise ValueError(f"{name} must be -1 (for ever), 0 or more, got {value}")
