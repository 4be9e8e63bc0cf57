"""Functions and classes on their way into the control store, and which of them have to stay there.

A process sends a function once and takes it to be stored from then on, as long as it is among the last
``SENT_REMEMBERED`` that it has sent. The node keeps the same list of each process, only longer: what is in none of
them may go when no spec names it (``unused_functions.py``), and is sent again when it is needed again.

Of a node that died nobody knows the lists. What it had stored stays as long as the session.
"""

from __future__ import annotations

from collections import Counter

from .. import messages as m
from ..control_store import ControlStore
from ..functions import SENT_REMEMBERED

REMEMBERED = 2 * SENT_REMEMBERED
"""Of a process, whose specs may be a little behind its functions."""


class FunctionDesk:
    """See the module's essay."""

    def __init__(self, store: ControlStore) -> None:
        self._store = store
        self._store.history.functions.in_use = self._is_in_use
        self._sent: dict[str, dict[bytes, None]] = {}
        """By process, the last one last."""
        self._senders: Counter[bytes] = Counter()
        """How many processes have sent it."""
        self._inherited: set[bytes] = set()

    def on_function(self, sender: str, function: m.Function) -> None:
        sent = self._sent.setdefault(sender, {})
        if function.id in sent:  # it was forgotten there
            del sent[function.id]
        else:
            if not self._is_in_use(function.id):
                self._store.add_function(function.id, function.name, function.blob)
            self._senders[function.id] += 1
        sent[function.id] = None
        if len(sent) > REMEMBERED:
            self._drop(next(iter(sent)), sent)

    def process_ended(self, process: str) -> None:
        sent = self._sent.pop(process, {})
        for function in list(sent):
            self._drop(function, sent)

    def restored(self) -> None:
        """In a new node."""
        self._inherited = self._store.keys("functions")

    def _is_in_use(self, function: bytes) -> bool:
        return function in self._senders or function in self._inherited

    def _drop(self, function: bytes, sent: dict[bytes, None]) -> None:
        del sent[function]
        self._senders[function] -= 1
        if not self._senders[function]:
            del self._senders[function]
