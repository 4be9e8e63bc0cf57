"""What the owner of tasks says when their worker has died: which of them have ended, and with what result.

The worker told the owner first, and may have died before it told the node (``node/doubts.py``). What has ended here
ended, and the node records it. Of the others the answer is a promise: nothing that still comes from the dead worker
counts, for the node is about to run them again.

Only small results without refs inside are told. The node hears of any other before its owner does; and where that
report is lost with the worker, its memory and its hold on what is inside are, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import messages as m
from ..exceptions import ObjectLostError
from ..ids import object_id
from ..serialization import dump_engine_error

if TYPE_CHECKING:
    from .process import ProcessBackend


class Recalling:
    """See the module's essay. Used by the thread that handles messages."""

    def __init__(self, process: ProcessBackend) -> None:
        self._process = process
        self.promised: dict[bytes, str] = {}
        """Unfinished tasks, with the dead worker that can no longer end them."""

    def on_recall(self, sender: str, message: m.Recall) -> None:
        ended = []
        for task, num_returns in message.tasks:
            if self._process.unfinished.has(task):
                self.promised[task] = message.worker
                continue
            values = self._values(task, num_returns)
            if values is not None:
                ended.append((task, values))
        self._process.post_node(m.Recalled(message.worker, ended))

    def that_count(self, sender: str, outcomes: list[m.Outcome]) -> list[m.Outcome]:
        """Those that do not break a promise."""
        counting = [outcome for outcome in outcomes if self.promised.get(outcome.task) != sender]
        for outcome in counting:
            self.promised.pop(outcome.task, None)
        return counting

    def _values(self, task: bytes, num_returns: int) -> list[m.Value] | None:
        """Of a task that has ended; None when there are none left that could be told."""
        entries = self._process.objects.entries
        values: list[m.Value] = []
        left = 0
        for index in range(num_returns):
            oid = object_id(task, index)
            entry = entries.get(oid)
            value = None if entry is None else entry.value
            if value is None:
                lost = ObjectLostError(f"ObjectRef({oid.hex()}) has been freed: nobody held it")
                value = m.Failed(dump_engine_error(lost))
            elif isinstance(value, m.Shm) or (isinstance(value, m.Inline) and value.refs):
                return None
            else:
                left += 1
            values.append(value)
        return values if left or not num_returns else None
