"""The objects of one process: futures it owns, refs it borrowed, and who still counts on them.

An entry lives while this process holds refs to the object or arrays over its shared memory. Counting down happens
in one place, :meth:`ObjectTable.drain`, which takes what finalizers appended to a deque: ``__del__`` may run under
any lock, so it must not do more than that.

What the node has to hear of is rare (see ``node/directory.py``): the end of *tracked* objects, which are large,
contain refs, or have left this process; and of borrows that were registered there for us.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import msgspec

from .. import messages as m
from ..ids import HANDLE_INDEX, task_of
from ..refs import ADOPT, ObjectRef


class Entry(msgspec.Struct, eq=False, gc=False):
    """One object as this process sees it.

    A struct of msgspec's is made in half the time that a class takes. Cycles through ``callbacks`` end with them.
    """

    owned: bool
    count: int
    value: m.Value | None = None
    worker: str = ""
    """Who produced it."""
    pins: list[ObjectRef] | None = None
    """Refs that live as long as this entry: those inside a put; the container that a borrowed ref came out of."""
    tracked: bool = False
    is_put: bool = False
    """Made by ``put``: it has no producer whose outcome would hold the value."""
    registered: int = 0
    asked: bool = False
    callbacks: list[Callable[[], None]] | None = None


class Loan:
    """What many refs that came out of a container have in common until they are used: they keep it alive.

    Most of ten thousand refs are never used, or once, by somebody else. They need no entry of their own meanwhile: the
    container holds the objects. :meth:`ObjectTable.count` gives an entry to one that is about to be used.
    """

    __slots__ = ("container", "table")

    def __init__(self, container: ObjectRef, table: ObjectTable) -> None:
        self.container = container
        self.table = table


class Lent(dict[bytes, ObjectRef]):
    """Refs on loan, by id; those that are not to be lent are adopted."""

    __missing__ = staticmethod(ADOPT)


class ObjectTable:
    """Entries by object id. Thread-safe where threads meet: counts change under ``lock``."""

    def __init__(self, name: str, post: Callable[[m.Wire], None]) -> None:
        self._name = name.encode()
        self._post = post
        self.entries: dict[bytes, Entry] = {}
        self.released: deque[bytes] = deque()
        self.release = self.released.append
        self.lock = threading.RLock()
        self.lends = False
        """Whether refs have been on loan here."""
        self.on_handle_gone: Callable[[bytes], None] = lambda actor: None
        """Called when this process has no handle of an actor any more."""

    def own(self, object_id: bytes) -> ObjectRef:
        """A new object of this process that a task will make, with its first ref."""
        self.entries[object_id] = Entry(True, 1)
        return ObjectRef(object_id, self.release)

    def own_again(self, object_id: bytes) -> ObjectRef:
        """The same for a task that runs once more: refs of its last attempt may be left, or have come back."""
        with self.lock:
            entry = self.entries.get(object_id)
            if entry is None:
                return self.own(object_id)
            entry.count += 1
            entry.owned = entry.tracked = True
        return ObjectRef(object_id, self.release)

    def own_put(self, object_id: bytes, value: m.Inline | m.Shm, inner: list[ObjectRef], task: bytes) -> ObjectRef:
        """A new object with its value, and the refs inside it, put in ``task`` if in any.

        Large ones are announced to the node at once.
        """
        ref = self.own_again(object_id)
        entry = self.entries[object_id]
        entry.value = value
        entry.is_put = True
        entry.pins = inner or None
        if isinstance(value, m.Shm):
            entry.tracked = True
            self._post(m.Stored(object_id, value, task))
        return ref

    def adopt(self, object_id: bytes, register: bool, container: list[ObjectRef] | None = None) -> ObjectRef:
        """One more ref to an object that came in inside data.

        A ref out of a task's arguments is kept alive by the submitter until the reply says that we retain it. One
        out of a container (the result of ``get``) is kept alive by the container, and the container by it: a list
        of ten thousand refs is one hold at the node. With ``register`` it is a hold of its own, for containers that
        are too large to be kept for the sake of one ref.
        """
        with self.lock:
            entry = self.entries.get(object_id)
            if entry is None:
                entry = self.entries[object_id] = Entry(False, 1)
            else:
                entry.count += 1
            if not entry.owned and not entry.registered:
                if register:
                    entry.registered = 1
                    self._post(m.Hold(object_id, self._name, 1))
                elif entry.pins is None:
                    entry.pins = container
        return ObjectRef(object_id, self.release)

    def lend(self, object_ids: list[bytes], container: ObjectRef) -> Lent:
        """Refs to the objects inside a container, without entries: as far as there are none, and no actors' handles."""
        self.lends = True
        loan = Loan(container, self)
        lent = Lent()
        entries, new = self.entries, ObjectRef.__new__
        for object_id in object_ids:
            if object_id not in entries and object_id[-2:] != HANDLE_INDEX:
                ref = lent[object_id] = new(ObjectRef)
                ref._id = object_id
                ref._release = None
                ref._loan = loan
        return lent

    def count(self, ref: ObjectRef) -> None:
        """A ref is about to be used: if it is on loan it gets an entry, or is counted in the one that there is.

        Raises KeyError when it is on loan from an engine that was shut down.
        """
        with self.lock:
            loan = getattr(ref, "_loan", None)
            if loan is None:
                return
            if loan.table is not self:
                raise KeyError(ref._id)
            entry = self.entries.get(ref._id)
            if entry is None:
                self.entries[ref._id] = Entry(False, 1, pins=[loan.container])
            else:
                entry.count += 1
                if not entry.owned and not entry.registered and entry.pins is None:
                    entry.pins = [loan.container]
            ref._release = self.release
            del ref._loan

    def pin(self, object_id: bytes) -> None:
        """Arrays over the object's memory are about to live here; ends when ``released`` gets its id."""
        with self.lock:
            entry = self.entries.get(object_id)
            if entry is None:
                self.entries[object_id] = Entry(False, 1)
            else:
                entry.count += 1

    def retained(self, object_ids: set[bytes]) -> list[bytes]:
        """Those of a task's borrowed objects that are still held after it; the owner will register them for us."""
        self.drain()
        kept: list[bytes] = []
        with self.lock:
            for object_id in object_ids:
                entry = self.entries.get(object_id)
                if entry is not None and not entry.owned and entry.count > 0:
                    entry.registered += 1
                    kept.append(object_id)
        return kept

    def arrived(self, object_id: bytes, value: m.Value, worker: str = "") -> None:
        """The value of an object. The first one wins; for a dropped object only its memory is given back."""
        if type(value) is m.Shm or (type(value) is m.Inline and value.refs):
            with self.lock:  # the entry may be dropped in this moment
                entry = self.entries.get(object_id)
                if entry is None:
                    self._post(m.Release([object_id]))
                elif entry.value is None and entry.owned:
                    entry.tracked = True
        self.arrived_plain(object_id, value, worker)

    def arrived_plain(self, object_id: bytes, value: m.Value, worker: str) -> None:
        """The same for a value that neither lies in memory nor holds refs: there is nothing else to keep of it."""
        entry = self.entries.get(object_id)
        if entry is None or entry.value is not None:
            return
        entry.worker = worker
        entry.value = value
        if entry.callbacks is not None:
            self._call_back(entry)

    def _call_back(self, entry: Entry) -> None:
        with self.lock:
            callbacks, entry.callbacks = entry.callbacks, None
        for callback in callbacks or ():
            callback()

    def stale(self, object_id: bytes, value: m.Value | None) -> None:
        """``value`` is an address that leads nowhere: asks the node for the current one, as if it had not come yet."""
        with self.lock:
            entry = self.entries[object_id]
            if isinstance(value, m.Shm) and (entry.value == value or (entry.value is None and not entry.asked)):
                entry.value = None
                entry.asked = True
                self._post(m.Lost(object_id, value))

    def when_ready(self, object_id: bytes, callback: Callable[[], None]) -> None:
        """Calls back once the value is there, in the thread that receives it (or now)."""
        with self.lock:
            entry = self.entries[object_id]
            if entry.callbacks is None:
                entry.callbacks = []
            entry.callbacks.append(callback)
        if entry.value is not None:  # it may have arrived meanwhile, and nobody been seen to wait
            self._call_back(entry)

    def give_up(self) -> None:
        """Calls back whoever still waits: the engine is gone and no value will come."""
        callbacks: list[Callable[[], None]] = []
        with self.lock:
            for entry in self.entries.values():
                if entry.callbacks is not None:
                    callbacks += entry.callbacks
                    entry.callbacks = None
        for callback in callbacks:
            callback()

    def escape(self, ref: ObjectRef) -> None:
        """``ref`` is about to leave this process inside data: from now on the node has to know the object."""
        object_id = ref.binary()
        with self.lock:
            entry = self.entries.get(object_id)
            if entry is None or not entry.owned or entry.tracked:
                return
            entry.tracked = True
            self._post(m.Escaped(object_id))
            if entry.value is not None and entry.is_put:
                self._post(m.Stored(object_id, entry.value))

    def publish(self, object_id: bytes) -> None:
        """Gives the node the value of an object that left this process; its store has forgotten it."""
        with self.lock:
            entry = self.entries.get(object_id)
            if entry is not None and entry.value is not None:
                self._post(m.Stored(object_id, entry.value))

    def publish_results_of(self, workers: set[str]) -> None:
        """The same for what these have made, who are dead: the node may never have heard of it.

        Not what lies in their memory: that goes with them if the node does not know of it, and is made again.
        """
        with self.lock:
            made = [
                oid for oid, entry in self.entries.items()
                if entry.owned and entry.worker in workers and not isinstance(entry.value, m.Shm)
            ]
        for object_id in made:
            self.publish(object_id)

    def drain(self) -> None:
        """Counts down what was dropped, and tells the node what that ends."""
        if not self.released:
            return
        ended: list[bytes] = []
        with self.lock:
            entries, released = self.entries, self.released
            while released:
                object_id = released.popleft()
                entry = entries.get(object_id)
                if entry is None:
                    continue
                entry.count -= 1
                if entry.count > 0:
                    continue
                del entries[object_id]
                if (entry.tracked or not entry.owned) and object_id.endswith(HANDLE_INDEX):
                    self.on_handle_gone(task_of(object_id))
                if entry.owned and entry.tracked:
                    ended.append(object_id)
                if entry.registered:
                    self._post(m.Hold(object_id, self._name, -entry.registered))
                entry.pins = None
            if ended:
                self._post(m.Release(ended))

    def asked(self) -> list[bytes]:
        """Objects whose values the node was asked for and has not sent."""
        with self.lock:
            return [oid for oid, entry in self.entries.items() if entry.asked and entry.value is None]

    def clear(self) -> None:
        with self.lock:
            self.entries.clear()
            self.released.clear()
