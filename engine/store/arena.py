"""Large values in shared memory: each process writes into segments of its own, everybody maps them.

The problem: creating a segment per object costs 160 µs and page faults at 1.5 GB/s. So a process keeps an *arena*
of a few growing segments (files under /dev/shm), places objects in them and reuses blocks, whose pages are warm
then. A block is reused only when the node says that its owner released it and that no process holds it: readers
hold an object as long as any array over it lives (``reader.py``).

Free blocks keep their pages, until a process lacks room: then all give the pages of their free blocks back to the
system (holes in the files; mappings stay valid) and take new ones when they need them. What finds no room even then
is written to segments on disk, which readers map in the same way (``segment.py``).

Rejected: ``multiprocessing.shared_memory``, whose tracker unlinks what it only attached (Python < 3.13); and a bound
on memory that is exact while several processes write at once, which would need a lock between them: it may be passed
by what they are writing at that moment.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections.abc import Iterable, Sequence
from itertools import count

from ..exceptions import ObjectStoreFullError
from ..messages import Shm, Value
from ..serialization import Serialized
from .segment import DiskSegment, Folders, MemorySegment, block_size, page_end, segment_name

FIRST_SEGMENT = 4 << 20
LARGEST_STEP = 256 << 20
DISK_SEGMENT = 8 << 20
"""Larger values have a file of their own on disk, so that its room is free as soon as they are."""


class Arena:
    """The memory into which one process writes its large values. Thread-safe."""

    def __init__(self, folders: Folders, owner: str, capacity: int) -> None:
        self._folders = folders
        self._owner = owner
        self._capacity = capacity
        self._memory: dict[str, MemorySegment] = {}
        self._disk: dict[str, DiskSegment] = {}
        self._numbers = count()
        self._generations = count(1)
        self._generation_of: dict[tuple[str, int], int] = {}
        """All blocks that hold a value, by segment and offset."""
        self._unannounced: set[tuple[str, int]] = set()
        """Those that the node has not been told of."""
        self._next_size = FIRST_SEGMENT
        self._gave_back = False
        """Somebody has lacked memory: none is taken ahead of need any more."""
        self._lock = threading.Lock()

    def write(self, value: Serialized, refs: list[bytes]) -> Shm | None:
        """Copies a serialised value into shared memory, once; None when there is no room."""
        parts, sizes = _parts(value)
        generation = next(self._generations)
        size = block_size(sizes)
        if size > self._capacity:
            return None
        with self._lock:
            for segment in list(self._memory.values()):
                offset = segment.blocks.allocate(size)
                if offset is None:
                    continue
                if segment.is_cut_off():
                    segment.blocks.free(offset)
                    continue
                if not segment.lacking(offset, size):
                    break
                if self._fill(segment, offset, generation, parts, size):
                    return self._has(segment.name, offset, sizes, refs, generation)
            else:
                if self._taken() + page_end(size) > self._capacity:
                    return None
                segment = self._grow(size)
                offset = segment.blocks.allocate(size)
                assert offset is not None
                if not self._fill(segment, offset, generation, parts, size):
                    return None
                return self._has(segment.name, offset, sizes, refs, generation)
        segment.copy(offset, generation, parts)
        return self._has(segment.name, offset, sizes, refs, generation)

    def write_to_disk(self, value: Serialized, refs: list[bytes]) -> Shm:
        """The same for a value that memory has no room for.

        Raises ObjectStoreFullError, with size, capacity and the fix, when the disk has none either.
        """
        parts, sizes = _parts(value)
        size = block_size(sizes)
        try:
            with self._lock:
                return self._place_on_disk(parts, sizes, refs)
        except OSError as error:
            raise ObjectStoreFullError(
                f"no room for an object of {size / 1e6:.1f} MB: the object store has {self._capacity / 1e6:.0f} MB "
                f"(object_store_memory), {self._taken() / 1e6:.0f} MB are taken, and it cannot be written to "
                f"{self._folders.disk}: {error.strerror}. Drop refs that are no longer needed, or pass a larger "
                "object_store_memory, or an object_spilling_directory with more room, to engine.init()"
            ) from error

    def announced(self, values: Iterable[Value]) -> None:
        """The node has been told of these: it will say when they are to be freed."""
        for value in values:
            if isinstance(value, Shm):
                self._unannounced.discard((value.segment, value.offset))

    def all_announced(self) -> list[tuple[str, int, int]]:
        """The blocks that the node knows of."""
        with self._lock:
            blocks = [(*block, generation) for block, generation in self._generation_of.items()]
            return [block for block in blocks if block[:2] not in self._unannounced]

    def free(self, name: str, offset: int, generation: int) -> bool:
        """Gives a block back, if it has not been given back; whether there is more room in memory now."""
        with self._lock:
            if self._generation_of.get((name, offset)) != generation:
                return False
            del self._generation_of[name, offset]
            if name in self._memory:
                self._memory[name].free(offset)
                return True
            if name in self._disk and self._disk[name].free(offset):  # it may be lost
                del self._disk[name]
            return False

    def copy_to_disk(self, value: Shm) -> Shm | None:
        """Another copy of what lies in any process's segment; None when there is no room for it, or it is lost."""
        size = block_size(value.sizes)
        generation = next(self._generations)
        try:
            with self._lock:
                segment, offset = self._allocate_on_disk(size)
            try:
                segment.copy_from(self._folders.path(value.segment), value.offset, offset, generation, size)
            except BaseException:
                with self._lock:
                    if segment.free(offset):
                        self._disk.pop(segment.name, None)
                raise
        except OSError:
            return None
        return self._has(segment.name, offset, value.sizes, value.refs, generation)

    def forget_lost(self) -> None:
        """Writes no more into segments whose files are gone, or cut short: nobody could read it."""
        with self._lock:
            for segments in (self._memory, self._disk):
                for name in list(segments):
                    try:
                        whole = os.stat(segments[name].path).st_size >= segments[name].blocks.capacity
                    except FileNotFoundError:
                        whole = False
                    if not whole:
                        del segments[name]
                        for block in [block for block in self._generation_of if block[0] == name]:
                            del self._generation_of[block]
                            self._unannounced.discard(block)

    def first_segment(self, size: int) -> MemorySegment | None:
        """A segment of this size, for pages to be taken ahead of need; None when none is wanted, or there is no room.

        None is wanted when values have been written already, when somebody lacks memory, and when all is over.
        """
        with self._lock:
            if self._memory or self._gave_back:
                return None
            try:
                return self._grow(size)
            except OSError:  # a full disk; or the session ends in this moment, and its folder is gone
                return None

    def take_pages(self, segment: MemorySegment, start: int, end: int) -> bool:
        """Whether a part of the segment has pages now, and more may be taken.

        The lock is not held meanwhile: whoever takes pages ahead of need may be kept waiting by everybody else.
        """
        if not segment.take_pages(start, end):
            return False
        with self._lock:
            if self._gave_back or self._memory.get(segment.name) is not segment:
                return False
            segment.has_pages(start, end)
            return True

    def give_back(self) -> None:
        """Gives the pages of all free blocks to whoever needs them."""
        with self._lock:
            self._gave_back = True
            for segment in self._memory.values():
                segment.give_back()

    def blocks(self) -> int:
        """How many values lie here."""
        with self._lock:
            return sum(len(segment.blocks) for segment in (*self._memory.values(), *self._disk.values()))

    def close(self) -> None:
        """Unmaps everything; the files are the session's, which removes them."""
        with self._lock:
            self._gave_back = True
            for segment in self._memory.values():
                with contextlib.suppress(BufferError):
                    segment.close()
            self._memory.clear()
            self._disk.clear()

    def _has(self, segment: str, offset: int, sizes: list[int], refs: list[bytes], generation: int) -> Shm:
        """A value lies there from now on."""
        self._unannounced.add((segment, offset))
        self._generation_of[segment, offset] = generation
        return Shm(segment, offset, sizes, refs, generation)

    def _fill(
        self, segment: MemorySegment, offset: int, generation: int, parts: Sequence[memoryview], size: int
    ) -> bool:
        """Writes a block that lacks pages; False when there is no room for them, and the block is free again."""
        if self._taken() + segment.lacking(offset, size) <= self._capacity:
            try:
                segment.fill(offset, generation, parts)
                return True
            except OSError as error:
                segment.blocks.free(offset)
                segment.give_back()
                if isinstance(error, FileNotFoundError):  # it is lost
                    del self._memory[segment.name]
                elif error.errno not in (errno.ENOSPC, errno.ENOMEM):
                    raise
                return False
        segment.blocks.free(offset)
        return False

    def _grow(self, size: int) -> MemorySegment:
        name = segment_name(self._owner, next(self._numbers), on_disk=False)
        segment = MemorySegment(self._folders.path(name), max(self._next_size, page_end(size)))
        self._memory[name] = segment
        self._next_size = min(self._next_size * 2, LARGEST_STEP)
        return segment

    def _place_on_disk(self, parts: Sequence[memoryview], sizes: list[int], refs: list[bytes]) -> Shm:
        """Raises OSError when there is no room."""
        generation = next(self._generations)
        while True:
            segment, offset = self._allocate_on_disk(block_size(sizes))
            try:
                segment.write(offset, generation, parts)
            except FileNotFoundError:  # it is lost
                del self._disk[segment.name]
                continue
            except OSError:
                segment.blocks.free(offset)
                raise
            return self._has(segment.name, offset, sizes, refs, generation)

    def _allocate_on_disk(self, size: int) -> tuple[DiskSegment, int]:
        if size <= DISK_SEGMENT:
            for segment in self._disk.values():
                offset = segment.blocks.allocate(size)
                if offset is not None:
                    return segment, offset
        name = segment_name(self._owner, next(self._numbers), on_disk=True)
        segment = self._disk[name] = DiskSegment(self._folders.path(name), max(DISK_SEGMENT, page_end(size)))
        offset = segment.blocks.allocate(size)
        assert offset is not None
        return segment, offset

    def _taken(self) -> int:
        """Bytes of memory in the segments of all processes."""
        taken = 0
        with os.scandir(self._folders.memory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # the node removes those of dead processes at any time
                    taken += entry.stat().st_blocks * 512
        return taken


def _parts(value: Serialized) -> tuple[list[memoryview], list[int]]:
    parts = [memoryview(value.data), *(buffer.raw() for buffer in value.buffers)]
    return parts, [part.nbytes for part in parts]
