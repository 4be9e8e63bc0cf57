"""One file in which a process keeps large values: in shared memory, or on disk when that is full.

*Memory.* A file in /dev/shm begins without pages. A block that lacks pages is written with ``pwrite``, which takes a
page and fills it in one go: 2.4 GB/s, where reserving with ``posix_fallocate`` and then copying into the mapping
touches each page twice and gets 1.4. A full /dev/shm is then an error of the write and no SIGBUS. A block whose pages
are there is written through the mapping, at the speed of memory.

*Disk.* The room is reserved first, so that a full disk is an error here and now, then written likewise. Readers map
the file as they map memory. It goes when its last block does, and with it the room on disk.

A block begins with a *generation*, a number that this process never used before, and its freeing wipes it: whoever
comes with the address of a block that has been freed, or used again, finds another number than the address has.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..session import Session
from .allocator import ALIGNMENT, Allocator, align

HEADER = ALIGNMENT
"""Bytes before the value in each block."""

GENERATION = struct.Struct("<Q")
LARGEST_WRITE = 1 << 30
"""Linux writes no more than 2 GiB at a time."""

POPULATE_WRITE = 23
"""``MADV_POPULATE_WRITE``, which Python has no name for: pages that cannot be had are an error and no SIGBUS."""

_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_ON_DISK = "d"
_PADDING = bytes(ALIGNMENT)


class Folders(NamedTuple):
    """Where the segments of a session are."""

    memory: Path
    disk: Path

    @classmethod
    def of(cls, session: Session) -> Folders:
        return cls(Path(session.shm), Path(session.spill))

    def path(self, segment: str) -> Path:
        return (self.disk if is_on_disk(segment) else self.memory) / segment


def segment_name(owner: str, number: int, on_disk: bool) -> str:
    return f"{owner}-{_ON_DISK if on_disk else ''}{number}"


def owner_of(segment: str) -> str:
    """The process that writes into it."""
    return segment.rpartition("-")[0]


def is_on_disk(segment: str) -> bool:
    return segment.rpartition("-")[2].startswith(_ON_DISK)


def block_size(sizes: Sequence[int]) -> int:
    return HEADER + sum(align(size) for size in sizes)


def page_end(offset: int) -> int:
    return (offset + mmap.PAGESIZE - 1) & -mmap.PAGESIZE


def set_generation(path: Path, offset: int, generation: int) -> bool:
    """Lets readers with this generation into a block of any process's segment; 0: nobody. False when it is gone."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        if os.fstat(fd).st_size < offset + GENERATION.size:  # it has been cut off, and must not grow again
            return False
        os.pwrite(fd, GENERATION.pack(generation), offset)
    finally:
        os.close(fd)
    return True


def has_generation(path: Path, offset: int, size: int, generation: int) -> bool:
    """Whether the block of an object is there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        there = os.fstat(fd).st_size >= offset + size
        return there and GENERATION.unpack(os.pread(fd, GENERATION.size, offset))[0] == generation
    finally:
        os.close(fd)


def discard(path: Path, offset: int, size: int) -> None:
    """Gives the pages of a block to the system, when the process that wrote it is dead."""
    if not set_generation(path, offset, 0):
        return
    start, end = page_end(offset), (offset + size) & -mmap.PAGESIZE
    if start < end:
        with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory.madvise(mmap.MADV_REMOVE, start, end - start)


class _Segment:
    """What both kinds have in common."""

    def __init__(self, path: Path, capacity: int) -> None:
        self.name = path.name
        self.path = path
        self.blocks = Allocator(capacity)

    def _write_through(self, offset: int, generation: int, parts: Sequence[memoryview]) -> None:
        fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            at = offset + _write_all(fd, offset, memoryview(GENERATION.pack(generation).ljust(HEADER, b"\0")))
            for part in parts:
                at += _write_all(fd, at, part)
                at += _write_all(fd, at, memoryview(_PADDING)[: -part.nbytes % ALIGNMENT])
        finally:
            os.close(fd)


class MemorySegment(_Segment):
    """A file in shared memory, mapped here."""

    def __init__(self, path: Path, capacity: int) -> None:
        super().__init__(path, capacity)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, capacity)
            self._memory = mmap.mmap(fd, capacity)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)
        self._view = memoryview(self._memory)
        self._holes = [(0, capacity)]
        """Where there are no pages: (start, end), at page borders."""

    def lacking(self, offset: int, size: int) -> int:
        """Bytes of the pages that a block lacks."""
        start, end = offset & -mmap.PAGESIZE, page_end(offset + size)
        return sum(min(b, end) - max(a, start) for a, b in self._holes if a < end and start < b)

    def fill(self, offset: int, generation: int, parts: Sequence[memoryview]) -> None:
        """Writes a block that lacks pages. Raises OSError when there is no room; the block has to be freed then."""
        self._write_through(offset, generation, parts)
        end = page_end(offset + block_size([part.nbytes for part in parts]))
        self.has_pages(offset & -mmap.PAGESIZE, end)

    def take_pages(self, start: int, end: int) -> bool:
        """Takes pages that no block needs yet; False when there are none to be had."""
        first = ctypes.c_char.from_buffer(self._memory, start)
        # other than mmap's own method this lets other threads run
        return not _madvise(ctypes.addressof(first), end - start, POPULATE_WRITE)

    def has_pages(self, start: int, end: int) -> None:
        """They have been taken."""
        rest = [part for a, b in self._holes for part in ((a, min(b, start)), (max(a, end), b))]
        self._holes = [(a, b) for a, b in rest if a < b]

    def copy(self, offset: int, generation: int, parts: Sequence[memoryview]) -> None:
        """Writes a block whose pages are there."""
        at = offset + HEADER
        for part in parts:
            self._view[at : at + part.nbytes] = part
            at += align(part.nbytes)
        GENERATION.pack_into(self._view, offset, generation)

    def is_cut_off(self) -> bool:
        """Whether somebody has shortened the file: to write beyond its end would be a SIGBUS."""
        return self._memory.size() < self.blocks.capacity

    def free(self, offset: int) -> None:
        if not self.is_cut_off():
            GENERATION.pack_into(self._view, offset, 0)
        self.blocks.free(offset)

    def give_back(self) -> None:
        """Gives the pages of free blocks to the system; mappings stay valid."""
        self._holes = []
        for offset, size in self.blocks.gaps():
            start, end = page_end(offset), (offset + size) & -mmap.PAGESIZE
            if start < end:
                self._memory.madvise(mmap.MADV_REMOVE, start, end - start)
                self._holes.append((start, end))

    def close(self) -> None:
        self._view.release()
        self._memory.close()


class DiskSegment(_Segment):
    """A file on disk, for what memory has no room for."""

    def __init__(self, path: Path, capacity: int) -> None:
        super().__init__(path, capacity)
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, capacity)
        except OSError:
            os.unlink(path)
            raise
        finally:
            os.close(fd)

    def write(self, offset: int, generation: int, parts: Sequence[memoryview]) -> None:
        self._write_through(offset, generation, parts)

    def copy_from(self, path: Path, start: int, offset: int, generation: int, size: int) -> None:
        """Writes a block that is the same as one of ``size`` bytes at ``start`` in another segment."""
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
            try:
                os.pwrite(fd, GENERATION.pack(generation).ljust(HEADER, b"\0"), offset)
                os.lseek(fd, offset + HEADER, os.SEEK_SET)
                at, end = start + HEADER, start + size
                while at < end:
                    sent = os.sendfile(fd, source, at, end - at)
                    if not sent:
                        raise OSError(errno.EIO, "it has been cut off", str(path))
                    at += sent
            finally:
                os.close(fd)
        finally:
            os.close(source)

    def free(self, offset: int) -> bool:
        """Whether the file is gone, with its last block or because it was lost."""
        self.blocks.free(offset)
        try:
            if self.blocks:
                self._write_through(offset, 0, ())
                return False
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        return True


def _write_all(fd: int, at: int, data: memoryview) -> int:
    data = data.cast("B")
    written = 0
    while written < data.nbytes:
        written += os.pwrite(fd, data[written : written + LARGEST_WRITE], at + written)
    return written
