"""What the daemon does when memory gets short: the clerk of ``eviction.py``, which decides.

It writes into the blocks of other processes, to seal and unseal them; it may, because no block that holds an object is
freed or used again without its word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import messages as m
from ..store.segment import Folders, block_size, discard, has_generation, is_on_disk, owner_of, set_generation
from .eviction import Eviction

if TYPE_CHECKING:
    from .daemon import Daemon
    from .directory import Directory


class SpillingDesk:
    """See the module's essay."""

    def __init__(self, node: Daemon, directory: Directory, incarnation: int) -> None:
        self._node = node
        self._directory = directory
        self._folders = Folders.of(node.session)
        self._eviction = Eviction(node.session.object_store_memory, incarnation << 32)
        self.used = self._eviction.used
        self.gone = self._eviction.gone

    # ------------------------------------------------------------ messages

    def on_need_room(self, sender: str, message: m.NeedRoom) -> None:
        for process in self._node.roles:
            if process != sender:
                self._node.post(process, m.GiveRoom())
        self._eviction.lacks_room(sender, message.size)
        self._step()

    def on_reads(self, sender: str, message: m.Reads) -> None:
        self._unseal(self._eviction.answered(sender, message.round, message.ids))
        self._step()

    def on_spilled(self, sender: str, message: m.Spilled) -> None:
        places = dict(message.objects)
        accepted, unseal = self._eviction.moved(message.round, places)
        self._unseal(unseal)
        free = [self._directory.moves(oid, places.pop(oid)) for oid in accepted]
        producers = {owner_of(old.segment) for old in free}
        for old in free:
            if owner_of(old.segment) not in self._node.roles:
                discard(self._folders.path(old.segment), old.offset, block_size(old.sizes))
        self._node.objects.free_blocks([*free, *places.values()])  # those that somebody came for, or that were freed
        for process in producers - {sender}:  # whoever lacks room cannot use what another one keeps
            if process in self._node.roles:
                self._node.post(process, m.GiveRoom())
        self._step()

    # ------------------------------------------------------------ for the object desk

    def appeared(self, oid: bytes, value: m.Shm) -> None:
        self._eviction.appeared(oid, value)
        self._step()

    def process_ended(self, process: str) -> None:
        self._unseal(self._eviction.ended(process))
        self._step()

    def is_there(self, oid: bytes, value: m.Shm) -> bool:
        """Whether the object can be read, now that somebody could not; from here on, if it was about to leave."""
        sealed = self._eviction.wanted(oid)
        if sealed is not None:
            self._unseal([sealed])
        path = self._folders.path(value.segment)
        return has_generation(path, value.offset, block_size(value.sizes), value.generation)

    def restored(self) -> None:
        """The last node may have been in the middle of a round."""
        for oid, value in self._directory.large():
            self._eviction.appeared(oid, value)
            if not is_on_disk(value.segment):
                self._unseal([value])

    def _step(self) -> None:
        orders = self._eviction.step(self._node.roles)
        for value in orders.seal:
            set_generation(self._folders.path(value.segment), value.offset, 0)
        if orders.ask is not None:
            for process in orders.ask.processes:
                self._node.post(process, m.WhoReads(orders.ask.round, orders.ask.ids))
        if orders.move is not None:
            self._node.post(orders.move.mover, m.Spill(orders.move.round, orders.move.objects))

    def _unseal(self, blocks: list[m.Shm]) -> None:
        for value in blocks:
            set_generation(self._folders.path(value.segment), value.offset, value.generation)
