"""What travels between driver, node and workers: msgpack arrays, typed at both ends by msgspec.

One frame is ``[sender, number, [message, ...]]``. Python's cost is per call and per frame, so whatever can wait
for company is batched. Specs and outcomes are encoded once, by who makes them, and then travel as raw bytes: the
node forwards and stores them without encoding them again.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class Wire(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages: positional on the wire, and kept from the garbage collector (they hold no cycles)."""


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


class Spec(Wire):
    """One task, actor creation or actor call. This is what lineage is made of."""

    task: bytes
    kind: int
    function: bytes
    """Content hash of the function or class; for calls, the actor's id."""
    owner: str
    """Process that submitted it, which is also the name of its inbox."""
    args: Inline | None
    """(args, kwargs) with ``None`` where a dep goes. None: no arguments, or they are the dep of slot -1."""
    deps: list[Dep]
    nested: list[bytes]
    """Ids of refs inside the arguments' data."""
    num_returns: int
    demand: dict[str, int]
    max_retries: int
    name: str
    prefer: str
    """Worker to prefer, or empty."""
    parent_attempt: int
    """Above 0: its submitter runs, or sends it, once more, and it may have been run already."""
    submitted: float
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


# ---------------------------------------------------------------- messages to the node


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


class Batch(Wire):
    """A message that is nothing but a list: what is posted to the same peer before the next flush joins it."""

    items: list[msgspec.Raw]


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


# ---------------------------------------------------------------- messages to drivers and workers


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


class NodeFrame(Wire):
    sender: str
    number: int
    messages: list[ToNode]


class ProcessFrame(Wire):
    sender: str
    number: int
    messages: list[ToProcess]


class OutFrame(Wire):
    """Either frame, from the sender's side."""

    sender: str
    number: int
    """Of all frames of this sender to this receiver, from 0."""

    messages: list[Wire]


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_node_frame = msgspec.msgpack.Decoder(NodeFrame).decode
decode_process_frame = msgspec.msgpack.Decoder(ProcessFrame).decode
decode_spec = msgspec.msgpack.Decoder(Spec).decode
decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
decode_value = msgspec.msgpack.Decoder(Value).decode

NODE = "node"
"""Name of the node, and of its inbox; a node that took another one's place has an inbox ``node.<incarnation>``."""

UNNUMBERED = -1
"""Number of a frame outside of the order."""
