"""From what living objects were made, as far as that is needed to make them again. No I/O.

The problem: a lost object is made again by its task, from arguments that may have been freed since, by theirs. The
control store must keep the specs of all of these as long as the object lives, and no longer; and a program that makes
each state from the one before, for ever, must neither keep them all nor wait for a replay from the beginning.

*Counting.* A task that made something large (or a large ``put``) is needed while an object of it lives, or while
something is needed that was made from it. These are references of one task to another, counted like those of objects:
when the last one goes, what the task was made from is let go in turn.

*Cutting.* Where ``MOST_LINKS`` such links lie behind a task, what it made is copied to disk. Once the copies are
there the task can do without its ancestors, and lets them go. The copies live as long as the task is needed, beyond
the life of the objects themselves: the replay of a descendant begins with them.

Invariant: whatever is needed has all that is needed to make it: its ancestors, or its copies.

Only tasks with large results and with arguments that are not in their specs are known here, and ``put``s of large
values; all others, which are by far the most, cost nothing.

What a node that takes this one's place could not read from the specs is marked in ``changed`` and remembered
(``journal.py``): who put what, which tasks were cut off from their ancestors, and the copies.

Rejected: to keep the arguments alive instead. A chain would keep every value that it ever had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType

import msgspec

from ..ids import TASK_BYTES, task_of
from ..messages import Shm

MOST_LINKS = 64
NOTHING: Mapping[bytes, Shm] = MappingProxyType({})


class Made(msgspec.Struct, eq=False, gc=False):
    """A task or a ``put``, with what it was made from."""

    parents: tuple[bytes, ...]
    links: int
    """In the longest line of ancestors."""
    by: str = ""
    """Of a ``put``: the process that did it. Its one parent is the task in which it did, if it was in one."""
    awaited: tuple[bytes, ...] = ()
    """Objects of which copies are being made."""
    copies: Mapping[bytes, Shm] = NOTHING
    written: bool = False
    """It has a row, see :meth:`Ancestry.row`."""


class Ancestry:
    """See the module's essay. ``lives(task)``: whether an object of a task lives, or the task has not ended."""

    def __init__(self, lives: Callable[[bytes], bool]) -> None:
        self._lives = lives
        self._made: dict[bytes, Made] = {}
        self._needed: Counter[bytes] = Counter()
        """How many tasks were made from a task."""
        self._copied: set[tuple[str, int]] = set()
        """Blocks of the copies."""
        self.changed: set[bytes] = set()
        """Tasks, ``put``s and objects whose rows (:meth:`row`) may be others than before."""

    def __len__(self) -> int:
        return len(self._made)

    def needs(self, task: bytes) -> bool:
        """Whether the control store must keep what it has of a task."""
        return task in self._needed or task in self._made

    def is_needed(self, task: bytes) -> bool:
        """Whether something was made from it that may have to be made again."""
        return task in self._needed

    def put_by(self, put: bytes) -> tuple[str, bytes] | None:
        """Which process did a ``put``, and in which task, if in one; None: there is no such ``put``."""
        made = self._made.get(put)
        return None if made is None or not made.by else (made.by, made.parents[0] if made.parents else b"")

    def copy(self, object_id: bytes) -> Shm | None:
        made = self._made.get(task_of(object_id))
        return None if made is None else made.copies.get(object_id)

    def is_copy(self, segment: str, offset: int) -> bool:
        """Whether a block is a copy, and not to be freed with the object."""
        return (segment, offset) in self._copied

    # ------------------------------------------------------------ events

    def made(self, task: bytes, parents: Collection[bytes], by: str = "") -> bool:
        """A task ended with something large, or put it. Returns whether its objects are to be copied now.

        Then :meth:`copying` has to follow.
        """
        if task in self._made or not (parents or by):
            return False
        if by:
            self.changed.add(task)
        if not parents:
            self._made[task] = Made((), 1, by)
            return False
        links = 1 + max((self._made[parent].links for parent in parents if parent in self._made), default=0)
        self._made[task] = Made(tuple(parents), links, by)
        for parent in parents:
            self._needed[parent] += 1
        return links >= MOST_LINKS

    def copying(self, task: bytes, objects: Collection[bytes]) -> None:
        """Copies of these are being made; what comes after them begins to count anew."""
        made = self._made[task]
        made.awaited = tuple(objects)
        made.links = 0

    def copied(self, object_id: bytes, value: Shm) -> tuple[bool, list[tuple[bytes, Shm]]]:
        """A copy is there. Returns whether it is wanted, and which other copies are needed no more."""
        made = self._made.get(task_of(object_id))
        if made is None or object_id not in made.awaited:
            return False, []
        made.awaited = tuple(each for each in made.awaited if each != object_id)
        made.copies = {**made.copies, object_id: value}
        self._copied.add((value.segment, value.offset))
        self.changed.add(object_id)
        if made.awaited:
            return True, []
        parents, made.parents = made.parents, ()
        self.changed.add(task_of(object_id))
        return True, self._let_go(parents)

    def not_copied(self, object_id: bytes) -> None:
        """There will be no copy: the task keeps its ancestors."""
        made = self._made.get(task_of(object_id))
        if made is not None:
            made.awaited = ()

    def ended(self, task: bytes) -> list[tuple[bytes, Shm]]:
        """Nothing of a task lives any more. Returns the copies that are needed no more."""
        return self._forget([task])

    # ------------------------------------------------------------ remembering

    def row(self, key: bytes) -> tuple[str, tuple[bytes, ...]] | Shm | None:
        """What is to be remembered of an object, its copy; of a ``put`` or a task that was cut off, who and parents."""
        made = self._made.get(key[:TASK_BYTES])
        if made is not None:
            made.written = True
        if made is None or len(key) > TASK_BYTES:
            return None if made is None else made.copies.get(key)
        return made.by, made.parents

    def restore(
        self, rows: dict[bytes, tuple[str, tuple[bytes, ...]] | Shm], living: Collection[bytes],
        parents_of: Callable[[bytes], list[bytes]],
    ) -> list[tuple[bytes, Shm]]:
        """From the last node's rows, the tasks whose objects live, and the parents of others by their specs.

        Returns copies that nothing needs.
        """
        remembered = {key: row for key, row in rows.items() if not isinstance(row, Shm)}
        self._expand(living, parents_of, remembered)
        stale = []
        for oid, copy in rows.items():
            if isinstance(copy, Shm):
                made = self._made.get(task_of(oid))
                if made is None:
                    stale.append((oid, copy))
                else:
                    made.copies = {**made.copies, oid: copy}
                    made.written = True
                    self._copied.add((copy.segment, copy.offset))
                    made.links = 0
        self.changed = {*rows}
        return stale

    def recall(self, task: bytes, parents_of: Callable[[bytes], list[bytes]]) -> None:
        """A task that was let go is needed after all, and its ancestors are, which their specs name."""
        self._expand([task], parents_of, {})

    def _expand(
        self, tasks: Collection[bytes], parents_of: Callable[[bytes], list[bytes]],
        remembered: Mapping[bytes, tuple[str, tuple[bytes, ...]]],
    ) -> None:
        expanded: set[bytes] = set()
        stack = [*tasks]
        while stack:  # parents first, because links are counted from them
            task = stack[-1]
            by, parents = remembered.get(task) or ("", tuple(parents_of(task)))
            if task not in expanded:
                expanded.add(task)
                stack += [parent for parent in parents if parent not in expanded]
                continue
            stack.pop()
            self.made(task, parents, by)
            if task in remembered and task not in self._made:  # cut off
                self._made[task] = Made((), 0)

    def copies(self) -> Iterator[Shm]:
        for made in self._made.values():
            yield from made.copies.values()

    # ------------------------------------------------------------ inside

    def _let_go(self, parents: Collection[bytes]) -> list[tuple[bytes, Shm]]:
        ended = []
        for parent in parents:
            self._needed[parent] -= 1
            if not self._needed[parent]:
                del self._needed[parent]
                ended.append(parent)
        return self._forget(ended)

    def _forget(self, tasks: list[bytes]) -> list[tuple[bytes, Shm]]:
        """A loop, because lines may be long."""
        copies: list[tuple[bytes, Shm]] = []
        while tasks:
            task = tasks.pop()
            if task in self._needed or self._lives(task):
                continue
            made = self._made.pop(task, None)
            if made is None:
                continue
            if made.written:
                self.changed.add(task)
                self.changed.update(made.copies)
            else:
                self.changed.discard(task)
            for object_id, copy in made.copies.items():
                copies.append((object_id, copy))
                self._copied.discard((copy.segment, copy.offset))
            for parent in made.parents:
                self._needed[parent] -= 1
                if not self._needed[parent]:
                    del self._needed[parent]
                    tasks.append(parent)
        return copies
