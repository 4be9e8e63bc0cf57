"""How the control store stays within its bound: what nothing needs any more goes, oldest first.

The keys of the tables are ids, which tell the order within one submitter only. So the order of all that comes in is
written down as well: table ``ages`` has, under growing numbers, the ids of ``IDS_PER_RECORD`` records each. When the
tables are larger than the limit, each new record in ``ages`` has the oldest ones looked through: what is not needed
is deleted, what is (``needed``) is written down again as young. The ids of one submitter lie side by side, so deleting
costs 0.3 µs a task and table, and pages that became free are used for what comes next: the file stops growing.

Functions are no task's, and have a room of their own (``unused_functions.py``).

Nothing here may change before its transaction is committed: :meth:`History.grow` gives what is to be kept instead.

Rejected: a clock in the keys (a result is looked up by its id alone), one bound per submitter (there are millions).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lmdb

from .ids import TASK_BYTES
from .unused_functions import UnusedFunctions

IDS_PER_RECORD = 512
RECORDS_AT_ONCE = 4
"""Old records looked through for each new one, so that a commit stays short."""

FLUSHED = b"flushed"


class History:
    """Of the writer's side; see the module's essay."""

    def __init__(self, env: lmdb.Environment, tables: dict[str, Any], limit: int) -> None:
        self.limit = limit
        self.needed: Callable[[bytes], bool] = lambda task: False
        """Whether something live needs what is recorded under a task id."""
        self.overfull = False
        """It is twice as large as it should be, and of the oldest that were looked at last less went than came in."""
        self.functions = UnusedFunctions(tables, limit)
        self._tables = tables
        with env.begin() as txn:
            cursor = txn.cursor(tables["ages"])
            self._next = int.from_bytes(cursor.key(), "big") + 1 if cursor.last() else 0
            self.flushed = int.from_bytes(txn.get(FLUSHED, b"", db=tables["meta"]), "big")
            """Tasks whose records were deleted, since the store was made."""
        self._young = b""
        self._coming: tuple[bytes, int, int] = (b"", self._next, self.flushed)

    def grow(self, txn: lmdb.Transaction, ids: bytes, all_of_it: bool) -> None:
        """Notes that records with these ids (one after the other) came in, and deletes old ones if it must."""
        young = self._young + ids
        number, flushed = self._next, self.flushed
        if len(young) >= IDS_PER_RECORD * TASK_BYTES or (all_of_it and young):
            used = self._used(txn)
            kept, deleted = self._cut(txn) if used > self.limit else (b"", 0)
            if used > self.limit or self.functions.at_work:
                self.functions.step(txn)
            self.overfull = used > 2 * self.limit and deleted < IDS_PER_RECORD
            txn.put(number.to_bytes(8, "big"), young + kept, db=self._tables["ages"], append=True)
            if deleted:
                flushed += deleted
                txn.put(FLUSHED, flushed.to_bytes(8, "big"), db=self._tables["meta"])
            young, number = b"", number + 1
        self._coming = (young, number, flushed)

    def committed(self) -> None:
        self._young, self._next, self.flushed = self._coming
        self.functions.committed()

    def _used(self, txn: lmdb.Transaction) -> int:
        """Bytes of the pages that are in use; the file also has free ones."""
        used = 0
        for table in self._tables.values():
            stat = txn.stat(table)
            used += (stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"]
        return used

    def _cut(self, txn: lmdb.Transaction) -> tuple[bytes, int]:
        """Deletes what the oldest records name. Returns the ids that are still needed, and how many went."""
        specs, outcomes = self._tables["specs"], self._tables["outcomes"]
        kept = []
        deleted = 0
        any_stored = txn.stat(self._tables["stored"])["entries"]
        ages = txn.cursor(self._tables["ages"])
        for _ in range(RECORDS_AT_ONCE):
            if not ages.first():
                break
            ids = bytes(ages.value())
            for start in range(0, len(ids), TASK_BYTES):
                task = ids[start:start + TASK_BYTES]
                if self.needed(task):
                    kept.append(task)
                    continue
                deleted += txn.delete(task, db=specs)
                txn.delete(task, db=outcomes)
                if any_stored:
                    self._delete_stored(txn, task)
            ages.delete()
        return b"".join(kept), deleted

    def _delete_stored(self, txn: lmdb.Transaction, task: bytes) -> None:
        cursor = txn.cursor(self._tables["stored"])
        while cursor.set_range(task) and bytes(cursor.key()).startswith(task):
            cursor.delete()
