"""Large values in shared memory: each process writes into segments of its own, everybody maps them.

The problem: creating a segment per object costs 160 µs and page faults at 1.5 GB/s. So a process keeps an *arena*
of a few growing segments (files under /dev/shm), places objects in them and reuses blocks, whose pages are warm
then. A block is reused only when the node says that its owner released it and that no process holds it: readers
hold an object as long as any array over it lives (``reader.py``).

Memory is reserved with ``posix_fallocate``: a full /dev/shm is an error here and now instead of a SIGBUS later.
Free blocks keep their pages, until a process lacks room: then all give the pages of their free blocks back to the
system (holes in the files; mappings stay valid) and reserve them anew when they need them.
Rejected: ``multiprocessing.shared_memory``, whose tracker unlinks what it only attached (Python < 3.13).
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
from pathlib import Path

from ..exceptions import ObjectStoreFullError
from ..messages import Shm
from ..serialization import Serialized
from .allocator import Allocator, align

FIRST_SEGMENT = 4 << 20
LARGEST_STEP = 256 << 20


class _Segment:
    def __init__(self, name: str, memory: mmap.mmap, capacity: int) -> None:
        self.name = name
        self.memory = memory
        self.holes: list[tuple[int, int]] = []
        """Where there are no pages: (start, end), at page borders."""
        self.view = memoryview(memory)
        self.blocks = Allocator(capacity)


class Arena:
    """The memory into which one process writes its large values. Thread-safe."""

    def __init__(self, folder: Path, owner: str, capacity: int) -> None:
        self._folder = folder
        self._owner = owner
        self._capacity = capacity
        self._segments: dict[str, _Segment] = {}
        self._next_size = FIRST_SEGMENT
        self._lock = threading.Lock()

    def write(self, value: Serialized, refs: list[bytes]) -> Shm:
        """Copies a serialised value into shared memory, once.

        Raises ObjectStoreFullError, with size, capacity and the fix.
        """
        parts = [memoryview(value.data), *(buffer.raw() for buffer in value.buffers)]
        sizes = [part.nbytes for part in parts]
        with self._lock:
            segment, offset = self._allocate(sum(align(size) for size in sizes))
        at = offset
        for part, size in zip(parts, sizes, strict=True):
            segment.view[at : at + size] = part
            at += align(size)
        return Shm(segment.name, offset, sizes, refs)

    def free(self, segment: str, offset: int) -> None:
        with self._lock:
            self._segments[segment].blocks.free(offset)

    def give_back(self) -> None:
        """Gives the pages of all free blocks to whoever needs them."""
        with self._lock:
            for segment in self._segments.values():
                segment.holes = []
                for offset, size in segment.blocks.gaps():
                    start, end = _page_end(offset), (offset + size) & -mmap.PAGESIZE
                    if start < end:
                        segment.memory.madvise(mmap.MADV_REMOVE, start, end - start)
                        segment.holes.append((start, end))

    def blocks(self) -> int:
        """How many values lie here."""
        with self._lock:
            return sum(len(segment.blocks) for segment in self._segments.values())

    def close(self) -> None:
        """Unmaps everything; the files are the session's, which removes them."""
        for segment in self._segments.values():
            segment.view.release()
            with contextlib.suppress(BufferError):
                segment.memory.close()
        self._segments.clear()

    def _allocate(self, size: int) -> tuple[_Segment, int]:
        for segment in self._segments.values():
            offset = segment.blocks.allocate(size)
            if offset is None:
                continue
            if not segment.holes or self._fill(segment, offset & -mmap.PAGESIZE, _page_end(offset + size)):
                return segment, offset
            segment.blocks.free(offset)
        segment = self._grow(size)
        offset = segment.blocks.allocate(size)
        assert offset is not None
        return segment, offset

    def _fill(self, segment: _Segment, start: int, end: int) -> bool:
        """Reserves the pages that lack between ``start`` and ``end``; False when there is no room for them."""
        lacking = [(max(a, start), min(b, end)) for a, b in segment.holes if a < end and start < b]
        if self._taken() + sum(b - a for a, b in lacking) > self._capacity:
            return False
        fd = os.open(self._folder / segment.name, os.O_RDWR | os.O_CLOEXEC)
        try:
            for a, b in lacking:
                os.posix_fallocate(fd, a, b - a)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            return False
        finally:
            os.close(fd)
        rest = [part for a, b in segment.holes for part in ((a, min(b, start)), (max(a, end), b))]
        segment.holes = [(a, b) for a, b in rest if a < b]
        return True

    def _grow(self, size: int) -> _Segment:
        wanted = max(self._next_size, _page_end(size))
        used = self._taken()
        if used + wanted > self._capacity:
            wanted = _page_end(size)
        if used + wanted > self._capacity:
            raise ObjectStoreFullError(
                f"no room for an object of {size / 1e6:.1f} MB: the object store has {self._capacity / 1e6:.0f} MB "
                f"(object_store_memory), {used / 1e6:.0f} MB are taken. Drop refs that are no longer needed, or "
                "pass a larger object_store_memory to engine.init()"
            )
        name = f"{self._owner}-{len(self._segments)}"
        path = self._folder / name
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, wanted)
            memory = mmap.mmap(fd, wanted)
        except OSError as error:
            os.unlink(path)
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
            stat = os.statvfs(self._folder)
            raise ObjectStoreFullError(
                f"no room for an object of {size / 1e6:.1f} MB: {self._folder.parent} has "
                f"{stat.f_bavail * stat.f_frsize / 1e6:.0f} MB free of {stat.f_blocks * stat.f_frsize / 1e6:.0f} MB. "
                "In a container start it with a larger --shm-size"
            ) from error
        finally:
            os.close(fd)
        segment = self._segments[name] = _Segment(name, memory, wanted)
        self._next_size = min(self._next_size * 2, LARGEST_STEP)
        return segment

    def _taken(self) -> int:
        """Bytes of memory in the segments of all processes."""
        taken = 0
        with os.scandir(self._folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # the node removes those of dead processes at any time
                    taken += entry.stat().st_blocks * 512
        return taken


def _page_end(offset: int) -> int:
    return (offset + mmap.PAGESIZE - 1) & -mmap.PAGESIZE
