"""Which objects leave memory for the disk, when it gets short. No I/O.

The problem: an object that nobody has used for long lies in memory, a new one finds no room. The old one can go to
disk, and its block to the new one, if nobody looks into the block any more. But readers map memory without a word
to anybody, and any process may have the address.

So objects leave in *rounds*, one at a time. The candidates, those used least recently, are **sealed**: the
generation in their block is wiped, so that no reader gets in any more. Then every process is **asked** which of them
it reads; those stay, and others are asked about in their place. What is left is **moved**: one process copies it to
disk, and only when it has, and nobody came for the object meanwhile, does the object change its address. Whoever
comes for a sealed object asks the node (``Lost``) and has it back at once: it is no candidate any more. So nobody
ever waits for a round, and a process that is slow to answer delays only that others get room.

A round begins when a writer found no room, and moves what it lacks; the writer itself does the copying, as it has
to wait anyway. Another one begins when more than ``HIGH`` of the memory is in use, before anybody lacks any, and
whoever made the last object does the work, a little at a time, until it is below ``LOW``.

*Used* is an object when the node hands its address out or gets it in a task's arguments. What a process does with an
address that it has costs no message; the reader of an object that went to disk for that finds it in the system's
cache of files, as fast as in memory.

Rejected: to let each process evict from its own arena, which knows its blocks but not who reads them; and to copy
first and ask then, which writes in vain what somebody reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ..messages import Shm
from ..store.segment import block_size, is_on_disk, owner_of

HIGH = 0.8
LOW = 0.7
"""Shares of the capacity."""

LARGEST_STEP = 64 << 20
"""As much is moved at once when nobody waits for it: the process that copies does nothing else meanwhile."""

SMALLEST_STEP = 1 / 16
"""Of the capacity. A round asks every process, so it should be worth it."""

LARGEST_QUESTION = 4096


class Ask(NamedTuple):
    round: int
    processes: list[str]
    ids: list[bytes]


class Move(NamedTuple):
    round: int
    mover: str
    objects: list[tuple[bytes, Shm]]


@dataclass
class Orders:
    """What is to be done, in this order."""

    seal: list[Shm] = field(default_factory=list)
    ask: Ask | None = None
    move: Move | None = None


class _Round:
    def __init__(self, number: int, mover: str, wanted: int) -> None:
        self.number = number
        self.mover = mover
        self.wanted = wanted
        self.asked: dict[bytes, Shm] = {}
        """Candidates that somebody may read."""
        self.chosen: dict[bytes, Shm] = {}
        """Those that nobody does."""
        self.looked_at: set[bytes] = set()
        self.silent: set[str] = set()
        """Processes that have not answered."""
        self.moving = False

    def sealed(self) -> list[Shm]:
        return [*self.asked.values(), *self.chosen.values()]


class Eviction:
    """See the module's essay. ``first_round``: the number of the first round, above those of earlier nodes."""

    def __init__(self, capacity: int, first_round: int = 0) -> None:
        self.capacity = capacity
        self.in_use = 0
        """Bytes of all objects in memory."""
        self._memory: dict[bytes, Shm] = {}
        """The one that was used least recently comes first."""
        self._next_round = first_round
        self._round: _Round | None = None
        self._needy: dict[str, int] = {}
        """Who lacks room, and how much."""
        self._maker = ""
        """Of the last object."""
        self._draining = False
        self._grown = capacity
        """Bytes of the objects that came since a round found too little."""

    # ------------------------------------------------------------ what happens to objects

    def appeared(self, object_id: bytes, value: Shm) -> None:
        """It came to be there, in place of whatever was there before."""
        if self._memory.get(object_id) == value:
            return
        self.gone(object_id)
        size = block_size(value.sizes)
        self._grown += size
        self._maker = owner_of(value.segment)
        if not is_on_disk(value.segment):
            self._memory[object_id] = value
            self.in_use += size

    def used(self, object_id: bytes) -> None:
        value = self._memory.pop(object_id, None)
        if value is not None:
            self._memory[object_id] = value

    def gone(self, object_id: bytes) -> None:
        """It has been freed."""
        value = self._memory.pop(object_id, None)
        if value is None:
            return
        self.in_use -= block_size(value.sizes)
        if self._round is not None:
            self._round.asked.pop(object_id, None)
            self._round.chosen.pop(object_id, None)

    def wanted(self, object_id: bytes) -> Shm | None:
        """Somebody comes for an object. If it is sealed, here is the block to be unsealed: it stays."""
        self.used(object_id)
        round_ = self._round
        if round_ is None:
            return None
        return round_.asked.pop(object_id, None) or round_.chosen.pop(object_id, None)

    # ------------------------------------------------------------ what processes say

    def lacks_room(self, process: str, size: int) -> None:
        self._needy[process] = size

    def answered(self, process: str, number: int, reads: Iterable[bytes]) -> list[Shm]:
        """Which objects of the question a process reads; the blocks that are to be unsealed."""
        round_ = self._round
        if round_ is None or round_.number != number or process not in round_.silent:
            return []
        round_.silent.remove(process)
        unseal = []
        for object_id in reads:
            value = round_.asked.pop(object_id, None)
            if value is not None:
                self.used(object_id)
                unseal.append(value)
        return unseal

    def ended(self, process: str) -> list[Shm]:
        """A process is gone; the blocks that are to be unsealed."""
        self._needy.pop(process, None)
        round_ = self._round
        if round_ is None:
            return []
        round_.silent.discard(process)
        if round_.mover != process:
            return []
        self._round = None
        return round_.sealed()

    def moved(self, number: int, objects: Iterable[bytes]) -> tuple[list[bytes], list[Shm]]:
        """These have been copied. Returns those that are on disk from now on, and the blocks to be unsealed."""
        round_ = self._round
        if round_ is None or round_.number != number or not round_.moving:
            return [], []
        self._round = None
        accepted = [object_id for object_id in objects if round_.chosen.pop(object_id, None) is not None]
        for object_id in accepted:
            self.gone(object_id)
        if round_.chosen:  # the disk has no room
            self._was_in_vain()
        return accepted, round_.sealed()

    # ------------------------------------------------------------ what is to be done

    def step(self, processes: Collection[str]) -> Orders:
        """``processes``: all that may read something."""
        orders = Orders()
        if self._round is None and not self._begin(processes):
            return orders
        round_ = self._round
        assert round_ is not None
        if round_.moving or round_.silent:
            return orders
        round_.chosen.update(round_.asked)
        round_.asked.clear()
        lacking = round_.wanted - sum(block_size(value.sizes) for value in round_.chosen.values())
        if lacking > 0:
            round_.asked = self._candidates(round_, lacking)
            if round_.asked:
                round_.silent = set(processes)
                orders.seal = list(round_.asked.values())
                orders.ask = Ask(round_.number, list(processes), list(round_.asked))
                return orders
            self._was_in_vain()
        if round_.chosen:
            round_.moving = True
            orders.move = Move(round_.number, round_.mover, list(round_.chosen.items()))
        else:
            self._round = None
        return orders

    def _begin(self, processes: Collection[str]) -> bool:
        smallest = int(self.capacity * SMALLEST_STEP)
        while self._needy:
            process, size = self._needy.popitem()
            lacking = self.in_use + size + smallest // 2 - self.capacity
            if lacking > 0 and process in processes:
                return self._begin_round(process, max(lacking, smallest))
        self._draining = self.in_use > self.capacity * (LOW if self._draining else HIGH)
        if not self._draining or self._grown < smallest or self._maker not in processes:
            return False
        too_much = int(self.in_use - self.capacity * LOW)
        return self._begin_round(self._maker, max(min(too_much, LARGEST_STEP), 1))

    def _begin_round(self, mover: str, wanted: int) -> bool:
        self._round = _Round(self._next_round, mover, wanted)
        self._next_round += 1
        return True

    def _candidates(self, round_: _Round, lacking: int) -> dict[bytes, Shm]:
        """The next ones to ask about, least recently used first."""
        found: dict[bytes, Shm] = {}
        for object_id, value in self._memory.items():
            if lacking <= 0 or len(found) == LARGEST_QUESTION:
                break
            if object_id not in round_.looked_at:
                found[object_id] = value
                lacking -= block_size(value.sizes)
        round_.looked_at.update(found)
        return found

    def _was_in_vain(self) -> None:
        """It is not tried again before much has changed."""
        self._draining = False
        self._grown = 0
