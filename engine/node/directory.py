"""The object directory: who waits for which object, where large ones lie, who holds them. No I/O.

*Waiting.* A task whose arguments are pending waits here, and so does a process that asked for the value of a ref it
borrowed. Every object that can be asked for is known here once it exists: results come with the outcomes of their
tasks, puts are announced when they are large or when their ref leaves its owner.

*Holding.* An object lives until its owner released it and nobody holds it. Holders are processes and containers
(objects with the ref inside). Counts are sums of +1 and -1 that commute, because they come over different
connections: the submitter of a task adds what the worker retained *before* it releases its own pin, on one
connection; the worker may take it back earlier, on another, and the sum is then -1 for a moment, which counts as
held. A process that died holds nothing, and late sums for it are dropped. In the same way an owner, who gets results
straight from the worker, may release an object before the node hears that it exists: it is freed on arrival then.

Only objects that need it are tracked: large ones, ones with refs inside, ones whose refs left their owner. A small
result that only its owner ever saw leaves no trace here.

*Loss.* The memory of an object may be gone although nobody freed it. Its record stays then, without a value, and
whoever needs it waits as for one that is still to come (``rebuild_desk.py`` has it made again). An object that was
freed and is needed once more, because another one is to be made from it, is in the same state, held by the task that
needs it.

*Remembering.* What must outlive the node (``journal.py``) is marked in ``changed``: the records, except that a
container holds what is inside, which follows from its value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal

from ..departed import Departed
from ..ids import OBJECT_BYTES, task_of
from ..messages import Dep, Failed, Inline, Shm, Value
from .leases import Task
from .records import Freed, Record, Snapshot


class Directory:
    """See the module's essay."""

    def __init__(self) -> None:
        self._records: dict[bytes, Record] = {}
        self._waiting: dict[bytes, list[Task | str]] = {}
        self._missing: dict[bytes, int] = {}  # task → deps that are not there yet
        self._resolved: dict[bytes, list[Dep]] = {}
        self._dead = Departed()
        self._unwanted: set[bytes] = set()
        """To be freed on arrival."""
        self._lost: dict[bytes, list[bytes]] = {}
        """Objects whose memory is gone, with the refs that were inside."""
        self.segments: Counter[str] = Counter()
        """Live objects by segment of shared memory."""
        self.producers: Counter[bytes] = Counter()
        """Tracked objects by the task that made them."""
        self.changed: set[bytes] = set()
        """Objects whose snapshots may be others than before."""

    # ------------------------------------------------------------ waiting

    def known(self, object_id: bytes) -> Value | None:
        """The value of a tracked object that exists."""
        record = self._records.get(object_id)
        return None if record is None else record.value

    def nobody_waits(self) -> bool:
        """Whether no object at all is waited for, be it to be used or to be freed: small ones concern nobody then."""
        return not (self._waiting or self._unwanted)

    def concerns(self, object_id: bytes, value: Value) -> bool:
        """Whether :meth:`exists` would do anything; the many small results that nobody waits for skip it."""
        return (
            type(value) is not Inline or bool(value.refs) or object_id in self._waiting
            or object_id in self._unwanted
        )

    def owner(self, object_id: bytes) -> str:
        """Of a tracked object, as far as it is known here."""
        record = self._records.get(object_id)
        return "" if record is None else record.owner

    def wait_for(self, task: Task, deps: list[Dep]) -> None:
        """Registers a task for deps whose values are not known yet."""
        missing = {dep.object_id for dep in deps}
        self._missing[task.id] = len(missing)
        for object_id in missing:
            self._waiting.setdefault(object_id, []).append(task)

    def resolve_now(self, task: Task, dep: Dep, value: Value) -> None:
        self._resolved.setdefault(task.id, []).append(Dep(dep.slot, dep.object_id, value))

    def ask(self, process: str, object_id: bytes) -> None:
        """Registers a process for a value that is not known yet."""
        self._waiting.setdefault(object_id, []).append(process)

    def exists(self, object_id: bytes, value: Value, owner: str) -> tuple[list[Task], list[str], Freed]:
        """An object came to be.

        Returns the tasks that have all arguments now, the processes that asked, and what is free if nobody did.
        """
        if isinstance(value, Shm):
            record = self._record(object_id, owner)
            self.changed.add(object_id)
            if record.value != value:
                if isinstance(record.value, Shm):
                    record.copies += (record.value,)
                record.value = value
                self.segments[value.segment] += 1
        elif isinstance(value, Inline) and value.refs:
            self._record(object_id, owner).value = value
            self.changed.add(object_id)
        if not isinstance(value, Failed):
            for inner in value.refs:
                self._add(inner, object_id, 1)
        freed = self._found(object_id, value, owner) if self._lost else Freed()
        if object_id in self._unwanted:
            self._unwanted.remove(object_id)
            self.changed.add(object_id)
            if object_id in self._records:
                self._records[object_id].released = True
        ready: list[Task] = []
        askers: list[str] = []
        for waiter in self._waiting.pop(object_id, ()):
            if isinstance(waiter, str):
                askers.append(waiter)
                continue
            if waiter.id not in self._missing:  # given up
                continue
            slots = [dep for dep in waiter.payload.spec.deps if dep.object_id == object_id]
            self._resolved.setdefault(waiter.id, []).extend(Dep(dep.slot, object_id, value) for dep in slots)
            self._missing[waiter.id] -= 1
            if not self._missing[waiter.id]:
                del self._missing[waiter.id]
                ready.append(waiter)
        freed.add(self._collect(object_id))
        return ready, askers, freed

    def moves(self, object_id: bytes, value: Shm) -> Shm:
        """A large object lies somewhere else from now on; returns where it has lain."""
        record = self._records[object_id]
        old, record.value = record.value, value
        assert isinstance(old, Shm)
        self.leaves(old.segment)
        self.segments[value.segment] += 1
        self.changed.add(object_id)
        return old

    def blocks(self) -> set[tuple[str, int, int]]:
        """All blocks that are in use: segment, offset and generation."""
        return {
            (value.segment, value.offset, value.generation)
            for record in self._records.values() for value in (record.value, *record.copies)
            if isinstance(value, Shm)
        }

    def large(self) -> Iterator[tuple[bytes, Shm]]:
        """All objects that lie in segments."""
        for object_id, record in self._records.items():
            if isinstance(record.value, Shm):
                yield object_id, record.value

    def resolved(self, task_id: bytes) -> list[Dep]:
        """The values found for a task's pending deps; kept for a re-run until :meth:`forget`."""
        return self._resolved.get(task_id, [])

    def forget(self, task_id: bytes) -> None:
        """The task has ended, or will never start."""
        self._resolved.pop(task_id, None)
        self._missing.pop(task_id, None)

    def unresolved(self, task: Task) -> list[bytes]:
        """The deps a waiting task still lacks."""
        return [dep.object_id for dep in task.payload.spec.deps if task in self._waiting.get(dep.object_id, ())]

    # ------------------------------------------------------------ loss

    def is_lost(self, object_id: bytes) -> bool:
        return object_id in self._lost

    def lose(self, object_id: bytes) -> None:
        """The memory of an object that exists is gone."""
        record = self._records[object_id]
        assert isinstance(record.value, Shm)
        self._lost[object_id] = record.value.refs
        self.leaves(record.value.segment)
        record.value = None
        self.changed.add(object_id)

    def need_again(self, object_id: bytes, holder: bytes) -> None:
        """An object that was freed is needed once more, by ``holder`` alone."""
        self._record(object_id).released = True
        self._lost[object_id] = []
        self._add(object_id, holder, 1)
        self.changed.add(object_id)

    def is_tracked(self, object_id: bytes) -> bool:
        return object_id in self._records

    def _found(self, object_id: bytes, value: Value, owner: str) -> Freed:
        """If the object was lost: it is here again, or will never be. What else was inside is held by it no more."""
        freed = Freed()
        if object_id not in self._lost:
            return freed
        if owner and owner.encode() not in self._dead:  # that of its task, which ran again
            self._records[object_id].released = False
        inside = () if isinstance(value, Failed) else value.refs
        for inner in self._lost.pop(object_id):
            record = self._records.get(inner)
            if inner not in inside and record is not None and record.holders.pop(object_id, None) is not None:
                self.changed.add(inner)
                freed.add(self._collect(inner))
        return freed

    # ------------------------------------------------------------ holding

    def hold(self, object_id: bytes, holder: bytes, count: int) -> Freed:
        """Adds to a holder's count."""
        if holder in self._dead:
            return Freed()
        self._add(object_id, holder, count)
        if len(holder) != OBJECT_BYTES or self.known(holder) is None:
            self.changed.add(object_id)
        return self._collect(object_id)

    def track(self, object_id: bytes, owner: str) -> None:
        """Starts the life of an object whose value, if it has one (an actor's handle has none), is not kept here."""
        self._record(object_id, owner)
        self.changed.add(object_id)

    def unwanted(self, object_id: bytes) -> None:
        """Frees an object when it arrives: it was released already."""
        self._unwanted.add(object_id)
        self.changed.add(object_id)

    def wanted_again(self, object_id: bytes, owner: str) -> None:
        """An object that is still to come has a new owner."""
        self._unwanted.discard(object_id)
        self.changed.add(object_id)
        record = self._records.get(object_id)
        if record is not None:
            self._give(object_id, record, owner)

    def adopt(self, object_id: bytes, owner: str) -> bool:
        """Gives an object a new owner, that of a task that runs once more; False when it has been freed."""
        record = self._records.get(object_id)
        if record is None or (record.value is None and object_id not in self._lost):
            return False
        self._give(object_id, record, owner)
        self.changed.add(object_id)
        return True

    def release(self, object_id: bytes, sender: str = "") -> Freed:
        """The owner needs it no more. ``sender``, where it may be another one: an earlier owner, or a borrower."""
        record = self._records.get(object_id)
        if record is None:
            return Freed(unseen=[object_id])
        if sender and record.owner and sender != record.owner:
            if sender.encode() not in record.holders:
                return Freed()
            return self.hold(object_id, sender.encode(), -1)
        record.released = True
        self.changed.add(object_id)
        return self._collect(object_id)

    def process_died(self, process: str, pins: dict[bytes, list[bytes]]) -> Freed:
        """It holds nothing any more and owns nothing any more.

        ``pins``: objects that its unfinished tasks need, by task id; the tasks hold them from here on.
        """
        for task_id, objects in pins.items():
            for object_id in objects:
                self._add(object_id, task_id, 1)
                self.changed.add(object_id)
        name = process.encode()
        self._dead.add(process)
        freed = Freed()
        for object_id, record in list(self._records.items()):
            touched = record.holders.pop(name, None) is not None
            if record.owner == process:
                record.released = touched = True
            if touched:
                self.changed.add(object_id)
                freed.add(self._collect(object_id))
        return freed

    def task_ended(self, task_id: bytes, objects: list[bytes]) -> Freed:
        """Drops what :meth:`process_died` made the task hold."""
        freed = Freed()
        for object_id in objects:
            record = self._records.get(object_id)
            if record is not None and record.holders.pop(task_id, None) is not None:
                self.changed.add(object_id)
                freed.add(self._collect(object_id))
        return freed

    def held_by(self, holder: bytes) -> Counter[bytes]:
        """What a holder holds, and how often."""
        records = self._records.items()
        return Counter({oid: record.holders[holder] for oid, record in records if holder in record.holders})

    def census(self) -> dict[str, float]:
        """How much is here; all zero when nobody has or wants anything."""
        return {
            "tracked objects": len(self._records),
            "objects in shared memory": self.segments.total(),
            "objects waited for": len(self._waiting),
            "arguments found": len(self._resolved),
            "objects to be freed on arrival": len(self._unwanted),
            "objects that are lost": len(self._lost),
        }

    # ------------------------------------------------------------ remembering

    def snapshot(self, object_id: bytes) -> Snapshot | Literal[False] | None:
        """What is to be remembered of an object; None: that it is unwanted; False: nothing."""
        record = self._records.get(object_id)
        if record is None:
            return None if object_id in self._unwanted else False
        record.written = True
        in_store = isinstance(record.value, Inline)
        value = None if in_store else record.value
        lost = self._lost.get(object_id)
        return Snapshot(record.owner, record.released, value, in_store, record.holders, record.copies, lost)

    def restore(
        self, snapshots: dict[bytes, Snapshot | None], dead: Departed, stored: Callable[[bytes], Value | None]
    ) -> None:
        """In a new node's empty directory: what the last one remembered. ``stored``: values in the control store."""
        self._dead = dead
        for object_id, snapshot in snapshots.items():
            if snapshot is None:
                self._unwanted.add(object_id)
                continue
            record = self._record(object_id, snapshot.owner)
            record.written = True
            record.released = snapshot.released
            record.holders = snapshot.holders
            record.copies = snapshot.copies
            if snapshot.lost is not None:
                self._lost[object_id] = snapshot.lost
            record.value = stored(object_id) if snapshot.in_store else snapshot.value
            for block in (*record.copies, record.value):
                if isinstance(block, Shm):
                    self.segments[block.segment] += 1
        for object_id in list(snapshots):
            value = self.known(object_id)
            inside = self._lost.get(object_id, []) if value is None or isinstance(value, Failed) else value.refs
            for inner in inside:
                if object_id not in self._record(inner).holders:
                    self._add(inner, object_id, 1)

    def _record(self, object_id: bytes, owner: str = "") -> Record:
        record = self._records.get(object_id)
        if record is None:
            record = self._records[object_id] = Record(owner)
            self.producers[task_of(object_id)] += 1
            record.released = owner in self._dead
        elif owner:
            dead = owner in self._dead
            if record.owner and owner != record.owner and not dead:  # its task's next attempt
                self._give(object_id, record, owner)
            record.owner = owner
            record.released |= dead
        return record

    def _give(self, object_id: bytes, record: Record, owner: str) -> None:
        """A new owner. The last one, if it lives and needs the object, holds it from here on, until it releases it."""
        if record.owner and record.owner != owner and not record.released:
            self._add(object_id, record.owner.encode(), 1)
        record.owner = owner
        record.released = False

    def leaves(self, segment: str) -> None:
        """One object less lives there."""
        self.segments[segment] -= 1
        if not self.segments[segment]:
            del self.segments[segment]

    def _drop(self, object_id: bytes) -> None:
        if self._records.pop(object_id).written:
            self.changed.add(object_id)
        task = task_of(object_id)
        self.producers[task] -= 1
        if not self.producers[task]:
            del self.producers[task]

    def _add(self, object_id: bytes, holder: bytes, count: int) -> None:
        holders = self._record(object_id).holders
        total = holders.get(holder, 0) + count
        if total:
            holders[holder] = total
        else:
            holders.pop(holder, None)

    def _collect(self, object_id: bytes) -> Freed:
        """Forgets the object if nobody needs it, and then what it alone held; a loop, because chains may be long."""
        freed = Freed()
        candidates = [object_id]
        while candidates:
            object_id = candidates.pop()
            record = self._records.get(object_id)
            if record is None or record.holders:
                continue
            value = record.value
            if not record.released:
                if value is None and not record.owner:  # never announced: only its holders made it known here
                    self._drop(object_id)
                    freed.forgotten.append(object_id)
                continue
            self._drop(object_id)
            freed.objects.append(object_id)
            inside = self._lost.pop(object_id, None)
            if value is None and inside is None:
                if record.owner not in self._dead:
                    freed.unseen.append(object_id)
                continue
            for copy in (value, *record.copies):
                if isinstance(copy, Shm):
                    self.leaves(copy.segment)
                    freed.blocks.append(copy)
            if value is not None and not isinstance(value, Failed):
                inside = value.refs
            if inside:
                for inner in inside:
                    inner_record = self._records.get(inner)
                    if inner_record is not None and inner_record.holders.pop(object_id, None) is not None:
                        candidates.append(inner)
                        if inner_record.written:
                            self.changed.add(inner)
        return freed
