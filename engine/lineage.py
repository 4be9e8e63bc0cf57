"""What made an object, from what, back to the roots: the graph that recovery re-runs, for people to read.

The edges are in the specs: the refs among a task's arguments, at top level and nested, and for an actor's call its
actor. A ``put`` has no spec; its id says which program made it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from . import messages as m
from .ids import OBJECT_BYTES, SCOPE_BYTES, TASK_BYTES, child_scope, object_id, task_of
from .store_reader import StoreReader, TaskHistory


@dataclass
class Producer:
    """One object (or one actor) and what it was made from."""

    object_id: str
    task: TaskHistory | None
    """Who made it; ``None`` for a ``put``, or when its spec is no longer in the store."""
    put_by: TaskHistory | None = None
    """The task that ``put`` it; ``None`` with ``task`` ``None``: the driver, or the spec is gone."""
    made_from: list[Producer] = field(default_factory=list)
    seen: bool = False
    """It stands above with all it was made from."""


def lineage(reader: StoreReader, found: bytes) -> Producer:
    """The graph behind the object (or task, or actor) with this id.

    Args:
        reader: the store to look into.
        found: an id of :func:`find_id`.
    """
    putters: dict[bytes, bytes] = {}

    def put_by(oid: bytes) -> TaskHistory | None:
        if not putters:
            putters.update((child_scope(task), task) for task in reader.task_ids())
        task = putters.get(oid[:SCOPE_BYTES])
        return None if task is None else reader.task(task)

    root = found if len(found) == OBJECT_BYTES else object_id(found, 0)
    top = Producer(root.hex(), None)
    visited = {root}
    stack = [(top, root)]
    while stack:  # no recursion: chains may be long
        node, oid = stack.pop()
        spec = reader.spec(task_of(oid))
        if spec is None:
            node.put_by = put_by(oid)
            continue
        node.task = reader.task(spec.task)
        for parent in _edges(spec):
            child = Producer(parent.hex(), None, seen=parent in visited)
            node.made_from.append(child)
            if not child.seen:
                visited.add(parent)
                stack.append((child, parent))
    return top


def find_id(reader: StoreReader, text: str) -> list[bytes]:
    """Ids in the store that a person may mean by ``text``: whole, its beginning, or both ends with ``…`` between.

    Raises:
        ValueError: that is no part of an id.
    """
    head, gap, tail = text.partition("…")
    if gap and not tail:
        raise ValueError(f"{text!r} is no id: after '…' its end is missing")
    try:
        whole = bytes.fromhex(text) if not gap else b""
        bytes.fromhex((head + tail).ljust(len(head + tail) + len(head + tail) % 2, "0"))
    except ValueError:
        raise ValueError(f"{text!r} is no id: ids are hexadecimal, such as those that 'tasks --json' prints") from None
    if len(whole) == OBJECT_BYTES:
        return [whole]  # a put, perhaps, which the store need not know
    if len(whole) == TASK_BYTES:
        return [whole] if reader.spec(whole) is not None else []
    return [task for task in reader.task_ids() if (name := task.hex()).startswith(head) and name.endswith(tail)]


def _edges(spec: m.Spec) -> Iterator[bytes]:
    if spec.recipe.kind == m.CALL:
        yield object_id(spec.recipe.function, 0)  # the actor's creation
    yield from (dep.object_id for dep in spec.deps)
    yield from spec.nested


__all__ = ["Producer", "find_id", "lineage"]
