"""What one process has to send, until it is sent.

Any thread posts; frames go out when somebody flushes: a program that waits, one that has posted much, or the endpoint's
background thread a few ms later. Messages to one peer leave in the order in which they were posted.

Specs and outcomes come by the hundred for each flush. They are appended to a deque, which takes no lock, and are
sorted into the outboxes at the flush, or when something else is posted, which so stays behind them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TypeVar

import msgspec

from .. import messages as m
from ..mailbox import Mailbox

T = TypeVar("T")


class Outboxes:
    """One for each peer. ``wake`` is called when something is posted while :attr:`watched`."""

    def __init__(self, mail: Mailbox[m.ProcessFrame], wake: Callable[[], None]) -> None:
        self._mail = mail
        self._wake = wake
        self.watched = False
        """Nobody sends unless it is woken."""
        self.lock = threading.RLock()  # a user's __del__ that prints may run inside, by garbage collection
        """Whoever holds it and posts, does so in the same moment as what else it does, as a ``resume`` sees it."""
        self.before_flush: Callable[[], None] = lambda: None
        """May post."""
        self._out: dict[str, list[m.Wire]] = {}
        self._specs: deque[msgspec.Raw] = deque()
        self._outcomes: deque[tuple[str, msgspec.Raw]] = deque()
        """With their owners."""

    def post(self, peer: str, message: m.Wire) -> None:
        """Puts a message into the outbox of ``peer``; it is sent with the next flush, in a few ms at most."""
        with self.lock:
            if self._specs or self._outcomes:
                self._collect()
            out = self._out.get(peer)
            if out is None:
                self._out[peer] = [message]
            else:
                out.append(message)
        if self.watched:
            self._wake()

    def batch(self, peer: str, kind: type[m.Batch], item: msgspec.Raw) -> int:
        """Posts ``item`` as part of a batch; returns how long the batch is now."""
        with self.lock:
            out = self._out.get(peer)
            if out is None:
                out = self._out[peer] = []
            if out and type(out[-1]) is kind:
                items = out[-1].items
                items.append(item)
                size = len(items)
            else:
                out.append(kind([item]))
                size = 1
        if size == 1 and self.watched:
            self._wake()
        return size

    def submit(self, spec: msgspec.Raw) -> int:
        """Posts the spec of a task to the node; returns how many have not been sent.

        These and outcomes are many for each flush. They are only gathered, and sorted into the outboxes then, or when
        something else is posted behind them.
        """
        specs = self._specs
        specs.append(spec)
        size = len(specs)
        if size == 1 and self.watched:
            self._wake()
        return size

    def report(self, owner: str, outcome: msgspec.Raw) -> int:
        """Posts an outcome to its owner and to the node; returns how many have not been sent."""
        outcomes = self._outcomes
        outcomes.append((owner, outcome))
        size = len(outcomes)
        if size == 1 and self.watched:
            self._wake()
        return size

    def unsent(self) -> bool:
        return bool(self._out or self._specs or self._outcomes)

    def _collect(self) -> None:
        """Other threads go on gathering meanwhile."""
        to_node = self._out.setdefault(m.NODE, [])
        if self._specs:
            to_node.append(m.Submit(_take_all(self._specs)))
        outcomes: dict[str, list[msgspec.Raw]] = {}
        for owner, outcome in _take_all(self._outcomes):
            if owner in outcomes:
                outcomes[owner].append(outcome)
            else:
                outcomes[owner] = [outcome]
        for owner, items in outcomes.items():
            self._out.setdefault(owner, []).append(m.RawResults(items))
            to_node.append(m.Done(items))

    def flush(self) -> None:
        """Sends all outboxes."""
        self.before_flush()
        if not self.unsent():
            return
        with self.lock:
            if self._specs or self._outcomes:
                self._collect()
            out = self._out
            for peer in list(out):
                messages = out.pop(peer)
                try:
                    self._mail.send(peer, messages)
                except BaseException:  # Ctrl-C
                    out[peer] = messages + out.get(peer, [])
                    raise

    def flush_to_node(self, patience: float) -> None:
        """Sends what the node is to have even if this process dies in the next moment; see :meth:`Mailbox.send`."""
        self.before_flush()
        with self.lock:
            self._collect()
            messages = self._out.pop(m.NODE)
            if not messages:  # another thread was quicker
                return
            try:
                self._mail.send(m.NODE, messages, patience)
            except BaseException:  # Ctrl-C
                self._out[m.NODE] = messages + self._out.get(m.NODE, [])
                raise

    def take(self, peer: str) -> list[m.Wire]:
        """Takes out what was to go to ``peer``. Under the lock."""
        if self._specs or self._outcomes:
            self._collect()
        return self._out.pop(peer, [])

    def drop(self, peer: str) -> None:
        """A process is gone."""
        with self.lock:
            self._out.pop(peer, None)
            self._mail.forget(peer)


def _take_all(gathered: deque[T]) -> list[T]:
    taken = []
    while gathered:
        taken.append(gathered.popleft())
    return taken
