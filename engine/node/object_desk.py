"""What the daemon does about objects: who asked for them, who holds them, whose memory is free again.

The decisions are in the directory, without I/O; this is its clerk, between it and the messages.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .. import messages as m
from ..exceptions import ObjectLostError
from ..ids import HANDLE_INDEX, task_of
from ..serialization import dump_engine_error
from ..store.segment import owner_of
from .directory import Directory
from .records import Freed
from .spilling_desk import SpillingDesk

if TYPE_CHECKING:
    from .daemon import Daemon


class ObjectDesk:
    """See the module's essay."""

    def __init__(self, node: Daemon, incarnation: int) -> None:
        self._node = node
        self.directory = Directory()
        self.spilling = SpillingDesk(node, self.directory, incarnation)

    # ------------------------------------------------------------ messages

    def on_resolve(self, sender: str, message: m.Resolve) -> None:
        for oid in message.ids:
            value = self.value(oid)
            if value is None:
                self.directory.ask(sender, oid)
            else:
                self.spilling.used(oid)
                self._node.post(sender, m.Resolved(oid, value))

    def on_lost(self, sender: str, message: m.Lost) -> None:
        oid = message.object_id
        value = self.value(oid)
        if isinstance(value, m.Shm) and self._node.rebuild.is_gone(oid, value):
            value = self.value(oid)
        if value is None:
            self.directory.ask(sender, oid)
            return
        if value == message.value and not self.spilling.is_there(oid, message.value):
            value = m.Failed(dump_engine_error(ObjectLostError(
                f"ObjectRef({oid.hex()}) is in {message.value.segment}, and {sender} could not read it there"
            )))
        self._node.post(sender, m.Resolved(oid, value))

    def on_stored(self, sender: str, message: m.Stored) -> None:
        if not isinstance(message.value, m.Shm):
            self._node.store.add_stored(message.object_id, message.value)
        else:
            self._node.lineage.put(message.object_id, message.value, sender, message.task)
        self.exists(message.object_id, message.value, sender)

    def on_escaped(self, sender: str, message: m.Escaped) -> None:
        oid = message.object_id
        self.directory.track(oid, sender)
        ended = oid[:-2] not in self._node.tasks.tasks
        if ended and self._node.store.history.flushed and self.value(oid) is None:
            self._node.post(sender, m.Publish(oid))

    def on_hold(self, sender: str, message: m.Hold) -> None:
        self.free(self.directory.hold(message.object_id, message.holder, message.count))

    def on_release(self, sender: str, message: m.Release) -> None:
        for oid in message.ids:
            self.free(self.directory.release(oid, sender))

    # ------------------------------------------------------------ for the other desks

    def value(self, oid: bytes) -> m.Value | None:
        """The value of an object that exists; an error in its place when its memory has been freed."""
        known = self.directory.known(oid)
        if known is not None:
            return known
        if self.directory.is_lost(oid):
            return self._node.rebuild.sought(oid)
        stored = self._node.store.value(oid)
        if isinstance(stored, m.Shm):  # recorded with its task, but tracked no more
            if task_of(oid) in self._node.tasks.tasks:  # which is run again, for a parent that is
                return None
            lost = ObjectLostError(f"ObjectRef({oid.hex()}) has been freed: nobody held it")
            return m.Failed(dump_engine_error(lost))
        return stored

    def exists(self, oid: bytes, value: m.Value, owner: str) -> None:
        ready, askers, freed = self.directory.exists(oid, value, owner)
        for task in ready:
            self._node.tasks.enqueue(task)
        for process in askers:
            self._node.post(process, m.Resolved(oid, value))
        if isinstance(value, m.Shm):
            self.spilling.appeared(oid, value)
        self.free(freed)

    def free(self, freed: Freed) -> None:
        ancestry = self._node.lineage.ancestry
        self.free_blocks([block for block in freed.blocks if not ancestry.is_copy(block.segment, block.offset)])
        for oid in freed.objects:
            self.spilling.gone(oid)
            if oid.endswith(HANDLE_INDEX):
                self._node.actors.handles_gone(oid[:-2])
        if (freed.objects or freed.forgotten) and len(ancestry):
            self._node.lineage.freed([*freed.objects, *freed.forgotten])
        for oid in freed.unseen:
            if not oid.endswith(HANDLE_INDEX) and self._node.store.value(oid) is None:
                self.directory.unwanted(oid)

    def free_blocks(self, values: Iterable[m.Shm]) -> None:
        """Tells the processes that wrote these values that nobody needs them."""
        blocks: dict[str, list[tuple[str, int, int]]] = {}
        for value in values:
            block = value.segment, value.offset, value.generation
            blocks.setdefault(owner_of(value.segment), []).append(block)
        for process, its in blocks.items():
            if process in self._node.roles:
                self._node.post(process, m.FreeBlocks(its))
            else:
                self.drop_segments(process)

    def reclaim(self, blocks: dict[str, list[tuple[str, int, int]]]) -> None:
        """The last node may have died before it could say that these, or segments of dead processes, are free.

        Args:
            blocks: those that each process has told the node of, and keeps.
        """
        ancestry = self._node.lineage.ancestry
        needed = self.directory.blocks()
        for process, its in blocks.items():
            lost = [block for block in its if block not in needed and not ancestry.is_copy(*block[:2])]
            if lost and process in self._node.roles:
                self._node.post(process, m.FreeBlocks(lost))
        folders = self._node.session.shm, self._node.session.spill
        for process in {owner_of(entry.name) for folder in folders for entry in os.scandir(folder)}:
            if process not in self._node.roles:
                self.drop_segments(process)

    def drop_segments(self, process: str) -> None:
        """Removes those segments of a dead process in which nothing lives any more."""
        for folder in (self._node.session.shm, self._node.session.spill):
            for entry in os.scandir(folder):
                if owner_of(entry.name) == process and not self.directory.segments[entry.name]:
                    os.unlink(entry.path)
