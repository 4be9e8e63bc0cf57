"""Ids are derived, not drawn: a task that runs twice gives its children and puts the same ids.

A *scope* (10 bytes) is a program that submits: the driver (random) or one task (a hash of its task id). Inside
a scope every operation takes the next *index*, so

    task id   = scope + index            (14 bytes; also an actor's id: the id of its creation task)
    object id = task id + return index   (16 bytes)

A parent that is re-run after a crash therefore names its finished children again instead of making new ones,
and keys of one scope lie side by side in the control store. Random ids would need a table for the first and
would scatter the second.
"""

from __future__ import annotations

import os
from hashlib import blake2b

SCOPE_BYTES = 10
INDEX_BYTES = 4
TASK_BYTES = 14
OBJECT_BYTES = 16

HANDLE_INDEX = b"\xff\xff"
"""Return index of the pseudo-object that stands for "somebody holds a handle to this actor"."""

FIRST_RETURN = b"\0\0"
"""Return index of what most tasks return one of: their id and this is the object's."""

_RETURN_INDEX = [i.to_bytes(2, "big") for i in range(256)]


def new_scope() -> bytes:
    """A fresh scope for a driver."""
    return os.urandom(SCOPE_BYTES)


def child_scope(task_id: bytes) -> bytes:
    """The scope of whatever ``task_id`` itself submits."""
    return blake2b(task_id, digest_size=SCOPE_BYTES).digest()


def task_id(scope: bytes, index: int) -> bytes:
    return scope + index.to_bytes(INDEX_BYTES, "big")


def object_id(task: bytes, return_index: int) -> bytes:
    if return_index < 256:
        return task + _RETURN_INDEX[return_index]
    return task + return_index.to_bytes(2, "big")


def task_of(object_id: bytes) -> bytes:
    """The task (or put) that made an object."""
    return object_id[:TASK_BYTES]


def return_index(object_id: bytes) -> int:
    return int.from_bytes(object_id[TASK_BYTES:], "big")


def handle_id(actor_id: bytes) -> bytes:
    return actor_id + HANDLE_INDEX
