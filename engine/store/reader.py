"""Reading large values: segments are mapped once, arrays look straight into them.

While any array over an object lives in this process, the object counts as held here. The end is seen by a weak
reference to the *base* ndarray of the object, to which every array made from it leads; finalizers on memoryviews
or PickleBuffers fire while arrays still live (see reference facts in docs/architecture.md).
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exceptions import ObjectLostError
from ..messages import Shm
from ..serialization import loads
from .allocator import align
from .segment import GENERATION, HEADER, Folders, is_on_disk, owner_of


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
        self._dead: set[str] = set()
        """Processes whose segments are not kept: what lives in them ends some time, and nothing new comes."""

        self._pins: dict[int, _Pin] = {}

    def load(self, object_id: bytes, value: Shm) -> tuple[Any, bool]:
        """The value, and whether arrays over it may live on (then ``unpin`` will be called once).

        When it raises, ``unpin`` is called too, at the latest when the error is gone. Raises ObjectLostError when
        the block has been freed.
        """
        try:
            base, parts = self._parts(value)
            if len(parts) == 1:  # no buffers: unpickling copies everything
                return loads(parts[0].data), False
        except BaseException:
            self._unpin(object_id)
            raise
        pin = _Pin(base, self._dropped)
        pin.object_id = object_id
        self._pins[id(pin)] = pin
        return loads(parts[0].data, buffers=parts[1:]), True

    def _parts(self, value: Shm) -> tuple[NDArray[np.uint8], list[NDArray[np.uint8]]]:
        """The array over all of the value, and those over its pickle and its buffers."""
        memory = self._segments.get(value.segment) or self._map(value.segment)
        if GENERATION.unpack_from(memory, value.offset)[0] != value.generation:
            raise ObjectLostError(
                f"the object has been freed: its memory in {value.segment} is empty or holds another object"
            )
        total = sum(align(size) for size in value.sizes)
        base: NDArray[np.uint8] = np.frombuffer(memory, dtype=np.uint8, count=total, offset=value.offset + HEADER)
        parts: list[NDArray[np.uint8]] = []
        at = 0
        for size in value.sizes:
            parts.append(base[at : at + size])
            at += align(size)
        return base, parts

    def _dropped(self, pin: _Pin) -> None:
        self._pins.pop(id(pin), None)
        self._unpin(pin.object_id)

    def _map(self, name: str) -> mmap.mmap:
        try:
            fd = os.open(self._folders.path(name), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ObjectLostError(f"the object's memory {name} is gone: the object has been freed") from error
        try:
            memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        if owner_of(name) not in self._dead and not is_on_disk(name):  # files on disk go when they are empty
            self._segments[name] = memory
        return memory

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
