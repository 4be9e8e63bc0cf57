"""After the death of a worker: which of our tasks did it finish, whose results it may have taken with it?

The node knows, but a process may wait for half a million tasks. So it asks page by page, the next when the last has
been answered, and the node goes on with its other work in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count

from .. import messages as m

TASKS_PER_PAGE = 1000


class Reconciliation:
    """See the module's essay. Used by the thread that handles messages."""

    def __init__(self, post_node: Callable[[m.Wire], None]) -> None:
        self._post_node = post_node
        self._numbers = count()
        self._pages: deque[m.Reconcile] = deque()
        """Those to be asked; the first one has been."""

    def ask(self, worker: str, tasks: list[bytes]) -> None:
        idle = not self._pages
        for start in range(0, len(tasks), TASKS_PER_PAGE):
            page = m.Reconcile(worker, tasks[start:start + TASKS_PER_PAGE], next(self._numbers))
            self._pages.append(page)
        if idle and self._pages:
            self._post_node(self._pages[0])

    def start_over(self) -> None:
        """Nothing of what was asked will be answered."""
        self._pages.clear()

    def answered(self, page: int) -> None:
        while self._pages and self._pages[0].page <= page:
            self._pages.popleft()
        if self._pages:
            self._post_node(self._pages[0])
