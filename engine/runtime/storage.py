"""Where the values of one process go and come from: into messages, into its arena, onto disk; and back.

A value that memory has no room for waits a moment, because what was dropped may be on its way back; then it goes to
disk. A wait that brought nothing is not repeated until something in memory has become free, or a program that keeps
more than fits would wait for each of its objects.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from .. import messages as m
from ..refs import ObjectRef
from ..serialization import INLINE_BYTES, Serialized, load_error, loads, loads_lending
from ..session import Session
from ..store.arena import Arena
from ..store.reader import SegmentReader, StaleAddress
from ..store.segment import Folders
from .endpoint import Endpoint
from .objects import ObjectTable

ROOM_SECONDS = 0.2
"""How long an object waits for room in a full store before it goes to disk."""

ROOM_TRIES = 40
WORTH_A_LOOK = 256 * 1024
"""From this size on a look for blocks that have become free costs less than fresh pages would."""

MANY = 1000

CONTAINER_BYTES = 1 << 20
"""A larger object does not live on just because a ref that came out of it does."""


class _Unpickling(threading.local):
    """What a thread is unpickling."""

    lent = False
    """Arguments of a task: whoever submitted it keeps alive what they refer to, until the reply."""
    pins: list[ObjectRef] | None = None
    """A ref to the object, if the refs inside it shall hold it."""


class Storage:
    """See the module's essay."""

    def __init__(
        self, session: Session, process: str, objects: ObjectTable, endpoint: Endpoint,
        post_node: Callable[[m.Wire], None],
    ) -> None:
        folders = Folders.of(session)
        self.arena = Arena(folders, process, session.object_store_memory)
        self.reader = SegmentReader(folders, objects.release)
        self.unpickling = _Unpickling()
        self._capacity = session.object_store_memory
        self._objects = objects
        self._endpoint = endpoint
        self._post_node = post_node
        self._waited_in_vain = False

    def pack(self, serialized: Serialized) -> m.Inline | m.Shm:
        """A serialised value as it travels: inline when it is small, in a segment of this process otherwise.

        Raises ObjectStoreFullError when neither memory nor disk has room.
        """
        refs = [ref.binary() for ref in serialized.refs] if serialized.refs else []
        if not serialized.buffers and len(serialized.data) <= INLINE_BYTES:
            return m.Inline(serialized.data, [], refs)
        size = serialized.nbytes()
        if size <= INLINE_BYTES:
            return m.Inline(serialized.data, [bytes(buffer.raw()) for buffer in serialized.buffers], refs)
        if size >= WORTH_A_LOOK:
            self._endpoint.flush()
            self._endpoint.catch_up()
        written = self.arena.write(serialized, refs)
        if written is None and size <= self._capacity and not self._waited_in_vain:
            written = self._write_when_there_is_room(serialized, refs, size)
        return written or self.arena.write_to_disk(serialized, refs)

    def _write_when_there_is_room(self, serialized: Serialized, refs: list[bytes], size: int) -> m.Shm | None:
        """Waits for what was dropped and is on its way back, for memory that other processes do not use, and for what
        has not been used for long to go to disk."""
        self.arena.give_back()
        self._post_node(m.NeedRoom(size))
        for _ in range(ROOM_TRIES):
            self._endpoint.wait_until(lambda: False, timeout=ROOM_SECONDS / ROOM_TRIES)
            written = self.arena.write(serialized, refs)
            if written is not None:
                return written
        self._waited_in_vain = True
        return None

    def free(self, blocks: list[tuple[str, int, int]]) -> None:
        """Nobody holds these (segment, offset, generation) any more."""
        for block in blocks:
            if self.arena.free(*block):
                self._waited_in_vain = False

    def on_who_reads(self, message: m.WhoReads) -> None:
        pinned = self.reader.pinned()
        self._post_node(m.Reads(message.round, [oid for oid in message.ids if oid in pinned]))

    def on_spill(self, message: m.Spill) -> None:
        """Copies to disk what shall make room in memory. What finds no room there either stays where it is."""
        places: list[tuple[bytes, m.Shm]] = []
        for oid, value in message.objects:
            place = self.arena.copy_to_disk(value)
            if place is None:
                break
            places.append((oid, place))
        self._post_node(m.Spilled(message.round, places))
        self.arena.announced(place for _, place in places)

    def on_copy(self, message: m.Copy) -> None:
        copy = self.arena.copy_to_disk(message.value)
        self._post_node(m.Copied(message.object_id, copy))
        if copy is not None:
            self.arena.announced([copy])

    def load(self, oid: bytes, value: m.Value | None) -> Any:
        """The Python value of an object that is here; raises its error.

        Raises StaleAddress when it is not where it was (see ``addresses.py``).
        """
        if type(value) is m.Inline and not value.refs:
            return loads(value.data, buffers=value.buffers) if value.buffers else loads(value.data)
        if isinstance(value, m.Failed):
            raise load_error(value.error)
        if value is None:  # another thread has found its address to lead nowhere
            raise StaleAddress("it is being looked for")
        if value.refs and not self.unpickling.lent and _is_small(value):
            return self._load_container(oid, value)
        return self._load(oid, value, loads)

    def _load_container(self, oid: bytes, value: m.Inline | m.Shm) -> Any:
        """A value with refs inside that shall keep it alive as long as they live."""
        outer = self.unpickling.pins
        container = self._objects.adopt(oid, register=False)
        self.unpickling.pins = [container]
        try:
            if len(value.refs) <= MANY:
                return self._load(oid, value, loads)
            collecting = gc.isenabled()
            gc.disable()  # it would run again and again over what has just been made, and find nothing
            try:
                return self._load(oid, value, partial(loads_lending, refs=self._objects.lend(value.refs, container)))
            finally:
                if collecting:
                    gc.enable()
        finally:
            self.unpickling.pins = outer

    def _load(self, oid: bytes, value: m.Inline | m.Shm, unpickle: Callable[..., Any]) -> Any:
        if isinstance(value, m.Inline):
            return unpickle(value.data, buffers=value.buffers)
        self._objects.pin(oid)
        return self.reader.load(oid, value, unpickle)

    def close(self) -> None:
        self.reader.close()
        self.arena.close()


def _is_small(value: m.Inline | m.Shm) -> bool:
    return isinstance(value, m.Inline) or sum(value.sizes) <= CONTAINER_BYTES
