"""Actors that cannot answer a new node yet: it goes on without them.

The problem: a process answers with Python, and C code may keep the interpreter's lock for seconds: an import of torch,
a call into a library; and a process that is stopped answers when it is let go on. All others would wait for it.

What an actor's process has is known without its word: its creation, and nothing else, for it has no queue of tasks. So
it is put in its place. Its messages, and the tasks that it submitted, wait for its report, as if they had been on
their way all the time.

Invariant: nothing of such a process is handled before its report and all frames that are older than that, or its end.

Not so a process that runs tasks. Which ones it has only it can say; run elsewhere, they might run twice. It is waited
for, and killed after a minute, since all others wait with it (``watchman.py``). So is an actor that has GPUs waited
for, since only it can say which; that is not killed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import messages as m
from .actors import ALIVE, DEAD, Actor

if TYPE_CHECKING:
    from ..mailbox import Mailbox
    from .daemon import Daemon
    from .successor import Successor

PATIENCE_SECONDS = 0.25
"""For which all are waited for. A process that could have answered and is late loses nothing."""


@dataclass
class Latecomer:
    report: m.Report | None = None
    frames: list[m.NodeFrame] = field(default_factory=list)
    following: int = 0
    """Number of the next frame that is to come."""


class Latecomers:
    """See the module's essay."""

    def __init__(self, node: Daemon, mail: Mailbox[m.NodeFrame]) -> None:
        self._node = node
        self._mail = mail
        self.expected: dict[str, Latecomer] = {}
        """By process; usually empty."""
        self._successor: Successor | None = None
        self._marks: dict[str, int] = {}

    def expect(self, actors: dict[str, Actor], successor: Successor, marks: dict[str, int]) -> None:
        """These have not reported. ``marks``: numbers of the frames of theirs that come next."""
        self.expected.update({process: Latecomer(following=marks.get(process, 0)) for process in actors})
        self._successor = successor
        self._marks = marks

    def take(self, frame: m.NodeFrame) -> None:
        """A frame of one of them."""
        process = frame.sender
        late = self.expected[process]
        if frame.number == m.UNNUMBERED:
            (report,) = frame.messages
            assert isinstance(report, m.Report)
            late.report = report
            late.following = max(report.first, late.following)
            self._mail.begin_at(process, late.following)
        elif frame.number >= self._marks.get(process, 0):  # of one that ends without a report all come
            late.frames.append(frame)
            late.following = max(late.following, frame.number + 1)
        if late.report is not None and late.following >= late.report.next:
            del self.expected[process]
            self._place(process, late.report, late.frames)

    def _place(self, process: str, report: m.Report, frames: list[m.NodeFrame]) -> None:
        assert self._successor is not None
        self._node.journal.joined(process, report.role, report.pid)
        self._successor.place_submitted(process, report)
        self._successor.handle(frames, {process: report})
        self._node.objects.reclaim({process: report.blocks})

    def ended(self, process: str) -> None:
        """One of them is dead, and all that it has sent was taken."""
        assert self._successor is not None
        late = self.expected.pop(process)
        self._successor.place_orphans(process)
        self._successor.handle(late.frames, {})

    def actor_of(self, process: str) -> Actor | None:
        """The actor that a process is, or is just becoming; None when it is to be waited for."""
        actor = self._node.actors.table.get(self._node.pool.note(process))
        if actor is None or actor.creation.demand.get("GPU"):
            return None
        if actor.state == DEAD:  # it was to be killed
            self._node.pool.kill(process)
            return None
        return actor if actor.state != ALIVE or actor.worker == process else None
