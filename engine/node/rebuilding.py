"""Which tasks have to be run again for a lost object, or why it cannot be made again. No I/O.

The whole plan is made before anything runs: from the object to its task, from there to those arguments that are gone
as well, and so on, until all that is needed is there or one thing is found that cannot be had. So nothing is run in
vain, and the error can name what it is that was lost for good.

What can be had: a value that lives, a copy on disk (``ancestry.py``), a small value out of the control store, the
result of a task whose spec is there and that may be run once more. A ``put`` is made again by the task that did it. An
attempt for the sake of a lost object counts like any other: ``max_retries`` bounds them all.

What cannot: what the driver put; what an actor returned or put, whose state has moved on; what is no longer recorded.

Refs nested in arguments are not looked into: a task that never asks for their values does not need them. They are
looked for when it does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from ..ids import task_of
from ..messages import ACTOR, CALL, Failed, Inline, Spec, Value


class World(Protocol):
    """What the plan is made from."""

    def value(self, object_id: bytes) -> Value | None:
        """The value of an object that is there; None: lost, freed, or to come."""

    def spec(self, task: bytes) -> Spec | None: ...

    def attempts(self, task: bytes) -> int:
        """How often a task has run."""

    def is_running(self, task: bytes) -> bool:
        """It has not ended."""

    def is_run_again(self, task: bytes) -> bool:
        """It has not ended, and has before."""

    def put_by(self, put: bytes) -> tuple[str, bytes] | None:
        """Process and task that did a ``put``; None when it is none."""

    def history(self) -> str:
        """What is to be said of specs that are gone."""


@dataclass
class Run:
    """A task that is to be run again."""

    spec: Spec
    attempt: int


@dataclass
class Plan:
    """See the module's essay; ``refusal`` says why there is none."""

    runs: list[Run] = field(default_factory=list)
    puts: list[tuple[bytes, bytes]] = field(default_factory=list)
    """(task, object): a lost ``put`` that the task, which is run again, does again."""
    refusal: str = ""


def plan(lost: bytes, world: World) -> Plan:
    """How ``lost`` is made again."""
    result = Plan()
    seen: set[bytes] = set()
    tasks: set[bytes] = set()
    stack: list[tuple[bytes, str]] = [(lost, "")]
    while stack:
        oid, needed_for = stack.pop()
        if oid in seen:
            continue
        seen.add(oid)
        if world.value(oid) is not None:
            continue
        task = task_of(oid)
        by = world.put_by(task)
        if by is not None:
            process, task = by
            refusal = _no_put(process, task, world)
            result.puts.append((task, oid))
        elif task in tasks or world.is_running(task):
            continue
        else:
            refusal = ""
        spec = world.spec(task) if not refusal else None
        if refusal or spec is None or (refusal := _no_run(spec, world)):
            reason = refusal or f"the spec of the task that made it is gone: {world.history()}"
            about = f"{needed_for}needs {_named(oid)}, which is gone too, and " if needed_for else ""
            return Plan(refusal=about + reason)
        if task in tasks or world.is_run_again(task):
            continue
        tasks.add(task)
        result.runs.append(Run(spec, world.attempts(task)))
        for dep in spec.deps:
            if not isinstance(dep.value, (Inline, Failed)):
                made_by = f"task {spec.recipe.name}, which makes it, "
                stack.append((dep.object_id, made_by if oid == lost else needed_for))
    return result


def _no_put(process: str, task: bytes, world: World) -> str:
    """Why what a process put cannot be put again; empty when it can."""
    if not task:
        who = "the driver" if process == "driver" else process
        return f"it was put by {who}: no task could be run again to make it"
    if world.is_running(task) and not world.is_run_again(task):
        return f"it was put by a task that has not ended yet ({task.hex()})"
    return ""


def _no_run(spec: Spec, world: World) -> str:
    """Why a task cannot be run once more; empty when it can."""
    if spec.recipe.kind == CALL:
        return (
            f"it was made by {spec.recipe.name}.{spec.recipe.method}: what an actor made is not made again, "
            "because its state has moved on"
        )
    if spec.recipe.kind == ACTOR:
        return f"it was made by {spec.recipe.name}.__init__: what an actor made is not made again"
    ran = world.attempts(spec.task)
    if 0 <= spec.recipe.max_retries < ran and not world.is_run_again(spec.task):
        times = "once" if ran == 1 else f"{ran} times"
        return (
            f"its task {spec.recipe.name} ({spec.task.hex()}) may not be run once more: it has run {times} "
            f"(max_retries={spec.recipe.max_retries})"
        )
    return ""


def _named(oid: bytes) -> str:
    return f"ObjectRef({oid.hex()})"



