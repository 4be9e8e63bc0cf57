"""The control store as anybody reads it, while its run goes on and long after.

Readers page in short transactions: a long one would keep the writer from using freed pages again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import lmdb
import msgspec

from . import messages as m
from .control_store import LAST_NUMBER, MAP_SIZE, MAX_READERS, TABLES, Event, log_key
from .history import FLUSHED
from .serialization import load_error

CALLS_PER_PAGE = 500
KIND_NAMES = {m.TASK: "task", m.ACTOR: "actor", m.CALL: "call"}


@dataclass(frozen=True)
class TaskHistory:
    """What the control store knows of one task, actor creation or actor call. Times in unix seconds."""

    task_id: str
    kind: str
    """``"task"``, ``"actor"`` or ``"call"``."""
    function: str
    attempts: int
    worker: str
    submitted: float
    started: float | None
    duration: float | None
    outcome: str
    """``"finished"``, ``"failed"`` (it raised), ``"crashed"`` (its worker died) or ``"pending"``."""
    error: str | None
    actor_id: str | None = None
    """Of a call: the actor's."""


class StoreReader:
    """Reads a control store, during the run or long after. A context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises FileNotFoundError when there is no control store in ``path``."""
        data = Path(path) / "data.mdb"
        if not data.is_file() or not data.stat().st_size:
            raise FileNotFoundError(f"no control store in {path} (there is no data.mdb, or an empty one)")
        # A store on read-only media has no lock file to write; nobody can be writing it either.
        lock = os.access(Path(path), os.W_OK)
        # Room for all that may be written yet: a map that the store outgrows cannot be read any more.
        try:
            self._env = lmdb.open(
                str(path), readonly=True, map_size=MAP_SIZE, max_dbs=len(TABLES), lock=lock, max_readers=MAX_READERS
            )
        except lmdb.InvalidError as error:
            raise FileNotFoundError(f"no control store in {path} (data.mdb is no LMDB file)") from error
        self._tables: dict[str, Any] = {}
        for name in TABLES:
            try:
                self._tables[name] = self._env.open_db(name.encode(), create=False)
            except lmdb.NotFoundError as error:
                self._env.close()
                raise FileNotFoundError(f"{path} is an LMDB file but no control store (no table {name!r})") from error

    def __enter__(self) -> StoreReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._env.close()

    def function(self, function_id: bytes) -> tuple[str, bytes] | None:
        """Name and pickle of a function or class."""
        with self._env.begin(db=self._tables["functions"]) as txn:
            raw = txn.get(function_id)
        if raw is None:
            return None
        name, blob = msgspec.msgpack.decode(raw)
        return name, blob

    def flushed(self) -> int:
        """How many tasks and calls are no longer recorded, because the store had reached its limit."""
        with self._env.begin(db=self._tables["meta"]) as txn:
            return int.from_bytes(txn.get(FLUSHED, b""), "big")

    def spec(self, task: bytes) -> m.Spec | None:
        """What was submitted under this id."""
        with self._env.begin(db=self._tables["specs"]) as txn:
            raw = txn.get(task)
        return None if raw is None else m.decode_spec(raw)

    def task(self, task: bytes) -> TaskHistory | None:
        """What the store knows of one task, actor creation or call."""
        spec = self.spec(task)
        if spec is None:
            return None
        with self._env.begin(db=self._tables["outcomes"]) as txn:
            raw = txn.get(task)
        return self._history(task, spec, None if raw is None else m.decode_outcome(raw), {}, {})

    def task_ids(self) -> Iterator[bytes]:
        """Of everything that was submitted, grouped by submitter and in its order."""
        for page in self._pages("specs", 5000):
            yield from (key for key, _ in page)

    def tasks(self) -> Iterator[TaskHistory]:
        """Everything that was submitted, grouped by submitter and in its order."""
        names: dict[bytes, str] = {}
        actors: dict[bytes, str] = {}
        for page in self._pages("specs", 5000):
            with self._env.begin(db=self._tables["outcomes"]) as txn:
                outcomes = [txn.get(key) for key, _ in page]
            for (key, raw_spec), raw_outcome in zip(page, outcomes, strict=True):
                spec = m.decode_spec(raw_spec)
                outcome = None if raw_outcome is None else m.decode_outcome(raw_outcome)
                yield self._history(key, spec, outcome, names, actors)

    def _history(
        self, key: bytes, spec: m.Spec, outcome: m.Outcome | None, names: dict[bytes, str], actors: dict[bytes, str]
    ) -> TaskHistory:
        if spec.recipe.kind == m.CALL:
            if spec.recipe.function not in actors:
                actors[spec.recipe.function] = self._actor_name(spec.recipe.function)
            name = f"{actors[spec.recipe.function]}.{spec.recipe.method}"
        else:
            if spec.recipe.function not in names:
                names[spec.recipe.function] = (self.function(spec.recipe.function) or ("?", b""))[0]
            name = spec.recipe.name or names[spec.recipe.function]
        actor = spec.recipe.function.hex() if spec.recipe.kind == m.CALL else None
        if outcome is None:
            return TaskHistory(
                key.hex(), KIND_NAMES[spec.recipe.kind], name, 0, "", spec.submitted, None, None, "pending", None, actor
            )
        error = None
        if outcome.status != m.FINISHED and outcome.values and isinstance(outcome.values[0], m.Failed):
            error = _last_line(outcome.values[0].error)
        return TaskHistory(
            key.hex(), KIND_NAMES[spec.recipe.kind], name, outcome.attempt + 1, outcome.worker, spec.submitted,
            outcome.started or None, outcome.duration, m.OUTCOME_NAMES[outcome.status], error, actor,
        )

    def _actor_name(self, actor: bytes) -> str:
        spec = self.spec(actor)
        return "actor" if spec is None else (self.function(spec.recipe.function) or ("actor", b""))[0]

    def checkpoint(self, actor: bytes) -> int | None:
        """Number of the last call in the actor's checkpoint, which is in :func:`checkpoint_file`."""
        with self._env.begin(db=self._tables["checkpoints"]) as txn:
            raw = txn.get(actor)
        number: int | None = None if raw is None else msgspec.msgpack.decode(raw, type=int)
        return number

    def calls(self, actor: bytes, after: int) -> Iterator[tuple[int, m.Spec]]:
        """The log of a recoverable actor behind call ``after``: numbers and specs, in order."""
        end = log_key(actor, LAST_NUMBER)
        while True:
            page: list[tuple[int, bytes]] = []
            with self._env.begin() as txn, txn.cursor(self._tables["calls"]) as cursor:
                found = cursor.set_range(log_key(actor, after + 1))
                while found and cursor.key() <= end and len(page) < CALLS_PER_PAGE:
                    after = int.from_bytes(cursor.key()[len(actor):], "big")
                    raw = txn.get(cursor.value(), db=self._tables["specs"])
                    assert raw is not None  # written in the same transaction
                    page.append((after, raw))
                    found = cursor.next()
            if not page:
                return
            for number, raw in page:
                yield number, m.decode_spec(raw)

    def events(self) -> Iterator[Event]:
        """The audit log, oldest first."""
        decode = msgspec.msgpack.Decoder(Event).decode
        for page in self._pages("events", 5000):
            yield from (decode(raw) for _, raw in page)

    def _pages(self, table: str, size: int) -> Iterator[Sequence[tuple[bytes, bytes]]]:
        """Pages in short transactions: a long reader would keep the writer from reusing pages."""
        last: bytes | None = None
        while True:
            page: list[tuple[bytes, bytes]] = []
            with self._env.begin(db=self._tables[table]) as txn, txn.cursor() as cursor:
                found = cursor.first() if last is None else cursor.set_range(last)
                if found and last is not None and cursor.key() == last:
                    found = cursor.next()
                while found and len(page) < size:
                    page.append(cursor.item())
                    found = cursor.next()
            if not page:
                return
            yield page
            last = page[-1][0]


def _last_line(error: bytes) -> str:
    try:
        lines = str(load_error(error)).strip().splitlines()
    except Exception as failure:  # the error's class may not be importable where the history is read
        return f"(error cannot be loaded: {failure})"
    return lines[-1] if lines else ""
