"""Messages to drivers and workers."""

from __future__ import annotations

from typing import TypeAlias

from .tasks import Assignment, Outcome, Shm, Value
from .to_node import AskWhy, Pong, Print, Reason
from .wire import Batch, Wire


class Welcome(Wire, tag="welcome"):
    node: str


class Resume(Wire, tag="resume"):
    """From a new node, which took the place of one that died: report, and send to ``inbox`` from now on."""

    inbox: str
    incarnation: int
    workers: list[str]
    """Those that live."""


class Execute(Wire, tag="execute"):
    tasks: list[Assignment]


class Devices(Wire, tag="devices"):
    """The GPUs of a worker that has run nothing yet, ahead of its first task."""

    gpus: list[str]


class Recover(Wire, tag="recover"):
    """To a worker that is about to become a recoverable actor, ahead of its creation."""

    checkpoint_every: int
    replay: bool


class KnownCalls(Wire, tag="known_calls"):
    """Answer to :class:`Seen`: these have been run, and are answered."""

    token: int
    tasks: list[bytes]


class Revoke(Wire, tag="revoke"):
    """Give back what you have not started."""


class CancelTask(Wire, tag="cancel_task"):
    """To the worker that has it; with ``recursive`` also what it submits meanwhile."""

    task: bytes
    force: bool
    recursive: bool


class CancelCall(Wire, tag="cancel_call"):
    """To an actor, from the caller."""

    task: bytes
    recursive: bool


class CancelOwn(Wire, tag="cancel_own"):
    """To the owner of an actor call: somebody who borrows its ref cancels it."""

    task: bytes
    recursive: bool


class CancelMade(Wire, tag="cancel_made"):
    """To a worker: end the actor calls that these tasks and calls, which ran there and have ended, have left behind."""

    tasks: list[bytes]


class Results(Wire, tag="results"):
    """Outcomes for their owner, straight from the worker (or from the node, for what no worker can report)."""

    outcomes: list[Outcome]


class RawResults(Batch, tag="results"):
    """:class:`Results` as a worker sends it."""


class Acknowledged(Wire, tag="acknowledged"):
    """All frames up to this one are in the control store."""

    frame: int


class Ping(Wire, tag="ping"):
    """Do you read your mail? Many results have been sent to you."""


class Publish(Wire, tag="publish"):
    """The value of an object of yours is no longer in the control store: send it as :class:`Stored`, if you have it."""

    object_id: bytes


class Resolved(Wire, tag="resolved"):
    object_id: bytes
    value: Value


class Call(Batch, tag="call"):
    """Specs of calls, from a caller straight to the actor."""


class ActorState(Wire, tag="actor_state"):
    actor: bytes
    worker: str
    """Its worker's inbox when it is alive; empty while it is being (re)started."""
    error: str
    """Why it is dead; empty when it is not."""
    cause: bytes
    """The error that its ``__init__`` raised, if that is why."""
    incarnation: int
    retries: int = 0
    """How often a call is sent again that was on its way when the actor died; -1 is for ever."""


class ActorFound(Wire, tag="actor_found"):
    """Answer to CreateActor and FindActor; an error text when the name is taken or unknown."""

    token: int
    actor: bytes
    class_name: str
    methods: dict[str, int]
    max_pending_calls: int
    created: bool
    error: str


class ActorNames(Wire, tag="actor_names"):
    token: int
    names: list[tuple[str, str]]
    """(namespace, name) of each."""


class WorkerDied(Wire, tag="worker_died"):
    worker: str
    reason: str


class Recall(Wire, tag="recall"):
    """To the owner of tasks that a dead worker had begun: which of them have ended?"""

    worker: str
    tasks: list[tuple[bytes, int]]
    """(task id, number of returns)"""


class Reconciled(Wire, tag="reconciled"):
    """What there was of a page of :class:`Reconcile` has been sent: ask for the next."""

    page: int


class FreeBlocks(Wire, tag="free_blocks"):
    """Blocks of the receiver's arena that nobody holds any more: (segment, offset, generation)."""

    blocks: list[tuple[str, int, int]]


class Copy(Wire, tag="copy"):
    """Copy a value of your arena to disk; answered with :class:`Copied`."""

    object_id: bytes
    value: Shm


class LookAfterMemory(Wire, tag="look_after_memory"):
    """Files of the store are gone, though nobody freed what was in them: write no more into those that were yours."""


class GiveRoom(Wire, tag="give_room"):
    """Give the free memory of your arena back: another process lacks room."""


class WhoReads(Wire, tag="who_reads"):
    """Which of these objects do you look into? The others are about to leave memory."""

    round: int
    ids: list[bytes]


class Spill(Wire, tag="spill"):
    """Copy these objects to disk."""

    round: int
    objects: list[tuple[bytes, Shm]]


class Answer(Wire, tag="answer"):
    token: int
    payload: dict[str, float]


class Because(Wire, tag="because"):
    token: int
    reason: Reason | None
    """None: nothing is known of it here."""


class Warning(Wire, tag="warning"):
    text: str


class Exit(Wire, tag="exit"):
    """To a worker: finish what is queued, then leave."""


ToProcess: TypeAlias = (
    Welcome | Resume | Recover | Execute | Devices | KnownCalls | Revoke | CancelTask | CancelCall | CancelOwn
    | CancelMade | Results | Resolved | Call | ActorState | ActorFound | ActorNames | WorkerDied | Reconciled | Recall
    | Acknowledged | Ping | Pong | Publish | FreeBlocks | Copy | LookAfterMemory | GiveRoom | WhoReads | Spill | Answer
    | AskWhy | Because | Warning | Print | Exit
)
