"""What the daemon does so that lost objects can be made again: it notes what large values were made from.

The counting is in ``ancestry.py``, without I/O. Copies, where a line of ancestors is cut, are made by the process that
has the value: the node holds the object meanwhile and goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import messages as m
from ..ids import HANDLE_INDEX, object_id, task_of
from ..store.segment import owner_of
from .ancestry import Ancestry
from .payload import needed_by
from .records import Freed

if TYPE_CHECKING:
    from .daemon import Daemon
    from .leases import Task

COPYING = b"copying"
"""Who holds objects while they are copied."""


class LineageDesk:
    """See the module's essay."""

    def __init__(self, node: Daemon) -> None:
        self._node = node
        self.ancestry = Ancestry(self._lives)
        self._copying: dict[bytes, tuple[str, m.Shm]] = {}
        """Objects of which copies are being made: the process that does, and what it copies."""

    def _lives(self, task: bytes) -> bool:
        return task in self._node.objects.directory.producers or task in self._node.tasks.tasks

    def needs(self, task: bytes) -> bool:
        """Whether the control store is to keep what it has of a task, so that something can be made again.

        What lives comes first: the rest is kept unless the store is twice as large as it should be because of it.
        """
        return self.ancestry.needs(task) and not self._node.store.history.overfull

    # ------------------------------------------------------------ what is made from what

    def ended(self, task: Task, outcome: m.Outcome) -> None:
        """A task with arguments that are refs has ended."""
        ancestry = self.ancestry
        if task.id in self._node.objects.directory.producers or ancestry.is_needed(task.id):
            parents = self._parents(task.payload.spec)
            for parent in parents:
                if not (ancestry.needs(parent) or self._lives(parent)):  # its end was heard before this one's
                    ancestry.recall(parent, self._recorded_parents)
            if ancestry.made(task.id, parents):
                self._copy(task.id, {
                    object_id(task.id, index): value for index, value in enumerate(outcome.values)
                    if isinstance(value, m.Shm)
                })
        elif ancestry.needs(task.id):
            self._drop(ancestry.ended(task.id))

    def put(self, oid: bytes, value: m.Shm, process: str, task_id: bytes) -> None:
        """A large value was put, by a task if ``task_id`` names one: a thread of a worker may do it between tasks."""
        parents = []
        if any(task_id):
            parents.append(task_id)
            task = self._node.tasks.tasks.get(task_id)
            if task is not None:  # whose end is too late: what it needs may be let go before that
                self.ancestry.made(task_id, self._parents(task.payload.spec))
        if self.ancestry.made(task_of(oid), parents, process):
            self._copy(task_of(oid), {oid: value})

    def _parents(self, spec: m.Spec) -> list[bytes]:
        """Who made what the spec does not have itself."""
        inside = {dep.object_id for dep in spec.deps if isinstance(dep.value, (m.Inline, m.Failed))}
        return list({
            task_of(oid): None for oid in needed_by(spec) if oid not in inside and not oid.endswith(HANDLE_INDEX)
        })

    def freed(self, objects: list[bytes]) -> None:
        ancestry = self.ancestry
        for oid in objects:
            task = task_of(oid)
            if ancestry.needs(task) and not self._lives(task):
                self._drop(ancestry.ended(task))

    def _drop(self, copies: list[tuple[bytes, m.Shm]]) -> None:
        """These copies are needed no more, unless as the values of objects that were lost."""
        freed = Freed()
        directory = self._node.objects.directory
        for oid, copy in copies:
            directory.leaves(copy.segment)
            if directory.known(oid) != copy:
                freed.blocks.append(copy)
        self._node.objects.free(freed)

    def restore(self) -> None:
        """In a new node, when the directory has been restored: specs tell the rest. What was being copied is not."""
        directory = self._node.objects.directory
        stale = self.ancestry.restore(self._node.journal.lineage(), list(directory.producers), self._recorded_parents)
        for copy in self.ancestry.copies():
            directory.segments[copy.segment] += 1
        for _, copy in stale:
            directory.segments[copy.segment] += 1
        self._drop(stale)
        for oid, count in directory.held_by(COPYING).items():
            self._node.objects.free(directory.hold(oid, COPYING, -count))

    def _recorded_parents(self, task: bytes) -> list[bytes]:
        raw = self._node.store.spec(task)
        if raw is None:
            return []
        spec = m.decode_spec(raw)
        return [] if spec.recipe.kind == m.CALL else self._parents(spec)

    # ------------------------------------------------------------ copies

    def _copy(self, task: bytes, values: dict[bytes, m.Shm]) -> None:
        """Has copies made of what a task made, as far as it lives."""
        directory = self._node.objects.directory
        living = {oid: value for oid, value in values.items() if directory.known(oid) == value}
        if not living:
            return
        self.ancestry.copying(task, living)
        for oid, value in living.items():
            directory.hold(oid, COPYING, 1)
            process = owner_of(value.segment)
            if process not in self._node.roles:
                process = self._node.session.driver
            self._copying[oid] = process, value
            self._node.post(process, m.Copy(oid, value))

    def on_copied(self, sender: str, message: m.Copied) -> None:
        oid, copy = message.object_id, message.copy
        mine = self._copying.pop(oid, None)
        directory = self._node.objects.directory
        wanted = mine is not None
        if mine is not None and sender != owner_of(mine[1].segment) and directory.known(oid) != mine[1]:
            wanted = False  # it moved meanwhile; only its maker frees the old block after it has copied it
        if copy is not None:
            directory.segments[copy.segment] += 1
            wanted, others = self.ancestry.copied(oid, copy) if wanted else (False, [])
            self._drop(others if wanted else [(oid, copy)])
        if mine is not None:
            if copy is None or not wanted:
                self.ancestry.not_copied(oid)
            self._node.objects.free(directory.hold(oid, COPYING, -1))

    def process_ended(self, process: str) -> None:
        for oid, (copier, _) in list(self._copying.items()):
            if copier == process:
                self.on_copied(process, m.Copied(oid, None))

