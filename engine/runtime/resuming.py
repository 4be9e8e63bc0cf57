"""When the node was started anew: what this process tells it, and asks it again.

The frames that the last node did not acknowledge are sent again by the mailbox, and the new one takes each exactly
once. What is left to do here is what the last node knew and did not write down (who runs what, which tasks their
owner still waits for), and what it may have been asked and has not answered. Asking twice does no harm, nor does
cancelling twice. What the last node may have had to say without being asked, that memory is free again, follows from
the blocks that the report names.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from .. import messages as m

if TYPE_CHECKING:
    from .process import ProcessBackend

CANCELS = 1000
"""The last ones, which are sent again: the node may have died before it could tell the worker."""


class Resuming:
    """See the module's essay. Used by the thread that handles messages, but for :meth:`ask` and :meth:`answered`."""

    def __init__(self, process: ProcessBackend) -> None:
        self._process = process
        self._questions: dict[int, m.Wire] = {}
        self._cancels: deque[m.Cancel] = deque(maxlen=CANCELS)
        self._blocks: list[tuple[str, int, int]] = []
        self._incarnation = 0

    def ask(self, token: int, question: m.Wire) -> None:
        """Posts a question that the node answers with ``token``."""
        self._questions[token] = question
        self._process.post_node(question)

    def answered(self, token: int) -> None:
        self._questions.pop(token, None)

    def cancel(self, request: m.Cancel) -> None:
        self._cancels.append(request)
        self._process.post_node(request)

    def on_resume(self, sender: str, message: m.Resume) -> None:
        process = self._process
        if message.incarnation < self._incarnation:  # it is dead as well, and its word comes late
            return
        self._incarnation = message.incarnation
        dead = process.endpoint.peers() - {*message.workers, process.session.driver, process.process}
        if dead:  # they may have told us, and the last node only
            process.objects.publish_results_of(dead)
        self._blocks = process.storage.arena.all_announced()
        process.endpoint.out.before_flush()  # an actor's log tells of some of them
        process.endpoint.resume(message.inbox, self._report)
        for peer in dead:
            process.peer_ended(peer)
        process.reconciliation.start_over()  # what it asked for follows from the report
        process.calls.watch_again()
        if asked := process.objects.asked():
            process.post_node(m.Resolve(asked))
        for question in list(self._questions.values()):
            process.post_node(question)
        for cancel in list(self._cancels):
            process.post_node(cancel)
        process.endpoint.flush()

    def _report(self) -> m.Report:
        process = self._process
        report = m.Report(process.role, os.getpid(), process.unfinished.tasks(), blocks=self._blocks)
        process.report_work(report)
        return report
