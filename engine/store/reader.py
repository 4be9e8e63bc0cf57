"""Reading large values: segments are mapped once, arrays look straight into them.

While any array over an object lives in this process, the object counts as held here. The end is seen by a weak
reference to the *base* ndarray of the object, to which every array made from it leads; finalizers on memoryviews
or PickleBuffers fire while arrays still live (see reference facts in docs/architecture.md).

The invariant that lets the node move objects: a reader is pinned *before* it looks at the block's generation. So
whoever wipes the generation, and then asks this process what is pinned, hears of everybody who came through.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..departed import Departed
from ..exceptions import ObjectLostError
from ..messages import Shm
from ..serialization import loads
from .allocator import align
from .segment import GENERATION, HEADER, Folders, block_size, is_on_disk, owner_of

POPULATE_READ = 22
"""``MADV_POPULATE_READ``, which Python has no name for: a page that cannot be had is an error and not a SIGBUS."""


class StaleAddress(ObjectLostError):
    """The address leads nowhere: its block was freed or used again. The object may have another one by now."""


class _Pin(weakref.ref["NDArray[np.uint8]"]):
    """Dies with the base array and says so."""

    __slots__ = ("object_id",)

    object_id: bytes


class SegmentReader:
    """Maps segments of other processes (and of this one) for reading."""

    def __init__(self, folders: Folders, unpin: Callable[[bytes], None]) -> None:
        """``unpin(object_id)`` is called when the last array over an object has gone; it may only append."""
        self._folders = folders
        self._unpin = unpin
        self._segments: dict[str, mmap.mmap] = {}
        self._dead = Departed()
        """Processes whose segments are not kept: what lives in them ends some time, and nothing new comes."""

        self._pins: dict[int, _Pin] = {}

    def load(self, object_id: bytes, value: Shm, unpickle: Callable[..., Any] = loads) -> Any:
        """The value. ``unpin`` is called once: when the last array over it has gone, or at once if there is none.

        When this raises, it is called at the latest when the error is gone. Raises StaleAddress when the block has
        been freed.
        """
        try:
            memory = self._segments.get(value.segment) or self._map(value.segment)
            _check_pages(memory, value)
            base: NDArray[np.uint8] = np.frombuffer(
                memory, dtype=np.uint8, count=block_size(value.sizes) - HEADER, offset=value.offset + HEADER
            )
        except BaseException:
            self._unpin(object_id)
            raise
        pin = _Pin(base, self._dropped)
        pin.object_id = object_id
        self._pins[id(pin)] = pin
        if GENERATION.unpack_from(memory, value.offset)[0] != value.generation:
            del base
            raise StaleAddress(
                f"the object has been freed: its memory in {value.segment} is empty or holds another object"
            )
        parts: list[NDArray[np.uint8]] = []
        at = 0
        for size in value.sizes:
            parts.append(base[at : at + size])
            at += align(size)
        if len(parts) == 1:  # no buffers: unpickling copies everything
            return unpickle(parts[0].data)
        return unpickle(parts[0].data, buffers=parts[1:])

    def pinned(self) -> set[bytes]:
        """The objects over which there are arrays here, or somebody is about to make some."""
        return {pin.object_id for pin in list(self._pins.values())}

    def _dropped(self, pin: _Pin) -> None:
        self._pins.pop(id(pin), None)
        self._unpin(pin.object_id)

    def _map(self, name: str) -> mmap.mmap:
        try:
            fd = os.open(self._folders.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise StaleAddress(f"the object's memory {name} is gone: the object has been freed") from error
        try:
            memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        if owner_of(name) not in self._dead and not is_on_disk(name):  # files on disk go when they are empty
            self._segments[name] = memory
        return memory

    def forget_segment(self, name: str) -> None:
        """Its mapping ends with the arrays over it."""
        self._segments.pop(name, None)

    def forget(self, process: str) -> None:
        """Its mappings end with the arrays over them."""
        self._dead.add(process)
        for name in list(self._segments):
            if owner_of(name) == process:
                del self._segments[name]

    def close(self) -> None:
        """Forgets the mappings; those that arrays still look into stay until the arrays are gone."""
        self._pins.clear()
        for memory in self._segments.values():
            try:
                memory.close()
            except BufferError:  # arrays of the user's look into it
                continue
        self._segments.clear()


def _check_pages(memory: mmap.mmap, value: Shm) -> None:
    """Raises StaleAddress where looking into the block would be a SIGBUS.

    The first page of a block that was freed may have been given back, and a read takes a new one, for which a full
    /dev/shm has no room. Somebody may have cut the file off.
    """
    if memory.size() < value.offset + block_size(value.sizes):
        raise StaleAddress(f"the object's memory {value.segment} has been cut off")
    try:
        memory.madvise(POPULATE_READ, value.offset & -mmap.PAGESIZE, mmap.PAGESIZE)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel before 5.14
            raise StaleAddress(f"the object's memory in {value.segment} is gone: {error.strerror}") from error
