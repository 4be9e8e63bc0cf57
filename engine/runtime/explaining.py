"""Asking one process after the other why an object is not there (see ``explanation.py``).

What is known here is taken first: a small value that has come, a call that waits here. For the rest the node is asked,
which knows where a large value is now, or names the process that knows more. Every question has a time limit, and all
together have one: an explanation that a hung process holds up would be of no use, and ``get`` asks for one when its
own time is up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .. import messages as m
from ..explanation import FAILED, READY, UNKNOWN, Explanation, error_line, short, where
from ..ids import task_of

if TYPE_CHECKING:
    from .process import ProcessBackend

PROCESS_SECONDS = 0.5
"""For a process other than the node; one that runs C code that holds the interpreter's lock does not answer."""

MOST_CAUSES = 5
MOST_STEPS = 50
DEEPEST = 20


class Explaining:
    """See the module's essay."""

    def __init__(self, process: ProcessBackend) -> None:
        self._process = process
        self.of_work: Callable[[bytes], m.Reason | None] = lambda task: None
        """What a worker knows of a task or call that it has."""

    def on_ask(self, sender: str, message: m.AskWhy) -> None:
        self._process.endpoint.post(sender, m.Because(message.token, self._own(message.object_id)))

    def _own(self, oid: bytes) -> m.Reason | None:
        task = task_of(oid)
        return self.of_work(task) or self._process.calls.explain(task)

    def explain(self, oid: bytes, limit: float) -> Explanation:
        """Takes ``limit`` seconds at most."""
        return _Search(self._process, self._own, time.monotonic() + limit).explain(oid, 0)


class _Search:
    """One explanation that is being put together."""

    def __init__(self, process: ProcessBackend, own: Callable[[bytes], m.Reason | None], deadline: float) -> None:
        self._process = process
        self._own = own
        self._deadline = deadline
        self._seen: set[bytes] = set()

    def explain(self, oid: bytes, depth: int) -> Explanation:
        if oid in self._seen:
            return Explanation(UNKNOWN, f"{short(task_of(oid))}: as above")
        self._seen.add(oid)
        entry = self._process.objects.entries.get(oid)
        value = None if entry is None else entry.value
        if isinstance(value, m.Failed):
            return self._failed(oid, value)
        if isinstance(value, m.Inline):
            return Explanation(READY, where(oid, value))
        reason = self._own(oid)
        if reason is None:
            answered, reason = self._ask(m.NODE, oid, self._remaining())
        if reason is None and value is not None:
            return Explanation(READY, where(oid, value))
        if reason is None:
            about = "nothing is known of it; it may have been freed" if answered else "the node did not answer in time"
            return Explanation(UNKNOWN, f"{short(task_of(oid))}: {about}")
        text, state, waits_for, process = reason.text, reason.state, reason.waits_for, reason.process
        if state == FAILED:  # and its error is not here
            text = f"{short(task_of(oid))} {text}"
        asked: set[str] = set()
        while process and process not in asked:
            asked.add(process)
            answered, more = self._of(process, oid)
            if more is None:
                text += "; it has ended there just now" if answered else f"; {process} does not answer"
                break
            text += f"; {more.text}"
            state, waits_for, process = more.state or state, more.waits_for or waits_for, more.process
        shown = waits_for[:MOST_CAUSES] if depth < DEEPEST and len(self._seen) < MOST_STEPS else []
        causes = [self.explain(each, depth + 1) for each in shown]
        if len(waits_for) > len(shown):
            causes.append(Explanation(UNKNOWN, f"… and {len(waits_for) - len(shown)} more"))
        return Explanation(state, text, tuple(causes))

    def _failed(self, oid: bytes, value: m.Failed) -> Explanation:
        text = f"{short(task_of(oid))} failed: {error_line(value.error)}"
        _, reason = self._ask(m.NODE, oid, self._remaining())
        return Explanation(FAILED, f"{text}; {reason.text}" if reason is not None and reason.text else text)

    def _of(self, process: str, oid: bytes) -> tuple[bool, m.Reason | None]:
        if process == self._process.process:
            return True, self._own(oid)
        return self._ask(process, oid, min(PROCESS_SECONDS, self._remaining()))

    def _ask(self, peer: str, oid: bytes, limit: float) -> tuple[bool, m.Reason | None]:
        """Whether there was an answer, and what it says."""
        if limit <= 0:
            return False, None
        questions = self._process.questions
        token = questions.next_token()
        because: m.Because | None = questions.try_to_ask(peer, token, m.AskWhy(token, oid), limit)
        return because is not None, None if because is None else because.reason

    def _remaining(self) -> float:
        return self._deadline - time.monotonic()
