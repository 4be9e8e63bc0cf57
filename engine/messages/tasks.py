"""Values, and what lineage is made of: specs of tasks and what came of them."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from .wire import Wire

# ---------------------------------------------------------------- values


class Inline(Wire, tag=0):
    """A small value, by value: its pickle, its out-of-band buffers, the ids of refs inside it."""

    data: bytes
    buffers: list[bytes] = []
    refs: list[bytes] = []


class Shm(Wire, tag=1):
    """A large value in a segment: pickle and buffers one after the other, each aligned to 64 bytes."""

    segment: str
    offset: int
    """Of its block, which begins with a header (see ``store/segment.py``)."""
    sizes: list[int]
    refs: list[bytes] = []
    generation: int = 0
    """What the block's header says as long as the value is there."""


class Failed(Wire, tag=2):
    """An error in place of a value (see ``serialization.dump_error``)."""

    error: bytes


Value: TypeAlias = Inline | Shm | Failed


# ---------------------------------------------------------------- tasks


class Dep(Wire):
    """A top-level argument that is a ref: where it goes, which object, and its value if the sender knows it."""

    slot: int | str
    object_id: bytes
    value: Value | None = None


ANY_ERROR = b"*"

TASK, ACTOR, CALL = 0, 1, 2
"""Kinds of specs: a task, the creation of an actor, a call of an actor's method."""


class Recipe(Wire):
    """What all calls of a remote function with the same options have in common, or all of one method of an actor.

    A process encodes it once and puts the bytes into each spec; whoever reads specs decodes it once (``Recipes``). So a
    spec is whole wherever it lies, in a frame that is sent again or in the control store, and still costs each of the
    three processes on its way what a few fields cost. Rejected: sending it once and then an id. Readers would have to
    keep as many as there are, for as long as any spec may name one.
    """

    kind: int
    function: bytes
    """Content hash of the function or class; for calls, the actor's id."""
    owner: str
    """Process that submitted it, which is also the name of its inbox."""
    num_returns: int
    demand: dict[str, int]
    max_retries: int
    name: str
    method: str = ""
    max_concurrency: int = 0
    """Of an actor's creation: how many calls it runs at a time; 0: one, or as many as is usual on an event loop."""
    environment: str = ""
    """Its ``runtime_env`` as text, if it is not the session's."""
    actor_name: str = ""
    """Of the creation of a named actor."""
    retry_exceptions: bytes = b""
    """Which errors of its own it is run again for: pickled classes, or ``ANY_ERROR``; empty: none."""
    max_calls: int = 0
    """Of its function, after which a worker leaves; 0: any number."""


class Recipes(dict[bytes, Recipe]):
    """Those that this process has read, by their bytes. Bounded: what is dropped is decoded once more."""

    MOST = 1000
    _decode = msgspec.msgpack.Decoder(Recipe).decode

    def __missing__(self, encoded: bytes) -> Recipe:
        if len(self) >= self.MOST:
            self.clear()
        recipe = self[encoded] = self._decode(encoded)
        return recipe


_recipes = Recipes()


class Spec(Wire):
    """One task, actor creation or actor call. This is what lineage is made of."""

    task: bytes
    args: Inline | None
    """(args, kwargs) with ``None`` where a dep goes. None: no arguments, or they are the dep of slot -1."""
    deps: list[Dep]
    nested: list[bytes]
    """Ids of refs inside the arguments' data."""
    prefer: str
    """Worker to prefer, or empty."""
    parent_attempt: int
    """Above 0: its submitter runs, or sends it, once more, and it may have been run already."""
    submitted: float
    encoded_recipe: bytes

    @property
    def recipe(self) -> Recipe:
        """It is looked up each time: hot paths do so once."""
        return _recipes[self.encoded_recipe]

    def change(self, **fields: Any) -> None:
        """Gives this one spec another recipe, which differs in these fields."""
        self.encoded_recipe = msgspec.msgpack.encode(msgspec.structs.replace(self.recipe, **fields))


class Outcome(Wire):
    """What came of one attempt: its returns (all from this attempt), or its error in each of them."""

    task: bytes
    attempt: int
    worker: str
    status: int
    started: float
    duration: float
    values: list[Value]
    retained: list[bytes] = []
    """Borrowed objects that the worker still holds after the task; the owner registers them for it."""


FINISHED, FAILED, CRASHED, CANCELLED, RETRIED = range(5)
OUTCOME_NAMES = {FINISHED: "finished", FAILED: "failed", CRASHED: "crashed", CANCELLED: "cancelled"}
"""``RETRIED`` is no end: the node runs the task again, and its owner hears nothing."""


class Assignment(Wire):
    """A task on its way to a worker."""

    spec: msgspec.Raw
    attempt: int
    resolved: list[Dep]
    """Values of those deps that the submitter did not know."""
    nested: bool = False
    """Whether it may run on top of a task that is blocked."""


class Running(Wire):
    """A task that a worker has begun."""

    task: Assignment
    blocked: bool = False
    """It waits in ``get``, whatever runs on top of it."""
    awaits: list[bytes] = []
