"""The mail of one process: frames out to its peers, frames in from them, in order.

The problem: ZeroMQ queues without bound, reconnects and never blocks, but between the caller and the wire stand two
I/O threads, so a frame costs four thread switches and about 45 µs (2-core machine). A datagram on a Unix socket
costs one switch and about 25 µs, and the kernel keeps ten of them at most.

So each process has two letter boxes: a ZeroMQ socket, and beside it a datagram socket as the *express lane*. A short
frame goes by the lane when the receiver's has room, any other one by ZeroMQ. A receiver that is slow, stopped or not
there yet therefore gets its mail by ZeroMQ, and nobody waits for it.

Invariant: frames of one sender are handed over in the order in which they were sent. They are numbered, and a frame
that overtook another one on the other way waits for it. A process that died may have taken frames with it; what
waits for those is handed over by :meth:`Mailbox.end_of`.

A process may be started anew while its peers live on: the node. Frames that it had received and not committed die
with it, and so do those that lie in queues of its sockets. So its peers keep what they send it until it says that
it has committed it, and :meth:`Mailbox.moved` sends that to the inbox of its successor, with the same numbers; what
the successor's store has already, it drops by number. Frames of the predecessor that still lie somewhere are stale
orders by then and are dropped by :meth:`Mailbox.fence`.

Rejected: Unix sockets alone (what ZeroMQ does for slow receivers would have to be written again), and shared memory
with a semaphore (as fast as the lane, and Python cannot wait for one together with a socket).
"""

from __future__ import annotations

import os
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import zmq

from . import messages as m
from .departed import Departed
from .lane import LONGEST, Address, Glance, Lane, let_others_run
from .session import FAULTS, Session
from .unacknowledged import Unacknowledged

MOST_BY_LANE = 8
"""Frames after which a spinning wait looks for what came by other ways."""

FENCED = -2
NONE_YET = -3
"""In place of the number of the next frame: none counts any more, or it is not known yet."""


class Frame(Protocol):
    """What is in a frame, as far as the mail looks."""

    @property
    def sender(self) -> str: ...
    @property
    def number(self) -> int: ...


F = TypeVar("F", bound=Frame)


class Mailbox(Generic[F]):
    """See the module's essay. Sending and receiving may be in different threads; each of them in one at a time."""

    def __init__(self, session: Session, name: str, decode: Callable[[bytes], F]) -> None:
        self.name = name
        self.frames: deque[F] = deque()
        """What has come and may be handled, in order. Whoever handles a frame takes it out."""
        self._session = session
        self._decode = decode
        self._context = zmq.Context()
        self._inbox = self._context.socket(zmq.PULL)
        self._inbox.setsockopt(zmq.RCVHWM, 0)
        self._inbox.bind(session.address(name))
        self._inbox_fd = int(self._inbox.getsockopt(zmq.FD))
        self._lane = Lane(session.lane(name))
        self._lane_fd = self._lane.fileno()
        self._poller = select.poll()  # ZeroMQ's own poller costs three times as much per call
        self._watched: set[int] = set()
        self.watch(self._inbox_fd)
        self.watch(self._lane_fd)
        self._events: list[tuple[int, int]] = []
        self._inbox_drained = False
        """ZeroMQ's fd tells of changes only: it may be slept on when there was nothing at the last look."""
        self._by_lane = 0
        self._peers: dict[str, zmq.Socket[bytes]] = {}
        self._lanes: dict[str, Address] = {}
        self._sent: dict[str, int] = {}
        self._kept: dict[str, Unacknowledged] = {}
        self._inboxes: dict[str, str] = {}
        """Of those for whom frames are kept: another process may have taken their place."""
        self._expected: dict[str, int] = {}
        self._early: dict[str, dict[int, F]] = {}
        """Frames that overtook others, by sender and number."""
        self._ended = Departed()
        self.queued: Callable[[str, int], None] = lambda peer, size: None
        """Called for frames that were left to ZeroMQ, which keeps them as long as the receiver does not read."""
        self._fenced: set[str] = set()
        if FAULTS in os.environ:
            from .testing.faults import arm

            arm(self, session)

    # ------------------------------------------------------------ sending

    def send(self, peer: str, messages: list[m.Wire], patience: float = 0.0) -> None:
        """Sends one frame. What is for a process that has ended is dropped.

        It does not block, but for ``patience`` seconds if the lane has no room. What is in the lane arrives though this
        process dies in the next moment; what ZeroMQ has taken may not.
        """
        number = self._sent.get(peer)
        if number is None:
            if peer in self._ended:  # a socket would wait for it for ever
                return
            number = 0
            self._lanes[peer] = Address(self._session.lane(self._inboxes.get(peer, peer)))
        kept = self._kept.get(peer)
        if kept is None:
            data = m.encode(m.OutFrame(self.name, number, messages))
        else:
            asking = [*messages, m.WantAcknowledgement(number)] if kept.asks() else messages
            data = m.encode(m.OutFrame(self.name, number, asking))
            kept.add(number, messages, len(data))
        self._sent[peer] = number + 1
        self._transmit(peer, data, patience)

    def _transmit(self, peer: str, data: bytes, patience: float = 0.0) -> None:
        if len(data) > LONGEST or not (
            self._lane.send(self._lanes[peer], data) or (patience and self._finds_room(peer, data, patience))
        ):
            self._socket(peer).send(data)
            self.queued(peer, len(data))

    def _finds_room(self, peer: str, data: bytes, patience: float) -> bool:
        """Whether the receiver takes something out of its lane within that time, so that the frame goes there."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            let_others_run()
            if self._lane.send(self._lanes[peer], data):
                return True
        return False

    def _socket(self, peer: str) -> zmq.Socket[bytes]:
        socket = self._peers.get(peer)
        if socket is None:
            socket = self._context.socket(zmq.PUSH)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.connect(self._session.address(self._inboxes.get(peer, peer)))
            self._peers[peer] = socket
        return socket

    def keep(self, peer: str, inbox: str) -> Unacknowledged:
        """From now on what is sent to ``peer``, whose inbox is there, is kept until it is acknowledged."""
        kept = self._kept[peer] = Unacknowledged()
        self._inboxes[peer] = inbox
        return kept

    def forget(self, peer: str) -> None:
        """Closes the connection to a process that is gone."""
        self._sent.pop(peer, None)
        self._lanes.pop(peer, None)
        self._disconnect(peer)

    def _disconnect(self, peer: str) -> None:
        socket = self._peers.pop(peer, None)
        if socket is not None:
            socket.close(linger=0)

    def peers(self) -> set[str]:
        """To whom something was sent or from whom something came, except those that ended."""
        return {peer for peer in {*self._sent, *self._expected} - self._fenced if peer not in self._ended}

    def unsent(self, peer: str, messages: list[m.Wire]) -> None:
        """Like :meth:`send`, to a peer that is dead: the frame waits for :meth:`moved`."""
        number = self._sent.get(peer, 0)
        self._sent[peer] = number + 1
        self._kept[peer].add(number, messages, 0)

    def moved(self, peer: str, inbox: str, report: m.Report) -> None:
        """Another process took the place of ``peer``: all that is sent goes to its ``inbox`` from now on.

        It gets the report, in a frame outside of the order, and after it what the old one had not acknowledged, with
        the same numbers: from ``report.first`` on, before ``report.next``.
        """
        self._disconnect(peer)
        self._inboxes[peer] = inbox
        self._lanes[peer] = Address(self._session.lane(inbox))
        following = self._sent.setdefault(peer, 0)
        kept = self._kept[peer].frames()
        report.first, report.next = kept[0][0] if kept else following, following
        self._transmit(peer, m.encode(m.OutFrame(self.name, m.UNNUMBERED, [report])))
        for number, messages in kept:
            self._transmit(peer, m.encode(m.OutFrame(self.name, number, messages)))

    # ------------------------------------------------------------ receiving

    def fds(self) -> list[int]:
        """What becomes readable when there may be something to receive; to be looked at again after each time."""
        return [self._lane_fd, self._inbox_fd]

    def watch(self, fd: int) -> None:
        """From now on :meth:`wait` also ends when ``fd`` can be read."""
        self._poller.register(fd, select.POLLIN)
        self._watched.add(fd)
        self._glance = Glance(self._watched)

    def unwatch(self, fd: int) -> None:
        self._poller.unregister(fd)
        self._watched.remove(fd)
        self._glance = Glance(self._watched)

    def wait(self, timeout: float | None, spin: float = 0.0) -> None:
        """Waits, ``timeout`` seconds at most, until there is something to receive or a watched fd can be read.

        It may also return for nothing. Before it sleeps it looks into the lane for ``spin`` seconds, letting others
        run in between: to wake a sleeping CPU costs 20 to 30 µs, of each hop. It keeps the interpreter's lock
        meanwhile, which beside a busy thread would be back after 5 ms (see ``lane.py``). May be interrupted anywhere.
        """
        self._events = []
        if self.frames:
            return
        if not self._inbox_drained:
            timeout = 0
        elif spin:
            self._by_lane += 1
            if self._by_lane > MOST_BY_LANE:
                self._by_lane = 0
                if self._glance.any_ready():
                    self._events = self._poller.poll(0)
                    return
            until = time.perf_counter() + spin
            while not self._look_into_lane():
                if time.perf_counter() > until:
                    break
                let_others_run()
            else:
                return
        self._events = self._poller.poll(None if timeout is None else timeout * 1000)

    def receive(self) -> list[int]:
        """Takes in what the last :meth:`wait` saw, one frame by each way; returns the watched fds that can be read."""
        watched = []
        events, self._events = self._events, []
        for fd, _ in events:
            if fd == self._lane_fd:
                self._look_into_lane()
            elif fd == self._inbox_fd:
                self._inbox_drained = False
            else:
                watched.append(fd)
        if not self._inbox_drained:
            self._look_into_inbox()
        return watched

    def _look_into_lane(self) -> bool:
        """Takes one frame out of the lane; whether there was one."""
        data = self._lane.receive()
        if data is None:
            return False
        self._arrived(data)
        return True

    def _look_into_inbox(self) -> None:
        """Takes one frame out of ZeroMQ's socket, if there is one."""
        try:
            data = self._inbox.recv(zmq.NOBLOCK)
        except zmq.Again:
            self._inbox_drained = True
        else:
            self._inbox_drained = False
            self._arrived(data)

    def _arrived(self, data: bytes) -> None:
        frame = self._decode(data)
        sender = frame.sender
        expected = self._expected.get(sender, 0)
        if frame.number != expected:
            if frame.number == m.UNNUMBERED:
                self.frames.append(frame)
                return
            if sender in self._fenced or frame.number < expected:
                return
            if sender in self._ended:
                self.frames.append(frame)
                return
            if frame.number < expected:  # it came before
                return
            self._early.setdefault(sender, {})[frame.number] = frame
            return
        expected += 1
        self.frames.append(frame)
        early = self._early.get(sender)
        if early:
            while expected in early:
                self.frames.append(early.pop(expected))
                expected += 1
        self._expected[sender] = expected

    def end_of(self, sender: str) -> None:
        """Nothing more will come from it: what waits for lost frames is handed over."""
        early = self._early.pop(sender, {})
        self._expected.pop(sender, None)
        self.frames.extend(early[number] for number in sorted(early))
        self._ended.add(sender)

    def arrived(self, sender: str) -> int:
        """Number of the next frame of ``sender`` that has not come, all earlier ones being there."""
        return self._expected.get(sender, 0)

    def hold_back(self, sender: str) -> None:
        """Hands over no frames of ``sender`` before :meth:`begin_at` says which is the first."""
        self._expected[sender] = NONE_YET

    def begin_at(self, sender: str, number: int) -> None:
        """The next frame to be handed over of ``sender`` is this one: earlier ones have been, before this process."""
        self._expected[sender] = number
        early = self._early.pop(sender, {})
        while number in early:
            self.frames.append(early.pop(number))
            number += 1
        self._expected[sender] = number
        if early := {later: frame for later, frame in early.items() if later > number}:
            self._early[sender] = early

    def fence(self, sender: str) -> None:
        """Nothing of ``sender`` that has not been handled counts any more."""
        self._fenced.add(sender)
        self._early.pop(sender, None)
        self._expected[sender] = FENCED
        for frame in [frame for frame in self.frames if frame.sender == sender]:
            self.frames.remove(frame)

    def close(self, linger_ms: int) -> None:
        """Gives what was sent ``linger_ms`` to go."""
        for peer in self._peers.values():
            peer.close(linger_ms)
        self._inbox.close(linger=0)
        self._context.term()
        self._lane.close()


__all__ = ["Mailbox"]
