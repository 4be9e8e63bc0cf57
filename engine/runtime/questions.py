"""What a process asks the node and waits for the answer to. A question that a dead node took with it is asked again."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from .. import messages as m

if TYPE_CHECKING:
    from .process import ProcessBackend


class Questions:
    """See the module's essay."""

    def __init__(self, process: ProcessBackend) -> None:
        self._process = process
        self._tokens = count(1)
        self._open: set[int] = set()
        self._answers: dict[int, Any] = {}

    def next_token(self) -> int:
        return next(self._tokens)

    def answered(self, token: int, answer: Any) -> None:
        if token in self._open:
            self._answers[token] = answer

    def ask(self, token: int, question: m.Wire) -> Any:
        """The node's answer, which bears the token that the question has."""
        self._open.add(token)
        self._process.resuming.ask(token, question)
        self._process.wait_until(lambda: token in self._answers, None, ())
        self._process.resuming.answered(token)
        self._open.discard(token)
        return self._answers.pop(token)

    def try_to_ask(self, peer: str, token: int, question: m.Wire, limit: float) -> Any:
        """What a process answers within ``limit`` seconds, or None. A task that asks keeps its CPUs and its queue."""
        self._open.add(token)
        endpoint = self._process.endpoint
        try:
            endpoint.post(peer, question)
            endpoint.wait_until(lambda: token in self._answers or bool(self._process.failure), limit)
        finally:
            self._open.discard(token)
        return self._answers.pop(token, None)

    def amounts(self, what: str) -> dict[str, float]:
        """Numbers by name: see ``node/info_desk.py`` for what there is."""
        self._process.endpoint.flush()  # what was dropped before the question goes ahead of it
        token = self.next_token()
        answer: dict[str, float] = self.ask(token, m.Ask(token, what))
        return answer

    def census(self) -> dict[str, float]:
        """How much of what costs memory this process and the node know; all zero when nothing is in use."""
        process = self._process
        return {
            "objects of the process": len(process.objects.entries),
            "calls on their way": len(process.calls.in_flight),
            "actors known to the process": len(process.calls),
            "arguments held for tasks": process.pinned(),
            "blocks of shared memory of the process": process.storage.arena.blocks(),
            **self.amounts("census"),
        }
