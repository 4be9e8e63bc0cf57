"""How functions that nothing uses leave the control store: a program that makes them in a loop fills it otherwise.

A function is stored once and used by any number of specs, under a key that tells nothing of its age. It may go when no
recorded spec names it and no process takes it to be stored (``in_use``; those send a spec without its function). To
find such ones the store is gone through in rounds: functions that are not in use are gathered, up to
``CANDIDATES``; all specs are looked at, and what they name is none; what is left is deleted. Each commit that ages
the history does one small step, and only while functions take a good part of a store that is full.

Invariant: a candidate was not in use when it was gathered, so that a spec which names it either is in the store by
then, and is come by, or its submitter sends the function first: :meth:`UnusedFunctions.sent` takes it off.

Rejected: to count the specs of each function. That is work for each task of every program, for what few need; and the
counts would have to outlive the node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lmdb

from .messages import decode_spec

CANDIDATES = 100_000
SPECS_PER_STEP = 2048
FUNCTIONS_PER_STEP = 4096
DELETED_PER_STEP = 2048
"""Each with its pages, at a random place."""

SHARE = 8
"""Functions may take one part in so many of the limit before they are looked at."""

GATHER, LOOK, DELETE = range(3)


class UnusedFunctions:
    """Of the writer's side; see the module's essay."""

    def __init__(self, tables: dict[str, Any], limit: int) -> None:
        self.in_use: Callable[[bytes], bool] = lambda function: False
        """Whether a process takes it to be stored."""
        self._functions, self._specs = tables["functions"], tables["specs"]
        self._bytes = limit // SHARE
        self._phase = GATHER
        self._from = b""
        """Where the next round begins to gather."""
        self._at = b""
        """Behind the last spec that was looked at."""
        self._candidates: set[bytes] = set()
        self._coming: tuple[int, bytes, bytes] = (GATHER, b"", b"")
        self._deleted: list[bytes] = []

    @property
    def at_work(self) -> bool:
        """A round has begun."""
        return bool(self._candidates) or self._phase != GATHER

    def sent(self, function: bytes) -> None:
        """It comes in again."""
        self._candidates.discard(function)

    def step(self, txn: lmdb.Transaction) -> None:
        """Does a little, if it is worth it. Nothing counts before :meth:`committed`."""
        self._coming = self._phase, self._from, self._at
        self._deleted = []
        if self._phase == GATHER:
            stat = txn.stat(self._functions)
            pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
            if self.at_work or pages * stat["psize"] > self._bytes:
                self._gather(txn)
        elif self._phase == LOOK:
            self._look(txn)
        else:
            for function in self._candidates:
                if len(self._deleted) == DELETED_PER_STEP:
                    break
                self._deleted.append(function)
                txn.delete(function, db=self._functions)
            else:
                self._coming = GATHER, self._from, b""

    def committed(self) -> None:
        """So is the last step."""
        self._phase, self._from, self._at = self._coming
        self._candidates.difference_update(self._deleted)
        self._deleted = []

    def _gather(self, txn: lmdb.Transaction) -> None:
        cursor = txn.cursor(self._functions)
        more = cursor.set_range(self._from) if self._from else cursor.first()
        for _ in range(FUNCTIONS_PER_STEP):
            if not more or len(self._candidates) >= CANDIDATES:
                break
            function = bytes(cursor.key())
            if not self.in_use(function):
                self._candidates.add(function)
            more = cursor.next()
        else:
            if more:
                self._coming = GATHER, bytes(cursor.key()), b""
                return
        self._coming = LOOK if self._candidates else GATHER, bytes(cursor.key()) if more else b"", b""

    def _look(self, txn: lmdb.Transaction) -> None:
        cursor = txn.cursor(self._specs)
        more = cursor.set_range(self._at) if self._at else cursor.first()
        discard = self._candidates.discard
        for _ in range(SPECS_PER_STEP):
            if not more:
                break
            discard(decode_spec(cursor.value()).recipe.function)
            more = cursor.next()
        if more:
            self._coming = LOOK, self._from, bytes(cursor.key())
        else:
            self._coming = DELETE, self._from, b""
