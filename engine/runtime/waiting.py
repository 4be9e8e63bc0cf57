"""``get`` and ``wait``: until the values are there, or the time is up.

What is waited for is a predicate over the object table; whoever waits serves the inbox meanwhile (``endpoint.py``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..exceptions import GetTimeoutError
from ..explanation import Explanation
from ..refs import ObjectRef
from ..store.reader import StaleAddress
from .objects import Entry

if TYPE_CHECKING:
    from .process import ProcessBackend

FEW = 8
WHY_SECONDS = 5.0
EXPLAIN_SECONDS = 0.5
"""That a ``get`` whose time is up takes to say why, at most; it never takes longer than it has waited."""


class Waiting:
    """Methods of :class:`rlflow.engine.backend.Backend`."""

    def __init__(self, process: ProcessBackend) -> None:
        self._process = process

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        process = self._process
        process.endpoint.flush()  # first of all: what is waited for may not have been sent yet
        entries = process.entries_of(refs)
        deadline = None if timeout is None else time.monotonic() + timeout
        if any(entry.value is None for entry in entries):
            self.for_all(refs, entries, timeout)
        load = process.storage.load
        try:
            return [load(ref._id, entry.value) for ref, entry in zip(refs, entries, strict=True)]
        except StaleAddress:
            return process.addresses.load_all(refs, entries, deadline)

    def for_all(self, refs: Sequence[ObjectRef], entries: list[Entry], timeout: float | None) -> None:
        """Raises GetTimeoutError."""
        process = self._process
        process.ask_for(refs, entries)
        position = 0

        def ready() -> bool:
            nonlocal position
            while position < len(entries):
                if entries[position].value is None:
                    return False
                position += 1
            return True

        if not process.wait_until(ready, timeout, refs):
            missing = [ref for ref, entry in zip(refs, entries, strict=True) if entry.value is None]
            assert timeout is not None
            why = process.explaining.explain(missing[0].binary(), min(timeout, EXPLAIN_SECONDS))
            count = f"{len(missing)} of {len(refs)} objects"
            raise GetTimeoutError(f"{count} were not ready after {timeout} s; the first is {missing[0]!r}.\n{why}")

    def why(self, ref: ObjectRef) -> Explanation:
        self._process.endpoint.flush()
        self._process.entries_of((ref,))
        return self._process.explaining.explain(ref.binary(), WHY_SECONDS)

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        wanted = min(num_returns, len(refs))
        ready = self._first_ready(refs, wanted)
        if len(ready) < wanted:
            process = self._process
            entries = process.entries_of(refs)
            process.ask_for(refs, entries)
            process.wait_until(lambda: sum(entry.value is not None for entry in entries) >= wanted, timeout, ())
            ready = self._first_ready(refs, wanted)
        pending = list(refs)
        if len(ready) > FEW:
            taken = set(ready)
            pending = [ref for i, ref in enumerate(refs) if i not in taken]
        else:
            for i in reversed(ready):
                del pending[i]
        return [refs[i] for i in ready], pending

    def _first_ready(self, refs: Sequence[ObjectRef], wanted: int) -> list[int]:
        """Positions of the first ``wanted`` refs that have a value; what lies behind them is not looked at."""
        found: list[int] = []
        entries = self._process.objects.entries
        for i, ref in enumerate(refs):
            entry = entries.get(ref._id)
            if entry is not None and entry.value is not None:
                found.append(i)
                if len(found) == wanted:
                    break
        return found
