"""What the node remembers when it is killed: the part of its state that nobody else could tell its successor.

The problem: a successor has to go on as if nothing had happened. Most of what a node knows others know as well (which
task runs where: the worker; which is unfinished: its owner), and they report it (``resume.py``). What they cannot say
exactly is who holds an object: a hold is a sum of messages of several processes, some of which were on their way.

The invariant: what is in the control store is the state after a certain number of frames of each sender. Changes of
the directory and of the table of actors are written in the transaction that they were made for, and with them the
number of frames of each sender handled by then, its *mark*. Senders keep what has not been acknowledged and send it
again to a successor, which drops what is below the mark. So each frame that changes holds counts exactly once.
Others (specs, outcomes) may come twice: they are known by their task ids. A transaction with nothing but those writes
no marks, so a plain task costs nothing here.

Rejected: to have processes report what they hold. A hold that its owner registers for a worker is on its way between
the two for a moment, and both or neither would report it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from .. import messages as m
from ..control_store import ControlStore
from ..departed import Departed
from ..ids import TASK_BYTES
from ..messages import Shm, Wire
from .actors import Actor, ActorTable
from .ancestry import Ancestry
from .directory import Directory
from .records import Snapshot

if TYPE_CHECKING:
    from .leases import Task

TABLES = ("processes", "marks", "records", "lineage", "actors", "attempts", "orphans")


class ProcessRow(Wire):
    """A process that has said hello and has not ended."""

    role: str
    pid: int


class ActorRow(Wire):
    request: m.CreateActor
    owner: str
    state: int
    worker: str
    error: str
    cause: bytes
    incarnation: int
    restarts_left: int
    farewell: str
    handles_gone: bool
    successor: tuple[str, m.CreateActor] | None
    lives: list[str]
    born: int
    first_lives: list[str]


_process_row = msgspec.msgpack.Decoder(ProcessRow).decode
_actor_row = msgspec.msgpack.Decoder(ActorRow).decode
_snapshot = msgspec.msgpack.Decoder(Snapshot | None).decode
_put = msgspec.msgpack.Decoder(tuple[str, tuple[bytes, ...]]).decode
_copy = msgspec.msgpack.Decoder(Shm).decode
_attempt = msgspec.msgpack.Decoder(tuple[int, int]).decode


class Journal:
    """See the module's essay."""

    def __init__(self, store: ControlStore, directory: Directory, ancestry: Ancestry, actors: ActorTable) -> None:
        self._store = store
        self._directory = directory
        self._ancestry = ancestry
        self._actors = actors
        self.handled: dict[str, int] = {}
        """How many frames of each process have been handled."""
        self._marked: dict[str, int] = {}
        self._must_mark = False
        self.orphans: set[bytes] = set()
        """Unfinished tasks whose owner died, which nobody would report."""

    # ------------------------------------------------------------ writing

    def joined(self, process: str, role: str, pid: int) -> None:
        self._store.note("processes", process.encode(), m.encode(ProcessRow(role, pid)))

    def ended(self, process: str) -> None:
        self._store.note("processes", process.encode(), None)
        self._store.note("marks", process.encode(), None)
        self.handled.pop(process, None)
        self._marked.pop(process, None)

    def attempted(self, task: Task) -> None:
        """The task has to be run again."""
        self._store.note("attempts", task.id, m.encode((task.attempt, task.crashes)))

    def finished(self, task: Task) -> None:
        """A task that had more than one attempt."""
        self._store.note("attempts", task.id, None)

    def orphaned(self, task: bytes) -> None:
        """Its owner died before it ended."""
        self.orphans.add(task)
        self._store.note("orphans", task, b"-")

    def no_orphan(self, task: bytes) -> None:
        """It has ended, or somebody waits for it again."""
        if task in self.orphans:
            self.orphans.remove(task)
            self._store.note("orphans", task, None)

    def once(self) -> None:
        """The frame that is being handled must not be handled again, though it changes nothing that is kept here."""
        self._must_mark = True

    def changed(self) -> bool:
        """Whether there is something to gather."""
        return bool(
            self._directory.changed or self._ancestry.changed or self._actors.changed or self._must_mark
        )

    def gather(self) -> None:
        """Adds to the transaction to come what has changed since the last one."""
        if not self.changed():
            return
        note = self._store.note
        for oid in self._directory.changed:
            state = self._directory.snapshot(oid)
            note("records", oid, None if state is False else m.encode(state))
        self._directory.changed.clear()
        for key in self._ancestry.changed:
            row = self._ancestry.row(key)
            note("lineage", key, None if row is None else m.encode(row))
        self._ancestry.changed.clear()
        for actor_id in self._actors.changed:
            actor = self._actors.get(actor_id)
            note("actors", actor_id, None if actor is None else m.encode(ActorRow(
                actor.request, actor.owner, actor.state, actor.worker, actor.error, actor.cause, actor.incarnation,
                actor.restarts_left, actor.farewell, actor.handles_gone, actor.successor,
                actor.lives, actor.born, actor.first_lives,
            )))
        self._actors.changed.clear()
        for process, count in self.handled.items():
            if self._marked.get(process) != count:
                self._marked[process] = count
                note("marks", process.encode(), count.to_bytes(8, "big"))
        self._must_mark = False

    # ------------------------------------------------------------ reading

    def forget(self) -> None:
        """What an earlier session left in the same store."""
        for table in TABLES:
            self._store.clear(table)

    def processes(self) -> dict[str, ProcessRow]:
        return {key.decode(): _process_row(raw) for key, raw in self._store.rows("processes")}

    def marks(self) -> dict[str, int]:
        marks = {key.decode(): int.from_bytes(raw, "big") for key, raw in self._store.rows("marks")}
        self.handled.update(marks)
        self._marked.update(marks)
        return marks

    def attempts(self) -> dict[bytes, tuple[int, int]]:
        """Attempt and crashes of tasks that are not at their first one."""
        return {key: _attempt(raw) for key, raw in self._store.rows("attempts")}

    def restore_orphans(self) -> None:
        self.orphans = {key for key, _ in self._store.rows("orphans")}

    def restore_directory(self, dead: Departed) -> None:
        rows = {oid: _snapshot(raw) for oid, raw in self._store.rows("records")}
        self._directory.restore(rows, dead, self._store.value)

    def lineage(self) -> dict[bytes, tuple[str, tuple[bytes, ...]] | Shm]:
        rows = self._store.rows("lineage")
        return {key: (_put if len(key) == TASK_BYTES else _copy)(raw) for key, raw in rows}

    def restore_actors(self, creation: Callable[[m.CreateActor], Task]) -> None:
        for actor_id, raw in self._store.rows("actors"):
            row = _actor_row(raw)
            actor = Actor(
                actor_id, row.request, creation(row.request), row.owner, row.state, row.worker, row.error, row.cause,
                row.incarnation, row.restarts_left, row.farewell, row.handles_gone, row.successor,
                row.lives, row.born, row.first_lives,
            )
            self._actors.add(actor)
        self._actors.changed.clear()
