"""Messages to the node."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .tasks import Assignment, Running, Shm, Value
from .wire import Batch, Wire


class Hello(Wire, tag="hello"):
    role: str
    pid: int


class Report(Wire, tag="report"):
    """Answer to Resume: what the sender has and waits for.

    Its frame is outside of the numbering. The sender's numbered frames from ``first`` on follow, the same as it sent
    to earlier nodes; those before ``next`` are older than the report.
    """

    role: str
    pid: int
    unfinished: list[bytes]
    """Tasks (and calls) it submitted whose end it has not heard."""
    first: int = 0
    next: int = 0
    running: list[Running] = []
    """From the one at the bottom to the one on top."""
    queued: list[Assignment] = []
    environment: str = ""
    gpus: list[str] = []
    used: bool = False
    """It has run something."""
    blocks: list[tuple[str, int, int]] = []
    """Of its arena, as far as nodes know of them: (segment, offset, generation)."""


class Function(Wire, tag="function"):
    id: bytes
    name: str
    blob: bytes


class Submit(Batch, tag="submit"):
    """Specs of tasks."""


class WantAcknowledgement(Wire, tag="want_acknowledgement"):
    """Say so when all frames up to this one are in the control store."""

    frame: int


class Done(Batch, tag="done"):
    """Outcomes, from the worker that ran the tasks."""


class Logged(Batch, tag="logged"):
    """Calls that an actor has run, logged behind: spec, outcome, spec, outcome, ..."""


class Ran(Wire, tag="ran"):
    """Calls that a recoverable actor has run, in order, for the node to log and then to answer."""

    first: int
    """Number of the first of them."""
    calls: list[msgspec.Raw]
    """spec, outcome, spec, outcome, ..."""


class Checkpointed(Wire, tag="checkpointed"):
    """The state of a recoverable actor after call ``number`` is on disk; or why it is not."""

    number: int
    refs: list[bytes]
    """Objects whose refs are inside."""
    error: str = ""


class Seen(Wire, tag="seen"):
    """From an actor that got these calls for what may be the second time: which have been run?

    The node answers those with :class:`KnownCalls`, and sends their outcomes to their owners.
    """

    token: int
    calls: list[tuple[bytes, str]]
    """(task id, owner)"""


class Blocked(Wire, tag="blocked"):
    """The worker's task waits in ``get``: it gives its CPUs and its queued tasks back."""

    awaits: list[bytes]
    """Tasks it may run itself meanwhile, being what it waits for; empty when it must not (time-outs, ``wait``)."""
    returned: list[bytes]


class Unblocked(Wire, tag="unblocked"):
    pass


class Returned(Wire, tag="returned"):
    """Answer to Revoke: these had not been started."""

    tasks: list[bytes]


class Retiring(Wire, tag="retiring"):
    """From a worker that has run a function ``max_calls`` times: it leaves, and starts nothing any more."""


class Cancel(Wire, tag="cancel"):
    """End a task, or a call of another process's; with ``recursive`` also what it submitted, if it has ended or not."""

    task: bytes
    force: bool
    recursive: bool
    object_id: bytes = b""
    """Result of the task whose owner knows it, if the node does not: that of an actor call."""


class Resolve(Wire, tag="resolve"):
    """Tell me the values of these as soon as they exist."""

    ids: list[bytes]


class Lost(Wire, tag="lost"):
    """This address of an object leads nowhere: tell me another one (as :class:`Resolved`), or what became of it."""

    object_id: bytes
    value: Shm


class Stored(Wire, tag="stored"):
    """A ``put`` that others may need: it is in shared memory, or its ref left the process."""

    object_id: bytes
    value: Value
    task: bytes = b""
    """In which it was put, if it is large and was put in one."""


class Copied(Wire, tag="copied"):
    """Answer to :class:`Copy`: the copy, or None when it could not be made."""

    object_id: bytes
    copy: Shm | None


class Escaped(Wire, tag="escaped"):
    """A ref to this small object leaves its owner inside data: others may ask for it until the owner releases it."""

    object_id: bytes


class Hold(Wire, tag="hold"):
    """Adds to (or takes from) the number of times a process holds an object. Sums commute, so order is free."""

    object_id: bytes
    holder: bytes
    """A process (its name), or the object that contains the ref."""
    count: int


class Release(Wire, tag="release"):
    """The owner needs these no more."""

    ids: list[bytes]


class NeedRoom(Wire, tag="need_room"):
    """The store is full: whoever keeps free memory shall give it back, and what nobody reads shall go to disk."""

    size: int


class Reads(Wire, tag="reads"):
    """Answer to :class:`WhoReads`: these are mapped here."""

    round: int
    ids: list[bytes]


class Spilled(Wire, tag="spilled"):
    """Answer to :class:`Spill`: where the objects are now. Those that the disk had no room for are missing."""

    round: int
    objects: list[tuple[bytes, Shm]]


class CreateActor(Wire, tag="create_actor"):
    token: int
    spec: msgspec.Raw
    name: str
    namespace: str
    get_if_exists: bool
    max_restarts: int
    detached: bool
    class_name: str
    methods: dict[str, int]
    max_pending_calls: int
    max_task_retries: int = 0
    checkpoint_every: int = -1
    """-1: it is not recoverable."""
    replay: bool = True


class ActorStarted(Wire, tag="actor_started"):
    """From the worker that is now the actor; an error when ``__init__`` raised."""

    actor: bytes
    outcome: msgspec.Raw
    replayed: int = 0
    """Calls that were run again, on top of the checkpoint."""


class ActorExits(Wire, tag="actor_exits"):
    """From an actor's worker: it called ``exit_actor()``."""

    actor: bytes


class WatchActor(Wire, tag="watch_actor"):
    actor: bytes


class KillActor(Wire, tag="kill_actor"):
    actor: bytes
    no_restart: bool


class FindActor(Wire, tag="find_actor"):
    token: int
    name: str
    namespace: str


class ListNames(Wire, tag="list_names"):
    """Which names do actors have? The answer is :class:`ActorNames`."""

    token: int


class Reconcile(Wire, tag="reconcile"):
    """A worker died and may have taken results with it: which of these tasks did it finish? One page at a time."""

    worker: str
    tasks: list[bytes]
    page: int


class Recalled(Wire, tag="recalled"):
    """Answer to :class:`Recall`: tasks that have ended, with their values. Nothing of the others counts any more."""

    worker: str
    ended: list[tuple[bytes, list[Value]]]


class Pong(Wire, tag="pong"):
    """Answer to :class:`Ping`, to the node or an actor."""

    call: bytes = b""
    """Of an actor that runs one call at a time: the one that it is in, if that does not wait in ``get``."""
    method: str = ""
    lasts: float = 0.0
    """Seconds since the call began."""


class Ask(Wire, tag="ask"):
    token: int
    what: str


class Reason(Wire):
    """What one process knows of an object: why it is not there, or what became of it (see ``explanation.py``)."""

    state: str
    text: str
    process: str = ""
    """Who knows more: the worker that has the task, or the owner."""
    waits_for: list[bytes] = []
    """Objects without which it does not go on."""


class AskWhy(Wire, tag="ask_why"):
    """To the node, or to the process that it named. The answer is :class:`Because`."""

    token: int
    object_id: bytes


class Print(Wire, tag="print"):
    """Lines that a worker printed."""

    stream: str
    source: str
    text: str


class Stop(Wire, tag="stop"):
    """From the driver: end the session."""


ToNode: TypeAlias = (
    Hello | Report | Function | Submit | WantAcknowledgement | Done | Logged | Ran | Checkpointed | Seen | Blocked
    | Unblocked | Returned | Retiring | Cancel | Resolve | Lost | Stored | Copied | Escaped | Hold | Release | NeedRoom
    | Reads | Spilled | CreateActor | ActorStarted | ActorExits | WatchActor | KillActor | FindActor | ListNames
    | Reconcile | Recalled | Pong | Ask | AskWhy | Print | Stop
)
