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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..exceptions import ObjectLostError
from ..messages import Shm
from ..serialization import loads
from .allocator import align


class _Pin(weakref.ref["NDArray[np.uint8]"]):
    """Dies with the base array and says so."""

    __slots__ = ("object_id",)

    object_id: bytes


def _owner(segment: str) -> str:
    return segment.rpartition("-")[0]


class SegmentReader:
    """Maps segments of other processes (and of this one) for reading."""

    def __init__(self, folder: Path, unpin: Callable[[bytes], None]) -> None:
        """``unpin(object_id)`` is called when the last array over an object has gone; it may only append."""
        self._folder = folder
        self._unpin = unpin
        self._segments: dict[str, mmap.mmap] = {}
        self._dead: set[str] = set()
        """Processes whose segments are not kept: what lives in them ends some time, and nothing new comes."""

        self._pins: dict[int, _Pin] = {}

    def load(self, object_id: bytes, value: Shm) -> tuple[Any, bool]:
        """The value, and whether arrays over it may live on (then ``unpin`` will be called once)."""
        memory = self._segments.get(value.segment) or self._map(value.segment)
        total = sum(align(size) for size in value.sizes)
        base: NDArray[np.uint8] = np.frombuffer(memory, dtype=np.uint8, count=total, offset=value.offset)
        parts: list[NDArray[np.uint8]] = []
        at = 0
        for size in value.sizes:
            parts.append(base[at : at + size])
            at += align(size)
        if len(parts) == 1:  # no buffers: unpickling copies everything
            return loads(parts[0].data), False
        pin = _Pin(base, self._dropped)
        pin.object_id = object_id
        self._pins[id(pin)] = pin
        return loads(parts[0].data, buffers=parts[1:]), True

    def _dropped(self, pin: _Pin) -> None:
        self._pins.pop(id(pin), None)
        self._unpin(pin.object_id)

    def _map(self, name: str) -> mmap.mmap:
        try:
            fd = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise ObjectLostError(f"the shared memory {name} of an object is gone") from error
        try:
            memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        if _owner(name) not in self._dead:
            self._segments[name] = memory
        return memory

    def forget(self, process: str) -> None:
        """Its mappings end with the arrays over them."""
        self._dead.add(process)
        for name in list(self._segments):
            if _owner(name) == process:
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
