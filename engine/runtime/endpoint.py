"""The inbox and outboxes of one process, and the question of which thread serves them.

The problem: a background thread that receives costs a thread switch per message (50 µs and the GIL), no background
thread means that nobody answers while user code runs. The answer is leader and followers. Whoever waits *leads*: it
polls the inbox itself and handles what arrives, so a ``get`` costs no thread switch. Only when nobody has led for
``GRACE`` seconds does the background thread take over; it then sends what is left in the outboxes and receives,
until somebody wants to wait and wakes it up.

Rules: only the leader receives and handles (``_lead`` is held); any thread may post, and send
(``outboxes.py``); frames of one peer to another keep their order. A handler may be interrupted by KeyboardInterrupt
at any point: the frame is kept and handled again, so handlers have to be idempotent.

Rejected: asyncio (several times slower per message), a thread of its own for each direction (see above).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .. import messages as m
from ..mailbox import Mailbox
from ..session import Session
from .outboxes import Outboxes

GRACE = 0.003
PARK_AFTER = 0.05
"""Seconds of uninterrupted leading by others after which the background thread sleeps until it is called."""

TAKE_OVER_SECONDS = 0.001
"""How often a thread that wants the lead looks whether it is still the background thread's to give."""

LINGER_MS = 200
FRAMES_AT_ONCE = 64
"""What a program that submits takes in between, at most."""

SPIN_SECONDS = 0.0002
SHORT_WAIT = 0.0004
"""After a wait that was shorter than this the next one spins: the answer is probably as quick again."""

TRIES_AGAIN_AFTER = 16
"""Long waits after which one spins all the same: beside a busy thread a wait is long just because it slept."""


class Endpoint:
    """See the module's essay. ``handle(sender, message)`` is called by the leader for each message."""

    def __init__(self, session: Session, name: str, handle: Callable[[str, m.ToProcess], None], watch_fd: int = -1,
                 watched_ended: Callable[[], None] = lambda: None, node_inbox: str = m.NODE) -> None:
        self.name = name
        self._node_inbox = node_inbox
        self._session = session
        self._handle = handle
        self._watch_fd = watch_fd
        self._watched_ended = watched_ended
        self._mail: Mailbox[m.ProcessFrame] = Mailbox(session, name, m.decode_process_frame)
        self.unacknowledged = self._mail.keep(m.NODE, node_inbox)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._mail.watch(self._wake_fd)
        if watch_fd >= 0:
            self._mail.watch(watch_fd)
        self._spin = 0.0
        self._long_waits = 0
        self._lead = threading.Lock()
        self._background_leads = False
        self._loop_leads = False
        self._handling = 0
        """The thread that handles messages right now."""
        self._followers = 0
        self._wanted = 0
        """Threads that want the lead from the background thread."""
        self._progress = threading.Condition()
        self._led_at = time.monotonic()
        self._parked = False
        """The background thread sleeps until somebody posts, or stops leading."""
        self._unpark = threading.Event()
        self.out = Outboxes(self._mail, self._wake_background)
        self.post, self.batch = self.out.post, self.out.batch
        self.submit, self.report = self.out.submit, self.out.report
        self.flush, self.flush_to_node = self.out.flush, self.out.flush_to_node
        self._closed = False
        self.on_tick: Callable[[], None] = lambda: None
        """Called by the background thread every few ms while the process is active; may post."""
        self._thread = threading.Thread(target=self._background, name="rlflow-endpoint", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ peers

    def ended(self, peer: str) -> None:
        """A process is gone. Called by the leader."""
        self._mail.end_of(peer)
        self.out.drop(peer)

    def count_queued(self, count: Callable[[str, int], None]) -> None:
        """Has ``count(peer, bytes)`` called for what the peer's lane had no room for, by the thread that sends."""
        self._mail.queued = count

    def peers(self) -> set[str]:
        """Processes that this one has had to do with, the node apart."""
        return self._mail.peers() - {m.NODE, self._node_inbox}

    def resume(self, inbox: str, report: Callable[[], m.Report]) -> None:
        """There is a new node: tells it how things are, and what the last one may not have heard. By the leader.

        ``report()`` is asked while nothing can be posted, so it is of one moment in the order of messages. Outcomes are
        gathered without a lock: it is asked before they are collected, and so a task that ends in this moment is in
        the report or among them.
        """
        with self.out.lock:
            if inbox != self._node_inbox:
                self._mail.fence(self._node_inbox)
                self._node_inbox = inbox
            answer = report()
            if messages := self.out.take(m.NODE):
                self._mail.unsent(m.NODE, messages)
            self._mail.moved(m.NODE, inbox, answer)

    # ------------------------------------------------------------ waiting

    def wait_until(self, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Serves the inbox until ``ready()``; False when ``timeout`` seconds pass first."""
        self.flush()
        if ready():
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._lead.acquire(blocking=False):
                try:
                    return self._lead_until(ready, deadline)
                finally:
                    self._stop_leading()
            if self._background_leads and self._take_over(deadline):
                try:
                    return self._lead_until(ready, deadline)
                finally:
                    self._stop_leading()
            # Another thread of the user's leads: it tells us when something has happened, or when it stops.
            with self._progress:
                self._followers += 1
                try:
                    if ready():
                        return True
                    remaining = None if deadline is None else deadline - time.monotonic()
                    if remaining is not None and remaining <= 0:
                        return False
                    if self._lead.locked():
                        self._progress.wait(remaining)
                finally:
                    self._followers -= 1
            if ready():
                return True

    def catch_up(self) -> None:
        """Handles what has come and waits for nothing: for a program that submits and submits and never waits.

        The background thread alone would fall behind it: it gets the interpreter's lock 200 times a second.
        """
        if not self._lead.acquire(blocking=False):
            return
        try:
            for _ in range(FRAMES_AT_ONCE):
                self._spin = 0.0
                if not self._serve(0):
                    break
        finally:
            self._stop_leading()

    @contextmanager
    def led_by_loop(self) -> Iterator[list[int]]:
        """While open, an event loop serves: whenever one of these fds can be read, and once at first, it calls
        :meth:`serve_what_is_there`. The background thread only sends."""
        self._loop_leads = True
        self._wake()
        with self._lead:  # the background thread has given it up
            pass
        try:
            yield [*self._mail.fds(), self._wake_fd]
        finally:
            self._loop_leads = False

    def serve_what_is_there(self) -> None:
        """Receives and handles without waiting. Another thread that waits may be doing so already."""
        if self._lead.acquire(blocking=False):
            try:
                while self._serve(0.0):
                    pass
            finally:
                self._stop_leading()

    def handles_here(self) -> bool:
        """Whether this thread is in the middle of a message (in a callback of a user's future, say): if it waited for
        another one, nobody would receive it."""
        return self._handling == threading.get_ident()

    def _take_over(self, deadline: float | None) -> bool:
        """Waits for the background thread to give the lead up; False when another thread was quicker, or too late."""
        with self._progress:
            self._wanted += 1  # or it might take the lead again between our call and our turn
        try:
            self._wake()
            while not self._lead.acquire(timeout=TAKE_OVER_SECONDS):
                if not self._background_leads or (deadline is not None and time.monotonic() > deadline):
                    return False
            return True
        finally:
            with self._progress:
                self._wanted -= 1

    def _lead_until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        while not ready():
            if deadline is None:
                self._serve(None)
            else:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return False
                self._serve(remaining)
        return True

    def _stop_leading(self) -> None:
        self._led_at = time.monotonic()
        self._lead.release()
        if self._followers:
            with self._progress:
                self._progress.notify_all()
        if self._parked:
            self._unpark.set()

    def _serve(self, timeout: float | None) -> bool:
        """One turn of the leader: wait for something, unless it is there, and handle it. Whether there was mail."""
        mail = self._mail
        if not mail.frames:
            self.flush()
            began = time.perf_counter()
            mail.wait(timeout, self._spin)
            for fd in mail.receive():
                if fd == self._wake_fd:
                    self._drain_wake()
                elif fd == self._watch_fd:
                    mail.unwatch(fd)
                    self._watched_ended()
            if self._background_leads or self._loop_leads:
                self._spin = 0.0
            elif time.perf_counter() - began < SHORT_WAIT:
                self._spin = SPIN_SECONDS
            else:
                self._long_waits += 1
                self._spin = 0.0 if self._long_waits % TRIES_AGAIN_AFTER else SPIN_SECONDS
        received = bool(mail.frames)
        if received:
            self._handling = threading.get_ident()
        while mail.frames:
            frame = mail.frames[0]
            for message in frame.messages:
                self._handle(frame.sender, message)
            mail.frames.popleft()
        self._handling = 0
        if self._followers:
            with self._progress:
                self._progress.notify_all()
        return received

    def _wake_background(self) -> None:
        """There is something to send, and it may be that nobody else will."""
        if self._parked:
            self._unpark.set()
        else:
            self._wake()

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def _drain_wake(self) -> None:
        try:
            os.eventfd_read(self._wake_fd)
        except BlockingIOError:  # another thread was faster
            return

    # ------------------------------------------------------------ the background thread

    def _background(self) -> None:
        while not self._closed:
            time.sleep(GRACE)
            self.on_tick()
            self.flush()
            if self._loop_leads or time.monotonic() - self._led_at < GRACE:
                continue
            if self._lead.acquire(blocking=False):
                self._background_leads = self.out.watched = True
                try:
                    if not (self.out.unsent() or self._closed or self._wanted or self._loop_leads):
                        self._serve(None)
                finally:
                    self._background_leads = self.out.watched = False
                    self._lead.release()
                    if self._followers:
                        with self._progress:
                            self._progress.notify_all()
            elif time.monotonic() - self._led_at > PARK_AFTER:
                self._unpark.clear()
                self._parked = self.out.watched = True
                if self._lead.locked() and not self.out.unsent():  # in this order: who posts later sees that it sleeps
                    self._unpark.wait()
                self._parked = self.out.watched = False

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Sends what is left, waits ``linger_ms`` at most for it to go, and frees everything."""
        self.flush()
        self._closed = True
        self._unpark.set()
        self._wake()
        self._thread.join(timeout=5)
        with self.out.lock:
            self._mail.close(linger_ms)
        os.close(self._wake_fd)
