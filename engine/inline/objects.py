"""The objects of the inline engine: pickled once, counted, freed with their last ref."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ..refs import ObjectRef
from ..serialization import Serialized, dumps, load_error, loads


class StoredObject:
    """One object: a pickled value, an error, or the reason why it will never exist."""

    __slots__ = ("_buffers", "_data", "count", "error", "never", "on_free", "refs")

    def __init__(self, *, error: bytes | None = None, never: str | None = None) -> None:
        self._data: bytes = b""
        self._buffers: list[bytes] = []
        self.refs: list[ObjectRef] = []
        self.error = error
        self.never = never
        self.count = 0
        self.on_free: Callable[[], None] | None = None

    @classmethod
    def of(cls, value: Any) -> StoredObject:
        """Pickles ``value``; raises SerializationError."""
        return cls.packed(dumps(value))

    @classmethod
    def packed(cls, serialized: Serialized) -> StoredObject:
        stored = cls()
        stored._data = serialized.data
        # A copy as bytes: later changes by the caller do not reach it, and arrays over bytes are read-only.
        stored._buffers = [bytes(buffer.raw()) for buffer in serialized.buffers]
        stored.refs = serialized.refs
        return stored

    def nbytes(self) -> int:
        return len(self._data) + sum(map(len, self._buffers))

    def load(self) -> Any:
        """The value, anew for each caller; raises the error this object is."""
        if self.error is not None:
            raise load_error(self.error)
        return loads(self._data, buffers=self._buffers)


class ObjectTable:
    """Objects by id, each alive while it is counted.

    Refs die at any moment, in any thread, also while this table is at work (the garbage collector runs
    them), so :meth:`_release` never waits: it notes the id, and whoever drains the notes takes it along. What
    is freed goes outside of the lock: it may hold further refs, and objects of users with finalizers.
    """

    def __init__(self) -> None:
        self._objects: dict[bytes, StoredObject] = {}
        self._lock = threading.RLock()
        self._released: deque[bytes] = deque()
        self._draining = threading.Lock()

    def __len__(self) -> int:
        return len(self._objects)

    def add(self, object_id: bytes, stored: StoredObject) -> ObjectRef:
        """Stores an object; returns the first ref to it."""
        with self._lock:
            before = self._objects.get(object_id)
            stored.count = 1 if before is None else before.count + 1  # a restarted actor makes its puts again
            self._objects[object_id] = stored
        return ObjectRef(object_id, self._release)

    def adopt(self, object_id: bytes) -> ObjectRef:
        """A further ref to an object; one that is gone gives a ref whose ``get`` says so."""
        with self._lock:
            stored = self._objects.get(object_id)
            if stored is None:
                return ObjectRef(object_id)
            stored.count += 1
        return ObjectRef(object_id, self._release)

    def find(self, object_id: bytes) -> StoredObject | None:
        return self._objects.get(object_id)

    def clear(self) -> None:
        """Forgets everything; refs that are still held become refs to nothing."""
        with self._lock:
            dropped, self._objects = self._objects, {}
        dropped.clear()

    def _release(self, object_id: bytes) -> None:
        self._released.append(object_id)
        while self._released and self._draining.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._draining.release()

    def _drain(self) -> None:
        freed: list[StoredObject] = []
        while self._released:
            with self._lock:
                object_id = self._released.popleft()
                stored = self._objects.get(object_id)
                if stored is None:
                    continue
                stored.count -= 1
                if stored.count:
                    continue
                freed.append(self._objects.pop(object_id))
            del stored
            if freed[0].on_free is not None:
                freed[0].on_free()
            freed.clear()  # refs inside it come back through _release and wait for this loop
