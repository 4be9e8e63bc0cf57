"""Calls that arrive at an actor for what may be the second time.

Their caller runs once more, after its first attempt died or as the replay of an actor; or it sends again what had no
answer when this actor died. None of that may be applied twice to the same state.

The node knows: this process posts what it has run before it asks, on the same connection, so whatever ran was heard
of before the question. One question is for all that is queued, for a caller may send thousands again. An answer is out
of date once the call has been run, as the caller's first copy of it may be in the queue as well.

Rejected: to remember what was run, by caller. It grows with callers, and does not survive this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from .. import messages as m
from ..runtime.process import ProcessBackend


class Repeats:
    """See the module's essay. ``post_calls`` posts what has been run and not reported."""

    def __init__(self, backend: ProcessBackend, post_calls: Callable[[], None]) -> None:
        self._backend = backend
        self._post_calls = post_calls
        self._tokens = count()
        self._answers: dict[int, list[bytes]] = {}
        self.verdicts: dict[bytes, dict[str, bool]] = {}
        """What the node said of calls that are queued: whether each was run, by call and owner."""

    def on_known(self, sender: str, message: m.KnownCalls) -> None:
        self._answers[message.token] = message.tasks

    def has_run(self, spec: m.Spec, queue: Iterable[Any]) -> bool:
        """Whether the call was run before; its owner gets the outcome then."""
        if spec.recipe.owner not in self.verdicts.get(spec.task, ()):
            queued = (call for call in list(queue) if isinstance(call, m.Spec) and call.parent_attempt)
            self._ask([spec, *(call for call in queued if call.recipe.owner not in self.verdicts.get(call.task, ()))])
        run = self.verdicts[spec.task].pop(spec.recipe.owner)
        if not self.verdicts[spec.task]:
            del self.verdicts[spec.task]
        return run

    def _ask(self, calls: list[m.Spec]) -> None:
        token = next(self._tokens)
        self._post_calls()
        self._backend.post_node(m.Seen(token, [(call.task, call.recipe.owner) for call in calls]))
        self._backend.endpoint.wait_until(lambda: token in self._answers)
        known = set(self._answers.pop(token))
        for call in calls:
            self.verdicts.setdefault(call.task, {})[call.recipe.owner] = call.task in known
