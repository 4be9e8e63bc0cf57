"""The control store: lineage and history in LMDB, written by the node in group commits, read by anybody.

One write transaction holds everything that came in while the last one was written. ``sync=False``: a crash of
any process loses nothing, because the pages are the kernel's by then; only a crash of the machine may lose the
last seconds (LMDB stays consistent). ``writemap=False``: with it a full disk is a SIGBUS, without it an error.
Keys are task ids (scope, index), so what one program submits lies side by side and is written almost in append
order: about 0.3 µs a record in batches of 1000, 9 µs for a commit of one (2-core machine). One record per task,
not per batch: lineage has to be looked up and dropped task by task.

Tables: ``specs`` and ``outcomes`` by task id, ``functions`` by content hash, ``stored`` (small puts that left
their owner) by object id, ``events`` by number; of recoverable actors ``calls`` (actor id and number of the call →
task id), which is their log in order, and ``checkpoints`` (actor id → number of the last call in it). The files of
checkpoints lie in a folder beside: they may be as large as a model, and the actors write them. ``ages`` and ``meta``
are for the bound on it all (``history.py``, ``unused_functions.py``).
``processes``, ``marks``, ``records``, ``lineage``, ``actors``, ``attempts`` and ``orphans`` are what the node remembers
of a running session when it is killed (``node/journal.py``).
"""

from __future__ import annotations

import time
from pathlib import Path

import lmdb
import msgspec

from . import messages as m
from .history import History
from .ids import TASK_BYTES

MAP_SIZE = 1 << 38
"""Address space, not disk: the file grows with what is in it."""

MAX_READERS = 4096
DEFAULT_LIMIT = 1 << 30
"""Bytes of records."""

MAX_EVENTS = 100_000
"""Of the audit log; the oldest go first."""

TABLES = (
    "specs", "outcomes", "functions", "stored", "events", "calls", "checkpoints", "ages", "meta",
    "processes", "marks", "records", "lineage", "actors", "attempts", "orphans",
)
LAST_NUMBER = (1 << 64) - 1


class Event(msgspec.Struct, array_like=True):
    """A line of the audit log: who joined, what died, what was killed."""

    at: float
    kind: str
    subject: str
    detail: str = ""


class ControlStore:
    """The writer's side; one process (the node) holds it."""

    def __init__(self, path: Path, map_size: int = MAP_SIZE, limit: int = DEFAULT_LIMIT) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._env = lmdb.open(
            str(path), map_size=map_size, max_dbs=len(TABLES), max_readers=MAX_READERS, mode=0o600,
            sync=False, metasync=False, writemap=False,
        )
        self._tables = {name: self._env.open_db(name.encode()) for name in TABLES}
        with self._env.begin() as txn:
            cursor = txn.cursor(self._tables["events"])
            self._next_event = int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 0
        self.history = History(self._env, self._tables, limit)
        self._specs: dict[bytes, msgspec.Raw] = {}
        self._outcomes: dict[bytes, msgspec.Raw] = {}
        self._stored: dict[bytes, m.Value] = {}
        self._others: list[tuple[str, bytes, bytes | None]] = []
        self._cuts: list[tuple[bytes, int]] = []
        self._obsolete_files: list[Path] = []
        self._path = path

    # Gathered until the next commit; visible to readers only after it.

    def add_spec(self, task: bytes, spec: msgspec.Raw) -> None:
        self._specs[task] = spec

    def add_outcome(self, task: bytes, outcome: msgspec.Raw) -> None:
        self._outcomes[task] = outcome

    def drop_outcome(self, task: bytes) -> None:
        """The task is run again."""
        self._outcomes.pop(task, None)
        self._others.append(("outcomes", task, None))

    def add_function(self, function_id: bytes, name: str, blob: bytes) -> None:
        self._others.append(("functions", function_id, m.encode([name, blob])))
        self.history.functions.sent(function_id)

    def add_stored(self, object_id: bytes, value: m.Value) -> None:
        self._stored[object_id] = value

    def add_event(self, kind: str, subject: str, detail: str = "") -> None:
        key = self._next_event.to_bytes(8, "big")
        self._next_event += 1
        self._others.append(("events", key, m.encode(Event(time.time(), kind, subject, detail))))
        if self._next_event > MAX_EVENTS:
            self._others.append(("events", (self._next_event - 1 - MAX_EVENTS).to_bytes(8, "big"), None))

    def add_call(self, actor: bytes, number: int, task: bytes) -> None:
        """Call ``number`` of a recoverable actor, whose spec and outcome are added as usual."""
        self._others.append(("calls", log_key(actor, number), task))

    def add_checkpoint(self, actor: bytes, number: int) -> None:
        """A checkpoint of the actor after call ``number``: its log up to there and older files can go."""
        self._others.append(("checkpoints", actor, m.encode(number)))
        self._cuts.append((actor, number))
        self._obsolete_files += self._checkpoint_files(actor, number)

    def drop_actor_log(self, actor: bytes) -> None:
        """The actor is dead for good. Its calls stay in ``specs`` and ``outcomes``, as history."""
        self._others.append(("checkpoints", actor, b""))
        self._cuts.append((actor, LAST_NUMBER))
        self._obsolete_files += self._checkpoint_files(actor, LAST_NUMBER)

    def _checkpoint_files(self, actor: bytes, before: int) -> list[Path]:
        """Older ones, unfinished ones included; the actor may be writing the next one already."""
        files = (self._path / "checkpoints").glob(f"{actor.hex()}-*")
        return [file for file in files if int(file.stem.rpartition("-")[2]) < before]

    def note(self, table: str, key: bytes, value: bytes | None) -> None:
        """``None`` deletes the row."""
        self._others.append((table, key, value))

    def gathered(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self._specs or self._outcomes or self._stored or self._others)

    def commit(self) -> None:
        """Writes what was gathered in one transaction; raises lmdb.Error when the disk or the map is full."""
        if self.gathered():
            self._write(last=False)

    def _write(self, last: bool) -> None:
        with self._env.begin(write=True) as txn:
            if self._specs:
                txn.cursor(self._tables["specs"]).putmulti(list(self._specs.items()))
            if self._outcomes:
                txn.cursor(self._tables["outcomes"]).putmulti(list(self._outcomes.items()))
            for object_id, stored in self._stored.items():
                txn.put(object_id, m.encode(stored), db=self._tables["stored"])
            for table, key, value in self._others:
                if value:
                    txn.put(key, value, db=self._tables[table])
                else:
                    txn.delete(key, db=self._tables[table])
            for actor, number in self._cuts:
                self._cut(txn, actor, number)
            ids = b"".join(self._specs)
            if self._stored:
                ids += b"".join(oid[:TASK_BYTES] for oid in self._stored)
            self.history.grow(txn, ids, last)
        self.history.committed()
        # Only now: a failed transaction is kept whole and tried again.
        self._specs.clear()
        self._outcomes.clear()
        self._stored.clear()
        self._others.clear()
        self._cuts.clear()
        while self._obsolete_files:  # whose successors are on disk, and known in the store
            self._obsolete_files.pop().unlink(missing_ok=True)

    def _cut(self, txn: lmdb.Transaction, actor: bytes, number: int) -> None:
        """Drops the log of an actor up to a number."""
        end = log_key(actor, number)
        with txn.cursor(self._tables["calls"]) as cursor:
            found = cursor.set_range(log_key(actor, 0))
            while found and bytes(cursor.key()) <= end:
                found = cursor.delete()

    def checkpoint(self, actor: bytes) -> int:
        """Number of the last call in the committed checkpoint of an actor; 0 when there is none."""
        with self._env.begin(db=self._tables["checkpoints"]) as txn:
            raw = txn.get(actor)
            return 0 if raw is None else int(msgspec.msgpack.decode(raw))

    def logged_calls(self, actor: bytes) -> list[tuple[int, bytes]]:
        """Number and task of the committed calls in the log of an actor, in order."""
        found = []
        with self._env.begin(db=self._tables["calls"]) as txn, txn.cursor() as cursor:
            more = cursor.set_range(log_key(actor, 0))
            while more and bytes(cursor.key()).startswith(actor):
                found.append((int.from_bytes(cursor.key()[len(actor):], "big"), bytes(cursor.value())))
                more = cursor.next()
        return found

    def unfinished_of(self, owners: set[str], since: float) -> list[bytes]:
        """Committed tasks without an outcome that these processes have submitted, in this session, which began then.

        Specs and outcomes are gone through side by side, about a million a second.
        """
        found = []
        tables = self._tables
        with (
            self._env.begin(buffers=True) as txn,
            txn.cursor(tables["specs"]) as specs, txn.cursor(tables["outcomes"]) as outcomes,
        ):
            more = outcomes.first()
            for key, raw in specs:
                task = bytes(key)
                while more and bytes(outcomes.key()) < task:
                    more = outcomes.next()
                if more and bytes(outcomes.key()) == task:
                    continue
                spec = m.decode_spec(raw)
                if spec.recipe.kind == m.TASK and spec.recipe.owner in owners and spec.submitted >= since:
                    found.append(task)
        return found

    def keys(self, table: str) -> set[bytes]:
        """Of all rows of a table, as committed."""
        with self._env.begin(db=self._tables[table]) as txn:
            return set(txn.cursor().iternext(keys=True, values=False))

    def rows(self, table: str) -> list[tuple[bytes, bytes]]:
        """All of a small table, as committed."""
        with self._env.begin(db=self._tables[table]) as txn:
            return list(txn.cursor())

    def clear(self, table: str) -> None:
        """At once."""
        with self._env.begin(write=True) as txn:
            txn.drop(self._tables[table], delete=False)

    def spec(self, task: bytes) -> msgspec.Raw | None:
        """A spec as it was submitted."""
        gathered = self._specs.get(task)
        if gathered is not None:
            return gathered
        with self._env.begin(db=self._tables["specs"]) as txn:
            raw = txn.get(task)
            return None if raw is None else msgspec.Raw(raw)

    def gathered_specs(self) -> list[bytes]:
        """Tasks whose specs are not committed yet."""
        return list(self._specs)

    def submitted_in(self, scope: bytes, most: int) -> list[bytes]:
        """Tasks, actors and calls that were submitted in a scope and are committed, in order."""
        found: list[bytes] = []
        with self._env.begin(db=self._tables["specs"]) as txn, txn.cursor() as cursor:
            more = cursor.set_range(scope)
            while more and len(found) < most and (task := bytes(cursor.key())).startswith(scope):
                found.append(task)
                more = cursor.next()
        return found

    def outcome(self, task: bytes) -> m.Outcome | None:
        """The outcome of a task that has ended."""
        gathered = self._outcomes.get(task)
        if gathered is not None:
            return m.decode_outcome(gathered)
        with self._env.begin(db=self._tables["outcomes"], buffers=True) as txn:
            raw = txn.get(task)
            return None if raw is None else m.decode_outcome(raw)

    def value(self, object_id: bytes) -> m.Value | None:
        """The value of a finished object, from its producer's outcome or from ``stored``."""
        outcome = self.outcome(object_id[:14])
        if outcome is not None:
            index = int.from_bytes(object_id[14:], "big")
            return outcome.values[index] if index < len(outcome.values) else None
        if object_id in self._stored:
            return self._stored[object_id]
        with self._env.begin(db=self._tables["stored"], buffers=True) as txn:
            raw = txn.get(object_id)
            return None if raw is None else m.decode_value(raw)

    def forget_dead_readers(self) -> int:
        """Frees the slots of processes that ended without closing, and the pages they pinned; returns how many."""
        forgotten: int = self._env.reader_check()
        return forgotten

    def last_events(self, count: int) -> list[Event]:
        """Of the audit log, oldest first; those that are not committed included."""
        decode = msgspec.msgpack.Decoder(Event).decode
        found = [decode(raw) for table, _, raw in reversed(self._others) if table == "events" and raw][:count]
        with self._env.begin(db=self._tables["events"]) as txn, txn.cursor() as cursor:
            more = len(found) < count and cursor.last()
            while more:
                found.append(decode(cursor.value()))
                more = len(found) < count and cursor.prev()
        found.reverse()
        return found

    def close(self) -> None:
        """Commits, makes everything durable, and closes; closed it is even when the commit fails."""
        try:
            self._write(last=True)
            self._env.sync(True)
        finally:
            self._env.close()


def log_key(actor: bytes, number: int) -> bytes:
    """Of the table ``calls``: the log of an actor lies there in order."""
    return actor + number.to_bytes(8, "big")


def checkpoint_file(store: Path, actor: bytes, number: int) -> Path:
    """Where the state of an actor after its call ``number`` is."""
    return store / "checkpoints" / f"{actor.hex()}-{number}"
