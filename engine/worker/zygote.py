"""The zygote: imports once, forks on request: workers, and the node daemon when it was killed.

A fork of a process that has NumPy and the user's ``preload`` imported takes a few milliseconds, an interpreter of
its own a second. What makes forking safe is what the zygote does *not* have: no thread (BLAS is told to use one
before NumPy is imported), no ZeroMQ context, no LMDB environment, no torch. It is the parent of the workers and
therefore knows how each one ended. It outlives the daemon, and tells the next one what has become of the workers.

Protocol, lines on a Unix socket.

From the supervisor ``daemon <incarnation>``; the answer is ``daemon <pid>``. That process is the supervisor's child,
not ours: its parent here ends at once, and the supervisor is the subreaper.

From the daemon ``attach`` first; the answers are ``started <worker> <pid> <environment>`` for each that lives, ``exited
<worker> <status>`` for each that ended while there was no daemon or shortly before, ``attached <number>`` with the
highest number that a worker's name has had, and ``ready``. From then on ``fork <worker> <inbox of the node>
<environment>`` in, ``started`` and ``exited`` out. The status is as ``os.waitstatus_to_exitcode`` gives it
(negative: the signal).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections import deque
from contextlib import suppress

from .. import stacks
from ..session import Session
from ..supervisor import PR_SET_PDEATHSIG

REQUIRED = ("rlflow.engine.worker.main", "rlflow.engine.node.daemon")

ALONE_SECONDS = 60.0
"""Without a daemon for so long nobody can need us or the workers, which end with us."""

ENDS_REMEMBERED = 1000


def main(folder: str) -> None:
    stacks.can_be_asked_for()  # an import may hang, or what a module does around a fork
    session = Session.read(folder)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{folder}/zygote.sock")
    listener.listen(4)
    for module in (*REQUIRED, *session.preload):
        try:
            importlib.import_module(module)
        except Exception:  # a worker that needs it will say so where it matters
            sys.stderr.write(f"preload of {module!r} failed:\n{traceback.format_exc()}")
    gc.collect()
    gc.freeze()  # what is here now is shared with every worker: keep the collector from touching its pages
    _Zygote(session, listener).run()


class _Peer:
    """A connection, and the part of a line that has come by it."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""

    def fileno(self) -> int:
        return self.connection.fileno()

    def tell(self, line: str) -> None:
        with suppress(OSError):  # it is gone, which select will say
            self.connection.sendall(f"{line}\n".encode())


class _Zygote:
    def __init__(self, session: Session, listener: socket.socket) -> None:
        self._session = session
        self._listener = listener
        self._libc = ctypes.CDLL(None)
        self._workers: dict[int, str] = {}
        self._environments: dict[str, str] = {}
        """Of workers that have one."""
        self._ends: deque[str] = deque(maxlen=ENDS_REMEMBERED)
        self._highest = 0
        self._peers: list[_Peer] = []
        self._daemon: _Peer | None = None
        self._alone_since = time.monotonic()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        while self._daemon is not None or time.monotonic() - self._alone_since < ALONE_SECONDS:
            timeout = ALONE_SECONDS if self._daemon is None else None
            watched = [self._woken, self._listener.fileno(), *(peer.fileno() for peer in self._peers)]
            readable, _, _ = select.select(watched, [], [], timeout)
            if self._woken in readable:
                os.read(self._woken, 4096)
                self._reap()
            for peer in list(self._peers):
                if peer.fileno() in readable:
                    self._hear(peer)
            if self._listener.fileno() in readable:
                self._peers.append(_Peer(self._listener.accept()[0]))

    def _hear(self, peer: _Peer) -> None:
        try:
            data = peer.connection.recv(65536)
        except ConnectionError:
            data = b""
        if not data:
            peer.connection.close()
            self._peers.remove(peer)
            if peer is self._daemon:
                self._daemon = None
                self._alone_since = time.monotonic()
            return
        *lines, peer.received = (peer.received + data).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "fork":
                worker, inbox, environment = rest.split(" ", 2)
                self._fork(worker, inbox, environment, peer)
            elif word == "daemon":
                self._fork_daemon(int(rest), peer)
            else:
                self._attach(peer)

    def _attach(self, peer: _Peer) -> None:
        self._daemon = peer
        for pid, worker in self._workers.items():
            peer.tell(f"started {worker} {pid} {self._environments.get(worker, '')}")
        for end in self._ends:
            peer.tell(end)
        peer.tell(f"attached {self._highest}")
        peer.tell("ready")

    def _fork(self, worker: str, inbox: str, environment: str, peer: _Peer) -> None:
        parent = os.getpid()
        self._highest = max(self._highest, int(worker[1:]))
        pid = os.fork()
        if pid:
            self._workers[pid] = worker
            if environment:
                self._environments[worker] = environment
            peer.tell(f"started {worker} {pid}")
            return
        code = 1
        try:
            self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            self._become(worker)
            from .main import run

            code = run(self._session, worker, inbox, environment)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)  # the worker's log, which the report of its death quotes
        finally:
            _exit(code)

    def _fork_daemon(self, incarnation: int, peer: _Peer) -> None:
        supervisor = os.getppid()
        between = os.fork()
        if between:
            os.waitpid(between, 0)
            return
        code = 1
        try:
            between = os.getpid()
            pid = os.fork()
            if pid:
                peer.tell(f"daemon {pid}")
                os._exit(0)
            while os.getppid() == between:  # which ends in a moment
                os.sched_yield()
            self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != supervisor:
                os._exit(1)
            self._become("daemon")
            from ..node.daemon import main as run_daemon

            code = run_daemon(self._session.folder, incarnation)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            _exit(code)

    def _become(self, name: str) -> None:
        """In a child: leaves what is the zygote's, and writes to a log of its own."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for peer in self._peers:
            peer.connection.close()
        self._listener.close()
        os.close(self._woken)
        os.close(self._wake)
        log = os.open(self._session.log(name), os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.pop(pid, None)
            if worker is not None:
                self._environments.pop(worker, None)
                end = f"exited {worker} {os.waitstatus_to_exitcode(status)}"
                self._ends.append(end)
                if self._daemon is not None:
                    self._daemon.tell(end)


def _exit(code: int) -> None:
    assert sys.__stdout__ is not None and sys.__stderr__ is not None
    sys.__stdout__.flush()
    sys.__stderr__.flush()
    os._exit(code)
