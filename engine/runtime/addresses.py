"""Values that are not where their address says: they have moved, or were made again.

The problem: an address travels in messages, specs and tables of many processes, and whoever has it reads memory
without asking anybody. To tell all of them when an object moves would be slow and never complete. So nobody is told:
the block's generation gives a stale address away as it is used (``store/reader.py``), and who holds it asks the node
for the current one, as for a value that has not come yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import messages as m
from ..refs import ObjectRef
from ..store.reader import StaleAddress
from .objects import Entry

if TYPE_CHECKING:
    from .process import ProcessBackend


class Addresses:
    """See the module's essay."""

    def __init__(self, process: ProcessBackend) -> None:
        self._process = process

    def load_all(self, refs: Sequence[ObjectRef], entries: list[Entry], deadline: float | None) -> list[Any]:
        """The values of objects some of which have moved. Raises GetTimeoutError, and the errors of values."""
        process = self._process
        values: list[Any] = [None] * len(refs)
        left = list(range(len(refs)))
        while True:
            stale = []
            for i in left:
                value = entries[i].value
                try:
                    values[i] = process.storage.load(refs[i].binary(), value)
                except StaleAddress:
                    process.objects.stale(refs[i].binary(), value)
                    stale.append(i)
            if not stale:
                return values
            left = stale
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            process.waiting.for_all([refs[i] for i in left], [entries[i] for i in left], timeout)

    def current(self, oid: bytes, stale: m.Value) -> m.Value:
        """Where an object is now that was said to be at ``stale``; its error if it is lost."""
        process = self._process
        unpickling = process.storage.unpickling
        ref = process.objects.adopt(oid, register=False)
        (entry,) = process.entries_of((ref,))
        process.objects.stale(oid, stale)
        lent, unpickling.lent = unpickling.lent, False  # whatever is handled meanwhile is no argument
        try:
            process.wait_until(lambda: entry.value is not None, None, ())
        finally:
            unpickling.lent = lent
        assert entry.value is not None
        return entry.value
